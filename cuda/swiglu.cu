// SwiGLU in bf16, as kernel/swiglu.go: y = silu(g)∘u, silu(g) = g·σ(g), and
//
//	du = dy∘silu(g);  dg = dy∘u∘σ(1 + g(1 − σ))
#include "device.cuh"

namespace {

DEVICE float sigmoid(float g) { return __fdividef(1.f, 1.f + exp2_fast(-LOG2E * fmaxf(g, -80.f))); }

DEVICE void backward(float& dg, float& du, float dy, float g, float u) {
  float s = sigmoid(g);
  du = dy * g * s;
  dg = dy * u * s * (1 + g * (1 - s));
}

} // namespace

// swiglu: all pointers 16-byte aligned.
// launch: grid ⌈n/2048⌉, block 256, no dynamic shared; arguments (bf16* y, const
// bf16* gate, const bf16* up, size_t n).
KERNEL(256, 4)
swiglu(bf16* y, const bf16* gate, const bf16* up, size_t n) {
  const size_t i = ((size_t)blockIdx.x * 256 + threadIdx.x) * 8;
  if (i + 8 <= n) {
    float g[8], u[8];
    unpack(g, load8(gate + i));
    unpack(u, load8(up + i));
#pragma unroll
    for (int e = 0; e < 8; e++) g[e] *= sigmoid(g[e]) * u[e];
    store8(y + i, pack(g));
  } else {
    for (size_t j = i; j < n; j++) {
      float g = to_float(gate[j]);
      y[j] = to_bf16(g * sigmoid(g) * to_float(up[j]));
    }
  }
}

// swiglu_quant8: swiglu, then each row of d rounded to int8 levels
// (kernel.FakeQuant8).
// launch: grid ⌈rows/8⌉, block 256, no dynamic shared; arguments (bf16* y, const
// bf16* gate, const bf16* up, int rows, int d).
KERNEL(256, 4)
swiglu_quant8(bf16* y, const bf16* gate, const bf16* up, int rows, int d) {
  const size_t row = blockIdx.x * 8 + threadIdx.x / 32;
  if (row >= (size_t)rows) return;
  const int lane = threadIdx.x % 32;
  y += row * d, gate += row * d, up += row * d;
  float most = 0, inv = 0, s = 0;
  for (int pass = 0; pass < 2; pass++) {
    if (d % 8 == 0) {
#pragma unroll 2
      for (int c = lane * 8; c < d; c += 256) {
        float g[8], u[8];
        unpack(g, load8(gate + c));
        unpack(u, load8(up + c));
#pragma unroll
        for (int e = 0; e < 8; e++) {
          g[e] *= sigmoid(g[e]) * u[e];
          most = fmaxf(most, fabsf(g[e]));
          g[e] = s * rintf(fminf(fmaxf(g[e] * inv, -127.f), 127.f));
        }
        if (pass) store8(y + c, pack(g));
      }
    } else {
      for (int c = lane; c < d; c += 32) {
        float g = to_float(gate[c]);
        g *= sigmoid(g) * to_float(up[c]);
        most = fmaxf(most, fabsf(g));
        if (pass) y[c] = to_bf16(s * rintf(fminf(fmaxf(g * inv, -127.f), 127.f)));
      }
    }
    if (pass == 0) {
      most = warp_max(most);
      inv = most < 4e-37f ? 0 : 127 / most, s = most / 127;
    }
  }
}

// swiglu_backward: dgate and dup overwritten; they may be gate and up.
// launch: grid ⌈n/2048⌉, block 256, no dynamic shared; arguments (bf16* dgate,
// bf16* dup, const bf16* dy, const bf16* gate, const bf16* up, size_t n).
KERNEL(256, 4)
swiglu_backward(bf16* dgate, bf16* dup, const bf16* dy, const bf16* gate, const bf16* up, size_t n) {
  const size_t i = ((size_t)blockIdx.x * 256 + threadIdx.x) * 8;
  if (i + 8 <= n) {
    float g[8], u[8], d[8];
    unpack(g, load8(gate + i));
    unpack(u, load8(up + i));
    unpack(d, load8(dy + i));
#pragma unroll
    for (int e = 0; e < 8; e++) {
      float dg, du;
      backward(dg, du, d[e], g[e], u[e]);
      g[e] = dg, u[e] = du;
    }
    store8(dgate + i, pack(g));
    store8(dup + i, pack(u));
  } else {
    for (size_t j = i; j < n; j++) {
      float dg, du;
      backward(dg, du, to_float(dy[j]), to_float(gate[j]), to_float(up[j]));
      dgate[j] = to_bf16(dg), dup[j] = to_bf16(du);
    }
  }
}
