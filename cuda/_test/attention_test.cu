// Tests and times attention.cu and, where its kernels are given, attention90.cu.
//
//	attention_test test|bench FILE.cubin…
#include "harness.h"

struct Case {
  int batch, T, heads, kv_heads, hd;
  double dropout;
  bool fused;  // q, k and v in one array [tokens, (heads + 2·kv_heads)·hd]
  bool rotate; // the forward rotates q; else rope does
  bool hopper = false; // attention90.cu
  std::string name() const {
    char s[160];
    snprintf(s, sizeof s, "attention %d×%d, %d/%d heads of %d, dropout %.1f%s%s%s", batch, T, heads, kv_heads, hd, dropout, fused ? ", fused" : "",
             rotate ? ", rotating" : "", hopper ? ", sm_90a" : "");
    return s;
  }
};

static const uint64_t kSeed = 0x123456789abcdefull, kStep = 0x300000007ull;
static const uint32_t kLayer = 5;

static uint32_t draw(uint64_t i) {
  uint64_t b = i / 4;
  uint32_t c[4] = {(uint32_t)b, (uint32_t)(b >> 32) ^ (uint32_t)(kStep >> 32), (uint32_t)kStep, kLayer << 16 ^ 1};
  uint32_t k0 = (uint32_t)kSeed, k1 = (uint32_t)(kSeed >> 32);
  for (int r = 0; r < 10; r++) {
    uint64_t p0 = (uint64_t)c[0] * 0xD2511F53u, p1 = (uint64_t)c[2] * 0xCD9E8D57u;
    uint32_t n[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ k1, (uint32_t)p0};
    memcpy(c, n, sizeof c);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return c[i % 4];
}

// A case's arrays, and its launches as the comments in attention.cu say.
struct Run {
  Case c;
  int q_row, k_row, W, BMq, BK;
  size_t tokens, words, nq, nk;
  uint32_t threshold;
  float keep;
  Array<bf16> q, k, v, o, dout, dq, dk, dv;
  Array<float> lse, delta, cos, sin;
  Array<uint32_t> mask;
  Array<uint64_t> step;
  bf16 *pq, *pk, *pv, *pdq, *pdk, *pdv;

  explicit Run(const Case& c) : c(c) {
    tokens = (size_t)c.batch * c.T;
    nq = tokens * c.heads * c.hd, nk = tokens * c.kv_heads * c.hd;
    q_row = c.heads * c.hd, k_row = c.kv_heads * c.hd;
    W = c.hd <= 32 ? 32 : c.hd <= 64 ? 64 : c.hd <= 96 ? 96 : 128;
    BMq = W == 128 || c.hopper ? 64 : 128, BK = W >= 96 || c.hopper ? 64 : 128;
    words = (c.T + 31) / 32;
    threshold = (uint32_t)std::min(c.dropout * 4294967296.0, 4294967295.0);
    keep = (float)(1 / (1 - c.dropout));
    if (c.fused) {
      q_row = k_row = (c.heads + 2 * c.kv_heads) * c.hd;
      q = Array<bf16>(nq + 2 * nk), dq = Array<bf16>(nq + 2 * nk);
      pq = q.d, pk = pq + c.heads * c.hd, pv = pk + c.kv_heads * c.hd;
      pdq = dq.d, pdk = pdq + c.heads * c.hd, pdv = pdk + c.kv_heads * c.hd;
    } else {
      q = Array<bf16>(nq), k = Array<bf16>(nk), v = Array<bf16>(nk), dq = Array<bf16>(nq), dk = Array<bf16>(nk), dv = Array<bf16>(nk);
      pq = q.d, pk = k.d, pv = v.d, pdq = dq.d, pdk = dk.d, pdv = dv.d;
    }
    o = Array<bf16>(nq), dout = Array<bf16>(nq);
    lse = Array<float>(tokens * c.heads), delta = Array<float>(tokens * c.heads);
    cos = Array<float>((size_t)c.T * c.hd / 2), sin = Array<float>((size_t)c.T * c.hd / 2);
    mask = Array<uint32_t>(c.dropout > 0 ? tokens * c.heads * words : 1), step = Array<uint64_t>(1);
    for (int p = 0; p < c.T; p++)
      for (int m = 0; m < c.hd / 2; m++) {
        double a = p * std::pow(10000.0, -2.0 * m / c.hd);
        cos.h[(size_t)p * c.hd / 2 + m] = (float)std::cos(a), sin.h[(size_t)p * c.hd / 2 + m] = (float)std::sin(a);
      }
    step.h[0] = kStep;
    cos.up(), sin.up(), step.up();
    normal(q.h), normal(k.h), normal(v.h), normal(dout.h);
    q.up(), k.up(), v.up(), dout.up();
  }
  const uint32_t* bits() { return c.dropout > 0 ? mask.d : nullptr; }
  float factor() { return c.dropout > 0 ? keep : 1; }
  std::string kernel(const char* name) {
    return std::string(c.hopper ? "attention90_" : "attention_") + name + "_" + std::to_string(W);
  }
  void draw_mask() {
    if (c.dropout > 0)
      launch("attention_mask", {ceil_div(words, 8), (unsigned)words, (unsigned)(c.batch * c.heads)}, 256, 0, mask.d, (const uint64_t*)step.d, kSeed,
             kLayer, threshold, c.T);
  }
  void rope() {
    int heads = c.rotate ? 0 : c.heads;
    bool wide = c.hd % 8 == 0 && q_row % 8 == 0 && k_row % 8 == 0;
    launch("rope", {ceil_div(tokens * (heads + c.kv_heads) * (wide ? c.hd / 8 : c.hd / 2), 256)}, 256, 0, pq, pk, (const float*)cos.d,
           (const float*)sin.d, (int)tokens, c.T, heads, c.kv_heads, c.hd, q_row, c.hd, k_row, c.hd);
  }
  void forward() {
    int BN = W == 128 ? 32 : 64;
    launch(kernel("forward").c_str(), {ceil_div(c.T, c.hopper ? 64 : 128), (unsigned)c.heads, (unsigned)c.batch}, 128,
           c.hopper ? (W <= 64 ? 41 : 81) * 1024 : (size_t)(128 + 4 * BN) * (W + 8) * 2, o.d,
           lse.d, pq, (const bf16*)pk, (const bf16*)pv, c.rotate ? (const float*)cos.d : nullptr, (const float*)sin.d, bits(), factor(), c.T,
           c.heads, c.kv_heads, c.hd, q_row, c.hd, k_row, c.hd);
  }
  void backward_q() {
    launch(kernel("dq").c_str(), {ceil_div(c.T, BMq), (unsigned)c.heads, (unsigned)c.batch}, 128,
           c.hopper ? (W <= 64 ? 49 : 97) * 1024 : (size_t)(2 * BMq + 128) * (W + 8) * 2, pdq,
           delta.d, (const bf16*)dout.d, (const bf16*)o.d, (const float*)lse.d, (const bf16*)pq, (const bf16*)pk, (const bf16*)pv,
           (const float*)cos.d, (const float*)sin.d, bits(), factor(), c.T, c.heads, c.kv_heads, c.hd, q_row, c.hd, k_row, c.hd);
  }
  void backward_kv() {
    int BQ = W == 128 ? 32 : 64;
    launch(kernel("dkv").c_str(), {ceil_div(c.T, BK), (unsigned)c.kv_heads, (unsigned)c.batch}, 128,
           c.hopper ? (W <= 64 ? 51 : 67) * 1024 : (size_t)(2 * BK + 4 * BQ) * (W + 8) * 2 + 16 * BQ, pdk, pdv, (const bf16*)dout.d, (const float*)delta.d, (const float*)lse.d,
           (const bf16*)pq, (const bf16*)pk, (const bf16*)pv, (const float*)cos.d, (const float*)sin.d, bits(), factor(), c.T, c.heads,
           c.kv_heads, c.hd, q_row, c.hd, k_row, c.hd);
  }
  void all() {
    draw_mask(), rope(), forward(), backward_q(), backward_kv();
  }
  // The dense [tokens, heads·hd] parts of what the arrays hold.
  std::vector<bf16> part(const Array<bf16>& fused, const Array<bf16>& alone, int from, int width) {
    if (!c.fused) return alone.h;
    std::vector<bf16> p(tokens * width);
    for (size_t r = 0; r < tokens; r++) memcpy(&p[r * width], &fused.h[r * q_row + from], width * 2);
    return p;
  }
};

static std::vector<double> doubles(const std::vector<bf16>& v) {
  std::vector<double> d(v.size());
  for (size_t i = 0; i < v.size(); i++) d[i] = from_bf16(v[i]);
  return d;
}

// Rotates rows of heads·hd by their positions, or back.
static void rotate(std::vector<double>& x, const Run& r, int heads, bool back) {
  int half = r.c.hd / 2;
  for (size_t i = 0; i < x.size() / 2; i++) {
    size_t row = i / (heads * half), m = i % half, at = row % r.c.T * half + m;
    double cs = r.cos.h[at], sn = back ? -r.sin.h[at] : r.sin.h[at], a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cs - b * sn, x[2 * i + 1] = b * cs + a * sn;
  }
}

static void test(const Case& c) {
  Run r(c);
  const std::string name = c.name();
  const int hd = c.hd, QW = c.heads * hd, KW = c.kv_heads * hd, group = c.heads / c.kv_heads;
  // A second run's inputs: q and k are rotated in place.
  const std::vector<bf16> q0 = r.q.h, k0 = r.k.h;
  auto pq = r.part(r.q, r.q, 0, QW), pk = r.part(r.q, r.k, QW, KW), pv = r.part(r.q, r.v, QW + KW, KW);
  r.all();
  std::vector<bf16> qh = r.q.down(), kh = r.k.size() ? r.k.down() : std::vector<bf16>();
  std::vector<bf16> o = r.o.down(), dqa = r.dq.down(), dka, dva;
  if (!c.fused) dka = r.dk.down(), dva = r.dv.down();
  std::vector<float> lse = r.lse.down();

  // The rotation, to the rounding of bf16; then the reference starts from the
  // device's rotated values.
  auto want_q = doubles(pq), want_k = doubles(pk);
  rotate(want_q, r, c.heads, false), rotate(want_k, r, c.kv_heads, false);
  auto rq = r.part(r.q, r.q, 0, QW), rk = r.part(r.q, r.k, QW, KW);
  near(rq, want_q, 3e-3, name + " rotated q"), near(rk, want_k, 3e-3, name + " rotated k");

  auto q = doubles(rq), k = doubles(rk), v = doubles(pv), dO = doubles(r.dout.h);
  std::vector<double> wo(q.size()), wl(lse.size()), wdq(q.size()), wdk(k.size()), wdv(k.size());
  const double scale = 1 / std::sqrt((double)hd);
  parallel(c.batch * c.kv_heads, [&](int item) {
    const int b = item / c.kv_heads, kvh = item % c.kv_heads;
    std::vector<double> p(c.T);
    for (int h = kvh * group; h < (kvh + 1) * group; h++)
      for (int i = 0; i < c.T; i++) {
        const size_t row = (size_t)b * c.T + i, qi = row * QW + h * hd, bh = (size_t)b * c.heads + h;
        double top = -INFINITY, sum = 0, delta = 0;
        for (int j = 0; j <= i; j++) {
          const size_t kj = ((size_t)b * c.T + j) * KW + kvh * hd;
          double s = 0;
          for (int e = 0; e < hd; e++) s += q[qi + e] * k[kj + e];
          p[j] = s * scale, top = std::max(top, p[j]);
        }
        for (int j = 0; j <= i; j++) sum += p[j] = std::exp(p[j] - top);
        wl[bh * c.T + i] = top + std::log(sum);
        auto f = [&](int j) { return c.dropout == 0 ? 1.0 : draw((bh * c.T + i) * c.T + j) < r.threshold ? 0.0 : 1 / (1 - c.dropout); };
        for (int j = 0; j <= i; j++) {
          p[j] /= sum;
          const size_t kj = ((size_t)b * c.T + j) * KW + kvh * hd;
          const double w = p[j] * f(j);
          for (int e = 0; e < hd; e++) wo[qi + e] += w * v[kj + e], wdv[kj + e] += w * dO[qi + e];
        }
        for (int e = 0; e < hd; e++) delta += dO[qi + e] * wo[qi + e];
        for (int j = 0; j <= i; j++) {
          const size_t kj = ((size_t)b * c.T + j) * KW + kvh * hd;
          double dp = 0;
          for (int e = 0; e < hd; e++) dp += dO[qi + e] * v[kj + e];
          const double ds = p[j] * (f(j) * dp - delta) * scale;
          for (int e = 0; e < hd; e++) wdq[qi + e] += ds * k[kj + e], wdk[kj + e] += ds * q[qi + e];
        }
      }
  });
  rotate(wdq, r, c.heads, true), rotate(wdk, r, c.kv_heads, true);
  near(o, wo, 6e-3, name + " o");
  near(lse, wl, 1e-4, name + " lse");
  near(r.part(r.dq, r.dq, 0, QW), wdq, 1.2e-2, name + " dq");
  near(r.part(r.dq, r.dk, QW, KW), wdk, 1.2e-2, name + " dk");
  near(r.part(r.dq, r.dv, QW + KW, KW), wdv, 8e-3, name + " dv");
  check(r.q.guards() && (c.fused || r.k.guards()) && r.o.guards() && r.dq.guards() && r.lse.guards() && r.delta.guards() && r.mask.guards(),
        name + " guards");
  if (!c.fused) check(r.dk.guards() && r.dv.guards(), name + " guards");

  r.q.h = q0, r.k.h = k0;
  r.q.up();
  if (!c.fused) r.k.up();
  r.o.poison(), r.dq.poison(), r.lse.poison(), r.delta.poison(), r.mask.poison();
  if (!c.fused) r.dk.poison(), r.dv.poison();
  r.all();
  same(r.o.down(), o, name + " o"), same(r.dq.down(), dqa, name + " dq"), same(r.lse.down(), lse, name + " lse");
  if (!c.fused) same(r.dk.down(), dka, name + " dk"), same(r.dv.down(), dva, name + " dv");
}

#ifndef EMULATED
static void bench(const Case& c) {
  Run r(c);
  r.all();
  const double q = 2.0 * r.nq, k = 2.0 * r.nk, pair = 2.0 * c.batch * c.heads * (double)c.T * c.T * c.hd / 2; // FLOP of one product
  const std::string n = c.name();
  if (c.dropout > 0) row(n + " mask", time_ms([&] { r.draw_mask(); }), 4.0 * r.mask.size() / 2);
  row(n + " rope", time_ms([&] { r.rope(); }), 2 * k + (c.rotate ? 0 : 2 * q));
  row(n + " forward", time_ms([&] { r.forward(); }), 2 * q + 2 * k, 2 * pair);
  row(n + " dq", time_ms([&] { r.backward_q(); }), 4 * q + 2 * k, 3 * pair);
  row(n + " dkv", time_ms([&] { r.backward_kv(); }), 2 * q + 4 * k, 4 * pair);
  double both = time_ms([&] { r.backward_q(), r.backward_kv(); });
  row(n + " backward", both, 5 * q + 4 * k, 5 * pair);
}
#endif

int main(int n, char** args) {
  const bool timing = n > 1 && !strcmp(args[1], "bench");
  load_kernels(n - 2, args + 2);
#ifndef EMULATED
  if (timing) {
    auto bench = [](Case c) {
      ::bench(c);
      if (c.hd % 32 == 0 && has_kernel("attention90_forward_64")) c.hopper = true, ::bench(c);
    };
    bench({32, 512, 8, 8, 64, 0, false, true});
    bench({32, 512, 8, 8, 64, 0.1, false, true});
    bench({32, 256, 8, 8, 64, 0, false, true});
    bench({10, 1024, 20, 20, 64, 0, false, true});
    bench({4, 2048, 16, 16, 64, 0, false, true});
    bench({16, 1024, 8, 8, 32, 0, false, true});
    bench({8, 1024, 8, 8, 96, 0, false, true});
    bench({8, 1024, 8, 8, 128, 0, false, true});
    return 0;
  }
  const bool gpu = !getenv("SMALL"); // large cases too
#else
  const bool gpu = false;
#endif
  const int few = gpu ? 1 : 0;
  std::vector<Case> cases = {
      {1, 7, 1, 1, 8, 0, false, true},      {2, 33, 2, 2, 16, 0, false, false},  {1, 130, 2, 1, 32, 0.2, false, true}, {1, 130, 2, 2, 64, 0, false, true},
      {2, 65, 4, 2, 64, 0.3, true, true},   {1, 150, 1, 1, 96, 0.1, false, true}, {1, 97, 2, 1, 128, 0.1, true, false}, {1, 70, 1, 1, 10, 0.5, false, true},
      {1, 41, 3, 1, 6, 0, true, false},     {1, 1, 2, 2, 64, 0, false, true},    {1, 193, 4, 2, 32, 0.1, true, true}, {1, 64, 1, 1, 80, 0, false, true},    {1, 129, 1, 1, 2, 0.1, false, true},
      {1, 200, 1, 1, 112, 0.9, false, true}, {1, 37, 2, 2, 126, 0.2, false, true},
  };
  if (few) {
    std::vector<Case> more = {{2, 512, 8, 8, 64, 0, false, true},    {2, 512, 8, 8, 64, 0.1, false, true}, {1, 1024, 4, 2, 64, 0.1, true, true},
                              {2, 256, 8, 8, 64, 0.1, false, false}, {2, 384, 4, 4, 32, 0.1, false, true}, {2, 385, 4, 2, 96, 0.1, false, true},
                              {2, 257, 4, 4, 128, 0, false, true},   {1, 640, 4, 1, 128, 0.1, true, true}, {3, 511, 3, 3, 48, 0.1, false, true}};
    cases.insert(cases.end(), more.begin(), more.end());
  }
  for (auto& c : cases) {
    test(c);
    if (c.hd % 32 == 0 && has_kernel("attention90_forward_64")) {
      Case d = c;
      d.hopper = true;
      test(d);
    }
    fflush(stdout);
  }
  printf("attention: %d checks, %d failed\n", checks, failures);
  return failures ? 1 : 0;
}
