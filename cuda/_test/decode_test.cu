// Tests and times decode.cu: every result must have the bits of the plain
// definition.
//
//	decode_test test|bench FILE.cubin…
#include "step_harness.h"

// kernel/exp.go and kernel/exact.go.
static float pow2(int n) {
  uint32_t u = (uint32_t)(n + 127) << 23;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static float exp32(float x) {
  if (x < -87) return 0;
  x = std::min(x, 89.f);
  volatile float t = x * 1.44269504088896341f; // volatile: each product is rounded
  float n = std::nearbyint(t);
  t = n * 0.693359375f;
  float r = x - t;
  t = n * -2.12194440e-4f;
  r -= t;
  float p = 1.9875691500e-4f;
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) t = p * r, p = t + c;
  t = p * r;
  t = t * r;
  float y = t + r + 1;
  int i = (int)n;
  return y * pow2(i >> 1) * pow2(i - (i >> 1));
}
static float fold16(float* s) {
  for (int w = 8; w; w /= 2)
    for (int i = 0; i < w; i++) s[i] += s[i + w];
  return s[0];
}
static float product(float a, float b) {
  volatile float t = a * b;
  return t;
}
static float quantize(std::vector<int8_t>& q, std::vector<int>& sums, const std::vector<float>& x, int parts) {
  float a = 0;
  for (float v : x) a = std::max(a, std::abs(v));
  q.assign(x.size(), 0), sums.assign(parts, 0);
  if (a < 4e-37f) return 0;
  const float inv = 127 / a;
  for (size_t i = 0; i < x.size(); i++) {
    q[i] = (int8_t)std::nearbyint(std::max(-127.f, std::min(127.f, product(x[i], inv))));
    sums[i / (x.size() / parts)] += q[i];
  }
  return a / 127;
}

static std::string join(const char* name, std::initializer_list<long long> dims) {
  std::string s = name;
  for (auto d : dims) s += " " + std::to_string(d);
  return s;
}

// What a linear layer reads: input 0 norm, with and without b, 1 plain, 2 SwiGLU.
struct Source {
  int input, d;
  bool both;
  Array<float> a, b, w, sum;
  std::vector<float> z, added;
  Source(int input, int d, bool both) : input(input), d(d), both(both), a(d), b(d), w(d), sum(d), z(d), added(d) {
    normal(a.h, input == 2 ? 4 : 1), normal(b.h), normal(w.h);
    if (input == 2 && d > 100) a.h[7] = -200, a.h[8] = 200;
    a.up(), b.up(), w.up();
    float s[16] = {};
    for (int i = 0; i < d; i++) {
      z[i] = a.h[i];
      if (input == 0 && both) z[i] += b.h[i];
      if (input == 2) z[i] = product(a.h[i] / (1 + exp32(-a.h[i])), b.h[i]);
      added[i] = z[i];
      s[i % 16] += product(z[i], z[i]);
    }
    if (input) return;
    const float r = 1 / std::sqrt(fold16(s) / (float)d + 1e-6f);
    for (int i = 0; i < d; i++) z[i] = product(product(z[i], r), w.h[i]);
  }
  const float* second() { return input == 2 || both ? b.d : nullptr; }
};

static void test_norm(int d) {
  for (bool both : {true, false}) {
    Source s(0, d, both);
    Array<int8_t> q(d);
    Array<float> scale(1);
    launch("decode_norm", {1}, 512, d * 4, q.d, scale.d, (const float*)s.a.d, s.second(), (const float*)s.w.d, d, 1e-6f);
    std::vector<int8_t> want;
    std::vector<int> sums;
    const float ws = quantize(want, sums, s.z, 1);
    check(q.down() == want && scale.down()[0] == ws && q.guards() && scale.guards(), join("decode norm", {d, both}));
  }
}

