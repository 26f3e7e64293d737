// Wide octonion layers on sm_90a: 30 block products instead of the signed matrix's
// 64 (EVIDENCE §3), a launch for each of y, dx and dW.
//
//   forward  X̂ = H (−x_0, x_1, …, x_7);  P_k = X̂_k Ŵ_kᵀ;  C_i = Σ 2·x_j W_{i xor j}ᵀ
//            y = (H P + C) ∘ scale
//   dx       Ĝ = H dY;  P_k = Ĝ_k Ŵg_k;  C_j = Σ 2·dy_i Wg_{i xor j}
//            dx = (−(H P)_0, (H P)_1, …) + C
//   dW       P_k = Ĝ_kᵀ X̂_k;  C_{i xor j} = Σ dy_iᵀ x_j;  fold_walsh of linear.cu does the rest
//
// Ŵ = H (W_0, −W_1, …, −W_7)/8, H[a][b] = (−1)^popcount(a&b); the sums C, corrections,
// are over 22 pairs (i, j); Ŵg and Wg are Ŵ and W with their rows times scale. The
// transforms move memory and the products keep the tensor cores busy, so each block
// has warps for either, and the rows go through them in chunks: while C and P of one
// chunk are computed, helping warps transform the x of a later and the P of an
// earlier. X̂ and P are kept for a few chunks only. C waits in y. Below x and y stand
// for dy and dx as well. For dW all corrections are computed first, while X̂ and Ĝ
// are made.
//
// Warps wait for one another through counters in device memory, one of each kind
// for each chunk. All blocks of the grid must therefore run at the same time: one
// for each multiprocessor at most. Whatever waits, waits for something that comes
// earlier in the order of tiles below, or in the order of the helping warps, so
// it ends.
#include "gemm90.cuh"
#include "walsh.cuh"

#if defined(HOPPER) && !defined(EMULATED)
// count_up adds to a counter after all that this thread, and those it met at a
// barrier before, have written, for later readers of any kind.
DEVICE void count_up(int *counter) { asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(counter) : "memory"); }
// wait_count waits until a counter has come so far; what was written before is
// then visible.
DEVICE void wait_count(const int *counter, int least) {
    int v;
    for (;;) {
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(v) : "l"(counter) : "memory");
        if (v >= least) return;
        __nanosleep(200);
    }
}
// tma_fence stands between ordinary accesses of device memory and the copy
// engine's, on both sides of a counter.
DEVICE void tma_fence() { asm volatile("fence.proxy.async;" ::: "memory"); }
#endif

struct Octonion90 {
    static const int width = 256;                     // of a tile, 128 high
    static const int stage_bytes = (2 + 4) * 8192;    // boxes of A and of B
    static const int stages = 4;
    static const int barriers = stages * stage_bytes; // where they are
    static const int codes = barriers + 16 * stages;  // and what each stage belongs to
    static const int shared = barriers + 1024;
    static const int threads = 384, helpers = 3;      // warps 0 … 7 compute, 8 fetches, 9 … 11 help
    static const int keep_x = 3, keep_p = 4;          // chunks of X̂ and P that are kept
};

#ifdef HOPPER
// octonion_pair is the part of x in term c of C_i, or of dy in term c of the C_i
// for dW: three terms, of part 0 the first alone. DX: the part of dy for dx.
template <bool DX> DEVICE int octonion_pair(int i, int c) {
    uint32_t parts = DX ? c == 0 ? 0x13212130u : c == 1 ? 0x44425650u : 0x57637760u
                        : c == 0 ? 0x21151320u : c == 1 ? 0x32364440u : 0x65776570u;
    return parts >> 4 * i & 7;
}

// OctonionTiles numbers the tiles: of each chunk the corrections, which wait for
// nothing, then the products.
struct OctonionTiles {
    int tiles_m, tiles_n, chunk, chunks; // chunk: rows of tiles
    DEVICE int each() const { return 8 * chunk * tiles_n; }
    DEVICE int count() const { return 2 * each() * chunks; }
    // Tile n is a correction or a product, part number part, of row tm and column tn;
    // none if tm is tiles_m or more.
    DEVICE void locate(int n, bool &correction, int &c, int &tm, int &tn, int &part) const {
        int row;
        c = n / (2 * each()), n -= c * 2 * each();
        correction = n < each();
        if (correction) { // the long ones first
            row = n % chunk, n /= chunk;
            tn = n % tiles_n, part = 7 - n / tiles_n;
        } else {
            n -= each();
            part = n & 7, n >>= 3;
            tn = n % tiles_n, row = n / tiles_n;
        }
        tm = c * chunk + row;
    }
    // How many tiles of a kind the rows of a chunk have.
    DEVICE int tiles(int c) const { return 8 * tiles_n * (tiles_m - c * chunk < chunk ? tiles_m - c * chunk : chunk); }
};

