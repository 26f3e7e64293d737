// Tests and times loss.cu, norm.cu, swiglu.cu, embedding.cu, elementwise.cu and
// step.cu.
//
//	step_test test|bench FILE.cubin…
#include "harness.h"

static std::string join(const char* name, std::initializer_list<long long> dims) {
  std::string s = name;
  for (auto d : dims) s += " " + std::to_string(d);
  return s;
}

// ---- loss ----

struct Loss {
  int rows, vocab, ld;
  bool wide;    // bf16 logits, one block a row; else float, one warp a row
  int cached;
  Array<bf16> x, dx;
  Array<float> xf, losses;
  Array<int> targets;
  float scale = 0.37f;
  Loss(int rows, int vocab, int ld, bool wide, int cached) : rows(rows), vocab(vocab), ld(ld), wide(wide), cached(cached) {
    x = Array<bf16>((size_t)rows * ld), dx = Array<bf16>(wide ? 1 : (size_t)rows * ld), xf = Array<float>(wide ? 1 : (size_t)rows * ld);
    losses = Array<float>(rows), targets = Array<int>(rows);
    normal(x.h, 3);
    for (size_t i = 0; i < x.h.size(); i++)
      if ((int)(i % ld) >= vocab) x.h[i] = 0x7fc0; // NaN in the padding
    for (size_t i = 0; !wide && i < x.h.size(); i++) xf.h[i] = from_bf16(x.h[i]);
    for (auto& t : targets.h) t = rng() % 9 == 0 ? -1 : (int)(rng() % vocab);
    targets.h[0] = vocab - 1;
    x.up(), xf.up(), targets.up();
  }
  Array<bf16>& out() { return wide ? x : dx; }
  void run(bool gradient = true) {
    bf16* to = gradient ? out().d : nullptr;
    const int* t = targets.d;
    if (wide)
      launch("cross_entropy_bf16", {(unsigned)rows}, 512, (size_t)cached * 2, losses.d, to, (const bf16*)x.d, t, vocab, ld, scale, cached);
    else
      launch("cross_entropy_narrow_f32", {ceil_div(rows, 4)}, 128, 0, losses.d, to, (const float*)xf.d, t, rows, vocab, ld, scale);
  }
  void test() {
    const std::string name = join(wide ? "cross-entropy" : "cross-entropy narrow", {rows, vocab, ld, cached});
    const std::vector<bf16> x0 = x.h;
    std::vector<double> wl(rows), wg((size_t)rows * ld);
    for (int r = 0; r < rows; r++) {
      if (targets.h[r] < 0) continue;
      const bf16* p = &x0[(size_t)r * ld];
      double top = -INFINITY, sum = 0;
      for (int c = 0; c < vocab; c++) top = std::max(top, (double)from_bf16(p[c]));
      for (int c = 0; c < vocab; c++) sum += std::exp(from_bf16(p[c]) - top);
      wl[r] = top + std::log(sum) - from_bf16(p[targets.h[r]]);
      for (int c = 0; c < vocab; c++) wg[(size_t)r * ld + c] = scale * (std::exp(from_bf16(p[c]) - top) / sum - (c == targets.h[r]));
    }
    run(false);
    near(losses.down(), wl, 1e-5, name + " losses alone");
    losses.poison();
    run();
    std::vector<float> l = losses.down();
    std::vector<bf16> g = out().down();
    near(l, wl, 1e-5, name + " losses"), near(g, wg, 4e-3, name + " gradient");
    bool zeros = true;
    for (int r = 0; r < rows; r++)
      for (int c = 0; c < ld; c++) zeros &= (c < vocab && targets.h[r] >= 0) || g[(size_t)r * ld + c] == 0;
    check(zeros, name + " zeros");
    x.h = x0;
    x.up(), losses.poison(), dx.poison();
    run();
    same(losses.down(), l, name + " losses"), same(out().down(), g, name + " gradient");
    check(x.guards() && dx.guards() && losses.guards(), name + " guards");
    Array<double> sum(1);
    double want = sum.h[0] = 0.75;
    sum.up();
    launch("add_sum", {1}, 1024, 0, sum.d, (const float*)losses.d, rows);
    for (float v : l) want += v;
    check(std::abs(sum.down()[0] - want) <= 1e-12 * std::abs(want), name + " sum");
  }
};