static Array<uint32_t> pack(const std::vector<int8_t>& w, int rows, int K) {
  const int words = (K + 15) / 16;
  Array<uint32_t> p((size_t)rows * words);
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < words; i++) {
      uint32_t u = 0;
      for (int c = 0; c < 16; c++) {
        uint32_t v = i * 16 + c < K ? w[(size_t)r * K + i * 16 + c] + 1 : 1;
        u |= v << (c % 4 * 8 + c / 4 * 2);
      }
      p.h[(size_t)r * words + i] = u;
    }
  p.up();
  return p;
}

// The outputs of parts of K from group·n on of the rounded z.
static std::vector<float> want_linear(const std::vector<float>& z, const std::vector<int8_t>& w, const std::vector<float>& gain, int N, int K, int n,
                                      uint64_t signs, int group = 0) {
  std::vector<int8_t> q;
  std::vector<int> sums;
  const float scale = quantize(q, sums, z, 1);
  std::vector<float> y((size_t)n * N);
  for (int i = 0; i < n; i++)
    for (int r = 0; r < N; r++) {
      int acc = 0;
      for (int j = 0; j < n; j++) {
        int s = 0;
        for (int c = 0; c < K; c++) s += (int)w[((size_t)(i ^ j) * N + r) * K + c] * q[(size_t)(group * n + j) * K + c];
        acc += signs >> (i * 8 + j) & 1 ? -s : s;
      }
      y[(size_t)i * N + r] = product((float)acc, product(scale, gain[r]));
    }
  return y;
}

static void test_linear(int K, int n, int N0, int N1, int N2, int input = 0, bool both = true) {
  const std::string name = join("decode linear", {K, n, N0, N1, N2, input, both});
  Source x(input, n * K, both);
  const uint64_t signs = rng();
  const int N[3] = {N0, N1, N2};
  std::vector<int8_t> w[3];
  Array<uint32_t> p[3];
  Array<float> gain[3], y[3];
  for (int l = 0; l < 3; l++) {
    w[l].resize((size_t)n * N[l] * K);
    for (auto& v : w[l]) v = (int8_t)(rng() % 3) - 1;
    p[l] = pack(w[l], n * N[l], K);
    gain[l] = Array<float>(N[l]), y[l] = Array<float>((size_t)n * N[l]);
    normal(gain[l].h);
    gain[l].up();
  }
  launch("decode_linear", {ceil_div(N0 + N1 + N2, 4)}, 128, (size_t)n * (4 * K + (K + 15) / 16 * 16) + 16, y[0].d, y[1].d, y[2].d, (const uint32_t*)p[0].d,
         (const uint32_t*)p[1].d, (const uint32_t*)p[2].d, (const float*)gain[0].d, (const float*)gain[1].d, (const float*)gain[2].d, N0, N1, N2, K, n, signs,
         input, (const float*)x.a.d, x.second(), (const float*)x.w.d, x.sum.d, 1e-6f);
  for (int l = 0; l < 3; l++) check(y[l].down() == want_linear(x.z, w[l], gain[l].h, N[l], K, n, signs) && y[l].guards(), name);
  check((input != 0 || x.sum.down() == x.added) && x.sum.guards(), name + " sum");
}

static void test_mixer(int K, int n, int N, int groups) {
  const std::string name = join("decode mixer", {K, n, N, groups});
  Source x(1, groups * n * K, false);
  const uint64_t signs = rng();
  const int padded = (K + 3) / 4 * 4;
  std::vector<int8_t> w((size_t)n * N * K);
  Array<int8_t> p((size_t)n * N * padded);
  std::fill(p.h.begin(), p.h.end(), (int8_t)0);
  for (size_t i = 0; i < w.size(); i++) p.h[i / K * padded + i % K] = w[i] = (int8_t)(rng() % 255 - 127);
  p.up();
  Array<float> gain(N), y((size_t)groups * n * N);
  normal(gain.h);
  gain.up();
  launch("decode_mixer", {ceil_div(N, 4), (unsigned)groups}, 128, (size_t)4 * groups * n * K + n * padded + 16, y.d, (const int8_t*)p.d,
         (const float*)gain.d, N, K, n, signs, (const float*)x.a.d);
  y.down();
  for (int g = 0; g < groups; g++) {
    auto want = want_linear(x.z, w, gain.h, N, K, n, signs, g);
    check(!memcmp(want.data(), &y.h[(size_t)g * n * N], want.size() * 4), name);
  }
  check(y.guards(), name + " guards");
}

