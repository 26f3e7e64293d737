// What the test programs share: memory with guards, launches by name with the
// arguments of a kernel's "launch:" comment, comparisons and timing. On a GPU
// kernels come from the cubins or fatbins named on the command line, through
// the driver as the Go side does it; with EMULATED they are linked in and run
// on the CPU.
#pragma once
#ifdef EMULATED
#include "emulator.h"
#include <dlfcn.h>
#include <functional>
#else
#include <cuda.h>
#endif
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

typedef uint16_t bf16;

inline float from_bf16(bf16 b) {
  uint32_t u = (uint32_t)b << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
inline bf16 round_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

inline int failures, checks;
inline void check(bool ok, const std::string& what) {
  checks++;
  if (ok) return;
  failures++;
  printf("FAIL %s\n", what.c_str());
}

struct Dim {
  unsigned x, y = 1, z = 1;
};

#ifdef EMULATED
namespace emu {
void run(uint3 grid, int threads, size_t shared, bool together, const std::function<void()>& f);
}
inline bool load_kernels(int, char**) { return true; }
inline void* device_alloc(size_t n) { return aligned_alloc(256, (n + 255) / 256 * 256); }
inline void device_free(void* p) { free(p); }
inline void to_device(void* d, const void* h, size_t n) { memcpy(d, h, n); }
inline void to_host(void* h, const void* d, size_t n) { memcpy(h, d, n); }
inline bool has_kernel(const char* name) { return dlsym(RTLD_DEFAULT, name) != nullptr; }
inline bool together; // blocks of the next launches run at the same time
template <class... A>
void launch(const char* name, Dim grid, int block, size_t shared, A... args) {
  auto f = (void (*)(A...))dlsym(RTLD_DEFAULT, name);
  if (!f) { printf("no kernel %s\n", name); exit(1); }
  emu::run({grid.x, grid.y, grid.z}, block, shared, together, [&] { f(args...); });
}
#else
inline void must(CUresult r, const char* what) {
  if (r == CUDA_SUCCESS) return;
  const char* s = "?";
  cuGetErrorString(r, &s);
  printf("FAIL %s: %s\n", what, s);
  fflush(stdout);
  exit(1);
}
inline std::vector<CUmodule> modules;
inline bool load_kernels(int n, char** files) {
  CUdevice d;
  CUcontext c;
  must(cuInit(0), "cuInit");
  must(cuDeviceGet(&d, 0), "cuDeviceGet");
  must(cuDevicePrimaryCtxRetain(&c, d), "context");
  must(cuCtxSetCurrent(c), "context");
  for (int i = 0; i < n; i++) {
    CUmodule m;
    must(cuModuleLoad(&m, files[i]), files[i]);
    modules.push_back(m);
  }
  return n > 0;
}
inline void* device_alloc(size_t n) {
  CUdeviceptr p;
  must(cuMemAlloc(&p, n), "alloc");
  return (void*)p;
}
inline void device_free(void* p) { cuMemFree((CUdeviceptr)p); }
inline void to_device(void* d, const void* h, size_t n) { must(cuMemcpyHtoD((CUdeviceptr)d, h, n), "copy to device"); }
inline void to_host(void* h, const void* d, size_t n) { must(cuMemcpyDtoH(h, (CUdeviceptr)d, n), "copy to host"); }
inline bool has_kernel(const char* name) {
  CUfunction f;
  for (CUmodule m : modules)
    if (cuModuleGetFunction(&f, m, name) == CUDA_SUCCESS) return true;
  return false;
}
inline CUfunction kernel(const char* name, size_t shared) {
  static std::map<std::string, CUfunction> known;
  CUfunction f = known[name];
  if (f && shared <= 48 << 10) return f;
  for (CUmodule m : modules)
    if (cuModuleGetFunction(&f, m, name) == CUDA_SUCCESS) {
      known[name] = f;
      if (shared > 48 << 10) must(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)shared), name);
      return f;
    }
  printf("FAIL no kernel %s\n", name);
  exit(1);
}
inline CUstream stream = nullptr; // of launches
template <class... A>
void launch(const char* name, Dim grid, int block, size_t shared, A... args) {
  void* list[] = {(void*)&args...};
  must(cuLaunchKernel(kernel(name, shared), grid.x, grid.y, grid.z, block, 1, 1, (unsigned)shared, stream, list, nullptr), name);
}
#endif

