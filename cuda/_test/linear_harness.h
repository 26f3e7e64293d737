// What the standalone kernel tests share: memory, launches and comparisons,
// on a GPU (nvcc) or in the emulator (-DEMULATE with a C++ compiler).
#pragma once
#ifdef EMULATE
#include "emulate.h"
#else
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda.h>
#include <cuda_runtime.h>
#endif
#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <vector>

#ifndef EMULATE
#define CHECK(call)                                                                                        \
    do {                                                                                                   \
        cudaError_t check_error = (call);                                                                  \
        if (check_error != cudaSuccess) {                                                                  \
            printf("FAIL %s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(check_error));     \
            exit(1);                                                                                       \
        }                                                                                                  \
    } while (0)
#define LAUNCH(kernel, grid, block, shared, ...)                                                           \
    do {                                                                                                   \
        static std::set<const void *> raised;                                                              \
        if ((shared) > 48 << 10 && raised.insert((const void *)(kernel)).second)                           \
            CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(shared))); \
        kernel<<<(grid), (block), (shared), stream>>>(__VA_ARGS__);                                              \
        CHECK(cudaGetLastError());                                                                         \
    } while (0)
static cudaStream_t stream; // made by main
static void synchronize() { CHECK(cudaDeviceSynchronize()); }
static void device_copy(void *dst, const void *src, size_t n) { CHECK(cudaMemcpy(dst, src, n, cudaMemcpyDefault)); }
static void device_set(void *dst, int v, size_t n) { CHECK(cudaMemset(dst, v, n)); }
static void *device_alloc(size_t n) { void *p; CHECK(cudaMalloc(&p, n)); return p; }
static void device_free(void *p) { CHECK(cudaFree(p)); }
#else
#define LAUNCH(kernel, grid, block, shared, ...) emu::launch((grid), (block), (shared), [&] { kernel(__VA_ARGS__); })
static void synchronize() {}
static void device_copy(void *dst, const void *src, size_t n) { memcpy(dst, src, n); }
static void device_set(void *dst, int v, size_t n) { memset(dst, v, n); }
static void *device_alloc(size_t n) { return aligned_alloc(256, (n + 255) / 256 * 256); }
static void device_free(void *p) { free(p); }
#endif

// Buffer is an array in device memory with guard bytes behind it.
template <class T> struct Buffer {
    T *p;
    size_t n;
    explicit Buffer(size_t n) : n(n) {
        p = (T *)device_alloc(n * sizeof(T) + 256);
        device_set(p, 0xff, n * sizeof(T) + 256);
    }
    explicit Buffer(const std::vector<T> &v) : Buffer(v.size()) { put(v); }
    Buffer(const Buffer &) = delete;
    ~Buffer() {
        unsigned char guard[256];
        device_copy(guard, p + n, 256);
        for (unsigned char g : guard)
            if (g != 0xff) { printf("FAIL something wrote behind a buffer of %zu values\n", n); break; }
        device_free(p);
    }
    void put(const std::vector<T> &v) { device_copy(p, v.data(), n * sizeof(T)); }
    std::vector<T> get() const {
        synchronize();
        std::vector<T> v(n);
        device_copy(v.data(), p, n * sizeof(T));
        return v;
    }
};

static std::mt19937_64 rng(std::random_device{}());
static int failures, passes;

static std::vector<float> normal(size_t n, float sigma = 1) {
    std::normal_distribution<float> d(0, sigma);
    std::vector<float> v(n);
    for (auto &x : v) x = d(rng);
    return v;
}
static float bits_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static uint16_t round_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
static double value(uint16_t v) { return bits_float((uint32_t)v << 16); }
static double value(float v) { return v; }
static std::vector<uint16_t> as_bf16(const std::vector<float> &v) {
    std::vector<uint16_t> r(v.size());
    for (size_t i = 0; i < v.size(); i++) r[i] = round_bf16(v[i]);
    return r;
}
static uint16_t convert(float v, uint16_t *) { return round_bf16(v); }
static float convert(float v, float *) { return v; }

static void report(bool ok, const std::string &name, const std::string &detail = "") {
    (ok ? passes : failures)++;
    if (!ok) printf("FAIL %s %s\n", name.c_str(), detail.c_str());
}

// compare: |got − want| ≤ rel·|want| + slack·mag, element by element; mag is
// Σ|terms|. NaN fails. A bf16 result may round by 2^-8 relative.
template <class T>
static void compare(const std::string &name, const std::vector<T> &got, const std::vector<double> &want, const std::vector<double> &mag,
                    double rel, double slack = 1e-6) {
    size_t bad = 0, at = 0;
    double num = 0, den = 0;
    for (size_t i = 0; i < want.size(); i++) {
        double g = value(got[i]), e = std::fabs(g - want[i]);
        if (!(e <= rel * std::fabs(want[i]) + slack * mag[i])) {
            if (!bad) at = i;
            bad++;
        }
        num += e * e, den += want[i] * want[i];
    }
    char text[200] = "";
    if (bad) snprintf(text, sizeof text, "%zu of %zu wrong, first at %zu: got %g, want %g; relative error %.2g", bad, want.size(), at, value(got[at]), want[at], std::sqrt(num / (den + 1e-300)));
    report(bad == 0, name, text);
}
template <class T> static void same(const std::string &name, const std::vector<T> &a, const std::vector<T> &b) {
    report(memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0, name, "two runs differ");
}
