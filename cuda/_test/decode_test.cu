// Tests decode.cu and prefill.cu, and times decode.cu: every result must have the
// bits of the plain definition.
//
//	decode_test test|bench FILE.cubin…
#include "harness.h"
#include "../decode_types.cuh"
static constexpr unsigned BLOCKS = 16; // of the cluster

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
static float quantize(std::vector<int8_t>& q, const std::vector<float>& x) {
  float a = 0;
  for (float v : x) a = std::max(a, std::abs(v));
  q.assign(x.size(), 0);
  if (a < 4e-37f) return 0;
  const float inv = 127 / a;
  for (size_t i = 0; i < x.size(); i++) q[i] = (int8_t)std::nearbyint(std::max(-127.f, std::min(127.f, product(x[i], inv))));
  return a / 127;
}


// A linear layer or a mixer: the definition's weights [n][N][K] and the device's.
struct Weights {
  int n, N, K;
  std::vector<int8_t> w;
  Array<uint32_t> ternary;
  Array<int8_t> bytes;
  Array<float> gain;
  Weights() {}
  Weights(int n, int N, int K, bool mixer) : n(n), N(N), K(K), w((size_t)n * N * K), gain(N) {
    const int words = (K + 15) / 16;
    for (auto& v : w) v = mixer ? (int8_t)(rng() % 255 - 127) : (int8_t)(rng() % 3) - 1;
    normal(gain.h, mixer ? 0.001f : 0.1f), gain.up();
    if (mixer) bytes = Array<int8_t>((size_t)N * n * words * 16), std::fill(bytes.h.begin(), bytes.h.end(), (int8_t)0);
    else ternary = Array<uint32_t>((size_t)N * n * words), std::fill(ternary.h.begin(), ternary.h.end(), 0x55555555u);
    for (int k = 0; k < n; k++)
      for (int r = 0; r < N; r++)
        for (int c = 0; c < K; c++) {
          const int v = w[((size_t)k * N + r) * K + c];
          const size_t at = ((size_t)r * n + k) * words;
          if (mixer) bytes.h[at * 16 + c] = (int8_t)v;
          else ternary.h[at + c / 16] += (uint32_t)v << (c % 4 * 8 + c % 16 / 4 * 2); // 1 is there already
        }
    if (mixer) bytes.up();
    else ternary.up();
  }
  Linear device() const { return {ternary.d ? (const void*)ternary.d : (const void*)bytes.d, gain.d, N, K}; }
  // Of n parts of K of x; s[i][j] as in minus.
  std::vector<float> times(const std::vector<float>& x, const uint32_t* minus) const {
    std::vector<int8_t> q;
    const float scale = quantize(q, x);
    std::vector<float> y(x.size() / n / K * n * N);
    for (size_t i = 0; i < y.size(); i++) {
      const int g = (int)(i / N / n) * n, part = (int)(i / N) % n, r = (int)i % N;
      int acc = 0;
      for (int j = 0; j < n; j++) {
        int sum = 0;
        for (int c = 0; c < K; c++) sum += (int)w[((size_t)(part ^ j) * N + r) * K + c] * q[(size_t)(g + j) * K + c];
        acc += minus[part ^ j] >> j & 1 ? -sum : sum;
      }
      y[i] = product((float)acc, product(scale, gain.h[r]));
    }
    return y;
  }
};

static void zero(Array<float>& a) {
  std::fill(a.h.begin(), a.h.end(), 0.f);
  a.up();
}

struct Shape {
  int layers, d, hidden, heads, kv_heads, n, mixer_n, vocab, ring, block;
  bool rounded = false;            // an int8 cache
  int area[2] = {0, 0};            // of shared memory for keys and values; 0: the least
  std::string name() const {
    std::string s;
    for (int x : {layers, d, hidden, heads, kv_heads, n, mixer_n, vocab, ring, block}) s += " " + std::to_string(x);
    return s + (rounded ? " int8 cache" : "");
  }
};