// word is one of the four of 16 bytes.
DEVICE uint32_t &word(uint4 &v, int q) { return q == 0 ? v.x : q == 1 ? v.y : q == 2 ? v.z : v.w; }

// OctonionShare is what falls to warp number of all of rows of parts: 256 columns, or
// more than one such block of wide parts, and rows first, first + stride, …, where row
// is the number of the first here. Warps take turns at rows through all chunks.
struct OctonionShare {
    int stride, first, block, blocks, next;
    DEVICE OctonionShare(int part, int row, int number, int all) {
        blocks = (part + 255) / 256, stride = all > blocks ? all / blocks : 1, next = all > blocks ? blocks : all;
        first = (number % stride + stride - row % stride) % stride, block = number / stride;
    }
};

// octonion_transform is to = H x of rows of 8 parts, a warp's share, the first part
// negated before if NEGATE: lanes take 8 columns of all parts. To have more than one row on its way was slower: the tensor
// cores wait for their operands then.
template <bool NEGATE> DEVICE void octonion_transform(bf16 *to, const bf16 *x, int rows, int K, int row, int number, int all) {
    OctonionShare share(K, row, number, all);
    size_t step = (size_t)share.stride * 8 * K;
    for (; share.block < share.blocks; share.block += share.next) {
        int column = (share.block * 32 + (threadIdx.x & 31)) * 8, r = share.first;
        if (column >= K) continue;
        const bf16 *from = x + (size_t)r * 8 * K + column;
        bf16 *out = to + (size_t)r * 8 * K + column;
        uint4 v[8];
        auto load = [&] {
            if (r < rows)
#pragma unroll
                for (int i = 0; i < 8; i++) v[i] = *(const uint4 *)(from + (size_t)i * K);
        };
        load();
        while (r < rows) {
#pragma unroll
            for (int q = 0; q < 4; q++) {
                float f[8][2];
#pragma unroll
                for (int i = 0; i < 8; i++) f[i][0] = low_float(word(v[i], q)), f[i][1] = high_float(word(v[i], q));
                if (NEGATE) f[0][0] = -f[0][0], f[0][1] = -f[0][1];
                walsh8(f);
#pragma unroll
                for (int i = 0; i < 8; i++) word(v[i], q) = pack_bf16(f[i][0], f[i][1]);
            }
#pragma unroll
            for (int i = 0; i < 8; i++) *(uint4 *)(out + (size_t)i * K) = v[i];
            out += step, from += step, r += share.stride;
            load();
        }
    }
}

// octonion_back is y = (H P + y) ∘ scale, of dx without scale, a warp's share.
template <bool DX> DEVICE void octonion_back(bf16 *y, const bf16 *p, const float *scale, int rows, int N, int row, int number, int all) {
    OctonionShare share(N, row, number, all);
    for (; share.block < share.blocks; share.block += share.next) {
        int column = (share.block * 32 + (threadIdx.x & 31)) * 8;
        if (column >= N) continue;
        for (int r = share.first; r < rows; r += share.stride) {
            size_t here = (size_t)r * 8 * N + column;
            uint4 v[8], c[8];
            float4 s[2];
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = __ldcs((const uint4 *)(p + here + (size_t)i * N));
#pragma unroll
            for (int i = 0; i < 8; i++) c[i] = *(const uint4 *)(y + here + (size_t)i * N);
            if (!DX) s[0] = *(const float4 *)(scale + column), s[1] = *(const float4 *)(scale + column + 4);
#pragma unroll
            for (int q = 0; q < 4; q++) {
                float f[8][2], s0 = DX ? 1.f : q & 1 ? s[q / 2].z : s[q / 2].x, s1 = DX ? 1.f : q & 1 ? s[q / 2].w : s[q / 2].y;
#pragma unroll
                for (int i = 0; i < 8; i++) f[i][0] = low_float(word(v[i], q)), f[i][1] = high_float(word(v[i], q));
                walsh8(f);
                if (DX) f[0][0] = -f[0][0], f[0][1] = -f[0][1];
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    uint32_t &w = word(c[i], q);
                    w = pack_bf16(s0 * (f[i][0] + low_float(w)), s1 * (f[i][1] + high_float(w)));
                }
            }
#pragma unroll
            for (int i = 0; i < 8; i++) __stcs((uint4 *)(y + here + (size_t)i * N), c[i]);
        }
    }
}