// Decodes several tokens into a ring.
static void test_attend(int heads, int kv_heads, int hd, int ring, int block, int tokens, int check_from) {
  const std::string name = join("decode attend", {heads, kv_heads, hd, ring, block});
  Array<float> q((size_t)heads * hd), k((size_t)kv_heads * hd), v((size_t)kv_heads * hd), o((size_t)heads * hd), rot(hd);
  Array<float> keys((size_t)kv_heads * ring * hd), values((size_t)kv_heads * ring * hd);
  Array<int> state(2);
  const float scale = (float)(1 / std::sqrt((double)hd));
  std::vector<float> wk(keys.size()), wv(values.size());
  auto rotate = [&](const float* x, std::vector<float>& y) {
    y.resize(hd);
    for (int m = 0; m < hd / 2; m++) {
      const float c = rot.h[m], s = rot.h[hd / 2 + m];
      y[2 * m] = product(x[2 * m], c) - product(x[2 * m + 1], s), y[2 * m + 1] = product(x[2 * m + 1], c) + product(x[2 * m], s);
    }
  };
  for (int pos = 0; pos < tokens; pos++) {
    normal(q.h), normal(k.h), normal(v.h);
    for (int m = 0; m < hd / 2; m++) {
      const double a = pos * std::pow(10000.0, -2.0 * m / hd);
      rot.h[m] = (float)std::cos(a), rot.h[hd / 2 + m] = (float)std::sin(a);
    }
    state.h = {0, pos};
    q.up(), k.up(), v.up(), rot.up(), state.up(), o.poison();
    launch("decode_attend", {(unsigned)heads}, 256, 65536 + (size_t)(2 * hd + block) * 4, o.d, (const float*)q.d, (const float*)k.d, (const float*)v.d, keys.d,
           values.d, (const float*)rot.d, (const int*)state.d, heads, kv_heads, hd, ring, block, scale);
    std::vector<float> r, want(o.size());
    for (int g = 0; g < kv_heads; g++) {
      rotate(&k.h[g * hd], r);
      memcpy(&wk[((size_t)g * ring + pos % ring) * hd], r.data(), hd * 4), memcpy(&wv[((size_t)g * ring + pos % ring) * hd], &v.h[g * hd], hd * 4);
    }
    o.down();
    if (pos < check_from) continue;
    const int first = std::max(0, pos - block + 1), n = pos - first + 1;
    for (int h = 0; h < heads; h++) {
      const size_t g = (size_t)(h / (heads / kv_heads)) * ring;
      rotate(&q.h[h * hd], r);
      std::vector<float> p(n);
      float top = -INFINITY, s16[16] = {};
      for (int i = 0; i < n; i++) {
        float s[16] = {};
        for (int c = 0; c < hd; c++) s[c % 16] += product(r[c], wk[(g + (first + i) % ring) * hd + c]);
        p[i] = scale * fold16(s), top = std::max(top, p[i]);
      }
      for (int i = 0; i < n; i++) p[i] = exp32(p[i] - top), s16[i % 16] += p[i];
      const float inv = 1 / fold16(s16);
      for (int i = 0; i < n; i++)
        for (int c = 0; c < hd; c++) want[h * hd + c] += product(product(p[i], inv), wv[(g + (first + i) % ring) * hd + c]);
    }
    check(o.h == want, name + join(" at", {pos}));
  }
  check(keys.guards() && values.guards() && o.guards(), name + " guards");
  check(keys.down() == wk || tokens < ring, name + " keys");
}

