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
// A and B are described as they lie in memory (tn: A is [K, M]).
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
// computing_barrier waits for the 256 threads of both computing warpgroups.
DEVICE void computing_barrier() { asm volatile("bar.sync 1, 256;" ::: "memory"); }
DEVICE void tma_prefetch(const TensorMap *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }
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
// with its chain, of at most eight steps of 64, and no splits.
enum { TOGETHER, TURNS, RESIDENT };

// Gemm90: tiles of 128 × WIDTH, which is a multiple of 64; B arrives in boxes of
// 64 columns.
template <int WIDTH, int MODE> struct Gemm90 {
    static const int boxes = WIDTH / 64;
    static const int resident_bytes = MODE == RESIDENT ? 8 * boxes * 8192 : 0;
    static const int stage_bytes = (MODE == RESIDENT ? 2 : 2 + boxes) * 8192;
    static const int stages = (24 * 8192 - resident_bytes) / stage_bytes;
    static const int barriers = resident_bytes + stages * stage_bytes; // where they are
    static const int scale_bytes = 4 * WIDTH;                          // of one warp
    static const int shared = 24 * 8192 + 1024 + 8 * scale_bytes;
    static const int halves = MODE == TOGETHER ? 1 : 2; // of 64 rows, of one warpgroup
};