// octonion_begin prepares the stages' barriers.
DEVICE void octonion_begin(uint32_t full, uint32_t empty) {
    if (threadIdx.x == 0) {
        for (int s = 0; s < Octonion90::stages; s++) mbarrier_init(full + 8 * s, 1), mbarrier_init(empty + 8 * s, 8);
        mbarrier_fence();
    }
    __syncthreads();
    after_others();
}

// octonion_end: the last block leaves the counters, of which the second is of
// blocks, as it found them.
DEVICE void octonion_end(int *counters, int count) {
    __syncthreads();
    if (threadIdx.x == 0 && atomicAdd(counters + 1, 1) == (int)gridDim.x - 1)
        for (int i = 0; i < count; i++) counters[i] = 0;
}

// octonion_fetch loads a stage: 64 of the contraction from k on, of rows row … row + 127 of
// product za of A and columns col … col + 255 of zb of B. TA, TB: the contraction is down
// their rows.
template <bool TA, bool TB>
DEVICE void octonion_fetch(const TensorMap *mapA, int za, int row, const TensorMap *mapB, int zb, int col, int k, uint32_t stage, uint32_t bar) {
    mbarrier_expect(bar, Octonion90::stage_bytes);
#pragma unroll
    for (int i = 0; i < 2; i++) tma_load(stage + i * 8192, mapA, bar, TA ? row + 64 * i : k, za, TA ? k : row + 64 * i);
#pragma unroll
    for (int i = 0; i < 4; i++) tma_load(stage + (2 + i) * 8192, mapB, bar, TB ? col + 64 * i : k, zb, TB ? k : col + 64 * i);
}

// octonion_multiply goes through the stages of one tile; a warpgroup has 64 of its
// rows.
template <bool TA, bool TB>
DEVICE void octonion_multiply(float (&acc)[32][4], int steps, uint32_t base, uint32_t full, uint32_t empty, int &slot, uint32_t &phase) {
    typedef Octonion90 O;
    int group = threadIdx.x >> 7, lane = threadIdx.x & 31, before = -1;
#pragma unroll
    for (int i = 0; i < 32; i++) acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0.f;
    for (int step = 0; step < steps; step++) {
        mbarrier_wait(full + 8 * slot, phase);
        uint32_t a = base + slot * O::stage_bytes + group * 8192, b = base + slot * O::stage_bytes + 2 * 8192;
        a = uniform(descriptor(a)), b = uniform(descriptor(b));
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; k++) wgmma<TA, TB>(acc, descriptor_at(a, k * (TA ? 2048 : 32)), descriptor_at(b, k * (TB ? 2048 : 32)), 1);
        wgmma_commit();
        wgmma_wait<1>(); // the step before has read its operands
        if (before >= 0 && lane == 0) mbarrier_arrive(empty + 8 * before);
        before = slot;
        if (++slot == O::stages) slot = 0, phase ^= 1;
    }
    wgmma_wait<0>();
    wgmma_done(acc);
    if (lane == 0) mbarrier_arrive(empty + 8 * before);
}
#endif

