// The Walsh–Hadamard transform over the 8 parts of each row (EVIDENCE §3): a
// layer of the Walsh algebra, all signs +, is 8 block products between two of
// them. H[a][b] = (−1)^popcount(a&b), H·H = 8.
//
//   X̂ = H X;  P_k = X̂_k Ŵ_kᵀ (Ŵ = H W/8);  Y = (H P) ∘ scale
//   Ĝ = H dY; dX̂_k = Ĝ_k Ŵg_k (Ŵg = Ŵ ∘ scale); dX = H dX̂;
//   dŴ_k = Ĝ_kᵀ X̂_k, folded by fold_walsh
//
// The products are gemm_nt, gemm_nn, gemm_tn (linear.cu) with batch 8: of X̂
// and P [rows, 8, K] product k is the columns k·K …, so row stride 8K and
// batch stride K; of Ŵ [8, N, K] row stride K and batch stride N·K.
// X̂ of one input serves all layers that read it (wq, wk, wv; gate, up).
//
// On sm_90a walsh90_{nt,nn} do the transforms and the products of parts that are
// not too wide in one launch, so that only X and Y, or dY and dX, move through
// device memory.
#include "gemm90.cuh"
#include "walsh.cuh"

DEVICE void walsh_out(bf16 *y, const float (&v)[8], int count, bool add) {
    float f[8];
    if (count == 8) {
        if (add) unpack8(f, *(const uint4 *)y);
#pragma unroll
        for (int e = 0; e < 8; e++) f[e] = add ? f[e] + v[e] : v[e];
        *(uint4 *)y = pack8(f);
        return;
    }
#pragma unroll
    for (int e = 0; e < 8; e++)
        if (e < count) y[e] = to_bf16(add ? to_float(y[e]) + v[e] : v[e]);
}
DEVICE void walsh_rows(bf16 *y, const bf16 *x, const float *scale, int rows, int part, int add) {
    int per_row = (part + 7) / 8;
    size_t total = (size_t)rows * per_row;
    bool vector = part % 8 == 0;
    for (size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x; at < total; at += (size_t)gridDim.x * blockDim.x) {
        int c = (int)(at % per_row) * 8, count = part - c < 8 ? part - c : 8;
        size_t from = at / per_row * 8 * part + c;
        float v[8][8];
        if (vector) {
            uint4 raw[8];
#pragma unroll
            for (int i = 0; i < 8; i++) raw[i] = *(const uint4 *)(x + from + (size_t)i * part);
#pragma unroll
            for (int i = 0; i < 8; i++) unpack8(v[i], raw[i]);
        } else {
            if (count == 8) count = -8; // eight, but not aligned
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int e = 0; e < 8; e++) v[i][e] = count < 0 || e < count ? to_float(x[from + (size_t)i * part + e]) : 0.f;
        }
        walsh8(v);
        float s[8];
#pragma unroll
        for (int e = 0; e < 8; e++) s[e] = scale && (count < 0 || e < count) ? scale[c + e] : 1.f;
#pragma unroll
        for (int i = 0; i < 8; i++) {
#pragma unroll
            for (int e = 0; e < 8; e++) v[i][e] *= s[e];
            bf16 *to = y + from + (size_t)i * part;
            if (count < 0) { // unaligned: two halves of elements, one by one
#pragma unroll
                for (int e = 0; e < 8; e++) {
                    float one[8] = {v[i][e]};
                    walsh_out(to + e, one, 1, add != 0);
                }
            } else {
                walsh_out(to, v[i], count, add != 0);
            }
        }
    }
}

// walsh_bf16: y = scale ∘ H x (+ y when add is not 0); x, y
// [rows, 8, part]; scale nil or [part], the same for all 8 parts. y may be x
// (add 0).
//
// launch: grid min(ceil(rows·ceil(part/8)/256), 16·multiprocessors), block 256, no dynamic shared;
//   (bf16 *y, bf16 *x, float *scale, int rows, int part, int add)
KERNEL(256) walsh_bf16(bf16 *y, const bf16 *x, const float *scale, int rows, int part, int add) {
    after_others();
    walsh_rows(y, x, scale, rows, part, add);
}

// ---- transforms and products in one launch, sm_90a -----------------------

#ifdef HOPPER
// walsh_boxes transforms the 8 parts of a tile where they lie, in boxes one
// after the other; the swizzle moves the same column of each to the same place.
// By 256 threads.
DEVICE void walsh_boxes(unsigned char *tile) {
    const int BYTES = 8192; // of a box
#pragma unroll 2
    for (int at = 0; at < BYTES; at += 1024) { // few values at a time: the accumulators fill the registers
        unsigned char *p = tile + at + 4 * threadIdx.x;
        float v[8][2];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            uint32_t raw = *(const uint32_t *)(p + i * BYTES);
            v[i][0] = low_float(raw), v[i][1] = high_float(raw);
        }
        walsh8(v);
#pragma unroll
        for (int i = 0; i < 8; i++) *(uint32_t *)(p + i * BYTES) = pack_bf16(v[i][0], v[i][1]);
    }
}

