// The hypercomplex linear layer (SPEC §1), and with W transposed the head
// mixer, as dense products with the signed matrix D that quantize.cu builds:
//
//   forward   Y  = (X·Dᵀ) ∘ scale          gemm_nt, D [n·N, n·K]
//   input     dX = dY·Dg                   gemm_nn, Dg = diag(scale)·D
//   weight    G_k = Σ_i s[i][i^k] dY_iᵀ X_{i^k}
//
// The last is P = dYᵀX (gemm_tn: the same number of multiplications), whose
// n×n blocks fold adds up into the n blocks of G with their signs. P exists
// once for each part of the contraction, so that many blocks share the work;
// fold adds the parts in order.
//
// The head mixer is this layer on tokens·groups rows of 8·head_dim (rows of
// consecutive groups lie one after the other), W [8, K, N], quantizer none.
//
// Walsh layers use the same kernels with batch = 8 on transformed operands
// (walsh.cu). Wide octonion layers have a kernel of their own for the forward
// (octonion.cuh).
//
// Layers that read the same input go together: wq, wk, wv with their D one
// after the other and outputs one after the other are a batch of 3 that shares
// A; their dX is one chain of 3; their P a batch of 3 that shares B.
#include "gemm90.cuh"
#include "octonion.cuh"

// ---- sm_80 and later -----------------------------------------------------
//
// gemm_{nt,nn,tn}_{bf16,f32}: C = scale ∘ Σ op(A)·op(B), plus the old C when
// add is not 0; batch, chain and splits as in gemm.cuh. scale is nil or
// float32 [N], one a column, of product z at scale + z·strideS. Any M, N, K;
// fast when strides and N are multiples of 8 and pointers of 16 bytes.
//
// launch: grid (ceil(M/128)·ceil(N/128), splits, batch), block 256, dynamic
//   shared 98304 (raise the function's limit first);
//   (bf16 *A, bf16 *B, T *C, float *scale, int M, int N, int K, int lda, int ldb, int ldc,
//    int strideA, int strideB, int strideC, int strideS, int chain, int add)
//   Strides in elements, strideA or strideB 0 for a shared operand. splits > 1
//   only without add: the ceil(K/64)·chain steps are dealt out in equal runs,
//   and every part is written, as zeros if it has none.
#define GEMM(name, TA, TB, T)                                                                                  \
    KERNEL(256, 2)                                                                                             \
    gemm_##name(const bf16 *A, const bf16 *B, T *C, const float *scale, int M, int N, int K, int lda, int ldb, \
                int ldc, int strideA, int strideB, int strideC, int strideS, int chain, int add) {             \
        after_others();                                                                                        \
        gemm_tile<TA, TB>(A, B, C, scale, M, N, K, lda, ldb, ldc, strideA, strideB, strideC, strideS, chain, add); \
    }
GEMM(nt_bf16, false, false, bf16)
GEMM(nt_f32, false, false, float)
GEMM(nn_bf16, false, true, bf16)
GEMM(nn_f32, false, true, float)
GEMM(tn_f32, true, true, float)