// ---- norm ----

struct Norm {
  int rows, d;
  bool add, quant, acc;
  Array<bf16> z, t, dz, dh16;
  Array<float> h, hout, w, dh, dw, part;
  unsigned blocks;
  bool wide;
  Norm(int rows, int d, bool add, bool quant, bool acc) : rows(rows), d(d), add(add), quant(quant), acc(acc) {
    const size_t n = (size_t)rows * d;
    wide = d % 4 == 0 && d > 512 && d <= 4096;
    blocks = wide ? std::min(rows, 132 * (d <= 1024 ? 6 : d <= 2048 ? 4 : 2)) : d <= 512 && d % 4 == 0 ? std::min(ceil_div(rows, 6), 528u) : std::min((unsigned)rows, 264u);
    z = Array<bf16>(n), t = Array<bf16>(n), dz = Array<bf16>(n), dh16 = Array<bf16>(n);
    h = Array<float>(n), hout = Array<float>(n), w = Array<float>(d), dh = Array<float>(n), dw = Array<float>(d), part = Array<float>((size_t)blocks * d);
    normal(t.h), normal(dz.h), normal(h.h, 2), normal(w.h), normal(dw.h);
    if (acc) normal(dh.h);
    t.up(), dz.up(), h.up(), w.up(), dw.up(), dh.up();
  }
  void forward() {
    const char* name = d % 4 || d > 2048 ? "rmsnorm_any" : d <= 512 ? "rmsnorm_512" : d <= 1024 ? "rmsnorm_1024" : "rmsnorm_2048";
    launch(name, {ceil_div(rows, 8)}, 256, 0, z.d, hout.d, (const float*)h.d, add ? (const bf16*)t.d : nullptr, (const float*)w.d, rows, d, 1e-6f,
           (int)quant);
  }
  void backward() {
    const bool any = d % 4 || d > 4096;
    const char* name = any ? "rmsnorm_backward_any" : d <= 512 ? "rmsnorm_backward_512" : d <= 1024 ? "rmsnorm_backward_1024" : d <= 2048 ? "rmsnorm_backward_2048" : "rmsnorm_backward_4096";
    launch(name, {blocks}, any || wide ? 256 : 192, any || wide ? 0 : (size_t)d * 4, dh.d, dh16.d, part.d, (const bf16*)dz.d, (const float*)h.d, (const float*)w.d, rows, d, 1e-6f,
           (int)acc);
    launch("rmsnorm_dw", {ceil_div(d, 32)}, 1024, 0, dw.d, (const float*)part.d, (int)blocks, d);
  }
  void test() {
    const std::string name = join("norm", {rows, d, add, quant, acc});
    std::vector<double> wz(z.size()), wh(z.size()), wdh(z.size()), wdw(dw.h.begin(), dw.h.end());
    for (int r = 0; r < rows; r++) {
      auto rstd = [&](auto f) {
        double s = 0;
        for (int c = 0; c < d; c++) s += f(c) * f(c);
        return 1 / std::sqrt(s / d + 1e-6);
      };
      const size_t at = (size_t)r * d;
      auto x = [&](int c) { return add ? (double)(h.h[at + c] + from_bf16(t.h[at + c])) : (double)h.h[at + c]; };
      double k = rstd(x), most = 0;
      for (int c = 0; c < d; c++) wh[at + c] = x(c), wz[at + c] = x(c) * k * w.h[c], most = std::max(most, std::abs(wz[at + c]));
      if (quant)
        for (int c = 0; c < d; c++) wz[at + c] = most / 127 * std::nearbyint(wz[at + c] * 127 / most);
      auto y = [&](int c) { return (double)h.h[at + c]; };
      k = rstd(y);
      double dot = 0;
      for (int c = 0; c < d; c++) dot += from_bf16(dz.h[at + c]) * (double)w.h[c] * y(c);
      for (int c = 0; c < d; c++) {
        const double g = from_bf16(dz.h[at + c]);
        wdh[at + c] = g * w.h[c] * k - y(c) * k * k * k * dot / d + (acc ? dh.h[at + c] : 0);
        wdw[c] += g * y(c) * k;
      }
    }
    forward();
    // Values next to a rounding boundary may fall to either side.
    near(z.down(), wz, quant ? 6e-3 : 4e-3, name + " z");
    if (add) near(hout.down(), wh, 1e-7, name + " sum");
    const std::vector<float> dh0 = dh.h, dw0 = dw.h;
    backward();
    std::vector<float> a = dh.down(), b = dw.down();
    near(a, wdh, 1e-5, name + " dh"), near(b, wdw, 1e-5, name + " dw"), near(dh16.down(), wdh, 4e-3, name + " dh16");
    dh.h = dh0, dw.h = dw0;
    dh.up(), dw.up(), part.poison(), dh16.poison();
    backward();
    same(dh.down(), a, name + " dh"), same(dw.down(), b, name + " dw");
    check(z.guards() && hout.guards() && dh.guards() && dw.guards() && part.guards() && dh16.guards(), name + " guards");
  }
};

