// Runs kernels on a CPU, to test their indexing where there is no GPU: each
// thread of a block is a fiber that runs until it meets a barrier or a warp
// instruction; blocks run one after the other. Include it before any kernel
// and compile as C++. It knows the wrappers of common.cuh and gemm90.cuh;
// it checks neither PTX nor memory ordering, except that cp.async copies
// happen as late as the program allows. x86-64 only.
#pragma once
#define SPINNET_EMULATE
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __forceinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static
#define __align__(n)
#define DEVICE static inline
#define KERNEL static void
#define DYNAMIC_SHARED(name) unsigned char *name = emu::shared

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct uint2 { uint32_t x, y; };
struct uint4 { uint32_t x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

static dim3 threadIdx, blockIdx, blockDim, gridDim;

extern "C" void emu_switch(void **save, void *load);
asm(R"(
.text
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

namespace emu {
const int stack_bytes = 128 << 10;
static unsigned char *shared, *shared_memory;
struct Copy { uint32_t dst; const void *src; int bytes; };
struct Fiber {
    void *sp;
    unsigned char *stack;
    bool done;
    std::vector<std::vector<Copy>> groups;
};
struct Meeting { int arrived = 0; unsigned generation = 0; void *slot[1024]; };
static std::vector<Fiber> fibers;
static Meeting warps[32], warpgroups[8], block;
static void *scheduler;
static int current, live;
static unsigned long progress;
static std::function<void()> body;

static void yield() { emu_switch(&fibers[current].sp, scheduler); }

// meet waits until count threads called it on m; the last one runs act.
template <class F> static void meet(Meeting &m, int index, int count, void *arg, F act) {
    m.slot[index] = arg;
    unsigned generation = m.generation;
    progress++;
    if (++m.arrived == count) {
        act(m.slot);
        m.arrived = 0;
        m.generation++;
        return;
    }
    while (m.generation == generation) yield();
}

static void start() {
    body();
    fibers[current].done = true;
    live--;
    progress++;
    if (block.arrived && block.arrived == live) block.arrived = 0, block.generation++;
    yield();
}

static void launch(dim3 grid, dim3 threads, int shared_bytes, std::function<void()> f) {
    body = f;
    int n = threads.x * threads.y * threads.z;
    gridDim = grid, blockDim = threads;
    if (!shared_memory) shared_memory = (unsigned char *)aligned_alloc(1024, 256 << 10);
    shared = shared_memory;
    for (unsigned bz = 0; bz < grid.z; bz++)
        for (unsigned by = 0; by < grid.y; by++)
            for (unsigned bx = 0; bx < grid.x; bx++) {
                blockIdx = dim3(bx, by, bz);
                memset(shared, 0xff, shared_bytes); // NaN
                while ((int)fibers.size() < n) fibers.push_back({nullptr, (unsigned char *)aligned_alloc(64, stack_bytes), true, {}});
                for (int i = 0; i < n; i++) {
                    void **top = (void **)(fibers[i].stack + stack_bytes - 64);
                    *--top = nullptr;
                    *--top = (void *)start;
                    top -= 6;
                    fibers[i].sp = top;
                    fibers[i].done = false;
                    fibers[i].groups.assign(1, {});
                }
                for (auto &m : warps) m.arrived = 0;
                for (auto &m : warpgroups) m.arrived = 0;
                block.arrived = 0;
                live = n;
                int idle = 0;
                while (live > 0) {
                    unsigned long before = progress;
                    bool backwards = rand() & 1;
                    for (int q = 0; q < n; q++) {
                        int i = backwards ? n - 1 - q : q;
                        if (fibers[i].done) continue;
                        current = i;
                        threadIdx = dim3(i % threads.x, i / threads.x % threads.y, i / threads.x / threads.y);
                        emu_switch(&scheduler, fibers[i].sp);
                    }
                    idle = progress == before ? idle + 1 : 0;
                    if (idle > 100) {
                        fprintf(stderr, "emulate: deadlock in block %u %u %u of %d threads\n", bx, by, bz, n);
                        abort();
                    }
                }
            }
}
} // namespace emu

static inline void __syncthreads() {
    emu::meet(emu::block, 0, emu::live, nullptr, [](void **) {});
}
template <class F> static void emu_warp(void *arg, F act) {
    emu::meet(emu::warps[emu::current / 32], emu::current % 32, 32, arg, act);
}
static inline void compiler_fence() {}
static inline void after_others() {}
static inline void __syncwarp() {
    emu_warp(nullptr, [](void **) {});
}
template <class T> static T __shfl_xor_sync(uint32_t, T v, int mask) {
    struct { T in, out; } a = {v, v};
    using A = decltype(a);
    emu_warp(&a, [&](void **s) {
        for (int i = 0; i < 32; i++) ((A *)s[i])->out = ((A *)s[i ^ mask])->in;
    });
    return a.out;
}
template <class T> static T __shfl_sync(uint32_t, T v, int lane) {
    struct { T in, out; int lane; } a = {v, v, lane};
    using A = decltype(a);
    emu_warp(&a, [&](void **s) {
        for (int i = 0; i < 32; i++) ((A *)s[i])->out = ((A *)s[((A *)s[i])->lane])->in;
    });
    return a.out;
}
template <class T> static T atomicAdd(T *p, T v) { T old = *p; *p += v; return old; }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline float __uint_as_float(uint32_t v) { float f; memcpy(&f, &v, 4); return f; }
static inline uint32_t __float_as_uint(float f) { uint32_t v; memcpy(&v, &f, 4); return v; }

static inline uint32_t emu_bf16(float f) {
    uint32_t u = __float_as_uint(f);
    return f != f ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
static inline uint32_t pack_bf16(float lo, float hi) { return emu_bf16(lo) | emu_bf16(hi) << 16; }

static inline unsigned char *emu_at(uint32_t address) { return emu::shared_memory + (address - 1024); }
static inline uint32_t shared_address(const void *p) { return (uint32_t)((unsigned char *)p - emu::shared_memory) + 1024; }
static inline void cp_async16(uint32_t dst, const void *src, int bytes) {
    if (dst % 16 || (uintptr_t)src % 16) fprintf(stderr, "emulate: cp.async not aligned\n"), abort();
    emu::fibers[emu::current].groups.back().push_back({dst, src, bytes});
}
static inline void cp_async_commit() { emu::fibers[emu::current].groups.push_back({}); }
template <int N> static void cp_async_wait() {
    auto &g = emu::fibers[emu::current].groups;
    while ((int)g.size() - 1 > N) {
        for (auto &c : g.front()) {
            memset(emu_at(c.dst), 0, 16);
            memcpy(emu_at(c.dst), c.src, c.bytes);
        }
        g.erase(g.begin());
    }
}
static inline void store_shared16(uint32_t dst, uint4 v) { memcpy(emu_at(dst), &v, 16); }

static inline void emu_ldmatrix(uint32_t r[4], uint32_t address, bool trans) {
    struct A { uint32_t *r; uint32_t address; } a = {r, address};
    emu_warp(&a, [&](void **s) {
        for (int q = 0; q < 4; q++) {
            uint16_t m[8][8];
            for (int i = 0; i < 8; i++) memcpy(m[i], emu_at(((A *)s[8 * q + i])->address), 16);
            for (int l = 0; l < 32; l++) {
                int row = l / 4, col = 2 * (l % 4);
                ((A *)s[l])->r[q] = trans ? m[col][row] | m[col + 1][row] << 16 : m[row][col] | m[row][col + 1] << 16;
            }
        }
    });
}
static inline void ldmatrix(uint32_t r[4], uint32_t address) { emu_ldmatrix(r, address, false); }
static inline void ldmatrix_trans(uint32_t r[4], uint32_t address) { emu_ldmatrix(r, address, true); }

static inline void mma_bf16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    struct A { float *d; const uint32_t *a; uint32_t b[2]; } arg = {d, a, {b0, b1}};
    emu_warp(&arg, [](void **s) {
        static float a[16][16], b[16][8];
        for (int l = 0; l < 32; l++) {
            A *x = (A *)s[l];
            int g = l / 4, t = 2 * (l % 4);
            for (int e = 0; e < 2; e++) {
                int sh = e ? 0 : 16;
                auto f = [&](uint32_t v) { return __uint_as_float(e ? v & 0xffff0000u : v << sh); };
                a[g][t + e] = f(x->a[0]), a[g + 8][t + e] = f(x->a[1]);
                a[g][t + 8 + e] = f(x->a[2]), a[g + 8][t + 8 + e] = f(x->a[3]);
                b[t + e][g] = f(x->b[0]), b[t + 8 + e][g] = f(x->b[1]);
            }
        }
        for (int l = 0; l < 32; l++) {
            A *x = (A *)s[l];
            for (int e = 0; e < 4; e++) {
                int r = l / 4 + 8 * (e / 2), c = 2 * (l % 4) + e % 2;
                float sum = 0;
                for (int k = 0; k < 16; k++) sum += a[r][k] * b[k][c];
                x->d[e] += sum;
            }
        }
    });
}

// ---- sm_90a --------------------------------------------------------------

struct EmuMap { const uint16_t *p; int64_t dim[3], stride[3]; }; // elements
struct EmuBarrier { int16_t expected, left; int32_t pending : 24; uint32_t phase : 8; };
static_assert(sizeof(EmuBarrier) == 8, "a barrier has 8 bytes");

static inline EmuBarrier *emu_barrier(uint32_t bar) { return (EmuBarrier *)emu_at(bar); }
static inline void emu_check(EmuBarrier *b) {
    emu::progress++;
    if (b->left == 0 && b->pending == 0) b->left = b->expected, b->phase ^= 1;
    if (b->left < 0) fprintf(stderr, "emulate: too many arrivals\n"), abort();
}
static inline void mbarrier_init(uint32_t bar, int count) { *emu_barrier(bar) = {(int16_t)count, (int16_t)count, 0, 0}; }
static inline void mbarrier_fence() {}
static inline void mbarrier_arrive(uint32_t bar) { emu_barrier(bar)->left--, emu_check(emu_barrier(bar)); }
static inline void mbarrier_expect(uint32_t bar, int bytes) {
    emu_barrier(bar)->pending += bytes, emu_barrier(bar)->left--, emu_check(emu_barrier(bar));
}
static inline void mbarrier_wait(uint32_t bar, uint32_t parity) {
    while ((emu_barrier(bar)->phase & 1) == parity) emu::yield();
    emu::progress++;
}
static inline void async_fence() {}
static inline void computing_barrier() {
    emu::meet(emu::warpgroups[7], emu::current, 256, nullptr, [](void **) {});
}
static inline void wgmma_fence() {}
static inline void wgmma_commit() {}
template <int N> static void wgmma_wait() {}
template <int NB> static void wgmma_done(float (&)[NB][4]) {}

struct TensorMap;
static inline void tma_prefetch(const TensorMap *) {}
static inline void tma_load(uint32_t dst, const TensorMap *map, uint32_t bar, int c, int z, int r) {
    const EmuMap *m = (const EmuMap *)map;
    if (dst % 1024) fprintf(stderr, "emulate: swizzled box not at 1024 bytes\n"), abort();
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++) {
            uint16_t v = 0;
            int64_t x = c + j, y = r + i;
            if (x < m->dim[0] && z < m->dim[1] && y < m->dim[2]) v = m->p[x + z * m->stride[1] + y * m->stride[2]];
            memcpy(emu_at(dst + i * 128 + ((j / 8 ^ i % 8) << 4) + 2 * (j % 8)), &v, 2);
        }
    emu_barrier(bar)->pending -= 8192;
    emu_check(emu_barrier(bar));
}

// emu_operand reads element (mn, k) of the operand of a descriptor with the
// 128-byte swizzle, which acts on address bits.
static inline float emu_operand(uint64_t desc, int mn, int k, bool trans) {
    uint32_t start = (desc & 0x3fff) << 4, lbo = (desc >> 16 & 0x3fff) << 4, sbo = (desc >> 32 & 0x3fff) << 4, at;
    if (trans)
        at = start + mn / 64 * lbo + k / 8 * sbo + k % 8 * 128 + mn % 64 * 2;
    else
        at = start + mn / 8 * sbo + mn % 8 * 128 + k * 2;
    at ^= (at >> 7 & 7) << 4;
    uint16_t v;
    memcpy(&v, emu_at(at), 2);
    return __uint_as_float((uint32_t)v << 16);
}
template <int TA, int TB, int NB> static void wgmma(float (&d)[NB][4], uint64_t a, uint64_t b, int add) {
    struct A { float (*d)[4]; } arg = {d};
    emu::meet(emu::warpgroups[emu::current / 128], emu::current % 128, 128, &arg, [&](void **s) {
        static float fa[64][16], fb[16][256];
        for (int k = 0; k < 16; k++) {
            for (int r = 0; r < 64; r++) fa[r][k] = emu_operand(a, r, k, TA);
            for (int c = 0; c < 8 * NB; c++) fb[k][c] = emu_operand(b, c, k, TB);
        }
        for (int t = 0; t < 128; t++)
            for (int n = 0; n < NB; n++)
                for (int e = 0; e < 4; e++) {
                    int r = t / 32 * 16 + t % 32 / 4 + 8 * (e / 2), c = 8 * n + 2 * (t % 4) + e % 2;
                    float sum = 0;
                    for (int k = 0; k < 16; k++) sum += fa[r][k] * fb[k][c];
                    float &out = ((A *)s[t])->d[n][e];
                    out = add ? out + sum : sum;
                }
    });
}
