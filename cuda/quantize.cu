// Latent weights to what the products use, for all layers of a model in two
// launches (SPEC §1); the end of the weights' gradients.
#include "walsh.cuh"

// Layer describes one weight; the kernels read a table of them in device
// memory. 16 words of 8 bytes.
struct Layer {
    const float *w;        // latent [n, N, K]; transposed: [n, K, N]
    const float *beta;     // [N] or nil
    float *dw;             // G, shape of w
    float *dbeta;          // [N] or nil
    bf16 *d;               // as walsh says
    bf16 *dg;              // nil: not wanted
    float *scale;          // [n·N] γ·beta[r], repeated n times
    float *gamma;          // [1]
    int *zeros;            // [1] how many Wq are 0
    const uint16_t *signs; // [n] bit j of signs[i]: s[i][j] = −1
    int n;
    int walsh;             // 0: d = D, the signed Wq [n·N, n·K], dg = D with rows times scale
                           // 1: d = Ŵ = H Wq/8 [8, N, K], dg = Ŵ with rows times scale
                           // 2: d = H (Wq_0, −Wq_1, …)/8, then 2·Wq, [16, N, K], dg = d with rows times scale
                           // 1 and 2 need n = 8, not transposed
    int out, in;           // N, K
    int quantizer;         // 0 none, 1 classic, 2 absmean
    int transposed;
    int64_t unused[3];
};

// quantized is Wq; none leaves the latent.
DEVICE float quantized(float w, float gamma, int quantizer) {
    if (quantizer == 0) return w;
    if (quantizer == 2) w = w / gamma;
    return rintf(fminf(1.f, fmaxf(-1.f, w)));
}

const int chunks = 128; // of a tensor, whose Σ|w| are added up first

// refresh_sums: partial[layer][chunk] = Σ|w| of one of 128 chunks of the
// tensor, in double; zeros = 0. The first of the two launches.
//
// launch: grid (128, layers), block 256, no dynamic shared; (Layer *layers, double *partial [layers, 128])
KERNEL(256) refresh_sums(const Layer *layers, double *partial) {
    __shared__ double scratch[32];
    after_others();
    const Layer &l = layers[blockIdx.y];
    int size = l.n * l.out * l.in;
    if (blockIdx.x == 0 && threadIdx.x == 0) *l.zeros = 0;
    if (l.quantizer != 2) return;
    double sum = 0;
    if (size % 4 == 0) {
        const float4 *w = (const float4 *)l.w;
#pragma unroll 4
        for (int i = blockIdx.x * 256 + threadIdx.x; i < size / 4; i += chunks * 256) {
            float4 v = w[i];
            sum += (double)fabsf(v.x) + (double)fabsf(v.y) + ((double)fabsf(v.z) + (double)fabsf(v.w));
        }
    } else {
        for (int i = blockIdx.x * 256 + threadIdx.x; i < size; i += chunks * 256) sum += fabsf(l.w[i]);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.y * chunks + blockIdx.x] = sum;
}

// layer_gamma adds up the chunks the same way in every block.
DEVICE float layer_gamma(const Layer &l, const double *partial, double *scratch) {
    if (l.quantizer != 2) return 1.f;
    double sum = block_sum(threadIdx.x < chunks ? partial[threadIdx.x] : 0.0, scratch);
    return fmaxf((float)(sum / (double)(l.n * l.out * l.in)), 1e-8f);
}

// store4 writes up to four values times s, in one access if vector.
DEVICE void store4(bf16 *to, const float (&v)[4], float s, int count, bool vector) {
    if (vector) {
        *(uint2 *)to = make_uint2(pack_bf16(s * v[0], s * v[1]), pack_bf16(s * v[2], s * v[3]));
        return;
    }
#pragma unroll
    for (int e = 0; e < 4; e++)
        if (e < count) to[e] = to_bf16(s * v[e]);
}

// write_scale: the first active blocks share the rows.
DEVICE void write_scale(const Layer &l, float gamma, int active) {
    if (blockIdx.x == 0 && threadIdx.x == 0) *l.gamma = gamma;
    for (int i = blockIdx.x * 256 + threadIdx.x; i < l.n * l.out; i += active * 256) l.scale[i] = l.beta ? gamma * l.beta[i % l.out] : gamma;
}