static void test_fake_quant(int rows, int d) {
  const std::string name = join("fake_quant8", {rows, d});
  Array<bf16> x((size_t)rows * d), y((size_t)rows * d);
  normal(x.h);
  for (int c = 0; c < d; c++) x.h[c] = 0;
  x.up();
  launch("fake_quant8", {ceil_div(rows, 8)}, 256, 0, y.d, (const bf16*)x.d, rows, d);
  std::vector<double> want(x.size());
  for (int r = 1; r < rows; r++) {
    float most = 0;
    for (int c = 0; c < d; c++) most = std::max(most, std::abs(from_bf16(x.h[(size_t)r * d + c])));
    for (int c = 0; c < d; c++) want[(size_t)r * d + c] = most / 127 * std::nearbyint(from_bf16(x.h[(size_t)r * d + c]) * (127 / most));
  }
  near(y.down(), want, 4e-3, name);
  check(y.guards(), name + " guards");
}

// ---- SwiGLU ----

static const char* swiglu_quant8(int d) {
  return d % 8 || d > 4096 ? "swiglu_quant8_any" : d <= 2048 ? "swiglu_quant8_2048" : "swiglu_quant8_4096";
}

static void test_swiglu(int rows, int d) {
  const std::string name = join("swiglu", {rows, d});
  const size_t n = (size_t)rows * d;
  Array<bf16> g(n), u(n), y(n), dy(n), dg(n), du(n);
  normal(g.h, 3), normal(u.h), normal(dy.h);
  g.h[0] = round_bf16(-1e30f);
  if (n > 1) g.h[1] = round_bf16(1e4f);
  g.up(), u.up(), dy.up();
  std::vector<double> wy(n), wg(n), wu(n), wq(n);
  for (size_t i = 0; i < n; i++) {
    double a = from_bf16(g.h[i]), s = 1 / (1 + std::exp(-a)), b = from_bf16(u.h[i]), e = from_bf16(dy.h[i]);
    if (a < -1e3) wy[i] = wg[i] = wu[i] = 0;
    else wy[i] = a * s * b, wu[i] = e * a * s, wg[i] = e * b * s * (1 + a * (1 - s));
  }
  for (int r = 0; r < rows; r++) {
    double most = 0;
    for (int c = 0; c < d; c++) most = std::max(most, std::abs(wy[(size_t)r * d + c]));
    for (int c = 0; c < d && most > 0; c++) wq[(size_t)r * d + c] = most / 127 * std::nearbyint(wy[(size_t)r * d + c] * 127 / most);
  }
  launch("swiglu", {ceil_div(n, 1024)}, 128, 0, y.d, (const bf16*)g.d, (const bf16*)u.d, n);
  near(y.down(), wy, 4e-3, name);
  check(y.guards(), name + " guards");
  y.poison();
  launch(swiglu_quant8(d), {(unsigned)rows}, 128, 0, y.d, (const bf16*)g.d, (const bf16*)u.d, d);
  near(y.down(), wq, 8e-3, name + " quant8");
  launch("swiglu_backward", {ceil_div(n, 1024)}, 128, 0, dg.d, du.d, (const bf16*)dy.d, (const bf16*)g.d, (const bf16*)u.d, n);
  near(dg.down(), wg, 4e-3, name + " dgate"), near(du.down(), wu, 4e-3, name + " dup");
  check(y.guards() && dg.guards() && du.guards(), name + " guards");
}