// walsh_accumulators transforms results that lie in registers.
DEVICE void walsh_accumulators(float (&acc)[8][4][4]) {
    walsh_pairs([&](int i, int k) {
#pragma unroll
        for (int b = 0; b < 4; b++)
#pragma unroll
            for (int e = 0; e < 4; e++) walsh_pair(acc[i][b][e], acc[k][b][e]);
    });
}

DEVICE void clear_accumulators(float (&acc)[8][4][4]) {
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int b = 0; b < 4; b++) acc[i][b][0] = acc[i][b][1] = acc[i][b][2] = acc[i][b][3] = 0.f;
}
#endif

// Shared memory of walsh90_nt and _nn: slots for 64 rows of A and for half of
// B, that is four of the eight parts of 64 columns.
struct Walsh90 {
    static const int a_bytes = 8 * 8192, b_bytes = 4 * 8192, slots_a = 2, slots_b = 3;
    static const int barriers = slots_a * a_bytes + slots_b * b_bytes;
    static const int shared = barriers + 1024;
};

// walsh90_rows: 288 threads; two warpgroups compute, a ninth warp fetches. A
// tile is 64 rows by 64 columns of each of the 8 parts, of which a warpgroup
// has 32: its accumulators hold the same columns of all parts, so the
// transform back needs no other thread.
template <bool TB>
DEVICE void walsh90_rows(const TensorMap *mapA, const TensorMap *mapB, bf16 *Y, const float *scale, int M, int N, int K,
                         int rowsA, int batch, int chain, int strideY, int strideS, int shares, int add) {
#ifdef HOPPER
    SWIZZLED_SHARED(shared);
    typedef Walsh90 W;
    uint32_t baseA = shared_address(shared), baseB = baseA + W::slots_a * W::a_bytes;
    uint32_t fullA = baseA + W::barriers, emptyA = fullA + 8 * W::slots_a, fullB = emptyA + 8 * W::slots_a, emptyB = fullB + 8 * W::slots_b;
    if (threadIdx.x == 0) {
        for (int s = 0; s < W::slots_a; s++) mbarrier_init(fullA + 8 * s, 1), mbarrier_init(emptyA + 8 * s, 8);
        for (int s = 0; s < W::slots_b; s++) mbarrier_init(fullB + 8 * s, 1), mbarrier_init(emptyB + 8 * s, 8);
        mbarrier_fence();
        tma_prefetch(mapA);
        tma_prefetch(mapB);
    }
    __syncthreads();
    after_others();

    // This block's work: rows first, first + stride, … of 64, and the columns
    // from … to of each. When the contraction is one step, a block does all
    // columns of its rows, or a share of them; B stays if that is one tile.
    int tiles_m = (M + 63) / 64, tiles_n = (N + 63) / 64, columns = tiles_n * batch, link = (K + 63) / 64, steps = link * chain;
    bool still = steps == 1;
    int each = still ? (columns + shares - 1) / shares : 1, parts = (columns + each - 1) / each, count = tiles_m * parts;
    bool kept = still && each == 1 && gridDim.x % parts == 0;
    int slotA = 0, slotB = 0, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    uint32_t phaseA = 0, phaseB = 0;
    if (warp == 8) {
        for (int number = blockIdx.x; lane == 0 && number < count; number += gridDim.x) {
            int row = number / parts * 64, from = number % parts * each, to = from + each < columns ? from + each : columns;
            for (int column = from; column < to; column++) {
                int col = column % tiles_n * 64, z = column / tiles_n;
                for (int step = 0; step < steps; step++) {
                    int c = step / link, k = (step - c * link) * 64;
                    if (column == from) {
                        uint32_t a = baseA + slotA * W::a_bytes, bar = fullA + 8 * slotA;
                        mbarrier_wait(emptyA + 8 * slotA, phaseA ^ 1);
                        mbarrier_expect(bar, W::a_bytes);
                        for (int p = 0; p < 8; p++) tma_load(a + p * 8192, mapA, bar, k, p, c * rowsA + row);
                        if (++slotA == W::slots_a) slotA = 0, phaseA ^= 1;
                    }
                    for (int half = 0; half < 2 && (!kept || number == (int)blockIdx.x); half++) {
                        uint32_t b = baseB + slotB * W::b_bytes, bar = fullB + 8 * slotB;
                        mbarrier_wait(emptyB + 8 * slotB, phaseB ^ 1);
                        mbarrier_expect(bar, W::b_bytes);
                        for (int p = 0; p < 4; p++) {
                            int q = (z * chain + c) * 8 + half * 4 + p;
                            if (TB)
                                tma_load(b + p * 8192, mapB, bar, col, q, k);
                            else
                                tma_load(b + p * 8192, mapB, bar, k, q, col);
                        }
                        if (++slotB == W::slots_b) slotB = 0, phaseB ^= 1;
                    }
                }
            }
        }
        return;
    }
    float acc[8][4][4];
    int group = warp >> 2;
    for (int number = blockIdx.x; number < count; number += gridDim.x) {
        int row = number / parts * 64 + (warp & 3) * 16, from = number % parts * each, to = from + each < columns ? from + each : columns;
        for (int column = from; column < to; column++) {
            int col = column % tiles_n * 64 + 32 * group, z = column / tiles_n;
            bool idle = col >= N; // nothing is left for this warpgroup
            float factor = 1.f;   // of column col + lane; arrives during the products
            if (scale && col + lane < N) factor = scale[(size_t)z * strideS + col + lane];
            clear_accumulators(acc);
            for (int step = 0; step < steps; step++) {
                if (column == from) {
                    mbarrier_wait(fullA + 8 * slotA, phaseA);
                    walsh_boxes(shared + slotA * W::a_bytes);
                    async_fence();
                    computing_barrier();
                }
                uint32_t a = uniform(descriptor(baseA + slotA * W::a_bytes));
                int before = slotB;
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int slot = kept ? half : slotB;
                    mbarrier_wait(fullB + 8 * slot, kept ? 0 : phaseB);
                    if (!idle) {
                        uint32_t b = uniform(descriptor(baseB + slot * W::b_bytes + group * (TB ? 64 : 4096)));
                        wgmma_fence();
#pragma unroll
                        for (int p = 0; p < 4; p++)
#pragma unroll
                            for (int k = 0; k < 4; k++)
                                wgmma<0, TB>(acc[4 * half + p], descriptor_at(a, (4 * half + p) * 8192 + k * 32), descriptor_at(b, p * 8192 + k * (TB ? 2048 : 32)), 1);
                        wgmma_commit();
                    }
                    if (half == 0 && !kept && ++slotB == W::slots_b) slotB = 0, phaseB ^= 1;
                }
                wgmma_wait<1>(); // the first half of B is free
                if (!kept && lane == 0) mbarrier_arrive(emptyB + 8 * before);
                wgmma_wait<0>();
                if (!kept && lane == 0) mbarrier_arrive(emptyB + 8 * slotB);
                if (!kept && ++slotB == W::slots_b) slotB = 0, phaseB ^= 1;
#pragma unroll
                for (int p = 0; p < 8; p++) wgmma_done(acc[p]);
                if (column + 1 == to) {
                    if (lane == 0) mbarrier_arrive(emptyA + 8 * slotA);
                    if (++slotA == W::slots_a) slotA = 0, phaseA ^= 1;
                }
            }
            walsh_accumulators(acc);
            if (scale) {
#pragma unroll
                for (int b = 0; b < 4; b++) {
                    float s = __shfl_sync(0xffffffffu, factor, 8 * b + 2 * (lane & 3)), t = __shfl_sync(0xffffffffu, factor, 8 * b + 2 * (lane & 3) + 1);
#pragma unroll
                    for (int p = 0; p < 8; p++) acc[p][b][0] *= s, acc[p][b][1] *= t, acc[p][b][2] *= s, acc[p][b][3] *= t;
                }
            }
#pragma unroll
            for (int p = 0; p < 8; p++) store_tile(Y + (size_t)z * strideY + p * N, 8 * N, M, N, row, col, acc[p], add != 0);
        }
    }
