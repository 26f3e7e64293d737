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
#include "common.cuh"

// walsh8: 24 additions.
DEVICE void walsh8(float (&x)[8][8]) {
#pragma unroll
    for (int s = 1; s < 8; s *= 2)
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (!(i & s))
#pragma unroll
                for (int e = 0; e < 8; e++) {
                    float a = x[i][e], b = x[i + s][e];
                    x[i][e] = a + b, x[i + s][e] = a - b;
                }
}

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
DEVICE void walsh_out(float *y, const float (&v)[8], int count, bool add) {
    if (count == 8) {
#pragma unroll
        for (int h = 0; h < 8; h += 4) {
            float4 q = make_float4(v[h], v[h + 1], v[h + 2], v[h + 3]);
            if (add) {
                float4 old = *(const float4 *)(y + h);
                q.x += old.x, q.y += old.y, q.z += old.z, q.w += old.w;
            }
            *(float4 *)(y + h) = q;
        }
        return;
    }
#pragma unroll
    for (int e = 0; e < 8; e++)
        if (e < count) y[e] = add ? y[e] + v[e] : v[e];
}

template <class T> DEVICE void walsh_rows(T *y, const bf16 *x, const float *scale, int rows, int part, int add) {
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
            T *to = y + from + (size_t)i * part;
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

// walsh_bf16, walsh_f32: y = scale ∘ H x (+ y when add is not 0); x, y
// [rows, 8, part]; scale nil or [part], the same for all 8 parts. y may be x
// (bf16, add 0).
//
// launch: grid min(ceil(rows·ceil(part/8)/256), 16·multiprocessors), block 256, no dynamic shared;
//   (T *y, bf16 *x, float *scale, int rows, int part, int add)
KERNEL __launch_bounds__(256) walsh_bf16(bf16 *y, const bf16 *x, const float *scale, int rows, int part, int add) {
    walsh_rows(y, x, scale, rows, part, add);
}
KERNEL __launch_bounds__(256) walsh_f32(float *y, const bf16 *x, const float *scale, int rows, int part, int add) {
    walsh_rows(y, x, scale, rows, part, add);
}