// ---- embedding ----

struct Embedding {
  int n, vocab, d;
  Array<int> ids, order, sorted;
  Array<float> table, y, dy, dtable, part;
  Embedding(int n, int vocab, int d, bool skewed) : n(n), vocab(vocab), d(d) {
    ids = Array<int>(n), order = Array<int>(n), sorted = Array<int>(n);
    table = Array<float>((size_t)vocab * d), dtable = Array<float>((size_t)vocab * d);
    y = Array<float>((size_t)n * d), dy = Array<float>((size_t)n * d), part = Array<float>((size_t)ceil_div(n, 32) * 2 * d);
    for (auto& i : ids.h) { // about Zipf when skewed
      double u = (rng() % 1000000 + 0.5) / 1e6;
      i = skewed ? std::min(vocab - 1, (int)(std::pow((double)vocab, u) - 1)) : (int)(rng() % vocab);
    }
    normal(table.h), normal(dtable.h), normal(dy.h);
    ids.up(), table.up(), dtable.up(), dy.up();
  }
  void forward() { launch("embedding", {(unsigned)n}, 128, 0, y.d, (const float*)table.d, (const int*)ids.d, d); }
  void sort() { // the host's part
    for (int i = 0; i < n; i++) order.h[i] = i;
    std::stable_sort(order.h.begin(), order.h.end(), [&](int a, int b) { return ids.h[a] < ids.h[b]; });
    for (int i = 0; i < n; i++) sorted.h[i] = ids.h[order.h[i]];
    order.up(), sorted.up();
  }
  void scatter() {
    Dim grid{ceil_div(n, 32), ceil_div(d, 512)};
    launch("embedding_segments", grid, 128, 0, dtable.d, part.d, (const float*)dy.d, (const int*)order.d, (const int*)sorted.d, n, d);
    launch("embedding_join", grid, 512, 0, dtable.d, (const float*)part.d, (const int*)sorted.d, n, d);
  }
  void test() {
    const std::string name = join("embedding", {n, vocab, d});
    forward(), sort(), scatter();
    std::vector<double> wy((size_t)n * d), wt(dtable.h.begin(), dtable.h.end());
    for (int i = 0; i < n; i++)
      for (int c = 0; c < d; c++) {
        wy[(size_t)i * d + c] = table.h[(size_t)ids.h[i] * d + c];
        wt[(size_t)ids.h[i] * d + c] += dy.h[(size_t)i * d + c];
      }
    near(y.down(), wy, 0, name + " gather");
    const std::vector<float> t0 = dtable.h;
    std::vector<float> a = dtable.down();
    near(a, wt, 1e-6, name + " gradient");
    dtable.h = t0;
    dtable.up(), part.poison();
    sort(), scatter();
    same(dtable.down(), a, name + " gradient");
    check(y.guards() && dtable.guards() && part.guards() && order.guards() && sorted.guards(), name + " guards");
  }
};

// ---- elementwise and the optimizer ----

static void test_elementwise(size_t n) {
  const std::string name = join("elementwise", {(long long)n});
  Array<float> a(n), y(n), y2(n);
  Array<bf16> b(n), c(n), z(n), z2(n);
  normal(a.h), normal(b.h), normal(c.h);
  a.up(), b.up(), c.up();
  const unsigned grid = ceil_div(n, 1024);
  launch("add_f32_bf16", {grid}, 256, 0, y.d, (const float*)a.d, (const bf16*)b.d, n);
  launch("add_f32", {grid}, 256, 0, y2.d, (const float*)a.d, (const float*)y.d, n);
  launch("add_bf16", {grid}, 256, 0, z.d, (const bf16*)b.d, (const bf16*)c.d, n);
  launch("to_bf16_f32", {grid}, 256, 0, z2.d, (const float*)a.d, n);
  y.down(), y2.down(), z.down(), z2.down();
  bool ok = true;
  for (size_t i = 0; i < n; i++) {
    float s = a.h[i] + from_bf16(b.h[i]);
    ok &= y.h[i] == s && y2.h[i] == a.h[i] + s && z.h[i] == round_bf16(from_bf16(b.h[i]) + from_bf16(c.h[i])) && z2.h[i] == round_bf16(a.h[i]);
  }
  check(ok, name);
  check(y.guards() && y2.guards() && z.guards() && z2.guards(), name + " guards");
}