static void test_logits(int vocab, int d) {
  Array<int8_t> table((size_t)vocab * d), q(d);
  Array<float> scales(vocab), scale(1), y(vocab), h(d);
  Array<int> state(2);
  for (auto& v : table.h) v = (int8_t)(rng() % 255 - 127);
  for (auto& v : q.h) v = (int8_t)(rng() % 255 - 127);
  normal(scales.h);
  scale.h[0] = 0.017f, state.h = {vocab - 1, 0};
  table.up(), q.up(), scales.up(), scale.up(), state.up();
  launch("decode_logits", {ceil_div(vocab, 32)}, 256, 0, y.d, (const int8_t*)table.d, (const float*)scales.d, (const int8_t*)q.d, (const float*)scale.d,
         vocab, d);
  launch("decode_embed", {ceil_div(d, 256)}, 256, 0, h.d, (const int8_t*)table.d, (const float*)scales.d, (const int*)state.d, d);
  std::vector<float> want(vocab), wh(d);
  for (int r = 0; r < vocab; r++) {
    int acc = 0;
    for (int c = 0; c < d; c++) acc += (int)table.h[(size_t)r * d + c] * q.h[c];
    want[r] = product((float)acc, product(scale.h[0], scales.h[r]));
  }
  for (int c = 0; c < d; c++) wh[c] = product(scales.h[vocab - 1], (float)table.h[(size_t)(vocab - 1) * d + c]);
  check(y.down() == want && y.guards(), join("decode logits", {vocab, d}));
  check(h.down() == wh && h.guards(), join("decode embed", {vocab, d}));
}

#ifndef EMULATED
// A whole token of 8 layers of 512, 8 heads, hidden width 1408, with the head
// mixer, as one graph.
static void bench(int vocab, int block, int position) {
  constexpr int L = 8, D = 512, F = 1408, HD = 64, H = 8, N = 8;
  Array<float> h(D), h2(D), t(D), q(D), k(D), v(D), o(D), m(D), g(F), u(F), norm(D), gain(F), rot(HD), scale(1), y(vocab), scales(vocab);
  Array<int8_t> x(F), table((size_t)vocab * D), mixer(N * HD * HD);
  Array<int> state(2);
  std::vector<Array<uint32_t>> w;
  std::vector<Array<float>> keys, values;
  for (auto* a : {&h, &norm, &gain, &rot, &scales}) normal(a->h), a->up();
  for (auto& b : table.h) b = (int8_t)rng();
  for (auto& b : mixer.h) b = (int8_t)rng();
  state.h = {1, position};
  table.up(), mixer.up(), state.up();
  for (int l = 0; l < L; l++) {
    for (int n : {D * D, D * D, D * D, D * D, D * F, D * F, D * F}) {
      w.emplace_back(n / 8 / 16);
      for (auto& b : w.back().h) b = (uint32_t)rng() & 0x55555555u; // weights −1 and 0
      w.back().up();
    }
    for (auto* a : {&keys, &values}) a->emplace_back((size_t)H * block * HD), ::normal(a->back().h), a->back().up();
  }
  // Layers of one input, as decode_linear's comment says.
  auto linear = [&](std::vector<Array<uint32_t>*> p, std::vector<float*> y, int Nr, int K, int input, const float* a, const float* b, float* sum) {
    p.resize(3, p[0]), y.resize(3, y[0]);
    const int n1 = y[1] != y[0] ? Nr : 0, n2 = y[2] != y[0] ? Nr : 0;
    launch("decode_linear", {ceil_div(Nr + n1 + n2, 4)}, 128, (size_t)N * (4 * K + (K + 15) / 16 * 16) + 16, y[0], y[1], y[2],
           (const uint32_t*)p[0]->d, (const uint32_t*)p[1]->d, (const uint32_t*)p[2]->d, (const float*)gain.d, (const float*)gain.d,
           (const float*)gain.d, Nr, n1, n2, K, N, (uint64_t)0x8040201008040201u, input, a, b, (const float*)norm.d, sum, 1e-6f);
  };
  auto token = [&] {
    launch("decode_embed", {2}, 256, 0, h.d, (const int8_t*)table.d, (const float*)scales.d, (const int*)state.d, D);
    float *from = h.d, *to = h2.d;
    const float* b = nullptr;
    for (int l = 0; l < L; l++) {
      Array<uint32_t>* p = &w[l * 7];
      linear({p, p + 1, p + 2}, {q.d, k.d, v.d}, D / 8, D / 8, 0, from, b, to);
      std::swap(from, to);
      launch("decode_attend", {H}, 256, 65536 + (size_t)(2 * HD + block) * 4, o.d, (const float*)q.d, (const float*)k.d, (const float*)v.d, keys[l].d,
             values[l].d, (const float*)rot.d, (const int*)state.d, H, H, HD, block, block, 0.125f);
      launch("decode_mixer", {HD / 4, 1}, 128, (size_t)5 * D + 16, m.d, (const int8_t*)mixer.d, (const float*)gain.d, HD, HD, N, (uint64_t)5,
             (const float*)o.d);
      linear({p + 3}, {t.d}, D / 8, D / 8, 1, m.d, nullptr, nullptr);
      linear({p + 4, p + 5}, {g.d, u.d}, F / 8, D / 8, 0, from, t.d, to);
      std::swap(from, to);
      linear({p + 6}, {t.d}, D / 8, F / 8, 2, g.d, u.d, nullptr);
      b = t.d;
    }
    launch("decode_norm", {1}, 512, D * 4, x.d, scale.d, (const float*)from, b, (const float*)norm.d, D, 1e-6f);
    launch("decode_logits", {ceil_div(vocab, 32)}, 256, 0, y.d, (const int8_t*)table.d, (const float*)scales.d, (const int8_t*)x.d, (const float*)scale.d,
           vocab, D);
  };
  token(); // loads the kernels
  must(cuCtxSynchronize(), "token");
  CUgraph graph;
  CUgraphExec exec;
  must(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "stream");
  must(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED), "capture");
  token();
  must(cuStreamEndCapture(stream, &graph), "capture");
  must(cuGraphInstantiate(&exec, graph, 0), "graph");
  std::vector<float> times;
  CUevent a, b;
  cuEventCreate(&a, 0), cuEventCreate(&b, 0);
  for (int i = 0; i < 60; i++) {
    cuEventRecord(a, stream);
    must(cuGraphLaunch(exec, stream), "graph");
    cuEventRecord(b, stream);
    must(cuEventSynchronize(b), "graph");
    float ms;
    cuEventElapsedTime(&ms, a, b);
    if (i >= 10) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  const float ms = times[times.size() / 2];
  printf("token, 8 layers of 512, mixer, vocab %d, position %d: %.4f ms, %.0f tokens/s (warm L2, one graph)\n", vocab, position, ms, 1000 / ms);
  stream = nullptr;
}
#endif

