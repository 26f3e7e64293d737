// Matrix products of bf16 with float32 accumulators on the tensor cores of
// sm_80 and later: any shape, row-major, batched, split along the contraction.
// gemm90.cuh is the same for sm_90a.
//
//   nt  C[M,N] = A[M,K] · B[N,K]ᵀ     forward
//   nn  C[M,N] = A[M,K] · B[K,N]      gradient of the input
//   tn  C[M,N] = A[K,M]ᵀ · B[K,N]     gradient of the weight
//
// One launch makes a batch of products, each the sum of a chain: product z is
//   Σ_c op(A[z·chain + c]) · op(B[z·chain + c]),  c = 0 … chain − 1,
// where A[q] lies q·strideA from A, or is the same for all when shared. The
// contraction of a chain can be split in parts, which have results of their
// own: part s of product z goes to C + (s·batch + z)·strideC.
#pragma once
#include "device.cuh"

// ---- what happens to a result --------------------------------------------
//
// store_tile writes 16 rows × 8·NB columns that one warp holds in the layout
// of mma_bf16 (acc[b] is columns 8b … 8b+7): C = acc (+ C).

DEVICE float2 load_pair(const float *c) { return *(const float2 *)c; }
DEVICE float2 load_pair(const bf16 *c) {
    uint32_t v = *(const uint32_t *)c;
    return make_float2(low_float(v), high_float(v));
}
DEVICE float load_one(const float *c) { return *c; }
DEVICE float load_one(const bf16 *c) { return to_float(*c); }
DEVICE void store_one(float *c, float v) { *c = v; }
DEVICE void store_one(bf16 *c, float v) { *c = to_bf16(v); }

// store_any: any alignment, any width.
template <int NB, class T>
DEVICE void store_any(T *c, int ldc, int rows, int cols, int row, int col, float (&acc)[NB][4], bool add) {
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int r = row + (lane >> 2) + 8 * h;
#pragma unroll
        for (int b = 0; b < NB; b++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int q = col + 8 * b + 2 * (lane & 3) + e;
                T *p = c + (size_t)r * ldc + q;
                if (r < rows && q < cols) store_one(p, add ? acc[b][2 * h + e] + load_one(p) : acc[b][2 * h + e]);
            }
        }
    }
}

// add_old: no load waits behind a store, so that they overlap.
template <int NB, class T>
DEVICE void add_old(const T *c, int ldc, int rows, int cols, int row, int col, float (&acc)[NB][4]) {
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int r = row + (lane >> 2) + 8 * h;
        const T *p = c + (size_t)r * ldc + col + 2 * (lane & 3);
#pragma unroll
        for (int b = 0; b < NB; b++) {
            float2 old = make_float2(0.f, 0.f);
            if (r < rows && col + 8 * b < cols) old = load_pair(p + 8 * b);
            acc[b][2 * h] += old.x, acc[b][2 * h + 1] += old.y;
            if (b % 8 == 7) compiler_fence(); // no more under way than there are registers
        }
    }
}

// store_fast: cols, ldc multiples of 8, c at 16 bytes. The four lanes of a
// row exchange values so that each writes 16 bytes, 64 together. Float32: of
// two blocks of 8 columns an even lane gets half of the first, an odd lane of
// the second.
template <int NB>
DEVICE void store_fast(float *c, int ldc, int rows, int cols, int row, int col, float (&acc)[NB][4]) {
    int lane = threadIdx.x & 31;
    bool odd = lane & 1;
#pragma unroll
    for (int b = 0; b < NB; b += 2) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float x = acc[b][2 * h], y = acc[b][2 * h + 1], z = acc[b + 1][2 * h], w = acc[b + 1][2 * h + 1];
            float s = __shfl_xor_sync(0xffffffffu, odd ? x : z, 1), t = __shfl_xor_sync(0xffffffffu, odd ? y : w, 1);
            int r = row + (lane >> 2) + 8 * h, q = col + 8 * (b + odd) + 4 * ((lane >> 1) & 1);
            if (r < rows && q < cols) *(float4 *)(c + (size_t)r * ldc + q) = odd ? make_float4(s, t, z, w) : make_float4(x, y, s, t);
        }
    }
}