struct Optimizer {
  std::vector<size_t> sizes;
  std::vector<Array<float>> w, g, m, v;
  Array<float*> pw, pg, pm, pv;
  Array<uint64_t> dsizes;
  Array<float> groups, step;
  Array<int> chunks;
  Array<double> sums, out;
  int nchunks = 0;
  explicit Optimizer(std::vector<size_t> s) : sizes(s) {
    const size_t n = s.size();
    pw = Array<float*>(n), pg = Array<float*>(n), pm = Array<float*>(n), pv = Array<float*>(n), dsizes = Array<uint64_t>(n), groups = Array<float>(2 * n);
    std::vector<int> list;
    for (size_t i = 0; i < n; i++) {
      for (auto* a : {&w, &g, &m, &v}) {
        a->emplace_back(s[i]);
        normal(a->back().h);
      }
      for (auto& x : v[i].h) x = x * x;
      w[i].up(), g[i].up(), m[i].up(), v[i].up();
      pw.h[i] = w[i].d, pg.h[i] = g[i].d, pm.h[i] = m[i].d, pv.h[i] = v[i].d, dsizes.h[i] = s[i];
      groups.h[2 * i] = i % 2 ? 1.f : 0.5f, groups.h[2 * i + 1] = i % 3 ? 0.1f : 0.f;
      for (size_t c = 0; c * 8192 < s[i]; c++) list.push_back((int)i), list.push_back((int)c);
    }
    nchunks = (int)list.size() / 2;
    chunks = Array<int>(list.size()), sums = Array<double>(nchunks), out = Array<double>(3), step = Array<float>(8);
    chunks.h = list;
    step.h = {3e-3f, 0.9f, 0.1f, 0.95f, 0.05f, 1 / 0.271f, 1 / std::sqrt(0.142625f), 1e-8f};
    pw.up(), pg.up(), pm.up(), pv.up(), dsizes.up(), groups.up(), chunks.up(), step.up();
  }
  void norm(float clip) {
    launch("sum_squares", {(unsigned)nchunks}, 256, 0, sums.d, (const float* const*)pg.d, (const uint64_t*)dsizes.d, (const int*)chunks.d);
    launch("clip", {1}, 1024, 0, out.d, (const double*)sums.d, nchunks, clip);
  }
  void update() {
    launch("adamw", {(unsigned)nchunks}, 256, 0, (float* const*)pw.d, (float* const*)pg.d, (float* const*)pm.d, (float* const*)pv.d,
           (const uint64_t*)dsizes.d, (const float*)groups.d, (const int*)chunks.d, (const float*)step.d, (const double*)out.d);
  }
  // The loss that guard sees, and the factor it leaves.
  void guard(double loss, bool passes) {
    Array<double> in(1), square(1);
    in.h[0] = loss;
    in.up();
    norm(1);
    const double factor = out.down()[2];
    launch("guard", {1}, 1, 0, out.d, square.d, (const double*)in.d);
    out.down();
    check(square.down()[0] == out.h[0] && (passes ? out.h[2] == factor : std::isnan(out.h[2])), join("guard", {passes}));
  }
  void test() {
    double square = 0;
    for (auto& a : g)
      for (float x : a.h) square += (double)x * x;
    const std::string name = "adamw";
    norm(0);
    check(std::abs(out.down()[0] / square - 1) < 1e-6 && out.h[2] == 1, name + " norm");
    norm(1);
    const double f = out.down()[2];
    check(std::abs(f * std::sqrt(square) - 1) < 1e-6, name + " clip");
    guard(1e300, true), guard(INFINITY, false), guard(-INFINITY, false), guard(NAN, false);
    norm(1);
    update();
    launch("zero_tensors", {(unsigned)nchunks}, 256, 0, (float* const*)pg.d, (const uint64_t*)dsizes.d, (const int*)chunks.d);
    for (size_t i = 0; i < sizes.size(); i++) {
      std::vector<double> ww(sizes[i]), wm(sizes[i]), wv(sizes[i]);
      const double lr = step.h[0] * groups.h[2 * i];
      for (size_t j = 0; j < sizes[i]; j++) {
        double d = g[i].h[j] * f;
        wm[j] = 0.9 * m[i].h[j] + 0.1 * d, wv[j] = 0.95 * v[i].h[j] + 0.05 * d * d;
        ww[j] = (1 - lr * groups.h[2 * i + 1]) * w[i].h[j] - lr * step.h[5] * wm[j] / (std::sqrt(wv[j]) * step.h[6] + 1e-8);
      }
      near(w[i].down(), ww, 1e-6, name + " w"), near(m[i].down(), wm, 1e-6, name + " m"), near(v[i].down(), wv, 1e-6, name + " v");
      near(g[i].down(), std::vector<double>(sizes[i]), 0, name + " g");
      check(w[i].guards() && g[i].guards() && m[i].guards() && v[i].guards(), name + " guards");
    }
    // A gradient that is not finite changes nothing.
    g[0].h[0] = INFINITY;
    g[0].up();
    norm(1), update();
    for (size_t i = 0; i < sizes.size(); i++) {
      std::vector<float> before = w[i].h;
      same(w[i].down(), before, name + " not finite");
    }
    check(std::isnan(out.down()[2]), name + " not finite");
  }
};