// A model, its state on the device, and the definition of a token.
struct Model {
  Shape c;
  int hd;
  Decode m = {};
  std::vector<Weights> w; // eight a layer
  std::vector<Array<float>> norms, caches;
  Array<float> norm, scales, scale, y, again, tops;
  Array<int8_t> table, x;
  Array<Layer> layers;
  Array<int> state;
  std::vector<std::vector<float>> keys, values; // the definition's: a position after another
  explicit Model(Shape c) : c(c), hd(c.d / c.heads) {
    const int kv = c.kv_heads * hd, hd16 = (hd + 15) / 16 * 16;
    layers = Array<Layer>(c.layers);
    auto norm_weight = [&] {
      Array<float> a(c.d);
      for (auto& x : a.h) x = 1 + 0.1f * (float)(rng() % 1000 / 500.0 - 1);
      a.up();
      return a;
    };
    for (int l = 0; l < c.layers; l++) {
      Layer& p = layers.h[l];
      p = {};
      norms.push_back(norm_weight()), norms.push_back(norm_weight());
      p.attention_norm = norms[2 * l].d, p.ffn_norm = norms[2 * l + 1].d;
      const int out[7] = {c.d, kv, kv, c.d, c.hidden, c.hidden, c.d}, in[7] = {c.d, c.d, c.d, c.d, c.d, c.d, c.hidden};
      for (int i = 0; i < 7; i++) w.emplace_back(c.n, out[i] / c.n, in[i] / c.n, false), (&p.q)[i] = w.back().device();
      w.emplace_back(std::max(1, c.mixer_n), hd, hd, true);
      if (c.mixer_n) p.mixer = w.back().device();
      for (int k = 0; k < 16; k++) p.minus[k] = (uint32_t)rng();
      caches.emplace_back((size_t)c.kv_heads * hd16 * c.ring), zero(caches.back()), p.cache.keys = caches.back().d;
      caches.emplace_back((size_t)c.kv_heads * hd16 * c.ring), p.cache.values = caches.back().d;
      if (c.rounded)
        for (float** scale : {&p.cache.key_scale, &p.cache.value_scale}) caches.emplace_back((size_t)c.kv_heads * c.ring), *scale = caches.back().d;
    }
    layers.up();
    norm = norm_weight(), scales = Array<float>(c.vocab), table = Array<int8_t>((size_t)c.vocab * c.d);
    normal(scales.h, 0.01f), scales.up();
    for (auto& b : table.h) b = (int8_t)(rng() % 255 - 127);
    table.up();
    scale = Array<float>(1), x = Array<int8_t>(c.d), y = Array<float>(c.vocab), again = Array<float>(c.vocab), tops = Array<float>(ceil_div(c.vocab, 32));
    state = Array<int>(4 + hd);
    m.layers = layers.d, m.norm = norm.d, m.embedding = {table.d, nullptr, nullptr, scales.d, 8};
    m.x = x.d, m.scale = scale.d, m.state = state.d;
    for (int a = 0; a < 2; a++) m.area[a] = c.area[a] ? c.area[a] : 8 * 16 * hd16 / (c.rounded ? 16 : 4);
    for (auto& b : m.minus) b = (uint32_t)rng();
    m.n_layer = c.layers, m.d = c.d, m.hidden = c.hidden, m.mixer_n = c.mixer_n, m.eps = 1e-6f;
    m.heads = {c.heads, c.kv_heads, hd, c.ring, c.block, (float)(1 / std::sqrt((double)hd))};
    keys.resize(c.layers), values.resize(c.layers);
  }
  // As arrange in decode.cu.
  size_t shared() const {
    auto up = [](size_t n) { return (n + 15) / 16 * 16; };
    auto rows = [](int N) { return (N + (int)BLOCKS - 1) / (int)BLOCKS; };
    auto whole4 = [](int n) { return (n + 3) / 4 * 4; };
    auto padded = [](int parts, int K) { return (size_t)parts * ((K + 15) / 16 * 16); };
    auto chunk = [&](int n, int N) { return n * whole4(rows(N)); };
    const int hd64 = (hd + 63) / 64 * 64, pitch = (c.d + 63) / 64 * 4 + 4, splits = std::max(1, std::min((int)BLOCKS / c.heads, hd));
    const int d = chunk(c.n, c.d / c.n), act = chunk(c.n, c.hidden / c.n), qkv = d + 2 * chunk(c.n, c.kv_heads * hd / c.n);
    const int o = rows(c.heads * splits) * whole4((hd + splits - 1) / splits), mixed = c.mixer_n ? chunk(c.mixer_n, c.heads / c.mixer_n * hd) : 0;
    return 1152 + up(2 * sizeof(Layer)) + 256 + up(4 * c.d) + up(4 * std::max(c.d, c.hidden)) + padded(c.n, c.d / c.n) + padded(c.n, c.hidden / c.n) +
           padded(c.heads, hd) + 64 * pitch + 3 * up(4 * hd) + 4 * hd64 + 3 * hd64 + up(4 * c.block + 16) + up(6 * hd) +
           64 * (qkv + o + mixed + 2 * d + act) + up(4 * std::max({qkv, o, mixed, act})) + 3 * up(2 * c.d) + up(2 * c.hidden) + m.area[0] + m.area[1];
  }
  void put(int id, int pos) {
    state.h[0] = id, state.h[1] = pos;
    for (int i = 0; i < hd / 2; i++) {
      const double a = pos * std::pow(10000.0, -2.0 * i / hd);
      const float co = (float)std::cos(a), si = (float)std::sin(a);
      memcpy(&state.h[4 + i], &co, 4), memcpy(&state.h[4 + hd / 2 + i], &si, 4);
    }
    state.up();
  }
  void layer_launch() {
#ifdef EMULATED
    together = true;
#endif
    launch("decode_layers_8", {BLOCKS}, 512, shared(), m);
#ifdef EMULATED
    together = false;
#endif
  }
  void run() {
    layer_launch();
    launch("decode_logits", {ceil_div(c.vocab, 32)}, 256, 0, y.d, again.d, tops.d, m.embedding, (const int8_t*)x.d, (const float*)scale.d, c.vocab, c.d, c.d);
  }
  std::vector<float> normed(const std::vector<float>& h, const Array<float>& w) const {
    float s[16] = {};
    for (int i = 0; i < c.d; i++) s[i % 16] += product(h[i], h[i]);
    const float r = 1 / std::sqrt(fold16(s) / (float)c.d + m.eps);
    std::vector<float> z(c.d);
    for (int i = 0; i < c.d; i++) z[i] = product(product(h[i], r), w.h[i]);
    return z;
  }
  void rotate(std::vector<float>& x) const {
    for (size_t at = 0; at < x.size(); at += hd)
      for (int i = 0; i < hd / 2; i++) {
        float co, si;
        memcpy(&co, &state.h[4 + i], 4), memcpy(&si, &state.h[4 + hd / 2 + i], 4);
        const float a = x[at + 2 * i], b = x[at + 2 * i + 1];
        x[at + 2 * i] = product(a, co) - product(b, si), x[at + 2 * i + 1] = product(b, co) + product(a, si);
      }
  }
  // The logits of the token put last, at pos.
  std::vector<float> want() {
    const int id = state.h[0], pos = state.h[1], kv = c.kv_heads * hd;
    std::vector<float> h(c.d);
    for (int i = 0; i < c.d; i++) h[i] = product(scales.h[id], (float)table.h[(size_t)id * c.d + i]);
    auto add_to_h = [&](const std::vector<float>& t) {
      for (int i = 0; i < c.d; i++) h[i] += t[i];
    };
    for (int l = 0; l < c.layers; l++) {
      const Weights* p = &w[8 * l];
      const uint32_t* minus = layers.h[l].minus;
      std::vector<float> z = normed(h, norms[2 * l]), q = p[0].times(z, minus), k = p[1].times(z, minus), v = p[2].times(z, minus), o(c.d);
      rotate(q), rotate(k);
      // An int8 cache holds the integers, with scales behind each position's heads.
      if (c.rounded)
        for (auto* x : {&k, &v}) {
          std::vector<float> scales;
          for (int g = 0; g < c.kv_heads; g++) {
            std::vector<int8_t> q8;
            scales.push_back(quantize(q8, std::vector<float>(x->begin() + g * hd, x->begin() + (g + 1) * hd)));
            std::copy(q8.begin(), q8.end(), x->begin() + g * hd);
          }
          x->insert(x->end(), scales.begin(), scales.end());
        }
      const int row = (int)k.size();
      keys[l].resize((size_t)(pos + 1) * row), values[l].resize((size_t)(pos + 1) * row);
      std::copy(k.begin(), k.end(), keys[l].end() - row), std::copy(v.begin(), v.end(), values[l].end() - row);
      const int first = std::max(0, pos - c.block + 1), n = pos - first + 1;
      for (int head = 0; head < c.heads; head++) {
        const int g = head / (c.heads / c.kv_heads);
        const float *ks = &keys[l][(size_t)first * row], *vs = &values[l][(size_t)first * row];
        std::vector<float> qh(q.begin() + head * hd, q.begin() + (head + 1) * hd);
        std::vector<int8_t> q8;
        const float factor = product(quantize(q8, qh), m.heads.scale);
        std::vector<float> a(n);
        float top = -INFINITY, s16[16] = {};
        for (int i = 0; i < n; i++) {
          float s[16] = {};
          int dot = 0;
          for (int e = 0; e < hd; e++) {
            const float k = ks[(size_t)i * row + g * hd + e];
            if (c.rounded) dot += q8[e] * (int)k;
            else s[e % 16] += product(qh[e], k);
          }
          a[i] = c.rounded ? product((float)dot, product(factor, ks[(size_t)i * row + kv + g])) : m.heads.scale * fold16(s), top = std::max(top, a[i]);
        }
        for (int i = 0; i < n; i++) a[i] = exp32(a[i] - top), s16[i % 16] += a[i];
        const float inv = 1 / fold16(s16);
        for (int i = 0; i < n; i++) {
          const float p = c.rounded ? product(product(a[i], inv), vs[(size_t)i * row + kv + g]) : product(a[i], inv);
          for (int e = 0; e < hd; e++) o[head * hd + e] += product(p, vs[(size_t)i * row + g * hd + e]);
        }
      }
      if (c.mixer_n) o = p[7].times(o, m.minus);
      add_to_h(p[3].times(o, minus));
      z = normed(h, norms[2 * l + 1]);
      std::vector<float> g = p[4].times(z, minus), u = p[5].times(z, minus);
      for (int i = 0; i < c.hidden; i++) g[i] = product(g[i] / (1 + exp32(-g[i])), u[i]);
      add_to_h(p[6].times(g, minus));
    }
    std::vector<int8_t> xq;
    const float s = quantize(xq, normed(h, norm));
    std::vector<float> logits(c.vocab);
    for (int r = 0; r < c.vocab; r++) {
      int acc = 0;
      for (int i = 0; i < c.d; i++) acc += (int)table.h[(size_t)r * c.d + i] * xq[i];
      logits[r] = product((float)acc, product(s, scales.h[r]));
    }
    return logits;
  }
};