// octonion90_rows: N wide parts of y, contraction K. DX: the matrices lie with the
// contraction down their rows.
template <bool DX>
DEVICE void octonion90_rows(const TensorMap *mapX, const TensorMap *mapXh, const TensorMap *mapW, const bf16 *x, bf16 *xh, bf16 *p,
                            bf16 *y, const float *scale, int *counters, int M, int N, int K, int chunk, int add) {
#ifdef HOPPER
    SWIZZLED_SHARED(shared);
    typedef Octonion90 O;
    uint32_t base = shared_address(shared), full = base + O::barriers, empty = full + 8 * O::stages;
    volatile int *codes = (volatile int *)(shared + O::codes);
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    if (threadIdx.x == 0) tma_prefetch(mapX), tma_prefetch(mapXh), tma_prefetch(mapW);
    octonion_begin(full, empty);

    OctonionTiles tiles;
    tiles.tiles_m = (M + 127) / 128, tiles.tiles_n = (N + O::width - 1) / O::width;
    tiles.chunk = chunk, tiles.chunks = (tiles.tiles_m + chunk - 1) / chunk;
    int chunks = tiles.chunks, link = (K + 63) / 64, rows = 128 * chunk;
    // Counters: the next tile and the blocks that are done; of each chunk the warps
    // that have transformed x, the warps that have computed tiles (8 a tile), those
    // that have transformed P.
    int *next = counters, *ready = counters + 2, *computed = ready + chunks, *freed = computed + chunks;

    // transform_back does the pieces of a chunk that fall to warp number of all.
    auto transform_back = [&](int c, int number, int all) {
        if (lane == 0) wait_count(computed + c, 16 * tiles.tiles(c));
        __syncwarp();
        int left = M - c * rows;
        octonion_back<DX>(y + (size_t)c * rows * 8 * N, p + (size_t)(c % O::keep_p) * rows * 8 * N, scale, left < rows ? left : rows, N, c * rows, number, all);
    };
    int helpers = gridDim.x * O::helpers, everyone = gridDim.x * (8 + O::helpers);

    if (warp < 8) {
        float acc[O::width / 8][4];
        int slot = 0;
        uint32_t phase = 0;
        for (;;) {
            mbarrier_wait(full + 8 * slot, phase);
            int code = uniform(lane == 0 ? codes[slot] : 0); // lane 0 alone, which gives the stage back
            if (code < 0) break;
            int part = code & 7, tn = code >> 4 & 255, tm = code >> 12;
            bool correction = code & 8;
            int steps = correction && part ? 3 * link : link;
            octonion_multiply<false, DX>(acc, steps, base, full, empty, slot, phase);
            int c = tm / chunk, row = tm * 128, limit = M;
            if (!correction) row -= (c - c % O::keep_p) * rows, limit = O::keep_p * rows;
            row += warp * 16;
            if (DX && add && correction) add_old(y + (size_t)part * N, 8 * N, M, N, row, tn * O::width, acc);
            store_fast((correction ? y : p) + (size_t)part * N, 8 * N, limit, N, row, tn * O::width, acc);
            __syncwarp();
            if (lane == 0) count_up(computed + c);
        }
        transform_back(chunks - 1, helpers + blockIdx.x * 8 + warp, everyone);
    } else {
        if (warp == 8 && lane == 0) {
            int slot = 0, number = atomicAdd(next, 1);
            uint32_t phase = 0;
            while (number < tiles.count()) {
                int n = number, c, tm, tn, part;
                bool correction;
                number = atomicAdd(next, 1); // on its way while this tile is
                tiles.locate(n, correction, c, tm, tn, part);
                if (tm >= tiles.tiles_m) continue;
                int links = correction && part ? 3 : 1, row = tm * 128, col = tn * O::width, code = tm << 12 | tn << 4 | correction << 3 | part;
                if (!correction) {
                    wait_count(ready + c, helpers);
                    tma_fence();
                    if (c >= O::keep_p) wait_count(freed + c - O::keep_p, helpers);
                    row -= (c - c % O::keep_x) * rows;
                }
                const TensorMap *mapA = correction ? mapX : mapXh;
                for (int l = 0; l < links; l++) {
                    int za = correction ? octonion_pair<DX>(part, l) : part, zb = correction ? 8 + (za ^ part) : part;
                    for (int k = 0; k < K; k += 64) {
                        mbarrier_wait(empty + 8 * slot, phase ^ 1);
                        codes[slot] = code;
                        octonion_fetch<false, DX>(mapA, za, row, mapW, zb, col, k, base + slot * O::stage_bytes, full + 8 * slot);
                        if (++slot == O::stages) slot = 0, phase ^= 1;
                    }
                }
            }
            mbarrier_wait(empty + 8 * slot, phase ^ 1);
            codes[slot] = -1;
            mbarrier_arrive(full + 8 * slot);
        }
        if (warp > 8) {
            int number = blockIdx.x * O::helpers + warp - 9;
            for (int c = 0; c < chunks + 1; c++) {
                if (c < chunks) {
                    // X̂ of three chunks before, in the same place, is no longer needed: its P was waited for.
                    int left = M - c * rows;
                    octonion_transform<!DX>(xh + (size_t)(c % O::keep_x) * rows * 8 * K, x + (size_t)c * rows * 8 * K, left < rows ? left : rows, K, c * rows, number, helpers);
                    tma_fence();
                    __syncwarp();
                    if (lane == 0) count_up(ready + c);
                }
                if (c >= 2) {
                    transform_back(c - 2, number, helpers);
                    __syncwarp();
                    if (lane == 0) count_up(freed + c - 2);
                }
            }
            transform_back(chunks - 1, number, everyone); // with those that have no more to compute
        }
    }
    octonion_end(counters, 2 + 3 * chunks);
#endif
}

