// What the test programs share: memory between guards, launches, comparisons and
// timing. On a GPU launch finds kernels by name in the cubins or fatbins named on
// the command line, through the driver as the Go side does it; LAUNCH takes those
// of sources that the program includes. With EMULATED both run them on the CPU.
#pragma once
#ifdef EMULATED
#include "emulator.h"
#include <dlfcn.h>
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
  template <class A, class B = unsigned, class C = unsigned>
  Dim(A x, B y = 1, C z = 1) : x((unsigned)x), y((unsigned)y), z((unsigned)z) {}
};

#ifdef EMULATED
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
inline void launch_emulated(Dim grid, int block, size_t shared, const std::function<void()>& f) {
  emu::run({grid.x, grid.y, grid.z}, block, shared, together, f);
}
#define LAUNCH(kernel, grid, block, shared, ...) launch_emulated(grid, block, shared, [&] { kernel(__VA_ARGS__); })
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
inline CUstream stream; // of everything
inline bool load_kernels(int n, char** files) {
  CUdevice d;
  CUcontext c;
  must(cuInit(0), "cuInit");
  must(cuDeviceGet(&d, 0), "cuDeviceGet");
  must(cuDevicePrimaryCtxRetain(&c, d), "context");
  must(cuCtxSetCurrent(c), "context");
  must(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "stream");
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
inline void to_device(void* d, const void* h, size_t n) {
  must(cuStreamSynchronize(stream), "run");
  must(cuMemcpyHtoD((CUdeviceptr)d, h, n), "copy to device");
  must(cuStreamSynchronize(nullptr), "copy to device"); // it may return before the last of the copy
}
inline void to_host(void* h, const void* d, size_t n) {
  must(cuStreamSynchronize(stream), "run");
  must(cuMemcpyDtoH(h, (CUdeviceptr)d, n), "copy to host");
}
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
template <class... A>
void launch(const char* name, Dim grid, int block, size_t shared, A... args) {
  void* list[] = {(void*)&args...};
  must(cuLaunchKernel(kernel(name, shared), grid.x, grid.y, grid.z, block, 1, 1, (unsigned)shared, stream, list, nullptr), name);
}
#ifdef __CUDACC__
#define LAUNCH(kernel, grid, block, shared, ...)                                                                                   \
  do { /* its names are not those of arguments */                                                                                  \
    static int launch_most = 48 << 10;                                                                                             \
    const int launch_shared = (int)(shared);                                                                                       \
    const Dim launch_grid = grid;                                                                                                  \
    if (launch_shared > launch_most && !cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, launch_shared))   \
      launch_most = launch_shared;                                                                                                 \
    kernel<<<dim3(launch_grid.x, launch_grid.y, launch_grid.z), (block), launch_shared, stream>>>(__VA_ARGS__);                    \
    if (cudaError_t launch_error = cudaGetLastError()) printf("FAIL %s: %s\n", #kernel, cudaGetErrorString(launch_error)), exit(1); \
  } while (0)
#endif
#endif

// An array on the device between guards, with a copy on the host.
template <class T>
struct Array {
  static constexpr size_t kGuard = 256;
  std::vector<T> h;
  void* raw = nullptr;
  T* d = nullptr;
  Array() {}
  explicit Array(const std::vector<T>& v) : Array(v.size()) { put(v); }
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
    if (!raw) return;
    if (!guards()) check(false, "something was written beside an array of " + std::to_string(h.size()));
    device_free(raw);
  }
  size_t size() const { return h.size(); }
  void poison() {
    if (!h.empty()) memset((void*)h.data(), 0xff, h.size() * sizeof(T)); // NaN
    up();
  }
  void put(const std::vector<T>& v) {
    h = v;
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
inline std::vector<float> normal(size_t n, float scale = 1) {
  std::vector<float> v(n);
  normal(v, scale);
  return v;
}
inline std::vector<bf16> as_bf16(const std::vector<float>& v) {
  std::vector<bf16> r(v.size());
  for (size_t i = 0; i < v.size(); i++) r[i] = round_bf16(v[i]);
  return r;
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
// |got − want| ≤ rel·|want| + slack·mag, element by element; mag is Σ|terms|.
// NaN fails. A bf16 result may round by 2^-8 relative.
template <class T>
void compare(const std::string& what, const std::vector<T>& got, const std::vector<double>& want, const std::vector<double>& mag, double rel,
             double slack = 1e-6) {
  size_t bad = 0, at = 0;
  double num = 0, den = 0;
  for (size_t i = 0; i < want.size(); i++) {
    double g = as_double(got[i]), e = std::fabs(g - want[i]);
    if (!(e <= rel * std::fabs(want[i]) + slack * mag[i])) {
      if (!bad) at = i;
      bad++;
    }
    num += e * e, den += want[i] * want[i];
  }
  char text[200] = "";
  if (bad)
    snprintf(text, sizeof text, ": %zu of %zu wrong, first at %zu: got %g, want %g; relative error %.2g", bad, want.size(), at, as_double(got[at]),
             want[at], std::sqrt(num / (den + 1e-300)));
  check(bad == 0, what + text);
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
    must(cuMemsetD8Async(junk, (unsigned char)i, kJunk, stream), "flush");
    cuEventRecord(a, stream);
    f();
    cuEventRecord(b, stream);
    must(cuEventSynchronize(b), "run");
    float ms;
    cuEventElapsedTime(&ms, a, b);
    if (i >= 3) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}
// Milliseconds of f(i) in graphs of twelve rounds, so that launches cost nothing;
// f turns to other operands with i, more than the L2 cache holds. Median of
// eleven.
inline double time_rounds(const std::function<void(int)>& f) {
  CUevent a, b;
  cuEventCreate(&a, 0), cuEventCreate(&b, 0);
  for (int i = 0; i < 4; i++) f(i);
  CUgraph graph;
  CUgraphExec run;
  must(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), "capture");
  for (int i = 0; i < 12; i++) f(i);
  must(cuStreamEndCapture(stream, &graph), "capture");
  must(cuGraphInstantiate(&run, graph, 0), "graph");
  std::vector<float> times;
  for (int r = 0; r < 12; r++) {
    cuEventRecord(a, stream);
    must(cuGraphLaunch(run, stream), "graph");
    cuEventRecord(b, stream);
    must(cuEventSynchronize(b), "run");
    float ms;
    cuEventElapsedTime(&ms, a, b);
    if (r > 0) times.push_back(ms / 12);
  }
  cuGraphExecDestroy(run), cuGraphDestroy(graph);
  std::sort(times.begin(), times.end());
  return times[5];
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