// The summary of the first n logits: kernel.MaxOf and kernel.ExactExpScaled.
static void test_weigh(Model& m, int n, const std::string& name) {
  const unsigned blocks = ceil_div(m.c.vocab, 64);
  Array<float> maxima(blocks), sums(blocks);
  const float inv = n % 2 ? 1 / 0.8f : 3.f;
  m.state.h[2] = n, memcpy(&m.state.h[3], &inv, 4), m.state.up();
  launch("decode_weigh", {ceil_div(blocks, 32)}, 256, 0, maxima.d, sums.d, (const float*)m.again.d, (const float*)m.tops.d, (const int*)m.state.d);
  maxima.down(), sums.down();
  const std::vector<float>& y = m.again.h;
  const float top = n ? *std::max_element(y.begin(), y.begin() + n) : 0;
  for (int b = 0; b < (int)blocks; b++) {
    float s[16] = {}, most = -INFINITY;
    for (int i = 64 * b; i < std::min(n, 64 * b + 64); i++) s[i % 16] += exp32(product(y[i] - top, inv)), most = std::max(most, y[i]);
    const bool made = 64 * b < n;
    check(made ? maxima.h[b] == most && sums.h[b] == fold16(s) : maxima.h[b] != maxima.h[b], name + " summary of " + std::to_string(n));
  }
}