// An array on the device between guards, with a copy on the host.
template <class T>
struct Array {
  static constexpr size_t kGuard = 256;
  std::vector<T> h;
  void* raw = nullptr;
  T* d = nullptr;
  Array() {}
  explicit Array(size_t n) : h(n) {
    raw = device_alloc(n * sizeof(T) + 2 * kGuard);
    d = (T*)((char*)raw + kGuard);
    std::vector<unsigned char> g(kGuard, 0xa5);
    to_device(raw, g.data(), kGuard);
    to_device((char*)d + n * sizeof(T), g.data(), kGuard);
    poison();
  }
  Array(Array&& o) : h(std::move(o.h)), raw(o.raw), d(o.d) { o.raw = nullptr; }
  Array& operator=(Array&& o) {
    std::swap(h, o.h), std::swap(raw, o.raw), std::swap(d, o.d);
    return *this;
  }
  ~Array() {
    if (raw) device_free(raw);
  }
  size_t size() const { return h.size(); }
  void poison() {
    if (!h.empty()) memset((void*)h.data(), 0xff, h.size() * sizeof(T)); // NaN
    up();
  }
  void up() { to_device(d, h.data(), h.size() * sizeof(T)); }
  std::vector<T>& down() {
    to_host(h.data(), d, h.size() * sizeof(T));
    return h;
  }
  bool guards() {
    unsigned char g[2 * kGuard];
    to_host(g, raw, kGuard);
    to_host(g + kGuard, (char*)d + h.size() * sizeof(T), kGuard);
    for (unsigned char c : g)
      if (c != 0xa5) return false;
    return true;
  }
};

inline std::mt19937_64 rng(std::random_device{}());

inline void normal(std::vector<float>& v, float scale = 1) {
  std::normal_distribution<float> d;
  for (auto& x : v) x = scale * d(rng);
}
inline void normal(std::vector<bf16>& v, float scale = 1) {
  std::normal_distribution<float> d;
  for (auto& x : v) x = round_bf16(scale * d(rng));
}
inline double as_double(float x) { return x; }
inline double as_double(double x) { return x; }
inline double as_double(bf16 x) { return from_bf16(x); }

// ‖got − want‖ / ‖want‖; NaN when anything is not a number.
template <class T>
double distance(const std::vector<T>& got, const std::vector<double>& want) {
  double d = 0, n = 0;
  for (size_t i = 0; i < want.size(); i++) {
    double x = as_double(got[i]);
    d += (x - want[i]) * (x - want[i]), n += want[i] * want[i];
  }
  return n == 0 ? std::sqrt(d) : std::sqrt(d / n);
}
template <class T>
void near(const std::vector<T>& got, const std::vector<double>& want, double bound, const std::string& what) {
  double e = distance(got, want);
  check(e <= bound, what + ": relative error " + std::to_string(e) + ", want ≤ " + std::to_string(bound));
}
template <class T>
void same(const std::vector<T>& a, const std::vector<T>& b, const std::string& what) {
  check(a.size() == b.size() && (a.empty() || !memcmp(a.data(), b.data(), a.size() * sizeof(T))), what + ": two runs differ");
}

inline void parallel(int n, const std::function<void(int)>& f) {
  int workers = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (int w = 0; w < workers; w++)
    threads.emplace_back([=, &f] {
      for (int i = w; i < n; i += workers) f(i);
    });
  for (auto& t : threads) t.join();
}

inline unsigned ceil_div(size_t a, size_t b) { return (unsigned)((a + b - 1) / b); }

#ifndef EMULATED
// Median time of f in milliseconds by events, L2 flushed before each run.
inline double time_ms(const std::function<void()>& f, int reps = 25) {
  static CUdeviceptr junk = 0;
  constexpr size_t kJunk = 256 << 20;
  if (!junk) must(cuMemAlloc(&junk, kJunk), "alloc");
  CUevent a, b;
  cuEventCreate(&a, 0), cuEventCreate(&b, 0);
  std::vector<float> times;
  for (int i = 0; i < reps + 3; i++) {
    must(cuMemsetD8Async(junk, (unsigned char)i, kJunk, 0), "flush");
    cuEventRecord(a, 0);
    f();
    cuEventRecord(b, 0);
    must(cuEventSynchronize(b), "run");
    float ms;
    cuEventElapsedTime(&ms, a, b);
    if (i >= 3) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}
// One line of the table: the time, and what it would take at 3.0 TB/s and, if
// the work is arithmetic, its rate.
inline void row(const std::string& what, double ms, double bytes, double flops = 0) {
  double floor = bytes / 3.0e9;
  printf("%-64s %8.4f ms  %7.4f at 3 TB/s  %5.2fx", what.c_str(), ms, floor, ms / floor);
  if (flops > 0) printf("  %6.1f TFLOP/s", flops / ms / 1e9);
  printf("\n");
  fflush(stdout);
}
#endif