// ---- sm_90a --------------------------------------------------------------
//
// gemm90_{nt,nn,tn}_{bf16,f32}_{256,192,128,128p,128r}: the same with tensor maps (see
// TensorMap in gemm90.cuh), so strides and pointers of A and B must be
// multiples of 16 bytes; C as above. The number is the width of a tile, 128
// its height; p: the warpgroups take turns at tiles; r: the same with B kept
// in shared memory, for nt and nn with ceil(K/64)·chain ≤ 8 and splits 1.
// Only in the sm_90a image; empty in others. Which is quickest when,
// docs/benchmarks.md says and variantOf of product.go chooses.
//
// launch: grid min(multiprocessors, ceil(M/128)·ceil(N/width)·batch·splits, for 256 twice that), block 384;
//   (128r: columns·max(1, min(ceil(M/128), multiprocessors / columns)) with columns = ceil(N/128)·batch);
//   dynamic shared 230400 (raise the function's limit first);
//   (TensorMap mapA, TensorMap mapB, TensorMap mapC, T *C, float *scale, int M, int N, int K, int ldc, int batch,
//    int chain, int splits, int strideC, int strideS, int shared, int how,
//    {float *cos, float *sin, int period, int count})
//   The maps are 128 bytes by value, 64-byte aligned. shared: bit 0, all products use matrix 0 of mapA;
//   bit 1, of mapB. how: bit 0, add the old C; bit 1, instead, C is bf16 and written through mapC, which
//   need not be one otherwise. The rotation (nt with C in bf16): see Rotary; count 0 for none.
#define GEMM90(name, WIDTH, MODE, TA, TB, T)                                                                          \
    KERNEL(gemm90_threads, 1)                                                                                         \
    gemm90_##name(const __grid_constant__ TensorMap mapA, const __grid_constant__ TensorMap mapB,                     \
                  const __grid_constant__ TensorMap mapC, T *C, const float *scale, int M, int N, int K, int ldc,     \
                  int batch, int chain, int splits, int strideC, int strideS, int shared, int how, Rotary rotary) {   \
        gemm90_tiles<WIDTH, MODE, TA, TB>(&mapA, &mapB, &mapC, nullptr, C, scale, M, N, K, ldc, batch, chain, splits, strideC, \
                                          strideS, shared, how, rotary);                                              \
    }