#endif
}

// walsh90_nt: Y_z = (H ((HX)·Ŵ_zᵀ)) ∘ scale, the forward of layers that read one
// input; walsh90_nn: dX = H Σ_c (H dY_c)·Ŵg_c, the backward of such layers; both
// plus the old result when add is not 0. A [M, 8, K] of layer c of the chain
// lies rowsA rows below the one before; K, N multiples of 8. Only in the sm_90a
// image.
//
// launch: grid min(multiprocessors, ceil(M/64)·S), S = ceil(columns / ceil(columns / shares)) with columns = ceil(N/64)·batch
//   if K ≤ 64 and chain is 1, where shares says among how many blocks the columns of the same rows are divided, else S = columns;
//   block 288, dynamic shared 230400;
//   (TensorMap mapA, TensorMap mapB, bf16 *Y, float *scale, int M, int N, int K, int rowsA, int batch, int chain,
//    int strideY, int strideS, int shares, int add)
//   mapA: columns K, batch 8, batch stride K, row stride 8·K, rows of all layers of the chain; mapB: of Ŵ [8·batch, N, K]
//   or Ŵg [8·chain, K, N].
#define WALSH90(name, TB)                                                                                           \
    KERNEL(288, 1)                                                                                                  \
    walsh90_##name(const __grid_constant__ TensorMap mapA, const __grid_constant__ TensorMap mapB, bf16 *Y,         \
                   const float *scale, int M, int N, int K, int rowsA, int batch, int chain, int strideY, int strideS, int shares, int add) { \
        walsh90_rows<TB>(&mapA, &mapB, Y, scale, M, N, K, rowsA, batch, chain, strideY, strideS, shares, add);      \
    }
WALSH90(nt, false)
WALSH90(nn, true)