// gemm90_tiles: 288 threads, two warpgroups that compute and a ninth warp that
// fetches for them. The grid's blocks take turns at the tiles of all products
// and all parts of the contraction.
template <int WIDTH, int MODE, bool TA, bool TB, class T>
DEVICE void gemm90_tiles(const TensorMap *mapA, const TensorMap *mapB, T *C, const float *scale, int M, int N, int K,
                         int ldc, int batch, int chain, int splits, int strideC, int strideS, int shared_operand, int add) {
#ifdef HOPPER
    SWIZZLED_SHARED(shared);
    typedef Gemm90<WIDTH, MODE> G;
    uint32_t kept = shared_address(shared); // a multiple of 1024, as the swizzle needs
    uint32_t base = kept + G::resident_bytes;
    uint32_t full = kept + G::barriers, empty = full + 8 * G::stages, turns = empty + 8 * G::stages, ready = turns + 16;

    if (threadIdx.x == 0) {
        for (int s = 0; s < G::stages; s++) {
            mbarrier_init(full + 8 * s, 1);
            mbarrier_init(empty + 8 * s, MODE == TOGETHER ? 8 : 4); // computing warps
        }
        mbarrier_init(turns, 4);
        mbarrier_init(turns + 8, 4);
        for (int s = 0; s < 8; s++) mbarrier_init(ready + 8 * s, 1);
        mbarrier_fence();
        tma_prefetch(mapA);
        tma_prefetch(mapB);
    }
    __syncthreads();
    after_others();

    int tiles_m = (M + 127) / 128, tiles_n = (N + WIDTH - 1) / WIDTH, tiles = tiles_m * tiles_n;
    int link = (K + 63) / 64, steps = link * chain, each = (steps + splits - 1) / splits;
    // This block's tiles: number first, first + stride, …
    int columns = tiles_n * batch, first = blockIdx.x, stride = gridDim.x, count = tiles * batch * splits;
    if (MODE == RESIDENT) first /= columns, stride /= columns, count = tiles_m;
    auto locate = [&](int number, int &tm, int &tn, int &z, int &part) {
        if (MODE == RESIDENT) {
            tm = number, tn = blockIdx.x % tiles_n, z = blockIdx.x % columns / tiles_n, part = 0;
        } else {
            z = number / tiles % batch, part = number / tiles / batch;
            tile_at(number % tiles, tiles_m, tiles_n, tm, tn);
        }
    };
    int slot = 0;
    uint32_t phase = 0;
    int warp = threadIdx.x >> 5;
    if (warp == 8) {
        if ((threadIdx.x & 31) == 0) {
            for (int number = first; number < count; number += stride) {
                int tm, tn, z, part;
                locate(number, tm, tn, z, part);
                int row = tm * 128, col = tn * WIDTH;
                int step = part * each, end = step + each < steps ? step + each : steps;
                int c = step / link, k = (step - c * link) * 64;
                for (c += z * chain; step < end; step++) {
                    uint32_t a = base + slot * G::stage_bytes, b = a + 2 * 8192, bar = full + 8 * slot, barB = bar;
                    int za = shared_operand & 1 ? 0 : c, zb = shared_operand & 2 ? 0 : c;
                    mbarrier_wait(empty + 8 * slot, phase ^ 1);
                    mbarrier_expect(bar, G::stage_bytes);
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        if (TA)
                            tma_load(a + i * 8192, mapA, bar, row + 64 * i, za, k);
                        else
                            tma_load(a + i * 8192, mapA, bar, k, za, row + 64 * i);
                    }
                    if (MODE == RESIDENT) b = kept + step * G::boxes * 8192, barB = ready + 8 * step;
                    if (MODE == RESIDENT && number == first) mbarrier_expect(barB, G::boxes * 8192);
#pragma unroll
                    for (int i = 0; i < G::boxes; i++) {
                        if (MODE == RESIDENT && number != first) continue;
                        if (TB)
                            tma_load(b + i * 8192, mapB, barB, col + 64 * i, zb, k);
                        else
                            tma_load(b + i * 8192, mapB, barB, k, zb, col + 64 * i);
                    }
                    if (++slot == G::stages) slot = 0, phase ^= 1;
                    if ((k += 64) >= K) k = 0, c++;
                }
            }
        }
    } else {
        float acc[G::halves][WIDTH / 8][4];
        int lane = threadIdx.x & 31, group = warp >> 2, turn = 0, mine = 0;
        float *scales = (float *)(shared + G::barriers + 1024 + warp * G::scale_bytes);
        for (int number = first; number < count; number += stride) {
            int tm, tn, z, part;
            locate(number, tm, tn, z, part);
            int col = tn * WIDTH;
            int step = part * each, end = step + each < steps ? step + each : steps;
            if (MODE != TOGETHER && (turn++ & 1) != group) { // the other's tile: only its stages count
                if (step < end) slot += end - step, phase ^= slot / G::stages & 1, slot %= G::stages;
                continue;
            }
            float factor[WIDTH / 32]; // of columns lane + 32·i; they arrive during the products
            if (scale)
#pragma unroll
                for (int i = 0; i < WIDTH / 32; i++) factor[i] = col + lane + 32 * i < N ? scale[(size_t)z * strideS + col + lane + 32 * i] : 0.f;
#pragma unroll
            for (int h = 0; h < G::halves; h++)
#pragma unroll
                for (int i = 0; i < WIDTH / 8; i++) acc[h][i][0] = acc[h][i][1] = acc[h][i][2] = acc[h][i][3] = 0.f;
            // In turn, also because a wait can only tell a phase from the next:
            // all stages before this tile's must have been waited for.
            if (MODE != TOGETHER && mine + group > 0) mbarrier_wait(turns + 8 * group, (mine + group - 1) & 1);
            mine++;
            int before = -1;
            for (; step < end; step++) {
                mbarrier_wait(full + 8 * slot, phase);
                uint32_t a = base + slot * G::stage_bytes, b = a + 2 * 8192;
                if (MODE == TOGETHER) a += group * 8192;
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
                        wgmma<TA, TB>(acc[h], descriptor_at(a, h * 8192 + k * (TA ? 2048 : 32)), descriptor_at(b, k * (TB ? 2048 : 32)), 1);
                wgmma_commit();
                wgmma_wait<1>(); // the step before has read its operands
                if (before >= 0 && lane == 0) mbarrier_arrive(empty + 8 * before);
                before = slot;
                if (++slot == G::stages) slot = 0, phase ^= 1;
            }
            if (MODE != TOGETHER) {
                __syncwarp(); // no lane may still wait for this turn
                if (lane == 0) mbarrier_arrive(turns + 8 * (group ^ 1));
            }
            wgmma_wait<0>();
#pragma unroll
            for (int h = 0; h < G::halves; h++) wgmma_done(acc[h]);
            if (before >= 0 && lane == 0) mbarrier_arrive(empty + 8 * before);
            if (scale) {
                __syncwarp();
#pragma unroll
                for (int i = 0; i < WIDTH / 32; i++) scales[lane + 32 * i] = factor[i];
                __syncwarp();
            }
#pragma unroll
            for (int h = 0; h < G::halves; h++) {
                if (scale) {
                    const float2 *s = (const float2 *)scales + (lane & 3);
#pragma unroll
                    for (int b = 0; b < WIDTH / 8; b++) {
                        float2 v = s[4 * b];
                        acc[h][b][0] *= v.x, acc[h][b][1] *= v.y, acc[h][b][2] *= v.x, acc[h][b][3] *= v.y;
                    }
                }
                int row = tm * 128 + (MODE == TOGETHER ? group : h) * 64 + (warp & 3) * 16;
                store_tile(C + ((size_t)part * batch + z) * strideC, ldc, M, N, row, col, acc[h], add != 0);
            }
        }
    }
#endif
}