int main(int n, char** args) {
  load_kernels(n - 2, args + 2);
#ifndef EMULATED
  if (n > 1 && !strcmp(args[1], "bench")) {
    for (int vocab : {65, 50304})
      for (int position : {10, 255, 1000}) bench(vocab, 1024, position);
    return 0;
  }
#endif
  for (int d : {7, 8, 64, 512, 1368, 2052}) test_norm(d);
  for (int n : {1, 2, 4, 8}) {
    test_linear(64, n, 64, 64, 64), test_linear(171, n, 9, 0, 0, 2), test_linear(22, n, 5, 6, 0, 0, false), test_linear(1, n, 1, 0, 3, 1);
    test_mixer(64, n, 64, 1), test_mixer(10, n, 10, 3);
  }
  test_linear(176, 8, 64, 0, 0, 2), test_linear(64, 8, 176, 176, 0), test_linear(512, 8, 33, 0, 0), test_linear(64, 8, 64, 0, 0, 1);
  test_attend(2, 2, 64, 16, 16, 40, 0), test_attend(4, 2, 10, 40, 33, 90, 0), test_attend(3, 1, 128, 300, 300, 310, 290), test_attend(1, 1, 256, 70, 65, 90, 20), test_attend(1, 1, 254, 70, 70, 75, 60);
  test_logits(65, 512), test_logits(301, 64), test_logits(33, 20), test_logits(70, 1280);
  printf("decode: %d checks, %d failed\n", checks, failures);
  return failures ? 1 : 0;
}