// bf16: of four blocks of 8 columns lane t gets block t.
template <int NB>
DEVICE void store_fast(bf16 *c, int ldc, int rows, int cols, int row, int col, float (&acc)[NB][4]) {
    int lane = threadIdx.x & 31;
    bool odd = lane & 1, high = lane & 2;
#pragma unroll
    for (int b = 0; b < NB; b += 4) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t v[4], t;
#pragma unroll
            for (int q = 0; q < 4; q++) v[q] = pack_bf16(acc[b + q][2 * h], acc[b + q][2 * h + 1]);
            t = __shfl_xor_sync(0xffffffffu, odd ? v[0] : v[1], 1);
            v[0] = odd ? t : v[0], v[1] = odd ? v[1] : t;
            t = __shfl_xor_sync(0xffffffffu, odd ? v[2] : v[3], 1);
            v[2] = odd ? t : v[2], v[3] = odd ? v[3] : t;
            t = __shfl_xor_sync(0xffffffffu, high ? v[0] : v[2], 2);
            v[0] = high ? t : v[0], v[2] = high ? v[2] : t;
            t = __shfl_xor_sync(0xffffffffu, high ? v[1] : v[3], 2);
            v[1] = high ? t : v[1], v[3] = high ? v[3] : t;
            int r = row + (lane >> 2) + 8 * h, q = col + 8 * (b + (lane & 3));
            if (r < rows && q < cols) *(uint4 *)(c + (size_t)r * ldc + q) = make_uint4(v[0], v[1], v[2], v[3]);
        }
    }
}

template <int NB, class T>
DEVICE void store_tile(T *c, int ldc, int rows, int cols, int row, int col, float (&acc)[NB][4], bool add) {
    if (((ldc | cols) & 7) == 0 && ((uintptr_t)c & 15) == 0) {
        if (add) add_old(c, ldc, rows, cols, row, col, acc);
        store_fast(c, ldc, rows, cols, row, col, acc);
    } else {
        store_any(c, ldc, rows, cols, row, col, acc, add);
    }
}

// ---- which tile ----------------------------------------------------------

// tile_at numbers the tiles of one product: bands of 8 tile rows, downwards
// within a band, so that blocks that run together share operands in L2.
DEVICE void tile_at(int index, int tiles_m, int tiles_n, int &m, int &n) {
    int band = index / (8 * tiles_n), first = band * 8;
    int height = tiles_m - first < 8 ? tiles_m - first : 8;
    index -= first * tiles_n;
    m = first + index % height;
    n = index / height;
}

// ---- one tile, sm_80 -----------------------------------------------------
//
// 256 threads compute 128×128 in steps of 64 along the contraction; eight
// warps, 64×32 each, in 128 registers, so that two blocks fit. (Four warps of
// 64×64, and fragments loaded one product ahead, were both slower on an H100.)
// Three stages of shared memory are filled by cp.async:
// 96 KB. A tile of shared memory is stored as in global memory, in rows of 64
// (contraction along the row) or 128 (across) values; 16-byte chunks are
// xor-ed with the row so that eight rows touch all banks.

const int gemm_threads = 256;
const int gemm_shared = 3 * 2 * 128 * 64 * 2;

// load_tile copies rows × cols values from (row, col) of a matrix of
// [height, width] to shared memory, zeros beyond its edges.
template <int ROWS, int COLS>
DEVICE void load_tile(uint32_t dst, const bf16 *src, int ld, int height, int width, int row, int col, bool aligned) {
#pragma unroll
    for (int i = 0; i < ROWS * COLS / 8 / gemm_threads; i++) {
        int chunk = threadIdx.x + gemm_threads * i, r = chunk / (COLS / 8), q = chunk % (COLS / 8);
        uint32_t to = dst + r * (2 * COLS) + ((q ^ (r & 7)) << 4);
        int y = row + r, x = col + 8 * q, valid = width - x;
        valid = y < height ? (valid < 0 ? 0 : valid > 8 ? 8 : valid) : 0;
        const bf16 *p = src + (size_t)y * ld + x;
        if (aligned) {
            cp_async16(to, valid ? p : src, 2 * valid);
        } else {
            uint32_t v[4] = {0, 0, 0, 0};
            for (int e = 0; e < 8; e++)
                if (e < valid) v[e / 2] |= (uint32_t)p[e] << 16 * (e & 1);
            store_shared16(to, make_uint4(v[0], v[1], v[2], v[3]));
        }
    }
}

