// Tests and times cuda/linear.cu, octonion.cuh, walsh.cu and quantize.cu against double
// precision on fresh random inputs: scripts/gpu_linear.sh on a GPU,
// scripts/emulate.sh linear without one. "linear_test bench" times.
#include "harness.h"
#include "../linear.cu"
#include "../quantize.cu"
#include "../walsh.cu"

static uint16_t convert(float v, uint16_t *) { return round_bf16(v); }
static float convert(float v, float *) { return v; }

// ---- tensor maps ---------------------------------------------------------

// tensor_map has boxes of 64 columns and that many rows.
static TensorMap tensor_map(const uint16_t *p, int cols, int rows, int row_stride, int batch = 1, int batch_stride = 0, int height = 64) {
    TensorMap map;
    memset(&map, 0, sizeof map);
    if (batch == 1) batch_stride = row_stride;
#ifdef EMULATED
    *(EmuMap *)&map = {p, {cols, batch, rows}, {1, batch_stride, row_stride}};
#else
    cuuint64_t dims[3] = {(cuuint64_t)cols, (cuuint64_t)batch, (cuuint64_t)rows};
    cuuint64_t strides[2] = {2 * (cuuint64_t)batch_stride, 2 * (cuuint64_t)row_stride};
    cuuint32_t box[3] = {64, 1, (cuuint32_t)height}, unit[3] = {1, 1, 1};
    CUresult r = cuTensorMapEncodeTiled((CUtensorMap *)&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)p, dims, strides, box, unit,
                        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (r != CUDA_SUCCESS) printf("FAIL cuTensorMapEncodeTiled: %d for %d×%d (%d)\n", r, rows, cols, row_stride);
#endif
    return map;
}

static int multiprocessors() {
#ifdef EMULATED
    return 6;
#else
    static int n;
    if (!n) must(cuDeviceGetAttribute(&n, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0), "multiprocessors");
    return n;
#endif
}

// ---- one product ---------------------------------------------------------

enum Kind { NT, NN, TN };
static const char *kind_names[] = {"nt", "nn", "tn"};

struct Gemm {
    Kind kind;
    int M, N, K;
    int batch = 1, splits = 1;
    int lda = 0, ldb = 0, ldc = 0, strideA = 0, strideB = 0, strideC = 0; // stride 0: shared
    int chain = 1, strideS = 0;
    void layout(int pad = 0) { // row strides, one product after the other
        lda = (kind == TN ? M : K) + pad, ldb = (kind == NT ? K : N) + pad, ldc = N + pad;
        strideA = lda * (kind == TN ? K : M), strideB = ldb * (kind == NT ? N : K), strideC = ldc * M;
    }
    int rowsA() const { return kind == TN ? K : M; }
    int rowsB() const { return kind == NT ? N : K; }
};

static void launch_gemm(const Gemm &g, int path, const uint16_t *A, const uint16_t *B, uint16_t *C, const float *scale, int add);
static void launch_gemm(const Gemm &g, int path, const uint16_t *A, const uint16_t *B, float *C, const float *scale, int add);

static Rotary rotary; // of the next products

static int grid90(const Gemm &g, int width, int mode) {
    int rows = (g.M + 127) / 128, columns = (g.N + width - 1) / width * g.batch;
    if (mode == RESIDENT) return columns * std::max(1, std::min(rows, multiprocessors() / columns));
    return std::min(multiprocessors(), rows * columns * g.splits * (width == 256 ? 2 : 1));
}

// path: 80; of gemm90 256, 192, 128, 1282 for 128p, 1283 for 128r.
static const std::vector<int> all_paths = {80, 128, 192, 256, 1282, 1283};
static bool possible(const Gemm &g, int path) { return path != 1283 || (g.kind != TN && g.splits == 1 && (g.K + 63) / 64 * g.chain <= 8); }

#define LAUNCH80(kernel)                                                                                              \
    LAUNCH(kernel, Dim((g.M + 127) / 128 * ((g.N + 127) / 128), g.splits, g.batch), gemm_threads, gemm_shared, A, B, C, \
           scale, g.M, g.N, g.K, g.lda, g.ldb, g.ldc, g.strideA, g.strideB, g.strideC, g.strideS, g.chain, add)
#define LAUNCH90(kernel, WIDTH, MODE)                                                                                          \
    LAUNCH(kernel, Dim(grid90(g, WIDTH, MODE)), gemm90_threads, (Gemm90<WIDTH, MODE>::shared), a, b, c, C, scale, \
           g.M, g.N, g.K, g.ldc, g.batch, g.chain, g.splits, g.strideC, g.strideS, (g.strideA ? 0 : 1) | (g.strideB ? 0 : 2), how, rotary)