#ifndef EMULATED
static void bench() {
  for (int rows : {2048, 8192}) {
    Loss l(rows, 50304, 50304, true, 50304);
    row(join("cross-entropy", {rows, 50304}), time_ms([&] { l.run(); }), 4.0 * rows * 50304);
    l.cached = 0;
    row(join("cross-entropy, rows read twice", {rows, 50304}), time_ms([&] { l.run(); }), 4.0 * rows * 50304);
  }
  {
    Loss l(16384, 65, 72, false, 0);
    row("cross-entropy narrow 16384 65", time_ms([&] { l.run(); }), 6.0 * 16384 * 72);
    Loss w(16384, 65, 72, true, 72);
    row("cross-entropy 16384 65", time_ms([&] { w.run(); }), 4.0 * 16384 * 72);
  }
  struct Size {
    int rows, d;
  };
  for (Size z : {Size{16384, 512}, Size{8192, 512}, Size{10240, 1280}}) {
    const int rows = z.rows, d = z.d;
    Norm n(rows, d, true, false, true), q(rows, d, true, true, true), p(rows, d, false, false, true);
    const double s = (double)rows * d;
    row(join("rmsnorm", {rows, d}), time_ms([&] { p.forward(); }), 6 * s);
    row(join("rmsnorm + residual", {rows, d}), time_ms([&] { n.forward(); }), 12 * s);
    row(join("rmsnorm + residual + int8", {rows, d}), time_ms([&] { q.forward(); }), 12 * s);
    row(join("rmsnorm backward, added, bf16 copy", {rows, d}), time_ms([&] { n.backward(); }), 16 * s);
  }
  for (int rows : {16384, 8192}) {
    const int d = 1408;
    const size_t n = (size_t)rows * d;
    Array<bf16> g(n), u(n), y(n), dy(n), dg(n), du(n);
    normal(g.h), normal(u.h), normal(dy.h);
    g.up(), u.up(), dy.up();
    row(join("swiglu", {rows, d}), time_ms([&] { launch("swiglu", {ceil_div(n, 1024)}, 128, 0, y.d, (const bf16*)g.d, (const bf16*)u.d, n); }), 6.0 * n);
    row(join("swiglu + int8", {rows, d}),
        time_ms([&] { launch(swiglu_quant8(d), {(unsigned)rows}, 128, 0, y.d, (const bf16*)g.d, (const bf16*)u.d, d); }), 6.0 * n);
    row(join("swiglu backward", {rows, d}),
        time_ms([&] { launch("swiglu_backward", {ceil_div(n, 1024)}, 128, 0, dg.d, du.d, (const bf16*)dy.d, (const bf16*)g.d, (const bf16*)u.d, n); }),
        10.0 * n);
  }
  for (Size z : {Size{16384, 65}, Size{8192, 50304}}) {
    const int n = z.rows, vocab = z.d;
    Embedding e(n, vocab, 512, true);
    row(join("embedding", {n, vocab}), time_ms([&] { e.forward(); }), 8.0 * n * 512);
    e.sort();
    row(join("embedding gradient", {n, vocab}), time_ms([&] { e.scatter(); }), 4.0 * n * 512);
  }
  {
    const size_t n = 16384 * 512;
    Array<float> a(n);
    Array<bf16> b(n);
    normal(a.h), normal(b.h);
    a.up(), b.up();
    row("add_f32_bf16 16384 512", time_ms([&] { launch("add_f32_bf16", {ceil_div(n, 1024)}, 256, 0, a.d, (const float*)a.d, (const bf16*)b.d, n); }),
        10.0 * n);
    row("to_bf16_f32 16384 512", time_ms([&] { launch("to_bf16_f32", {ceil_div(n, 1024)}, 256, 0, b.d, (const float*)a.d, n); }), 6.0 * n);
  }
  for (size_t embed : {(size_t)65 * 512, (size_t)50304 * 512}) {
    std::vector<size_t> s = {embed};
    for (int l = 0; l < 8; l++) {
      for (int i = 0; i < 5; i++) s.push_back(8 * 64 * 64);
      for (int i = 0; i < 3; i++) s.push_back(8 * 64 * 176);
      s.push_back(512), s.push_back(512);
    }
    Optimizer o(s);
    double n = 0;
    for (size_t x : s) n += x;
    row(join("gradient norm", {(long long)n}), time_ms([&] { o.norm(1); }), 4 * n);
    row(join("adamw", {(long long)n}), time_ms([&] { o.update(); }), 28 * n);
  }
}
#endif

