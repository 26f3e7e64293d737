// The Walsh–Hadamard transform of 8 values, which quantize.cu, walsh.cu and
// octonion.cuh share.
#pragma once
#include "device.cuh"

// walsh_pairs calls pair(i, k) for the 12 butterflies (x_i, x_k) ← (x_i + x_k, x_i − x_k).
template <class F> DEVICE void walsh_pairs(F pair) {
#pragma unroll
    for (int s = 1; s < 8; s *= 2)
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (!(i & s)) pair(i, i + s);
}

DEVICE void walsh_pair(float &x, float &y) {
    float a = x, b = y;
    x = a + b, y = a - b;
}

// walsh8: 24·E additions.
template <int E> DEVICE void walsh8(float (&x)[8][E]) {
    walsh_pairs([&](int i, int k) {
#pragma unroll
        for (int e = 0; e < E; e++) walsh_pair(x[i][e], x[k][e]);
    });
}