#define LAUNCH_KIND(kind_name, resident)                                  \
    do {                                                                  \
        if (path == 80) {                                                 \
            LAUNCH80(gemm_##kind_name);                                   \
            break;                                                        \
        }                                                                 \
        int nA = g.strideA ? g.batch * g.chain : 1, nB = g.strideB ? g.batch * g.chain : 1;                  \
        TensorMap a = tensor_map(A, g.kind == TN ? g.M : g.K, g.rowsA(), g.lda, nA, g.strideA);              \
        TensorMap b = tensor_map(B, g.kind == NT ? g.K : g.N, g.rowsB(), g.ldb, nB, g.strideB), c = a;       \
        int how = add ? ADD : 0;                                                                             \
        if (sizeof *C == 2 && !add && g.ldc % 8 == 0 && g.strideC % 8 == 0)                    \
            how = BOXES, c = tensor_map((const uint16_t *)C, g.N, g.M, g.ldc, g.batch * g.splits, g.strideC, 16); \
        if (path == 256) LAUNCH90(gemm90_##kind_name##_256, 256, TOGETHER); \
        if (path == 192) LAUNCH90(gemm90_##kind_name##_192, 192, TOGETHER); \
        if (path == 128) LAUNCH90(gemm90_##kind_name##_128, 128, TOGETHER); \
        if (path == 1282) LAUNCH90(gemm90_##kind_name##_128p, 128, TURNS);  \
        if (path == 1283) LAUNCH90(gemm90_##resident, 128, RESIDENT);       \
    } while (0)
static_assert(Gemm90<256, TOGETHER>::shared == 230400 && Gemm90<192, TOGETHER>::shared == 230400 && Gemm90<128, TURNS>::shared == 230400 && Gemm90<128, RESIDENT>::shared == 230400, "as linear.cu says");

static void launch_gemm(const Gemm &g, int path, const uint16_t *A, const uint16_t *B, uint16_t *C, const float *scale, int add) {
    if (g.kind == NT) LAUNCH_KIND(nt_bf16, nt_bf16_128r);
    if (g.kind == NN) LAUNCH_KIND(nn_bf16, nn_bf16_128r);
}
static void launch_gemm(const Gemm &g, int path, const uint16_t *A, const uint16_t *B, float *C, const float *scale, int add) {
    if (g.kind == NT) LAUNCH_KIND(nt_f32, nt_f32_128r);
    if (g.kind == NN) LAUNCH_KIND(nn_f32, nn_f32_128r);
    if (g.kind == TN) LAUNCH_KIND(tn_f32, nn_f32_128r);
}

// test_gemm compares one product, on one path (80, or the width of gemm90).
template <class T> static void test_gemm(Gemm g, int path, bool scaled, bool add) {
    if (!possible(g, path)) return;
    auto a = as_bf16(normal((size_t)g.strideA * (g.batch * g.chain - 1) + (size_t)g.rowsA() * g.lda)), b = as_bf16(normal((size_t)g.strideB * (g.batch * g.chain - 1) + (size_t)g.rowsB() * g.ldb));
    auto s = normal(g.N + g.strideS * (g.batch - 1));
    // Some are rotated, as q and k are of q, k, v.
    std::vector<float> angle(48 * 32), cosine(angle.size()), sine(angle.size());
    for (auto &x : angle) x = 6.f * (rng() % 1000) / 1000;
    for (size_t i = 0; i < angle.size(); i++) cosine[i] = cosf(angle[i]), sine[i] = sinf(angle[i]);
    Array<float> Cos(cosine), Sin(sine);
    bool rotated = path != 80 && g.kind == NT && sizeof(T) == 2 && !add && g.N % 2 == 0 && rng() & 1;
    rotary = {Cos.d, Sin.d, 48, rotated ? 1 + g.batch / 2 : 0};
    size_t size = (size_t)g.strideC * (g.batch * g.splits - 1) + (size_t)g.M * g.ldc;
    std::vector<float> start = normal(size);
    std::vector<T> old(size);
    for (size_t i = 0; i < size; i++) old[i] = convert(start[i], (T *)nullptr);
    Array<uint16_t> A(a), B(b);
    Array<float> S(s);
    std::vector<T> runs[2];
    for (auto &run : runs) {
        Array<T> C(old);
        if (!add && &run == &runs[1]) C.poison();
        launch_gemm(g, path, A.d, B.d, C.d, scaled ? S.d : nullptr, add);
        run = C.down();
    }
    rotary = {};
    char name[200];
    snprintf(name, sizeof name, "gemm%d_%s_%s%s %d×%d×%d batch %d chain %d splits %d ld %d %d %d%s%s", path, kind_names[g.kind], sizeof(T) == 2 ? "bf16" : "f32", rotated ? " rotated" : "", g.M,
             g.N, g.K, g.batch, g.chain, g.splits, g.lda, g.ldb, g.ldc, scaled ? " scaled" : "", add ? " add" : "");
    std::vector<T> got;
    std::vector<double> want, mag;
    bool equal = true;
    for (int z = 0; z < g.batch; z++)
        for (int m = 0; m < g.M; m++)
            for (int n = 0; n < g.N; n++) {
                double sum = 0, abs = 0;
                for (int ck = 0; ck < g.K * g.chain; ck++) {
                    int k = ck % g.K;
                    size_t q = (size_t)z * g.chain + ck / g.K;
                    double x = as_double(a[q * g.strideA + (g.kind == TN ? (size_t)k * g.lda + m : (size_t)m * g.lda + k)]);
                    double y = as_double(b[q * g.strideB + (g.kind == NT ? (size_t)n * g.ldb + k : (size_t)k * g.ldb + n)]);
                    sum += x * y, abs += std::fabs(x * y);
                }
                if (scaled) sum *= s[n + z * g.strideS], abs *= std::fabs(s[n + z * g.strideS]);
                size_t at = (size_t)z * g.strideC + (size_t)m * g.ldc + n;
                if (add) abs += std::fabs(as_double(old[at])), sum += as_double(old[at]);
                if (g.splits > 1) {
                    float parts = 0;
                    for (int q = 0; q < g.splits; q++) parts += as_double(runs[0][at + (size_t)q * g.batch * g.strideC]);
                    got.push_back(convert(parts, (T *)nullptr));
                } else {
                    got.push_back(runs[0][at]);
                }
                want.push_back(sum), mag.push_back(abs);
                if (rotated && z < 1 + g.batch / 2 && n % 2) {
                    size_t w = want.size(), r = m % 48 * 32 + n % 64 / 2;
                    double x = want[w - 2], y = want[w - 1], c = cosine[r], s = sine[r];
                    want[w - 2] = x * c - y * s, want[w - 1] = y * c + x * s;
                    mag[w - 2] = mag[w - 1] = mag[w - 2] + mag[w - 1];
                }
                for (int q = 0; q < g.splits; q++) {
                    size_t to = at + (size_t)q * g.batch * g.strideC;
                    equal &= memcmp(&runs[0][to], &runs[1][to], sizeof(T)) == 0;
                }
            }
    compare(name, got, want, mag, sizeof(T) == 2 ? 1.0 / 256 : 1e-6, 2e-6);
    check(equal, std::string(name) + ": two runs differ");
}

static void test_gemms(bool quick) {
    struct { int M, N, K; } shapes[] = {{7, 64, 64}, {33, 176, 512}, {130, 64, 176}, {130, 171, 22}, {1, 8, 8}, {257, 520, 136}, {65, 1368, 40}, {128, 256, 1024}, {300, 24, 8}};
    for (auto [M, N, K] : shapes) {
        if (quick && M != 130 && M != 33) continue;
        for (Kind kind : {NT, NN, TN})
            for (int path : all_paths)
                for (int pad : {0, 8}) {
                    Gemm g{kind, M, N, K};
                    if (path == TN) std::swap(g.M, g.K); // tokens are the contraction
                    g.layout(pad);
                    if (path != 80 && ((g.lda | g.ldb) & 7)) continue;
                    bool scaled = rng() & 1, add = rng() & 1;
                    if (kind != TN) test_gemm<uint16_t>(g, path, scaled, add);
                    test_gemm<float>(g, path, scaled, !add);
                    if (pad == 0 && kind == TN) {
                        g.splits = 1 + rng() % 5;
                        test_gemm<float>(g, path, false, false);
                    }
                    if (pad == 8) { // batches, one after the other
                        g.batch = 3;
                        test_gemm<float>(g, path, scaled, false);
                        g.splits = 2;
                        test_gemm<float>(g, path, false, false);
                        g.splits = 1, g.strideS = N;
                        Gemm sharing = g;
                        (kind == TN ? sharing.strideB : sharing.strideA) = 0;
                        test_gemm<float>(sharing, path, kind == NT, false);
                        g.batch = 1, g.chain = 3;
                        if (kind != TN) test_gemm<uint16_t>(g, path, scaled, add);
                        g.batch = 2, g.chain = 2, g.splits = 3;
                        test_gemm<float>(g, path, false, false);
                    }
                }
    }
    for (int path : all_paths) // batches side by side, as Walsh uses them
        for (int part : {8, 64, 72}) {
            int rows = 130, out = 40;
            Gemm g{NT, rows, out, part, 8, 1, 8 * part, part, 8 * out, part, out * part, out};
            test_gemm<uint16_t>(g, path, false, false);
            g = Gemm{NN, rows, part, out, 8, 1, 8 * out, part, 8 * part, out, out * part, part};
            test_gemm<uint16_t>(g, path, false, false);
            g = Gemm{TN, out, part, rows, 8, 2, 8 * out, 8 * part, part, out, part, out * part};
            test_gemm<float>(g, path, false, false);
        }
}

// test_gated compares gate, up and their SwiGLU.
static void test_gated(int M, int N, int K) {
    auto a = as_bf16(normal((size_t)M * K)), b = as_bf16(normal((size_t)2 * N * K, 0.1f));
    auto s = normal(2 * N);
    Array<uint16_t> A(a), B(b);
    Array<float> S(s);
    std::vector<uint16_t> runs[2], ys[2];
    for (int i = 0; i < 2; i++) {
        Array<uint16_t> C((size_t)2 * M * N), Y((size_t)M * N);
        LAUNCH(gemm90_gated, Dim(std::min(multiprocessors(), 2 * ((M + 127) / 128) * ((N + 127) / 128))), gemm90_threads, (Gemm90<256, GATED>::shared), tensor_map(A.d, K, M, K),
               tensor_map(B.d, K, N, K, 2, N * K), tensor_map(C.d, N, M, N, 2, M * N, 16), tensor_map(Y.d, N, M, N, 1, 0, 16), S.d, M, N, K, N);
        runs[i] = C.down(), ys[i] = Y.down();
    }
    std::string label = "gated " + std::to_string(M) + "×" + std::to_string(N) + "×" + std::to_string(K);
    same(runs[0], runs[1], label), same(ys[0], ys[1], label);
    std::vector<double> want, mag, y, ymag;
    for (int z = 0; z < 2; z++)
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) {
                double sum = 0, abs = 0;
                for (int k = 0; k < K; k++) {
                    double v = as_double(a[(size_t)m * K + k]) * as_double(b[((size_t)z * N + n) * K + k]) * s[z * N + n];
                    sum += v, abs += std::fabs(v);
                }
                want.push_back(sum), mag.push_back(abs);
            }
    for (size_t i = 0; i < ys[0].size(); i++) { // from what the kernel rounded
        double g = as_double(runs[0][i]), u = as_double(runs[0][ys[0].size() + i]);
        y.push_back(g / (1 + std::exp(-g)) * u), ymag.push_back(std::fabs(g * u));
    }
    compare(label, runs[0], want, mag, 1.0 / 256, 2e-6);
    compare(label + " y", ys[0], y, ymag, 1.0 / 256, 1e-6);
}

// ---- layers --------------------------------------------------------------

static std::vector<std::vector<int>> cayley_dickson(int n) { // s[i][j]
    std::vector<std::vector<int>> t(n, std::vector<int>(n)); // t[j][k]: sign of e_j·e_k
    std::function<int(int, int, int)> sign = [&](int j, int k, int size) -> int {
        if (size == 1) return 1;
        int h = size / 2;
        auto conj = [](int q) { return q ? -1 : 1; };
        if (j < h && k < h) return sign(j, k, h);                         // ac
        if (j >= h && k >= h) return -conj(k - h) * sign(k - h, j - h, h); // −d*b
        if (j < h) return sign(k - h, j, h);                              // da
        return conj(k) * sign(j - h, k, h);                               // bc*
    };
    std::vector<std::vector<int>> s(n, std::vector<int>(n));
    for (int j = 0; j < n; j++)
        for (int k = 0; k < n; k++) s[j ^ k][j] = sign(j, k, n);
    return s;
}

struct Case { int n, out, in, tokens, quantizer, transposed, beta, walsh; }; // walsh as in quantize.cu

static int pieces(const Case &c) { return c.n * c.out * ((c.in + 7) / 8); }

// Weights holds a layer on the device.
struct Weights {
    Case c;
    std::vector<float> w, beta;
    std::vector<std::vector<int>> s;
    std::vector<uint16_t> bits;
    Array<float> W, Beta, DW, DBeta, Scale, Gamma;
    Array<int> Zeros;
    Array<uint16_t> D, Dg, Signs;
    Layer layer;
    Weights(Case c)
        : c(c), w(normal((size_t)c.n * c.out * c.in, c.quantizer == 1 ? 1.0f : 0.3f)), beta(normal(c.out)), s(cayley_dickson(c.n)), bits(c.n),
          W(w), Beta(beta), DW(normal(w.size())), DBeta(normal(c.out)), Scale(c.n * c.out), Gamma(1), Zeros(1),
          D((c.walsh ? c.walsh : c.n) * w.size()), Dg((c.walsh ? c.walsh : c.n) * w.size()), Signs(c.n) {
        for (int i = 0; i < c.n; i++)
            for (int j = 0; j < c.n; j++) {
                if (c.walsh == 1) s[i][j] = 1;
                bits[i] |= (s[i][j] < 0) << j;
            }
        Signs.put(bits);
        if (c.quantizer == 1 && w.size() > 9) { // SPEC §1's check values
            const float v[] = {-1.6f, -1.5f, -1.2f, -.5f, .5f, .49f, 1.5f, 1.5001f, 2.5f};
            std::copy(v, v + 9, w.begin());
            W.put(w);
        }
        layer = Layer{W.d, c.beta ? Beta.d : nullptr, DW.d, c.beta ? DBeta.d : nullptr, D.d, Dg.d, Scale.d, Gamma.d, Zeros.d, Signs.d,
                      c.n, c.walsh, c.out, c.in, c.quantizer, c.transposed, {}};
    }
    float gamma() const {
        if (c.quantizer != 2) return 1;
        double sum = 0;
        for (float v : w) sum += std::fabs(v);
        return std::max((float)(sum / w.size()), 1e-8f);
    }
    double quant(size_t i, float g) const {
        if (c.quantizer == 0) return w[i];
        float v = c.quantizer == 2 ? w[i] / g : w[i];
        return std::nearbyint(std::min(1.f, std::max(-1.f, v)));
    }
    size_t at(int k, int r, int col) const { return c.transposed ? ((size_t)k * c.in + col) * c.out + r : ((size_t)k * c.out + r) * c.in + col; }
};

static int popcount(unsigned v) { return __builtin_popcount(v); }

static_assert(Octonion90::shared == 197632, "as octonion.cuh says");

// octonion is the form with 30 products: y of x, or for dx with dy as x, added to
// old if there is any. Two runs are the same, and each leaves zeros in the counters.
static std::vector<uint16_t> octonion(bool dx, int T, int N, int K, const Array<uint16_t> &X, const Array<uint16_t> &W, const Array<float> &scale,
                                      const std::vector<uint16_t> &old, const std::string &label) {
    int chunk = 1 + rng() % 2, add = !old.empty();
    typedef Octonion90 O;
    Array<uint16_t> Xh((size_t)O::keep_x * 128 * chunk * 8 * K), P((size_t)O::keep_p * 128 * chunk * 8 * N);
    std::vector<int> zeros(2 + 3 * ((T + 128 * chunk - 1) / (128 * chunk)));
    Array<int> Counters(zeros);
    TensorMap mx = tensor_map(X.d, K, T, 8 * K, 8, K), mh = tensor_map(Xh.d, K, O::keep_x * 128 * chunk, 8 * K, 8, K);
    TensorMap mw = dx ? tensor_map(W.d, N, K, N, 16, N * K) : tensor_map(W.d, K, N, K, 16, N * K);
    std::vector<uint16_t> runs[2];
    for (auto &r : runs) {
        Xh.poison(), P.poison();
        Array<uint16_t> Y((size_t)T * 8 * N);
        if (add) Y.put(old);
#ifdef EMULATED
        together = true;
#endif
        if (dx)
            LAUNCH(octonion90_nn, Dim(multiprocessors()), O::threads, O::shared, mx, mh, mw, X.d, Xh.d, P.d, Y.d, nullptr, Counters.d, T, N, K, chunk, add);
        else
            LAUNCH(octonion90_nt, Dim(multiprocessors()), O::threads, O::shared, mx, mh, mw, X.d, Xh.d, P.d, Y.d, scale.d, Counters.d, T, N, K, chunk, 0);
#ifdef EMULATED
        together = false;
#endif
        r = Y.down();
        check(Counters.down() == zeros, label + ": counters");
    }
    same(runs[0], runs[1], label);
    return runs[0];
}

// octonion_gradient adds to the folded gradient.
static void octonion_gradient(const Case &c, const Array<uint16_t> &X, const Array<uint16_t> &DY, float *G, const std::string &label) {
    int T = c.tokens, N = c.out, K = c.in, chunk = 1 + rng() % 2, chunks = (T + 128 * chunk - 1) / (128 * chunk), each = 1 + rng() % chunks, splits = (chunks + each - 1) / each;
    typedef Octonion90 O;
    Array<uint16_t> Xh((size_t)T * 8 * K), Gh((size_t)T * 8 * N);
    std::vector<int> zeros(2 + chunks);
    Array<int> Counters(zeros);
    Array<float> P((size_t)splits * 16 * N * K);
    auto parts = [&](const uint16_t *p, int part) { return tensor_map(p, part, T, 8 * part, 8, part); };
    TensorMap mx = parts(X.d, K), md = parts(DY.d, N), mh = parts(Xh.d, K), mg = parts(Gh.d, N);
    std::vector<float> runs[2];
    for (auto &r : runs) {
        Xh.poison(), Gh.poison(), P.poison();
#ifdef EMULATED
        together = true;
#endif
        LAUNCH(octonion90_tn, Dim(multiprocessors()), O::threads, O::shared, mx, md, mh, mg, X.d, DY.d, Xh.d, Gh.d, P.d, Counters.d, T, N, K, chunk, each, splits);
#ifdef EMULATED
        together = false;
#endif
        r = P.down();
        check(Counters.down() == zeros, label + " dW: counters");
    }
    same(runs[0], runs[1], label + " dW");
    LAUNCH(fold_walsh, Dim((N * K + 127) / 128), 256, 0, G, P.d, N * K, splits, 16 * N * K, 1);
}

static void test_layers(const std::vector<Case> &cases) {
    std::vector<Weights *> ws;
    std::vector<Layer> table;
    int most = 0, most_out = 0;
    for (auto &c : cases) {
        ws.push_back(new Weights(c));
        table.push_back(ws.back()->layer);
        most = std::max(most, pieces(c)), most_out = std::max(most_out, c.out);
    }
    static_assert(sizeof(Layer) == 128, "16 words");
    Array<Layer> Table(table);
    Array<double> Partial(chunks * cases.size());
    LAUNCH(refresh_sums, Dim(chunks, cases.size()), 256, 0, Table.d, Partial.d);
    LAUNCH(refresh, Dim(std::max(1, most / 2 / 256), cases.size()), 256, 0, Table.d, Partial.d);
    for (auto *p : ws) {
        Weights &l = *p;
        Case c = l.c;
        char name[200];
        snprintf(name, sizeof name, "layer n %d N %d K %d tokens %d quantizer %d%s%s%s", c.n, c.out, c.in, c.tokens, c.quantizer,
                 c.transposed ? " transposed" : "", c.beta ? " beta" : "", c.walsh == 1 ? " walsh" : c.walsh ? " 30 products" : "");
        std::string label = name;
        float gamma = l.gamma();
        check(l.Gamma.down()[0] == gamma, std::string(label) + ": gamma");
        int zeros = 0;
        if (c.quantizer)
            for (size_t i = 0; i < l.w.size(); i++) zeros += l.quant(i, gamma) == 0;
        check(l.Zeros.down()[0] == zeros, std::string(label) + ": zeros");
        int nN = c.n * c.out, nK = c.n * c.in, T = c.tokens;
        std::vector<double> g(c.out), dense((size_t)nN * nK);
        for (int r = 0; r < c.out; r++) g[r] = gamma * (c.beta ? l.beta[r] : 1.f);
        auto scale = l.Scale.down();
        bool ok = true;
        for (int i = 0; i < nN; i++) ok &= std::fabs(scale[i] - g[i % c.out]) <= 1e-6 * std::fabs(g[i % c.out]);
        check(ok, std::string(label) + ": scale");
        // the dense matrix, in double and as the device's bf16
        auto d = l.D.down(), dg = l.Dg.down();
        bool good = true;
        for (int i = 0; i < c.n; i++)
            for (int j = 0; j < c.n; j++)
                for (int r = 0; r < c.out; r++)
                    for (int q = 0; q < c.in; q++) {
                        double v = l.s[i][j] * as_double(round_bf16(l.quant(l.at(i ^ j, r, q), gamma)));
                        size_t at = (size_t)(i * c.out + r) * nK + j * c.in + q;
                        dense[at] = v;
                        if (!c.walsh) {
                            good &= as_double(d[at]) == v;
                            double vg = l.s[i][j] * l.quant(l.at(i ^ j, r, q), gamma) * g[r];
                            good &= std::fabs(as_double(dg[at]) - vg) <= std::fabs(vg) / 250;
                        }
                    }
        if (c.walsh)
            for (int k = 0; k < 8; k++)
                for (int r = 0; r < c.out; r++)
                    for (int q = 0; q < c.in; q++) {
                        double v = 0;
                        for (int j = 0; j < 8; j++) v += (popcount(k & j) & 1 ? -1 : 1) * (c.walsh == 2 && j ? -1 : 1) * l.quant(l.at(j, r, q), gamma) / 8;
                        size_t at = l.at(k, r, q);
                        if (c.walsh == 2) {
                            double two = 2 * l.quant(at, gamma), twog = two * g[r];
                            good &= as_double(d[l.w.size() + at]) == as_double(round_bf16(two));
                            good &= std::fabs(as_double(dg[l.w.size() + at]) - twog) <= std::fabs(twog) / 250 + 1e-6;
                        }
                        good &= c.quantizer ? as_double(d[at]) == v : std::fabs(as_double(d[at]) - v) <= std::fabs(v) / 250 + 1e-6;
                        good &= std::fabs(as_double(dg[at]) - v * g[r]) <= std::fabs(v * g[r]) / 250 + 1e-6;
                    }
        check(good, std::string(label) + ": D or Dg");

        // forward and backward in double
        auto x = as_bf16(normal((size_t)T * nK)), dy = as_bf16(normal((size_t)T * nN));
        std::vector<double> y((size_t)T * nN), ym(y.size()), dx((size_t)T * nK), dxm(dx.size()), G(l.w.size()), Gm(G.size());
        std::vector<double> xd(x.size()), dyd(dy.size());
        for (size_t i = 0; i < x.size(); i++) xd[i] = as_double(x[i]);
        for (size_t i = 0; i < dy.size(); i++) dyd[i] = as_double(dy[i]);
        for (int t = 0; t < T; t++)
            for (int i = 0; i < nN; i++) {
                double sum = 0, abs = 0;
                for (int j = 0; j < nK; j++) {
                    double v = xd[(size_t)t * nK + j] * dense[(size_t)i * nK + j];
                    sum += v, abs += std::fabs(v);
                }
                y[(size_t)t * nN + i] = sum * g[i % c.out], ym[(size_t)t * nN + i] = abs * std::fabs(g[i % c.out]);
                double up = dyd[(size_t)t * nN + i];
                for (int j = 0; j < nK; j++) {
                    double v = up * g[i % c.out] * dense[(size_t)i * nK + j];
                    dx[(size_t)t * nK + j] += v, dxm[(size_t)t * nK + j] += std::fabs(v);
                    int a = i / c.out, b = j / c.in;
                    double o = up * xd[(size_t)t * nK + j];
                    size_t at = l.at(a ^ b, i % c.out, j % c.in);
                    G[at] += l.s[a][b] * o, Gm[at] += std::fabs(o);
                }
            }
        auto before = l.DW.down();
        for (size_t i = 0; i < G.size(); i++) G[i] += before[i], Gm[i] += std::fabs(before[i]);

        Array<uint16_t> X(x), DY(dy);
        for (int path : all_paths) {
            if (path != 80 && (nN % 8 || nK % 8 || (c.walsh && (c.out % 8 || c.in % 8)))) continue;
            Array<uint16_t> Y(y.size()), DX(dx.size());
            l.DW.put(before);
            std::string which = label + " path " + std::to_string(path);
            int splits = 1 + rng() % 4;
            if (c.walsh == 2 && path != 256) continue;
            if (c.walsh != 1) {
                Gemm f{NT, T, nN, nK}, b{NN, T, nK, nN}, h{TN, nN, nK, T};
                f.layout(), b.layout();
                if (c.transposed) std::swap(h.M, h.N);
                h.splits = splits;
                h.layout();
                auto on = [&](const Gemm &g) { return possible(g, path) ? path : 128; };
                if (c.walsh) {
                    Y.put(octonion(false, T, c.out, c.in, X, l.D, l.Scale, {}, which + " y"));
                    DX.put(octonion(true, T, c.in, c.out, DY, l.Dg, l.Scale, {}, which + " dx"));
                    auto old = as_bf16(normal(dx.size()));
                    std::vector<double> sum = dx, summ = dxm;
                    for (size_t i = 0; i < old.size(); i++) sum[i] += as_double(old[i]), summ[i] += std::fabs(as_double(old[i]));
                    compare(which + " dx added", octonion(true, T, c.in, c.out, DY, l.Dg, l.Scale, old, which + " dx added"), sum, summ, 1.0 / 250, 6e-3);
                } else {
                    launch_gemm(f, on(f), X.d, l.D.d, Y.d, l.Scale.d, 0);
                    launch_gemm(b, on(b), DY.d, l.Dg.d, DX.d, nullptr, 0);
                }
                if (c.walsh) {
                    octonion_gradient(c, X, DY, l.DW.d, which);
                } else {
                Array<float> P((size_t)splits * nN * nK);
                launch_gemm(h, on(h), c.transposed ? X.d : DY.d, c.transposed ? DY.d : X.d, P.d, nullptr, 0);
                int rows = c.transposed ? c.in : c.out, cols = c.transposed ? c.out : c.in, v = cols % 4 ? 1 : 4;
                LAUNCH(fold, Dim((rows * cols + 32 * v - 1) / (32 * v), c.n), 256, 0, l.DW.d, nullptr, nullptr, nullptr, P.d, l.Signs.d, c.n, rows, cols, splits, h.strideC, c.transposed);
                }
                    } else {
                Array<uint16_t> Xh(x.size()), P(y.size()), DYh(dy.size()), DXh(dx.size());
                auto transform = [&](uint16_t *to, uint16_t *from, float *s, int part) {
                    LAUNCH(walsh_bf16, Dim(std::min(64, (T * ((part + 7) / 8) + 255) / 256)), 256, 0, to, from, s, T, part, 0);
                };
                transform(Xh.d, X.d, nullptr, c.in);
                transform(DYh.d, DY.d, nullptr, c.out);
                Gemm f{NT, T, c.out, c.in, 8, 1, nK, c.in, nN, c.in, c.out * c.in, c.out};
                Gemm b{NN, T, c.in, c.out, 8, 1, nN, c.in, nK, c.out, c.out * c.in, c.in};
                Gemm h{TN, c.out, c.in, T, 8, splits, nN, nK, c.in, c.out, c.in, c.out * c.in};
                auto on = [&](const Gemm &g) { return possible(g, path) ? path : 128; };
                launch_gemm(f, on(f), Xh.d, l.D.d, P.d, nullptr, 0);
                transform(Y.d, P.d, l.Scale.d, c.out);
                launch_gemm(b, on(b), DYh.d, l.Dg.d, DXh.d, nullptr, 0);
                Array<float> Q((size_t)splits * 8 * c.out * c.in);
                auto base = as_bf16(normal(dx.size()));
                Array<uint16_t> Sum(base);
                LAUNCH(walsh_bf16, Dim(5), 256, 0, Sum.d, DXh.d, nullptr, T, c.in, 1);
                transform(DX.d, DXh.d, nullptr, c.in);
                std::vector<double> sum = dx, summ = dxm;
                for (size_t i = 0; i < base.size(); i++) sum[i] += as_double(base[i]), summ[i] += std::fabs(as_double(base[i]));
                compare(which + " dx added", Sum.down(), sum, summ, 1.0 / 250, 6e-3);
                launch_gemm(h, on(h), DYh.d, Xh.d, Q.d, nullptr, 0);
                int v = c.out * c.in % 4 ? 1 : 4;
                LAUNCH(fold_walsh, Dim((c.out * c.in + 32 * v - 1) / (32 * v)), 256, 0, l.DW.d, Q.d, c.out * c.in, splits, 8 * c.out * c.in, 0);
                    }
            // bf16 of Wq, D's products and the output; Walsh rounds X̂ and P too, octonions with 30 products C too
            double slack = c.walsh ? 6e-3 : 2e-6;
            compare(which + " y", Y.down(), y, ym, 1.0 / 250, slack);
            compare(which + " dx", DX.down(), dx, dxm, 1.0 / 250, c.walsh ? 6e-3 : c.beta || c.quantizer != 1 ? 2e-3 : 2e-6);
            compare(which + " G", l.DW.down(), G, Gm, 1e-6, c.walsh == 2 ? 1e-2 : c.walsh ? 3e-3 : 2e-6);
        }
    }
    // finish_gradient from known G
    std::vector<std::vector<float>> dws, dbs;
    for (auto *l : ws) dws.push_back(l->DW.down()), dbs.push_back(l->DBeta.down());
    LAUNCH(finish_gradient, Dim(most_out, cases.size()), 128, 0, Table.d);
    for (size_t i = 0; i < ws.size(); i++) {
        Weights &l = *ws[i];
        Case c = l.c;
        float gamma = l.gamma();
        std::vector<double> want(dws[i].size()), mag(want.size()), db(c.out), dbm(c.out);
        for (int r = 0; r < c.out; r++) db[r] = dbs[i][r], dbm[r] = std::fabs(db[r]);
        for (int k = 0; k < c.n; k++)
            for (int r = 0; r < c.out; r++)
                for (int q = 0; q < c.in; q++) {
                    size_t at = l.at(k, r, q);
                    double o = dws[i][at] * l.quant(at, gamma) * gamma;
                    if (c.beta) db[r] += o, dbm[r] += std::fabs(o);
                    want[at] = dws[i][at] * (c.beta ? l.beta[r] : 1.f);
                    if (c.quantizer == 1 && std::fabs(l.w[at]) > 1.5f) want[at] = 0;
                    mag[at] = std::fabs(want[at]);
                }
        std::string label = "finish_gradient " + std::to_string(i);
        compare(label + " dw", l.DW.down(), want, mag, 1e-6);
        compare(label + " dbeta", l.DBeta.down(), db, dbm, 1e-6);
        delete ws[i];
    }
}

// ---- whole Walsh layers in one launch ------------------------------------

// test_walsh90 compares walsh90_nt (a batch that shares x) and _nn (a chain) on
// random blocks, x̂ rounded as the kernels round it.
static void test_walsh90(int M, int N, int K, int many, bool add) {
    auto x = as_bf16(normal((size_t)M * 8 * K)), dy = as_bf16(normal((size_t)many * M * 8 * N));
    auto w = as_bf16(normal((size_t)many * 8 * N * K, 0.1f));
    auto scale = normal((size_t)many * 8 * N);
    auto transformed = [](const std::vector<uint16_t> &v, int rows, int part) {
        std::vector<double> t(v.size());
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < 8; k++)
                for (int q = 0; q < part; q++) {
                    double sum = 0;
                    for (int j = 0; j < 8; j++) sum += (popcount(k & j) & 1 ? -1 : 1) * as_double(v[((size_t)r * 8 + j) * part + q]);
                    t[((size_t)r * 8 + k) * part + q] = as_double(round_bf16((float)sum));
                }
        return t;
    };
    auto xh = transformed(x, M, K), dyh = transformed(dy, many * M, N);
    Array<uint16_t> X(x), DY(dy), B(w);
    Array<float> S(scale);
    std::string label = "walsh90 " + std::to_string(M) + "×" + std::to_string(N) + "×" + std::to_string(K) + " of " + std::to_string(many) + (add ? " add" : "");
    int shares = 1 + rng() % 3;
    auto grid = [&](int rows, int columns, bool still) {
        int each = still ? (columns + shares - 1) / shares : 1;
        return std::min(multiprocessors(), (columns + each - 1) / each * rows);
    };
    // y = ± Σ of products P_k, in double
    auto back = [&](const std::vector<double> &p, const std::vector<double> &m, int rows, int part, const float *s, const std::vector<uint16_t> &old, const char *what, const std::vector<uint16_t> &got) {
        std::vector<double> want(p.size()), mag(p.size());
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < 8; i++)
                for (int n = 0; n < part; n++) {
                    double sum = 0, abs = 0;
                    for (int k = 0; k < 8; k++) {
                        size_t at = ((size_t)r * 8 + k) * part + n;
                        sum += (popcount(k & i) & 1 ? -1 : 1) * p[at], abs += m[at];
                    }
                    if (s) sum *= s[n], abs *= std::fabs(s[n]);
                    size_t at = ((size_t)r * 8 + i) * part + n;
                    if (add) sum += as_double(old[at]), abs += std::fabs(as_double(old[at]));
                    want[at] = sum, mag[at] = abs;
                }
        compare(label + what, got, want, mag, 1.0 / 256, 4e-6);
    };
    auto run = [&](size_t size, const std::vector<uint16_t> &old, auto launch) {
        std::vector<uint16_t> runs[2];
        for (auto &r : runs) {
            Array<uint16_t> Y(size);
            if (add) Y.put(old);
            launch(Y.d);
            r = Y.down();
        }
        same(runs[0], runs[1], label);
        return runs[0];
    };
    {
        TensorMap a = tensor_map(X.d, K, M, 8 * K, 8, K), b = tensor_map(B.d, K, N, K, 8 * many, N * K);
        auto old = as_bf16(normal((size_t)many * M * 8 * N));
        auto y = run(old.size(), old, [&](uint16_t *Y) {
            LAUNCH(walsh90_nt, Dim(grid((M + 63) / 64, (N + 63) / 64 * many, K <= 64)), 288, Walsh90::shared, a, b, Y, S.d, M, N, K, 0, many, 1, M * 8 * N, 8 * N, shares, add);
        });
        for (int z = 0; z < many; z++) {
            std::vector<double> p((size_t)M * 8 * N), m(p.size());
            for (int r = 0; r < M; r++)
                for (int k = 0; k < 8; k++)
                    for (int n = 0; n < N; n++)
                        for (int q = 0; q < K; q++) {
                            double v = xh[((size_t)r * 8 + k) * K + q] * as_double(w[(((size_t)z * 8 + k) * N + n) * K + q]);
                            p[((size_t)r * 8 + k) * N + n] += v, m[((size_t)r * 8 + k) * N + n] += std::fabs(v);
                        }
            size_t from = (size_t)z * M * 8 * N, size = (size_t)M * 8 * N;
            back(p, m, M, N, scale.data() + z * 8 * N, {old.begin() + from, old.begin() + from + size}, " nt", {y.begin() + from, y.begin() + from + size});
        }
    }
    {
        TensorMap a = tensor_map(DY.d, N, M * many, 8 * N, 8, N), b = tensor_map(B.d, K, N, K, 8 * many, N * K);
        auto old = as_bf16(normal((size_t)M * 8 * K));
        auto dx = run(old.size(), old, [&](uint16_t *DX) {
            LAUNCH(walsh90_nn, Dim(grid((M + 63) / 64, (K + 63) / 64, N <= 64 && many == 1)), 288, Walsh90::shared, a, b, DX, nullptr, M, K, N, M, 1, many, 0, 0, shares, add);
        });
        std::vector<double> p((size_t)M * 8 * K), m(p.size());
        for (int c = 0; c < many; c++)
            for (int r = 0; r < M; r++)
                for (int k = 0; k < 8; k++)
                    for (int n = 0; n < N; n++)
                        for (int q = 0; q < K; q++) {
                            double v = dyh[(((size_t)c * M + r) * 8 + k) * N + n] * as_double(w[(((size_t)c * 8 + k) * N + n) * K + q]);
                            p[((size_t)r * 8 + k) * K + q] += v, m[((size_t)r * 8 + k) * K + q] += std::fabs(v);
                        }
        back(p, m, M, K, nullptr, old, " nn", dx);
    }
}

static void test_walsh90s(bool quick) {
    struct { int M, N, K, many; } shapes[] = {{130, 64, 64, 1}, {96, 64, 64, 3}, {33, 24, 16, 2}, {70, 176, 64, 1}, {64, 40, 176, 2}, {300, 8, 72, 1}, {1, 72, 8, 1}};
    for (auto [M, N, K, many] : shapes) {
        if (quick && M > 96) continue;
        test_walsh90(M, N, K, many, rng() & 1);
    }
#ifndef EMULATED
    test_walsh90(2000, 64, 64, 1, false);
    test_walsh90(1024, 160, 160, 2, true);
#endif
}

#include "linear_bench.h"

int main(int argc, char **argv) {
    load_kernels(0, nullptr);
    if (argc > 1 && std::string(argv[1]) == "bench") {
        bench(argc > 2 ? atoi(argv[2]) : 0);
        return 0;
    }
    bool quick = argc > 1 && std::string(argv[1]) == "quick"; // for compute-sanitizer
    test_walsh90s(quick);
    if (argc > 1 && std::string(argv[1]) == "walsh90") {
        printf("linear: %d checks, %d failed\n", checks, failures);
        return failures > 0;
    }
    test_gated(130, 264, 72);
    test_gated(700, 64, 136);
    test_gated(257, 392, 512);
    test_gemms(quick);
    if (quick) {
        test_layers({{8, 16, 24, 130, 2, 0, 1, 0}, {8, 16, 16, 33, 0, 1, 1, 0}, {8, 22, 3, 7, 1, 0, 0, 0}, {8, 24, 40, 33, 2, 0, 1, 1}, {8, 40, 24, 130, 2, 0, 1, 2}});
        printf("linear: %d checks, %d failed\n", checks, failures);
        return failures > 0;
    }
    // n, N, K, tokens, quantizer, transposed, beta, walsh
    test_layers({{8, 8, 8, 7, 2, 0, 0, 0}, {8, 64, 64, 33, 2, 0, 0, 0}, {8, 22, 171, 33, 1, 0, 1, 0}, {8, 171, 22, 7, 2, 0, 1, 0},
                 {4, 16, 24, 130, 1, 0, 1, 0}, {2, 24, 40, 33, 2, 0, 0, 0}, {1, 33, 65, 7, 1, 0, 1, 0}, {16, 8, 16, 33, 2, 0, 0, 0},
                 {8, 16, 16, 130, 0, 1, 1, 0}, {8, 8, 8, 33, 0, 1, 1, 0}, {8, 64, 64, 33, 0, 1, 1, 0}, {8, 3, 5, 7, 2, 1, 0, 0},
                 {8, 8, 8, 33, 2, 0, 0, 1}, {8, 64, 64, 33, 1, 0, 1, 1}, {8, 24, 176, 33, 2, 0, 1, 1}, {8, 22, 3, 7, 2, 0, 0, 1}, {8, 3, 9, 7, 0, 0, 0, 1},
                 {8, 8, 72, 1000, 2, 0, 1, 2}, {8, 264, 16, 33, 1, 0, 0, 2}, {8, 16, 264, 7, 0, 0, 1, 2}});
#ifndef EMULATED
    test_layers({{8, 176, 64, 130, 2, 0, 0, 0}, {8, 64, 176, 130, 1, 0, 1, 0}, {8, 160, 160, 200, 2, 0, 0, 0}, {8, 176, 64, 300, 2, 0, 0, 1}, {8, 64, 64, 1000, 0, 1, 1, 0}, {8, 128, 192, 1111, 2, 0, 1, 2}});
#endif
    printf("linear: %d checks, %d failed\n", checks, failures);
    return failures > 0;
}