#define GEMM90_WIDTHS(name, TA, TB, T)           \
    GEMM90(name##_256, 256, TOGETHER, TA, TB, T) \
    GEMM90(name##_192, 192, TOGETHER, TA, TB, T) \
    GEMM90(name##_128, 128, TOGETHER, TA, TB, T) \
    GEMM90(name##_128p, 128, TURNS, TA, TB, T)
GEMM90_WIDTHS(nt_bf16, false, false, bf16)
GEMM90_WIDTHS(nt_f32, false, false, float)
GEMM90_WIDTHS(nn_bf16, false, true, bf16)
GEMM90_WIDTHS(nn_f32, false, true, float)
GEMM90_WIDTHS(tn_f32, true, true, float)
GEMM90(nt_bf16_128r, 128, RESIDENT, false, false, bf16)
GEMM90(nt_f32_128r, 128, RESIDENT, false, false, float)
GEMM90(nn_bf16_128r, 128, RESIDENT, false, true, bf16)
GEMM90(nn_f32_128r, 128, RESIDENT, false, true, float)

// gemm90_gated: gate = scale ∘ A·Bᵀ and up, the same of the next matrix of mapB, and
// y = silu(gate)∘up; all bf16 with N a multiple of 8, tiles of 128 × 128 of all three.
// B [2, N, K], scale strideS apart.
//
// launch: as gemm90_nt_bf16_256, with 2·ceil(M/128)·ceil(N/128) the bound of the grid;
//   (TensorMap mapA, TensorMap mapB, TensorMap mapC [M, 2, N], TensorMap mapY [M, N], float *scale,
//    int M, int N, int K, int strideS)
KERNEL(gemm90_threads, 1)
gemm90_gated(const __grid_constant__ TensorMap mapA, const __grid_constant__ TensorMap mapB, const __grid_constant__ TensorMap mapC,
             const __grid_constant__ TensorMap mapY, const float *scale, int M, int N, int K, int strideS) {
    gemm90_tiles<256, GATED, false, false>(&mapA, &mapB, &mapC, &mapY, (bf16 *)nullptr, scale, M, N, K, 0, 1, 1, 1, 0, strideS, 0, BOXES, Rotary{});
}

// ---- octonions, sm_90a ---------------------------------------------------
//
// octonion90_nt: y = the layer's output, x [M, 8, K], y [M, 8, N]; mapX of x as
// [M, 8, K], mapXh of xh likewise, mapW of W: Ŵ [8, N, K], then 2·W [8, N, K].
// octonion90_nn: y = dx (+ y when add is not 0) with N and K of the contraction
// exchanged: x = dy [M, 8, K], y [M, 8, N], mapW of Ŵg and 2·Wg [16, K, N]; scale
// is not used, as add is not by the other.
// N and K multiples of 8. chunk: rows of tiles of 128 that make a chunk; xh
// [3·128·chunk, 8, K] and p [4·128·chunk, 8, N] are scratch memory. counters: at
// least 2 + 3·ceil(M/(128·chunk)) zeros, which the kernel leaves as zeros.
// Only in the sm_90a image; empty in others.
//
// launch: grid multiprocessors, or fewer, so that all blocks run together;
//   block 384, dynamic shared 197632 (raise the function's limit first);
//   (TensorMap mapX, TensorMap mapXh, TensorMap mapW, bf16 *x, bf16 *xh, bf16 *p, bf16 *y,
//    float *scale, int *counters, int M, int N, int K, int chunk, int add)
#define OCTONION90(name, DX)                                                                                             \
    KERNEL(384, 1)                                                                                                       \
    octonion90_##name(const __grid_constant__ TensorMap mapX, const __grid_constant__ TensorMap mapXh,                   \
                      const __grid_constant__ TensorMap mapW, const bf16 *x, bf16 *xh, bf16 *p, bf16 *y,                 \
                      const float *scale, int *counters, int M, int N, int K, int chunk, int add) {                      \
        octonion90_rows<DX>(&mapX, &mapXh, &mapW, x, xh, p, y, scale, counters, M, N, K, chunk, add);                    \
    }
OCTONION90(nt, false)
OCTONION90(nn, true)

// octonion90_tn: P_k = Ĝ_kᵀ X̂_k and C_k = Σ dy_iᵀ x_{i xor k}, of each of splits
// parts of the rows: p [splits, 16, N, K] float32, P then C. x [M, 8, K], dy
// [M, 8, N]; xh and gh, like x and dy, are scratch memory; a map of each. N and K
// multiples of 8. Each part has each·128·chunk rows, the last what is left, which
// must be some. counters: at least 2 + ceil(M/(128·chunk)) zeros, which the kernel
// leaves as zeros. Only in the sm_90a image; empty in others.
//
// launch: as above;
//   (TensorMap mapX, TensorMap mapDY, TensorMap mapXh, TensorMap mapGh, bf16 *x, bf16 *dy, bf16 *xh, bf16 *gh, float *p,
//    int *counters, int M, int N, int K, int chunk, int each, int splits)
KERNEL(384, 1)
octonion90_tn(const __grid_constant__ TensorMap mapX, const __grid_constant__ TensorMap mapDY, const __grid_constant__ TensorMap mapXh,
              const __grid_constant__ TensorMap mapGh, const bf16 *x, const bf16 *dy, bf16 *xh, bf16 *gh, float *p, int *counters, int M,
              int N, int K, int chunk, int each, int splits) {
    octonion90_sums(&mapX, &mapDY, &mapXh, &mapGh, x, dy, xh, gh, p, counters, M, N, K, chunk, each, splits);
}

// ---- folding -------------------------------------------------------------

// fold_sum adds up V neighbouring values over the parts of the contraction.
template <int V> DEVICE void fold_sum(float (&sum)[V], const float *p, int splits, size_t stride) {
#pragma unroll
    for (int v = 0; v < V; v++) sum[v] = 0.f;
#pragma unroll 8
    for (int s = 0; s < splits; s++) {
        if (V == 4) {
            float4 q = *(const float4 *)(p + s * stride);
            sum[0] += q.x, sum[1 % V] += q.y, sum[2 % V] += q.z, sum[3 % V] += q.w;
        } else {
            sum[0] += p[s * stride];
        }
    }
}

template <int V>
DEVICE void fold_block(float *g, const float *p, const uint16_t *signs, int n, int rows, int cols, int splits, int stride, int transposed) {
    __shared__ float part[8][32 * V];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, k = blockIdx.y;
    int at = (blockIdx.x * 32 + lane) * V; // within a block of rows × cols
    bool inside = at < rows * cols;
    int width = n * cols;
    float total[V];
#pragma unroll
    for (int v = 0; v < V; v++) total[v] = 0.f;
    for (int a = warp; a < n; a += 8) {
        int b = a ^ k;
        float sign = (transposed ? signs[b] >> a : signs[a] >> b) & 1 ? -1.f : 1.f, sum[V];
        if (inside) {
            const float *q = p + (size_t)(a * rows + at / cols) * width + b * cols + at % cols;
            fold_sum<V>(sum, q, splits, stride);
#pragma unroll
            for (int v = 0; v < V; v++) total[v] += sign * sum[v];
        }
    }
#pragma unroll
    for (int v = 0; v < V; v++) part[warp][lane * V + v] = total[v];
    __syncthreads();
    for (int e = threadIdx.x; e < 32 * V; e += 256) {
        int to = blockIdx.x * 32 * V + e;
        if (to < rows * cols) {
            float sum = 0.f;
#pragma unroll
            for (int w = 0; w < 8; w++) sum += part[w][e];
            g[(size_t)k * rows * cols + to] += sum;
        }
    }
}

// fold: G_k[r,c] += Σ_a ± Σ_part P[part][layer][a·R + r, (a xor k)·C + c], with
// P = dYᵀX [n·N, n·K] and G [n, N, K]; for transposed layers P = XᵀdY
// [n·K, n·N] and G [n, K, N]. rows, cols are N, K or K, N. Bit j of signs[i]
// is set where s[i][j] = −1.
//
// launch: grid (ceil(rows·cols/(32·V)), n, layers ≤ 4), V = 4 if cols is a multiple of 4, else 1; block 256, no dynamic shared;
//   (float *G0, float *G1, float *G2, float *G3, float *P, uint16 *signs, int n, int rows, int cols, int splits, int stride, int transposed)
//   stride: from one part of P to the next, in elements: n·rows·n·cols times the layers.
KERNEL(256) fold(float *g0, float *g1, float *g2, float *g3, const float *p, const uint16_t *signs, int n, int rows, int cols, int splits, int stride, int transposed) {
    after_others();
    float *g = blockIdx.z == 0 ? g0 : blockIdx.z == 1 ? g1 : blockIdx.z == 2 ? g2 : g3;
    p += (size_t)blockIdx.z * n * rows * n * cols;
    if (cols % 4 == 0)
        fold_block<4>(g, p, signs, n, rows, cols, splits, stride, transposed);
    else
        fold_block<1>(g, p, signs, n, rows, cols, splits, stride, transposed);
}

template <int V> DEVICE void fold_walsh_block(float *g, const float *p, int size, int splits, int stride, bool octonion) {
    __shared__ float part[8][32 * V], more[8][32 * V];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int at = (blockIdx.x * 32 + lane) * V;
    float sum[V];
#pragma unroll
    for (int v = 0; v < V; v++) sum[v] = 0.f;
    if (at < size) fold_sum<V>(sum, p + (size_t)warp * size + at, splits, stride);
#pragma unroll
    for (int v = 0; v < V; v++) part[warp][lane * V + v] = sum[v];
    if (octonion && at < size) fold_sum<V>(sum, p + (size_t)(8 + warp) * size + at, splits, stride);
#pragma unroll
    for (int v = 0; v < V; v++) more[warp][lane * V + v] = octonion ? 2.f * sum[v] : 0.f;
    __syncthreads();
    float factor = octonion && warp ? -0.125f : 0.125f;
#pragma unroll
    for (int v = 0; v < V; v++) {
        int e = lane + 32 * v, to = blockIdx.x * 32 * V + e;
        if (to < size) {
            float total = 0.f;
#pragma unroll
            for (int l = 0; l < 8; l++) total += __popc(warp & l) & 1 ? -part[l][e] : part[l][e];
            g[(size_t)warp * size + to] += factor * total + more[warp][e];
        }
    }
}

// fold_walsh: G_k += Σ_l H[k][l]/8 Σ_part P[part][l] with P_l = (H dY)_lᵀ (H X)_l,
// size = N·K values each; G [8, N, K]. octonion: G_k += ±Σ_l … + 2 Σ_part P[part][8+k]
// with + for k = 0 alone (octonion.cuh).
//
// launch: grid ceil(size/(32·V)), V = 4 if size is a multiple of 4, else 1; block 256, no dynamic shared;
//   (float *G, float *P, int size, int splits, int stride, int octonion);
//   stride: from one part to the next, 8·size for one layer, octonion: 16·size
KERNEL(256) fold_walsh(float *g, const float *p, int size, int splits, int stride, int octonion) {
    after_others();
    if (size % 4 == 0)
        fold_walsh_block<4>(g, p, size, splits, stride, octonion != 0);
    else
        fold_walsh_block<1>(g, p, size, splits, stride, octonion != 0);
}
