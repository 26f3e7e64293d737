// The matrix products of gemm.cuh for sm_90a: tiles arrive by the tensor copy
// engine (TMA), wgmma multiplies them from shared memory, and a block goes
// from tile to tile while its next operands are already on their way.
#pragma once
#include "gemm.cuh"
#include "wgmma.cuh"

// TensorMap is a CUtensorMap, passed by value as a __grid_constant__. All
// operands use the same kind, made by cuTensorMapEncodeTiled with
//   tensorDataType    CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 (9)
//   tensorRank        3
//   globalAddress     the matrix, a multiple of 16
//   globalDim         {columns, batch, rows}
//   globalStrides     {2·batch stride, 2·row stride} in bytes, multiples of 16
//                     (for batch = 1 any multiple of 16, such as the row stride)
//   boxDim            {64, 1, 64}
//   elementStrides    {1, 1, 1}
//   interleave        CU_TENSOR_MAP_INTERLEAVE_NONE (0)
//   swizzle           CU_TENSOR_MAP_SWIZZLE_128B (3)
//   l2Promotion       CU_TENSOR_MAP_L2_PROMOTION_L2_256B (3)
//   oobFill           CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE (0): zeros
// A and B are described as they lie in memory (tn: A is [K, M]); C, which is
// written, as [M, N] of batch·splits with boxDim {64, 1, 16}.
struct alignas(64) TensorMap {
    uint64_t word[16];
};

#if defined(HOPPER) && !defined(EMULATED)

// ---- mbarriers -----------------------------------------------------------

