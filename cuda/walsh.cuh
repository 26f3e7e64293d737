// The Walsh–Hadamard transform of 8 values, which walsh.cu and octonion.cu share.
#pragma once
#include "gemm90.cuh"

// walsh8: 24·E additions.
template <int E> DEVICE void walsh8(float (&x)[8][E]) {
#pragma unroll
    for (int s = 1; s < 8; s *= 2)
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (!(i & s))
#pragma unroll
                for (int e = 0; e < E; e++) {
                    float a = x[i][e], b = x[i + s][e];
                    x[i][e] = a + b, x[i + s][e] = a - b;
                }
}