static void test_tokens(Shape c, int tokens) {
  Model m(c);
  const std::string name = "decode" + c.name();
  for (int pos = 0; pos < tokens; pos++) {
    m.put((int)(rng() % c.vocab), pos);
    m.y.poison(), m.x.poison();
    m.run();
    const std::vector<float> want = m.want();
    check(m.y.down() == want && m.again.down() == want, name + " at " + std::to_string(pos));
    for (int n : {c.vocab, 1 + (int)(rng() % c.vocab), 0}) test_weigh(m, n, name);
  }
  bool guards = m.y.guards() && m.x.guards();
  for (auto& a : m.caches) guards &= a.guards();
  check(guards, name + " guards");
}

// Logits of float numerics, of a table in int8.
static void test_logits_float(int vocab, int d) {
  Array<int8_t> table((size_t)vocab * d);
  Array<float> scales(vocab), x(d), y(vocab);
  for (auto& b : table.h) b = (int8_t)(rng() % 256);
  normal(scales.h), normal(x.h), table.up(), scales.up(), x.up();
  const Table t = {table.d, nullptr, nullptr, scales.d, 8};
  launch("decode_logits_float", {ceil_div(vocab, 32)}, 256, 0, y.d, (float*)nullptr, (float*)nullptr, t, (const float*)x.d, (const float*)nullptr, vocab, d, d);
  std::vector<double> want(vocab);
  for (int r = 0; r < vocab; r++) {
    for (int i = 0; i < d; i++) want[r] += (double)table.h[(size_t)r * d + i] * x.h[i];
    want[r] *= scales.h[r];
  }
  near(y.down(), want, 1e-5, "logits in float " + std::to_string(vocab) + " " + std::to_string(d));
}