// octonion90_sums: P and C for dW, as linear.cu says.
DEVICE void octonion90_sums(const TensorMap *mapX, const TensorMap *mapDY, const TensorMap *mapXh, const TensorMap *mapGh, const bf16 *x,
                            const bf16 *dy, bf16 *xh, bf16 *gh, float *p, int *counters, int M, int N, int K, int chunk, int each, int splits) {
#ifdef HOPPER
    SWIZZLED_SHARED(shared);
    typedef Octonion90 O;
    uint32_t base = shared_address(shared), full = base + O::barriers, empty = full + 8 * O::stages;
    volatile int *codes = (volatile int *)(shared + O::codes);
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    if (threadIdx.x == 0) tma_prefetch(mapX), tma_prefetch(mapDY), tma_prefetch(mapXh), tma_prefetch(mapGh);
    octonion_begin(full, empty);

    int tiles_m = (N + 127) / 128, tiles = tiles_m * ((K + O::width - 1) / O::width), rows = 128 * chunk, chunks = (M + rows - 1) / rows;
    int *next = counters, *ready = counters + 2; // of each chunk the warps that have transformed it
    // Tile n of a part: the corrections first, the long ones before the short.
    auto locate = [&](int n, int &which, int &part, int &tm, int &tn) {
        tm = n % tiles_m, n /= tiles_m;
        tn = n % (tiles / tiles_m), n /= tiles / tiles_m;
        part = n % splits, n /= splits;
        which = n < 8 ? 15 - n : n - 8;
    };
    auto end_of = [&](int part) { return (part + 1) * each * rows < M ? (part + 1) * each * rows : M; };

    if (warp < 8) {
        float acc[O::width / 8][4];
        int slot = 0;
        uint32_t phase = 0;
        for (;;) {
            mbarrier_wait(full + 8 * slot, phase);
            int n = uniform(lane == 0 ? codes[slot] : 0), which, part, tm, tn; // as above
            if (n < 0) break;
            locate(n, which, part, tm, tn);
            int link = (end_of(part) - part * each * rows + 63) / 64;
            octonion_multiply<true, true>(acc, which > 8 ? 3 * link : link, base, full, empty, slot, phase);
            store_fast(p + ((size_t)part * 16 + which) * N * K, K, N, K, tm * 128 + warp * 16, tn * O::width, acc);
        }
    } else {
        int helpers = gridDim.x * O::helpers;
        if (warp == 8 && lane == 0) {
            int slot = 0, number = atomicAdd(next, 1);
            uint32_t phase = 0;
            while (number < 16 * splits * tiles) {
                int n = number, which, part, tm, tn;
                number = atomicAdd(next, 1); // on its way while this tile is
                locate(n, which, part, tm, tn);
                bool correction = which >= 8;
                if (!correction) {
                    for (int c = part * each; c < (part + 1) * each && c < chunks; c++) wait_count(ready + c, helpers);
                    tma_fence();
                }
                const TensorMap *mapA = correction ? mapDY : mapGh, *mapB = correction ? mapX : mapXh;
                for (int l = 0; l < (which > 8 ? 3 : 1); l++) {
                    int za = correction ? octonion_pair<false>(which - 8, l) : which, zb = correction ? za ^ (which - 8) : which;
                    for (int k = part * each * rows; k < end_of(part); k += 64) {
                        mbarrier_wait(empty + 8 * slot, phase ^ 1);
                        codes[slot] = n;
                        octonion_fetch<true, true>(mapA, za, tm * 128, mapB, zb, tn * O::width, k, base + slot * O::stage_bytes, full + 8 * slot);
                        if (++slot == O::stages) slot = 0, phase ^= 1;
                    }
                }
            }
            mbarrier_wait(empty + 8 * slot, phase ^ 1);
            codes[slot] = -1;
            mbarrier_arrive(full + 8 * slot);
        }
        if (warp > 8) {
            int number = blockIdx.x * O::helpers + warp - 9;
            for (int c = 0; c < chunks; c++) {
                int count = M - c * rows < rows ? M - c * rows : rows;
                size_t row = (size_t)c * rows * 8;
                octonion_transform<true>(xh + row * K, x + row * K, count, K, c * rows, number, helpers);
                octonion_transform<false>(gh + row * N, dy + row * N, count, N, c * rows, number, helpers);
                tma_fence();
                __syncwarp();
                if (lane == 0) count_up(ready + c);
            }
        }
    }
    octonion_end(counters, 2 + chunks);
#endif
}