int main(int n, char** args) {
  load_kernels(n - 2, args + 2);
#ifndef EMULATED
  if (n > 1 && !strcmp(args[1], "bench")) {
    bench();
    return 0;
  }
  const bool gpu = !getenv("SMALL"); // large cases too
#else
  const bool gpu = false;
#endif
  auto loss = [](int rows, int vocab, int ld, bool wide, int cached) { Loss(rows, vocab, ld, wide, cached).test(); };
  loss(7, 65, 72, false, 0), loss(9, 65, 65, false, 0), loss(33, 130, 136, false, 0), loss(5, 1, 1, false, 0);
  loss(3, 65, 72, true, 72), loss(3, 5000, 5008, true, 5008), loss(3, 5003, 5120, true, 1000), loss(2, 7, 16, true, 0);
  if (gpu) loss(65, 50304, 50304, true, 50304), loss(17, 50257, 50304, true, 24000), loss(1000, 65, 72, false, 0);
  for (int d : {4, 7, 64, 512, 516, 1000, 1280, 1288, 1537, 2048, 4096, 4100})
    for (int rows : {1, 7, 33}) Norm(rows, d, rows != 7, rows == 33, rows != 1).test();
  if (gpu) Norm(5000, 512, true, false, true).test(), Norm(3000, 1280, true, true, false).test(), Norm(2500, 1030, false, false, true).test();
  test_fake_quant(7, 64), test_fake_quant(3, 171), test_fake_quant(9, 1408);
  test_swiglu(1, 7), test_swiglu(7, 171), test_swiglu(3, 1408), test_swiglu(5, 2050), test_swiglu(2, 2056), test_swiglu(2, 4104);
  for (int d : {64, 66, 7, 516})
    for (int n : {1, 31, 33, 130, 700, 1537}) Embedding(n, 65, d, true).test(), Embedding(n, 3, d, false).test(), Embedding(n, 501, d, false).test();
  if (gpu) Embedding(16384, 65, 512, true).test(), Embedding(8192, 50304, 512, true).test(), Embedding(4099, 1, 128, false).test();
  test_elementwise(1), test_elementwise(1027), test_elementwise(8192);
  if (gpu) test_elementwise((1 << 20) + 3);
  Optimizer({1, 513, 8192, 8193, 20001, 3}).test();
  printf("step: %d checks, %d failed\n", checks, failures);
  return failures ? 1 : 0;
}