// Reads a text in pieces of several tokens with prefill.cu and compares every
// token's logits.
static void test_rows(Shape c, std::vector<int> pieces) {
  Model m(c);
  const std::string name = "prefill" + c.name();
  int pos = 0;
  for (int rows : pieces) {
    const int hd = m.hd, kv = c.kv_heads * hd, d = c.d, F = c.hidden, padded = std::max(d, F) + 16 * std::max(16, c.heads);
    Array<float> h((size_t)rows * d), q((size_t)rows * d), k((size_t)rows * kv), v((size_t)rows * kv), o((size_t)rows * d), mixed((size_t)rows * d),
        g((size_t)rows * F), u((size_t)rows * F), t((size_t)rows * d), scale(rows), y((size_t)rows * c.vocab), rot((size_t)rows * hd);
    Array<int8_t> x((size_t)rows * padded);
    Array<int> ids(rows);
    Array<uint32_t> minus(16);
    std::copy(m.m.minus, m.m.minus + 16, minus.h.begin()), minus.up();
    std::vector<std::vector<float>> want;
    for (int i = 0; i < rows; i++) {
      m.put(ids.h[i] = (int)(rng() % c.vocab), pos + i);
      memcpy(&rot.h[(size_t)i * hd], &m.state.h[4], hd * 4);
      want.push_back(m.want());
    }
    m.put(0, pos), ids.up(), rot.up();
    auto input = [&](int kind, float* a, const float* b, const float* w, int width, int K) {
      launch("prefill_input", {(unsigned)rows}, 256, (width + 3) / 4 * 16 + 64 * ((width + 63) / 64 * 4 + 4), x.d, scale.d, kind, a, b, w, width, K, 1e-6f, 0);
    };
    auto linear = [&](float* y, const Linear& l, int n, const uint32_t* minus, bool mixer) {
      const int groups = mixer ? c.heads / n : 1;
      launch(("prefill_linear_" + std::to_string(n) + (mixer ? "_bytes" : "")).c_str(), {ceil_div(l.N, 8), ceil_div(rows * groups, 16)}, 256, 0, y, l,
             (const int8_t*)x.d, (const float*)scale.d, minus, rows * groups, groups);
    };
    launch("prefill_embed", {ceil_div(d, 256), (unsigned)rows}, 256, 0, h.d, m.m.embedding, (const int*)ids.d, d);
    for (int l = 0; l < c.layers; l++) {
      const Layer& p = m.layers.h[l];
      const uint32_t* signs = m.layers.d[l].minus;
      input(1, h.d, l ? t.d : nullptr, p.attention_norm, d, d / c.n);
      linear(q.d, p.q, c.n, signs, false), linear(k.d, p.k, c.n, signs, false), linear(v.d, p.v, c.n, signs, false);
      launch("prefill_store", {(unsigned)c.heads, (unsigned)rows}, 32, 4 * hd, q.d, (const float*)k.d, (const float*)v.d, (const float*)rot.d,
             (const int*)m.state.d, p.cache, m.m.heads);
      launch("prefill_attend", {(unsigned)c.heads, (unsigned)rows}, 512, 256 + 32768 + 32 * ((hd + 15) / 16 * 16) + 8 * ((hd + 63) / 64 * 64) + 4 * c.block + 16, o.d,
             (const float*)q.d, (const int*)m.state.d, p.cache, m.m.heads);
      float* from = o.d;
      if (c.mixer_n) input(0, o.d, nullptr, nullptr, d, hd), linear(from = mixed.d, p.mixer, c.mixer_n, minus.d, true);
      input(0, from, nullptr, nullptr, d, d / c.n), linear(t.d, p.o, c.n, signs, false);
      input(1, h.d, t.d, p.ffn_norm, d, d / c.n), linear(g.d, p.gate, c.n, signs, false), linear(u.d, p.up, c.n, signs, false);
      input(2, g.d, u.d, nullptr, F, F / c.n), linear(t.d, p.down, c.n, signs, false);
    }
    input(1, h.d, t.d, m.norm.d, d, d);
    launch("decode_logits", {ceil_div(c.vocab, 32), (unsigned)rows}, 256, 0, y.d, (float*)nullptr, (float*)nullptr, m.m.embedding, (const int8_t*)x.d, (const float*)scale.d, c.vocab, d,
           (d + 15) / 16 * 16);
    y.down();
    for (int i = 0; i < rows; i++)
      check(!memcmp(want[i].data(), &y.h[(size_t)i * c.vocab], c.vocab * 4), name + " at " + std::to_string(pos + i));
    check(h.guards() && q.guards() && k.guards() && v.guards() && o.guards() && mixed.guards() && g.guards() && u.guards() && t.guards() && x.guards() && y.guards(),
          name + " guards");
    pos += rows;
  }
}