// active_blocks is how many blocks of the grid have a piece, at least one.
DEVICE int active_blocks(int pieces) {
    int blocks = (pieces + 255) / 256;
    return blocks < 1 ? 1 : blocks < (int)gridDim.x ? blocks : (int)gridDim.x;
}

// refresh_walsh: d and dg of walsh 1 and 2; a thread does four columns of all 8 blocks.
DEVICE void refresh_walsh(const Layer &l, const double *partial, double *scratch, int *counts) {
    int per_row = (l.in + 3) / 4, pieces = l.out * per_row, active = active_blocks(pieces);
    if ((int)blockIdx.x >= active) return;
    bool vector = l.in % 4 == 0;
    float w[8][4];
    auto load = [&](int piece) {
        int c = piece % per_row * 4, r = piece / per_row;
#pragma unroll
        for (int k = 0; k < 8; k++) {
            const float *from = l.w + ((size_t)k * l.out + r) * l.in + c;
            if (vector) {
                float4 q = *(const float4 *)from;
                w[k][0] = q.x, w[k][1] = q.y, w[k][2] = q.z, w[k][3] = q.w;
            } else {
#pragma unroll
                for (int e = 0; e < 4; e++) w[k][e] = c + e < l.in ? from[e] : 0.f;
            }
        }
    };
    int piece = blockIdx.x * 256 + threadIdx.x;
    if (piece < pieces) load(piece); // on its way while γ is added up
    float gamma = layer_gamma(l, partial, scratch);
    write_scale(l, gamma, active);
    int zeros = 0;
    while (piece < pieces) {
        int c = piece % per_row * 4, r = piece / per_row;
        float g = l.beta ? gamma * l.beta[r] : gamma;
#pragma unroll
        for (int k = 0; k < 8; k++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                w[k][e] = quantized(w[k][e], gamma, l.quantizer);
                zeros += c + e < l.in && w[k][e] == 0.f;
            }
        if (l.walsh == 2)
#pragma unroll
            for (int k = 0; k < 8; k++) {
                size_t to = ((size_t)(8 + k) * l.out + r) * l.in + c;
                store4(l.d + to, w[k], 2.f, l.in - c, vector);
                if (l.dg) store4(l.dg + to, w[k], 2.f * g, l.in - c, vector);
#pragma unroll
                for (int e = 0; e < 4; e++) w[k][e] = k ? -w[k][e] : w[k][e];
            }
        walsh8(w);
#pragma unroll
        for (int k = 0; k < 8; k++) {
            size_t to = ((size_t)k * l.out + r) * l.in + c;
            store4(l.d + to, w[k], 0.125f, l.in - c, vector);
            if (l.dg) store4(l.dg + to, w[k], 0.125f * g, l.in - c, vector);
        }
        if ((piece += gridDim.x * 256) < pieces) load(piece);
    }
    if (l.quantizer == 0) return;
    zeros = block_sum(zeros, counts);
    if (threadIdx.x == 0 && zeros) atomicAdd(l.zeros, zeros); // integers: any order
}