DEVICE void mbarrier_init(uint32_t bar, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
// mbarrier_fence makes initialised barriers visible to the copy engine.
DEVICE void mbarrier_fence() { asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void mbarrier_arrive(uint32_t bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
// mbarrier_expect arrives, and makes the phase wait for bytes as well.
DEVICE void mbarrier_expect(uint32_t bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
// mbarrier_wait returns when the phase of this parity is complete.
DEVICE void mbarrier_wait(uint32_t bar, uint32_t parity) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra finished;\n"
        "bra again;\n"
        "finished:\n}\n" ::"r"(bar), "r"(parity) : "memory");
}

// tma_load copies the box at (column, batch, row) to shared memory.
DEVICE void tma_load(uint32_t dst, const TensorMap *map, uint32_t bar, int column, int batch, int row) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
                 ::"r"(dst), "l"(map), "r"(column), "r"(batch), "r"(row), "r"(bar) : "memory");
}
// tma_store copies a box from shared memory; what lies outside the matrix is
// left out. tma_commit closes a group of this thread's, tma_wait_read waits
// until all but N groups have been read, tma_wait until all have been written.
DEVICE void tma_store(const TensorMap *map, uint32_t src, int column, int batch, int row) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3}], [%4];"
                 ::"l"(map), "r"(column), "r"(batch), "r"(row), "r"(src) : "memory");
}
DEVICE void tma_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int N> DEVICE void tma_wait_read() { asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory"); }
DEVICE void tma_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
// stmatrix writes four 8×8 matrices of 16-bit values as ldmatrix reads them.
DEVICE void stmatrix(uint32_t address, const uint32_t (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                 ::"r"(address), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
}
// computing_barrier waits for the 256 threads of both computing warpgroups.
DEVICE void computing_barrier() { asm volatile("bar.sync 1, 256;" ::: "memory"); }
DEVICE void tma_prefetch(const TensorMap *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

// registers_up and _down change how many registers a thread of this warpgroup
// may have.
template <int N> DEVICE void registers_up() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> DEVICE void registers_down() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
#endif

#ifdef HOPPER

// descriptor describes an operand in boxes of 64×64 as tma_load leaves them:
// rows of 128 bytes, swizzled, eight rows in 1024 bytes, boxes of 8192 bytes.
// Contraction along the rows: eight-row groups 1024 apart (SBO). Down the
// rows: the same for groups along the contraction, and boxes (LBO) across.
DEVICE uint64_t descriptor(uint32_t address) {
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(8192 >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}


// uniform tells the compiler that all lanes of a warp hold the same, so that
// descriptors are made from it with one addition each.
DEVICE uint32_t uniform(uint32_t v) { return __shfl_sync(0xffffffffu, v, 0); }

// descriptor_at is descriptor(address + bytes), low being the lower half of
// descriptor(address).
DEVICE uint64_t descriptor_at(uint32_t low, int bytes) { return (descriptor(0) >> 32) << 32 | (low + (bytes >> 4)); }
#endif

// How the two computing warpgroups share the work: 64 rows each of a tile; or
// in turns at whole tiles, so that one writes its results while the other
// multiplies; or in turns with a block's part of B kept in shared memory: it
// stays with one column of tiles, and only A moves. That needs a contraction,
// with its chain, of at most eight steps of 64, and no splits. GATED is
// TOGETHER at half of a tile of each of two products that share A, gate and up.
enum { TOGETHER, TURNS, RESIDENT, GATED };

// Bits of gemm90_tiles's how.
enum { ADD = 1, BOXES = 2 };

const int gemm90_threads = 384;

// Gemm90: tiles of 128 × WIDTH, which is a multiple of 64; B arrives in boxes of
// 64 columns.
template <int WIDTH, int MODE> struct Gemm90 {
    static const int boxes = WIDTH / 64;
    static const int resident_bytes = MODE == RESIDENT ? 8 * boxes * 8192 : 0;
    static const int stage_bytes = (MODE == RESIDENT ? 2 : 2 + boxes) * 8192;
    static const int stages = (24 * 8192 - resident_bytes) / stage_bytes;
    static const int out = 24 * 8192;        // where results pass
    static const int out_bytes = 2 * 2048;   // of one warp: two boxes of 16 rows; before, scales
    static const int barriers = out + 8 * out_bytes;
    static const int shared = barriers + 1024;
    static const bool alone = MODE == TURNS || MODE == RESIDENT;  // a warpgroup at a tile
    static const int halves = alone ? 2 : 1;                      // of 64 rows, of one warpgroup
    static const int columns = MODE == GATED ? WIDTH / 2 : WIDTH; // of a product
};

template <int N> struct Number { static const int value = N; };

// Rotary says how the first count products of a batch are rotated before they are
// written: adjacent columns are a complex number, multiplied by
// (cos + i·sin)[row mod period, column mod 64 / 2]. Heads are 64 wide.
struct Rotary {
    const float *cos, *sin; // [period, 32]
    int period, count;
};

#ifdef HOPPER
// rotate_tile rotates 16 rows × 8·NB columns that a warp holds, col a multiple of
// 64. Rows beyond the matrix are rotated too.
template <int NB> DEVICE void rotate_tile(const Rotary &rotary, int row, float (&acc)[NB][4]) {
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int at = (row + (lane >> 2) + 8 * h) % rotary.period * 32 + (lane & 3);
        float c[8], s[8];
#pragma unroll
        for (int b = 0; b < 8; b++) c[b] = rotary.cos[at + 4 * b], s[b] = rotary.sin[at + 4 * b];
#pragma unroll
        for (int b = 0; b < NB; b++) {
            float x = acc[b][2 * h], y = acc[b][2 * h + 1];
            acc[b][2 * h] = x * c[b % 8] - y * s[b % 8], acc[b][2 * h + 1] = y * c[b % 8] + x * s[b % 8];
        }
    }
}

// Results leave in boxes of 16 rows × 64 columns of one warp, by way of the two
// that its part of shared memory holds: the copy engine writes them while the warp
// goes on. store_box writes the one of that number since the last tma_wait_read<0>;
// pairs(b, v) gives the columns 16b … 16b + 15, packed: v[0] and v[1] are rows 0 – 7
// and 8 – 15 of the first eight, as mma_bf16 leaves them, v[2] and v[3] of the others.
template <class F>
DEVICE void store_box(const TensorMap *map, uint32_t out, int number, bool inside, int z, int row, int col, F pairs) {
    int lane = threadIdx.x & 31;
    uint32_t box = out + (number & 1) * 2048;
    uint32_t place = box + (lane & 15) * 128, chunk = ((lane >> 4) ^ (lane & 7)) << 4; // of the row that this lane addresses
    if (number > 1) {
        if (lane == 0) tma_wait_read<1>();
        __syncwarp();
    }
#pragma unroll
    for (int b = 0; b < 4; b++) {
        uint32_t v[4];
        pairs(b, v);
        stmatrix(place + (chunk ^ b << 5), v);
    }
    async_fence();
    __syncwarp();
    if (lane == 0 && inside) tma_store(map, box, col, z, row);
    if (lane == 0) tma_commit();
}
DEVICE void pack_pairs(uint32_t (&v)[4], const float (&x)[4], const float (&y)[4]) {
    v[0] = pack_bf16(x[0], x[1]), v[1] = pack_bf16(x[2], x[3]), v[2] = pack_bf16(y[0], y[1]), v[3] = pack_bf16(y[2], y[3]);
}

// store_boxes is store_tile by boxes.
template <int NB>
DEVICE void store_boxes(const TensorMap *map, uint32_t out, int rows, int cols, int z, int row, int col, const float (&acc)[NB][4]) {
#pragma unroll
    for (int i = 0; i < NB / 8; i++)
        store_box(map, out, i, row < rows && col + 64 * i < cols, z, row, col + 64 * i,
                  [&](int b, uint32_t (&v)[4]) { pack_pairs(v, acc[8 * i + 2 * b], acc[8 * i + 2 * b + 1]); });
}

// swiglu is silu(g)∘u of two pairs, as swiglu.cu computes it.
DEVICE uint32_t swiglu(uint32_t g, uint32_t u) {
    auto silu = [](float x) { return x * __fdividef(1.f, 1.f + exp2_fast(-1.4426950408889634f * fmaxf(x, -80.f))); };
    return pack_bf16(silu(low_float(g)) * low_float(u), silu(high_float(g)) * high_float(u));
}

// store_gated writes gate, the first half of the columns, and up, the second, as
// products 0 and 1 of map, and to mapY their SwiGLU.
template <int NB>
DEVICE void store_gated(const TensorMap *map, const TensorMap *mapY, uint32_t out, int rows, int cols, int row, int col, const float (&acc)[NB][4]) {
#pragma unroll
    for (int i = 0; i < NB / 16; i++) {
        bool inside = row < rows && col + 64 * i < cols;
        auto gate = [&](int b, uint32_t (&v)[4]) { pack_pairs(v, acc[8 * i + 2 * b], acc[8 * i + 2 * b + 1]); };
        auto up = [&](int b, uint32_t (&v)[4]) { pack_pairs(v, acc[NB / 2 + 8 * i + 2 * b], acc[NB / 2 + 8 * i + 2 * b + 1]); };
        store_box(map, out, 3 * i, inside, 0, row, col + 64 * i, gate);
        store_box(map, out, 3 * i + 1, inside, 1, row, col + 64 * i, up);
        store_box(mapY, out, 3 * i + 2, inside, 0, row, col + 64 * i, [&](int b, uint32_t (&v)[4]) {
            uint32_t u[4];
            gate(b, v), up(b, u);
#pragma unroll
            for (int q = 0; q < 4; q++) v[q] = swiglu(v[q], u[q]);
        });
    }
}

template <int NB>
DEVICE void store_tile90(const TensorMap *map, uint32_t out, float *c, int ldc, int rows, int cols, int z, int row, int col, float (&acc)[NB][4], int how) {
    store_tile(c, ldc, rows, cols, row, col, acc, how & ADD);
}
template <int NB>
DEVICE void store_tile90(const TensorMap *map, uint32_t out, bf16 *c, int ldc, int rows, int cols, int z, int row, int col, float (&acc)[NB][4], int how) {
    if (how & BOXES)
        store_boxes(map, out, rows, cols, z, row, col, acc);
    else
        store_tile(c, ldc, rows, cols, row, col, acc, how & ADD);
}
#endif

// gemm90_tiles: two warpgroups compute and the third fetches for them. The grid's
// blocks take turns at the tiles of all products and all parts of the contraction.
// Of tiles 256 wide the last are cut in two when they are too few for more than half
// of the blocks; and of a last column half is left out when nothing lies there.
template <int WIDTH, int MODE, bool TA, bool TB, class T>
DEVICE void gemm90_tiles(const TensorMap *mapA, const TensorMap *mapB, const TensorMap *mapC, const TensorMap *mapY, T *C, const float *scale, int M, int N,
                         int K, int ldc, int batch, int chain, int splits, int strideC, int strideS, int shared_operand, int how, const Rotary &rotary) {
#ifdef HOPPER
    SWIZZLED_SHARED(shared);
    typedef Gemm90<WIDTH, MODE> G;
    uint32_t kept = shared_address(shared); // a multiple of 1024, as the swizzle needs
    uint32_t base = kept + G::resident_bytes;
    uint32_t full = kept + G::barriers, empty = full + 8 * G::stages, turns = empty + 8 * G::stages, ready = turns + 16;

    if (threadIdx.x == 0) {
        for (int s = 0; s < G::stages; s++) {
            mbarrier_init(full + 8 * s, 1);
            mbarrier_init(empty + 8 * s, G::alone ? 4 : 8); // computing warps
        }
        mbarrier_init(turns, 4);
        mbarrier_init(turns + 8, 4);
        for (int s = 0; s < 8; s++) mbarrier_init(ready + 8 * s, 1);
        mbarrier_fence();
        tma_prefetch(mapA);
        tma_prefetch(mapB);
        tma_prefetch(mapC);
    }
    __syncthreads();
    after_others();

    int tiles_m = (M + 127) / 128, tiles_n = (N + G::columns - 1) / G::columns;
    int link = (K + 63) / 64, steps = link * chain, each = (steps + splits - 1) / splits;
    // This block's tiles: number first, first + stride, …; those of a last column
    // that is narrow, from number wide on, come after all others. From number whole
    // on they are cut.
    int columns = tiles_n * batch, products = batch * splits, first = blockIdx.x, stride = gridDim.x;
    int count = tiles_n * tiles_m * products, wide = count, whole = count;
    if (MODE == RESIDENT) {
        first /= columns, stride /= columns, wide = whole = count = tiles_m;
    } else if (WIDTH == 256) {
        if ((N - (tiles_n - 1) * G::columns) * 2 <= G::columns) wide -= tiles_m * products;
        int rest = count % stride;
        if (2 * rest <= stride && wide == count) whole -= rest, count += rest;
    }
    auto locate = [&](int number, int &row, int &col, int &width, int &z, int &part) {
        int tm, tn, right = 0;
        width = WIDTH;
        if (number >= whole) {
            number -= whole;
            width = WIDTH / 2, right = number % 2, number = whole + number / 2;
        }
        if (MODE == RESIDENT) {
            tm = number, tn = blockIdx.x % tiles_n, z = blockIdx.x % columns / tiles_n, part = 0;
        } else if (number < wide) {
            int full = wide / products;
            z = number / full % batch, part = number / full / batch;
            tile_at(number % full, tiles_m, full / tiles_m, tm, tn);
        } else {
            number -= wide, width = WIDTH / 2;
            tm = number % tiles_m, tn = tiles_n - 1, z = number / tiles_m % batch, part = number / tiles_m / batch;
        }
        row = tm * 128, col = tn * G::columns + right * (G::columns / 2);
    };
    int slot = 0;
    uint32_t phase = 0;
    int warp = threadIdx.x >> 5;
    if (warp >= 8) {
        registers_down<40>();
        // One thread a warp, and warps share the boxes of a step: a thread takes
        // hundreds of cycles for six. The first two fetch A, the others B.
        int helper = warp - 8;
        if ((threadIdx.x & 31) == 0) {
            for (int number = first; number < count; number += stride) {
                // B stays: without loads, nothing ties these warps to the ring, of which a wait knows one turn only.
                if (MODE == RESIDENT && helper >= 2 && number != first) break;
                int row, col, width, z, part;
                locate(number, row, col, width, z, part);
                int step = part * each, end = step + each < steps ? step + each : steps;
                int bytes = MODE == RESIDENT ? G::stage_bytes : 2 * 8192 + width * 128;
                int c = step / link, k = (step - c * link) * 64;
                for (c += z * chain; step < end; step++) {
                    uint32_t a = base + slot * G::stage_bytes, b = a + 2 * 8192, bar = full + 8 * slot, barB = bar;
                    mbarrier_wait(empty + 8 * slot, phase ^ 1);
                    if (helper == 0) mbarrier_expect(bar, bytes);
                    if (helper < 2) {
                        int za = shared_operand & 1 ? 0 : c, at = row + 64 * helper;
                        tma_load(a + helper * 8192, mapA, bar, TA ? at : k, za, TA ? k : at);
                    } else {
                        if (MODE == RESIDENT) b = kept + step * G::boxes * 8192, barB = ready + 8 * step;
                        if (MODE == RESIDENT && helper == 2) mbarrier_expect(barB, G::boxes * 8192);
#pragma unroll 1
                        for (int i = helper - 2; 64 * i < width; i += 2) {
                            int zb = shared_operand & 2 ? 0 : c, at = col + 64 * i;
                            if (MODE == GATED && 128 * i >= width) zb++, at -= width / 2;
                            tma_load(b + i * 8192, mapB, barB, TB ? at : k, zb, TB ? k : at);
                        }
                    }
                    if (++slot == G::stages) slot = 0, phase ^= 1;
                    if ((k += 64) >= K) k = 0, c++;
                }
            }
        }
    } else {
        registers_up<232>();
        int lane = threadIdx.x & 31, group = warp >> 2, turn = 0, mine = 0;
        uint32_t out = kept + G::out + warp * G::out_bytes;
        float *scales = (float *)(shared + G::out + warp * G::out_bytes);
        const bool rotates = MODE != GATED && !TA && !TB && sizeof(T) == 2; // the forward's alone
        auto compute = [&](auto width, int row, int col, int z, int part, int step, int end) {
            const int W = decltype(width)::value;
            float acc[G::halves][W / 8][4];
            float factor[W / 32]; // of columns lane + 32·i; they arrive during the products
            if (scale)
#pragma unroll
                for (int i = 0; i < W / 32; i++) {
                    bool up = MODE == GATED && 64 * i >= W;
                    int q = col + lane + 32 * i - (up ? W / 2 : 0);
                    factor[i] = q < N ? scale[(size_t)(z + up) * strideS + q] : 0.f;
                }
            if (step >= end)
#pragma unroll
                for (int h = 0; h < G::halves; h++)
#pragma unroll
                    for (int i = 0; i < W / 8; i++) acc[h][i][0] = acc[h][i][1] = acc[h][i][2] = acc[h][i][3] = 0.f;
            // In turn, also because a wait can only tell a phase from the next:
            // all stages before this tile's must have been waited for.
            if (G::alone && mine + group > 0) mbarrier_wait(turns + 8 * group, (mine + group - 1) & 1);
            mine++;
            int before = -1;
            for (; step < end; step++) {
                mbarrier_wait(full + 8 * slot, phase);
                uint32_t a = base + slot * G::stage_bytes, b = a + 2 * 8192;
                if (!G::alone) a += group * 8192;
                if (MODE == RESIDENT) {
                    b = kept + step * G::boxes * 8192;
                    mbarrier_wait(ready + 8 * step, 0);
                }
                a = uniform(descriptor(a)), b = uniform(descriptor(b));
                wgmma_fence();
#pragma unroll
                for (int k = 0; k < 4; k++)
#pragma unroll
                    for (int h = 0; h < G::halves; h++)
                        wgmma<TA, TB>(acc[h], descriptor_at(a, h * 8192 + k * (TA ? 2048 : 32)), descriptor_at(b, k * (TB ? 2048 : 32)), k > 0 || before >= 0);
                wgmma_commit();
                wgmma_wait<1>(); // the step before has read its operands
                if (before >= 0 && lane == 0) mbarrier_arrive(empty + 8 * before);
                before = slot;
                if (++slot == G::stages) slot = 0, phase ^= 1;
            }
            if (G::alone) {
                __syncwarp(); // no lane may still wait for this turn
                if (lane == 0) mbarrier_arrive(turns + 8 * (group ^ 1));
            }
            wgmma_wait<0>();
#pragma unroll
            for (int h = 0; h < G::halves; h++) wgmma_done(acc[h]);
            if (before >= 0 && lane == 0) mbarrier_arrive(empty + 8 * before);
            if (lane == 0) tma_wait_read<0>(); // the last tile's boxes
            __syncwarp();
            if (scale) {
#pragma unroll
                for (int i = 0; i < W / 32; i++) scales[lane + 32 * i] = factor[i];
                __syncwarp();
                const float2 *s = (const float2 *)scales + (lane & 3);
#pragma unroll
                for (int b = 0; b < W / 8; b++) {
                    float2 v = s[4 * b];
#pragma unroll
                    for (int h = 0; h < G::halves; h++) acc[h][b][0] *= v.x, acc[h][b][1] *= v.y, acc[h][b][2] *= v.x, acc[h][b][3] *= v.y;
                }
                __syncwarp();
            }
#pragma unroll
            for (int h = 0; h < G::halves; h++) {
                if (h > 0) {
                    if (lane == 0) tma_wait_read<0>();
                    __syncwarp();
                }
                int top = row + (G::alone ? h : group) * 64 + (warp & 3) * 16;
                if (MODE == GATED) {
                    store_gated(mapC, mapY, out, M, N, top, col, acc[h]);
                    continue;
                }
                if (rotates && z < rotary.count) rotate_tile(rotary, top, acc[h]);
                store_tile90(mapC, out, C + ((size_t)part * batch + z) * strideC, ldc, M, N, part * batch + z, top, col, acc[h], how);
            }
        };
        for (int number = first; number < count; number += stride) {
            int row, col, width, z, part;
            locate(number, row, col, width, z, part);
            int step = part * each, end = step + each < steps ? step + each : steps;
            if (G::alone && (turn++ & 1) != group) { // the other's tile: only its stages count
                if (step < end) slot += end - step, phase ^= slot / G::stages & 1, slot %= G::stages;
                continue;
            }
            if (width == WIDTH)
                compute(Number<WIDTH>(), row, col, z, part, step, end);
            else
                compute(Number<WIDTH == 256 ? 128 : WIDTH>(), row, col, z, part, step, end);
        }
        if (lane == 0) tma_wait();
    }
#endif
}