// load_operand reads the 16·NF×16 fragments of one warp; the order of
// the quarters is A's or B's. T: the contraction runs down the rows.
template <bool T, bool A, int NF> DEVICE void load_operand(uint32_t (&f)[NF][4], uint32_t tile, int from, int k) {
    int lane = threadIdx.x & 31, upper = lane >> 4, odd = (lane >> 3) & 1;
#pragma unroll
    for (int i = 0; i < NF; i++) {
        if (T) {
            int r = k * 16 + (lane & 7) + 8 * (A ? upper : odd), q = (from + 16 * i) / 8 + (A ? odd : upper);
            ldmatrix_trans(f[i], tile + r * 256 + ((q ^ (r & 7)) << 4));
        } else {
            int r = from + 16 * i + (lane & 7) + 8 * (A ? odd : upper), q = 2 * k + (A ? upper : odd);
            ldmatrix(f[i], tile + r * 128 + ((q ^ (r & 7)) << 4));
        }
    }
}

// gemm_tile: TA, TB say that the contraction runs down the rows of A, B.
// blockIdx.x is the tile, blockIdx.y the part of the contraction, blockIdx.z
// the product.
template <bool TA, bool TB, class T>
DEVICE void gemm_tile(const bf16 *A, const bf16 *B, T *C, const float *scale, int M, int N, int K, int lda, int ldb,
                      int ldc, int strideA, int strideB, int strideC, int strideS, int chain, int add) {
    SWIZZLED_SHARED(shared);
    const int stage_bytes = 2 * 128 * 64 * 2;
    uint32_t base = shared_address(shared);
    int warp = threadIdx.x >> 5;
    int tm, tn;
    tile_at(blockIdx.x, (M + 127) / 128, (N + 127) / 128, tm, tn);
    int row = tm * 128, col = tn * 128;
    A += (size_t)blockIdx.z * chain * strideA;
    B += (size_t)blockIdx.z * chain * strideB;
    C += ((size_t)blockIdx.y * gridDim.z + blockIdx.z) * strideC;
    bool alignedA = ((lda | strideA) & 7) == 0 && ((uintptr_t)A & 15) == 0;
    bool alignedB = ((ldb | strideB) & 7) == 0 && ((uintptr_t)B & 15) == 0;

    int link = (K + 63) / 64, steps = link * chain, each = (steps + gridDim.y - 1) / gridDim.y;
    int step = blockIdx.y * each, end = step + each < steps ? step + each : steps;

    const int NB = 4; // blocks of 8 columns of a warp
    float acc[4][NB][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < NB; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[i][j][e] = 0.f;

    auto fetch = [&](int s, int slot) {
        if (s < end) {
            uint32_t a = base + slot * stage_bytes, b = a + stage_bytes / 2;
            int c = s / link, k = (s - c * link) * 64;
            const bf16 *pa = A + (size_t)c * strideA, *pb = B + (size_t)c * strideB;
            if (TA)
                load_tile<64, 128>(a, pa, lda, K, M, k, row, alignedA);
            else
                load_tile<128, 64>(a, pa, lda, M, K, row, k, alignedA);
            if (TB)
                load_tile<64, 128>(b, pb, ldb, K, N, k, col, alignedB);
            else
                load_tile<128, 64>(b, pb, ldb, N, K, col, k, alignedB);
        }
        cp_async_commit();
    };
    fetch(step, 0);
    fetch(step + 1, 1);

    int wm = warp / 4 * 64, wn = warp % 4 * 8 * NB;
    int slot = 0;
    for (; step < end; step++) {
        cp_async_wait<1>();
        __syncthreads();
        fetch(step + 2, slot == 0 ? 2 : slot - 1); // the slot that was read in the step before
        uint32_t a = base + slot * stage_bytes, b = a + stage_bytes / 2;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t fa[4][4], fb[NB / 2][4];
            load_operand<TA, true>(fa, a, wm, k);
            load_operand<TB, false>(fb, b, wn, k);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < NB; j++) mma_bf16(acc[i][j], fa[i], fb[j / 2][2 * (j & 1)], fb[j / 2][2 * (j & 1) + 1]);
        }
        slot = slot == 2 ? 0 : slot + 1;
    }
    if (scale) {
        scale += (size_t)blockIdx.z * strideS;
        int q = col + wn + 2 * (threadIdx.x & 3);
#pragma unroll
        for (int j = 0; j < NB; j++, q += 8) {
            float s0 = q < N ? scale[q] : 0.f, s1 = q + 1 < N ? scale[q + 1] : 0.f;
#pragma unroll
            for (int i = 0; i < 4; i++) acc[i][j][0] *= s0, acc[i][j][1] *= s1, acc[i][j][2] *= s0, acc[i][j][3] *= s1;
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) store_tile(C, ldc, M, N, row + wm + 16 * i, col + wn, acc[i], add != 0);
}