// refresh: γ, scale, zeros, d and dg from the latents. The second
// launch. D[i·N+r, j·K+c] = s[i][j]·Wq[i xor j][r][c].
//
// launch: grid (X, layers), block 256, no dynamic shared; (Layer *layers, double *partial);
//   any X: ceil(largest n·N·ceil(K/8)/256) gives each thread at most one piece of 8 weights (Walsh: of 32)
KERNEL(256) refresh(const Layer *layers, const double *partial) {
    __shared__ double scratch[32];
    __shared__ int counts[32];
    __shared__ uint32_t flips[16];
    after_others();
    const Layer l = layers[blockIdx.y];
    if (l.walsh) {
        refresh_walsh(l, partial + blockIdx.y * chunks, scratch, counts);
        return;
    }
    int per_row = (l.in + 7) / 8, pieces = l.out * per_row * l.n, active = active_blocks(pieces);
    if ((int)blockIdx.x >= active) return;
    if ((int)threadIdx.x < l.n) flips[threadIdx.x] = l.signs[threadIdx.x];
    bool vector = l.in % 8 == 0;
    auto load = [&](int piece, float (&v)[8]) { // of D
        int c = piece % per_row * 8, r = piece / per_row % l.out, k = piece / per_row / l.out;
        if (vector && !l.transposed) {
            const float4 *w = (const float4 *)(l.w + ((size_t)k * l.out + r) * l.in + c);
            float4 a = w[0], b = w[1];
            v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
            return;
        }
#pragma unroll
        for (int e = 0; e < 8; e++)
            if (c + e < l.in) v[e] = l.w[l.transposed ? ((size_t)k * l.in + c + e) * l.out + r : ((size_t)k * l.out + r) * l.in + c + e];
    };
    int piece = blockIdx.x * 256 + threadIdx.x;
    float f[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (piece < pieces) load(piece, f); // on its way while γ is added up
    float gamma = layer_gamma(l, partial + blockIdx.y * chunks, scratch);
    __syncthreads();
    write_scale(l, gamma, active);
    int zeros = 0, width = l.n * l.in;
    for (; piece < pieces; piece += gridDim.x * 256) {
        int c = piece % per_row * 8, r = piece / per_row % l.out, count = l.in - c < 8 ? l.in - c : 8;
        float g = l.beta ? gamma * l.beta[r] : gamma;
        int k = piece / per_row / l.out;
        float fg[8];
#pragma unroll
        for (int e = 0; e < 8; e++) {
            f[e] = quantized(f[e], gamma, l.quantizer);
            zeros += e < count && f[e] == 0.f;
            fg[e] = g * f[e];
        }
        uint4 p = pack8(f), pg = pack8(fg);
        if (piece + (int)gridDim.x * 256 < pieces) load(piece + gridDim.x * 256, f);
        for (int i = 0; i < l.n; i++) {
            int j = i ^ k;
            uint32_t flip = flips[i] >> j & 1 ? 0x80008000u : 0u;
            size_t to = (size_t)(i * l.out + r) * width + j * l.in + c;
            uint4 q = make_uint4(p.x ^ flip, p.y ^ flip, p.z ^ flip, p.w ^ flip);
            uint4 qg = make_uint4(pg.x ^ flip, pg.y ^ flip, pg.z ^ flip, pg.w ^ flip);
            if (vector) {
                *(uint4 *)(l.d + to) = q;
                if (l.dg) *(uint4 *)(l.dg + to) = qg;
            } else {
                const uint32_t h[4] = {q.x, q.y, q.z, q.w}, hg[4] = {qg.x, qg.y, qg.z, qg.w};
#pragma unroll
                for (int e = 0; e < 8; e++)
                    if (e < count) {
                        l.d[to + e] = (bf16)(h[e / 2] >> 16 * (e & 1));
                        if (l.dg) l.dg[to + e] = (bf16)(hg[e / 2] >> 16 * (e & 1));
                    }
            }
        }
    }
    if (l.quantizer == 0) return;
    zeros = block_sum(zeros, counts);
    if (threadIdx.x == 0 && zeros) atomicAdd(l.zeros, zeros); // integers: any order
}

// finish_gradient, after the last micro-batch: from G in dw to the gradients.
// With beta: dbeta_r += γ·Σ_{k,c} G_k[r,c]·Wq_k[r,c], dW_k = diag(beta)·G_k;
// classic: zero where |W| > 1.5. γ·Wq is what refresh put into the product.
//
// launch: grid (largest N, layers), block 128, no dynamic shared; (Layer *layers)
KERNEL(128) finish_gradient(const Layer *layers) {
    __shared__ float scratch[32];
    after_others();
    const Layer l = layers[blockIdx.y];
    int r = blockIdx.x;
    if (r >= l.out || (!l.beta && l.quantizer != 1)) return;
    float beta = l.beta ? l.beta[r] : 1.f, gamma = *l.gamma, sum = 0.f;
    for (int e = threadIdx.x; e < l.n * l.in; e += 128) {
        size_t at = l.transposed ? (size_t)e * l.out + r : ((size_t)(e / l.in) * l.out + r) * l.in + e % l.in;
        float w = l.w[at], g = l.dw[at];
        sum += g * quantized(w, gamma, l.quantizer);
        l.dw[at] = l.quantizer == 1 && fabsf(w) > 1.5f ? 0.f : beta * g;
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0 && l.dbeta) l.dbeta[r] += gamma * sum;
}