#ifndef EMULATED
// A whole token of 8 layers of 512, 8 heads, hidden width 1408, with the head
// mixer, as one graph.
static void bench(int vocab, int block, int position, bool rounded) {
  Shape c = {8, 512, 1408, 8, 8, 8, 8, vocab, block, block, rounded, {132096, 53248}};
  if (rounded) c.area[0] = 33024, c.area[1] = 32896;
  Model m(c);
  for (auto& a : m.caches) normal(a.h), a.up();
  m.put(1, position);
  m.run(); // loads the kernels
  must(cuCtxSynchronize(), "token");
  CUgraph graph;
  CUgraphExec exec;
  must(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "stream");
  for (int part = 0; part < 2; part++) {
    must(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED), "capture");
    if (part) m.layer_launch();
    else m.run();
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
    printf("%s, 8 layers of 512, mixer, vocab %d, position %d%s: %.4f ms, %.0f tokens/s (warm L2, one graph)\n", part ? "layers alone" : "token", vocab, position,
           rounded ? ", int8 cache" : "", ms, 1000 / ms);
  }
  stream = nullptr;
}
#endif

int main(int n, char** args) {
  load_kernels(n - 2, args + 2);
#ifndef EMULATED
  int clusters = 0; // none in code for GPUs before sm_90
  must(cuFuncGetAttribute(&clusters, CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH, kernel("decode_layers_8", 0)), "cluster");
  if (clusters) must(cuFuncSetAttribute(kernel("decode_layers_8", 0), CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1), "cluster");
  if (n > 1 && !strcmp(args[1], "bench")) {
    if (!clusters) return 0;
    for (int vocab : {65, 50304})
      for (int position : {10, 255, 1000})
        for (bool rounded : {false, true}) bench(vocab, 1024, position, rounded);
    return 0;
  }
#else
  const bool clusters = true;
#endif
  if (clusters) {
    test_tokens({2, 64, 176, 8, 8, 8, 8, 65, 16, 16}, 5);
    test_tokens({1, 64, 48, 4, 2, 8, 0, 4165, 16, 16, true}, 20);
    test_tokens({1, 96, 48, 6, 3, 8, 0, 33, 8, 7}, 12);
    test_tokens({1, 32, 48, 16, 8, 8, 8, 33, 8, 7}, 3);
    test_tokens({1, 80, 48, 20, 20, 8, 0, 33, 40, 30}, 12); // more heads than blocks
    test_tokens({2, 64, 48, 4, 4, 8, 0, 33, 40, 30, false, {1024, 4096}}, 12);
#ifndef EMULATED
    test_tokens({2, 512, 1408, 8, 8, 8, 8, 300, 40, 33}, 90);
    test_tokens({1, 512, 1408, 8, 8, 8, 8, 300, 450, 400, false, {40960, 16384}}, 430);
    test_tokens({1, 512, 1408, 8, 8, 8, 8, 300, 450, 400, true, {16384, 16384}}, 430);
    test_tokens({1, 1280, 3456, 20, 20, 8, 0, 300, 400, 400}, 410);
#endif
  }
  for (int d : {64, 72, 1280}) test_logits_float(101, d);
  test_rows({2, 64, 176, 8, 8, 8, 8, 65, 23, 16}, {5, 1, 8, 7});
  test_rows({1, 96, 48, 6, 3, 2, 0, 33, 11, 7, true}, {3, 5, 4});
  test_rows({1, 32, 48, 8, 8, 16, 4, 33, 11, 7}, {2, 5, 4});
  test_rows({1, 36, 20, 2, 1, 1, 1, 33, 11, 7}, {2, 4}), test_rows({1, 40, 20, 2, 1, 4, 2, 33, 11, 7}, {2, 4});
  printf("decode: %d checks, %d failed\n", checks, failures);
  return failures ? 1 : 0;
}
