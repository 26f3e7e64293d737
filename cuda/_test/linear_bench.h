// Times for linear_test.cu.
#pragma once
#ifdef EMULATED
static void bench(int) {}
#else
// Random bf16 bits: a large pool, made once on the device by copying.
static uint16_t *pool(size_t n) {
    static uint16_t *p;
    static size_t have = 512u << 20 >> 1;
    if (!p) {
        auto v = as_bf16(normal(1 << 20));
        p = (uint16_t *)device_alloc(have * 2);
        for (size_t at = 0; at < have; at += v.size()) to_device(p + at, v.data(), v.size() * 2);
    }
    if (n > have) printf("pool too small for %zu\n", n), exit(1);
    return p;
}

static std::vector<int> paths = all_paths;

static void bench_gemm(const char *what, Kind kind, int M, int N, int K, bool f32, std::vector<int> splits = {1}, int batch = 1, bool walsh = false, int chain = 1, int shared = 0, bool add = false) {
    Gemm g{kind, M, N, K};
    g.layout();
    g.chain = chain;
    if (walsh) { // side by side activations, stacked weights
        g.batch = 8;
        if (kind == TN)
            g.lda = 8 * M, g.ldb = 8 * N, g.strideA = M, g.strideB = N;
        else
            g.lda = 8 * K, g.strideA = K, g.ldc = 8 * N, g.strideC = N;
    }
    if (!walsh) g.batch = batch;
    int many = g.batch * chain;
    if (shared & 1) g.strideA = 0;
    if (shared & 2) g.strideB = 0;
    size_t sa = (size_t)g.rowsA() * g.lda * (walsh || shared & 1 ? 1 : many), sb = (size_t)g.rowsB() * g.ldb * (shared & 2 || (walsh && kind == TN) ? 1 : many), sc = (size_t)M * N * g.batch;
    size_t set = (sa + sb + 7) / 8 * 8 + 64;
    int sets = (int)std::max<size_t>(2, std::min<size_t>(6, (160u << 20) / (2 * set)));
    uint16_t *in = pool(set * sets);
    int most = *std::max_element(splits.begin(), splits.end());
    size_t out = sc * (f32 ? 4 : 2) * most;
    int outs = out > (64u << 20) ? 2 : 3;
    char *C = (char *)device_alloc(out * outs);
    double flop = 2.0 * M * N * K * many;
    for (int path : paths)
        for (int s : splits) {
            g.splits = s;
            if (!possible(g, path)) continue;
            double ms = time_rounds([&](int i) {
                const uint16_t *a = in + set * (i % sets), *b = a + (sa + 7) / 8 * 8;
                if (f32)
                    launch_gemm(g, path, a, b, (float *)(C + out * (i % outs)), nullptr, add);
                else
                    launch_gemm(g, path, a, b, (uint16_t *)(C + out * (i % outs)), nullptr, add);
            });
            printf("%-34s %s %5d×%5d×%5d batch %d chain %d path %4d splits %2d  %.4f ms  %4.0f TFLOP/s\n", what, kind_names[kind], M, N, K, g.batch, chain, path, s, ms, flop / ms / 1e9);
        }
    device_free(C);
}

// bench_layer is a whole layer, in the launches that training makes.
static void bench_layer(const char *what, int tokens, int out, int in, int path, int splits, bool transposed, bool walsh) {
    Weights l(Case{8, out, in, tokens, transposed ? 0 : 2, transposed, transposed, walsh});
    Array<Layer> Table(std::vector<Layer>{l.layer});
    Array<double> Partial(chunks);
    int nN = 8 * out, nK = 8 * in;
    size_t tx = (size_t)tokens * nK, ty = (size_t)tokens * nN;
    int sets = 3;
    uint16_t *in_pool = pool(sets * (tx + ty));
    Array<uint16_t> Y(ty * sets), DX(tx * sets), Xh(walsh ? tx : 1), Yh(walsh ? ty : 1), DXh(walsh ? tx : 1);
    Array<float> P(l.w.size() * (walsh ? 1 : 8) * splits);
    int wave = 16 * multiprocessors();
    auto quantise = [&] {
        LAUNCH(refresh_sums, Dim(chunks), 256, 0, Table.d, Partial.d);
        LAUNCH(refresh, Dim((pieces(l.c) + 255) / 256), 256, 0, Table.d, Partial.d);
    };
    auto transform = [&](uint16_t *to, const uint16_t *from, float *s, int part) {
        LAUNCH(walsh_bf16, Dim(std::min(wave, (int)(((size_t)tokens * (part / 8) + 255) / 256))), 256, 0, to, from, s, tokens, part, 0);
    };
    Gemm f{NT, tokens, nN, nK}, b{NN, tokens, nK, nN}, h{TN, nN, nK, tokens};
    f.layout(), b.layout();
    if (transposed) std::swap(h.M, h.N);
    h.splits = splits;
    h.layout();
    if (walsh) {
        f = Gemm{NT, tokens, out, in, 8, 1, nK, in, nN, in, out * in, out};
        b = Gemm{NN, tokens, in, out, 8, 1, nN, in, nK, out, out * in, in};
        h = Gemm{TN, out, in, tokens, 8, splits, nN, nK, in, out, in, out * in};
    }
    auto on = [&](const Gemm &g) { return possible(g, path) ? path : 128; };
    auto forward = [&](int i) {
        const uint16_t *x = in_pool + (i % sets) * (tx + ty);
        uint16_t *y = Y.d + (i % sets) * ty;
        if (walsh) {
            transform(Xh.d, x, nullptr, in);
            launch_gemm(f, on(f), Xh.d, l.D.d, Yh.d, nullptr, 0);
            transform(y, Yh.d, l.Scale.d, out);
        } else {
            launch_gemm(f, on(f), x, l.D.d, y, l.Scale.d, 0);
        }
    };
    auto fold_grad = [&] {
        int rows = transposed ? in : out, cols = transposed ? out : in;
        if (walsh)
            LAUNCH(fold_walsh, Dim((out * in + 127) / 128), 256, 0, l.DW.d, P.d, out * in, splits, 8 * out * in);
        else
            LAUNCH(fold, Dim((rows * cols + 127) / 128, 8), 256, 0, l.DW.d, nullptr, nullptr, nullptr, P.d, l.Signs.d, 8, rows, cols, splits, h.strideC, transposed);
    };
    auto backward_x = [&](int i) {
        const uint16_t *dy = in_pool + (i % sets) * (tx + ty) + tx;
        uint16_t *dx = DX.d + (i % sets) * tx;
        if (walsh) {
            transform(Yh.d, dy, nullptr, out);
            launch_gemm(b, on(b), Yh.d, l.Dg.d, DXh.d, nullptr, 0);
            transform(dx, DXh.d, nullptr, in);
        } else {
            launch_gemm(b, on(b), dy, l.Dg.d, dx, nullptr, 0);
        }
    };
    auto backward_w = [&](int i) {
        const uint16_t *x = in_pool + (i % sets) * (tx + ty), *dy = x + tx;
        if (walsh)
            launch_gemm(h, on(h), Yh.d, Xh.d, P.d, nullptr, 0); // X̂ of the forward, Ĝ of backward_x
        else
            launch_gemm(h, on(h), transposed ? x : dy, transposed ? dy : x, P.d, nullptr, 0);
        fold_grad();
    };
    auto finish = [&] { LAUNCH(finish_gradient, Dim(out), 128, 0, Table.d); };
    quantise();
    double q = time_rounds([&](int) { quantise(); }), fw = time_rounds(forward), all = time_rounds([&](int i) { quantise(), forward(i); });
    double bx = time_rounds(backward_x), bw = time_rounds(backward_w), fo = time_rounds([&](int) { fold_grad(); });
    double both = time_rounds([&](int i) { quantise(), forward(i), backward_x(i), backward_w(i), finish(); });
    double tr = walsh ? time_rounds([&](int i) { transform(Xh.d, in_pool + (i % sets) * (tx + ty), nullptr, in); }) : 0;
    printf("%-9s %5d × %4d→%4d path %4d splits %2d: refresh %.4f fwd %.4f refresh+fwd %.4f dx %.4f dW %.4f (fold %.4f) all %.4f  transform %.4f\n", what,
           tokens, nK, nN, path, splits, q, fw, all, bx, bw, fo, both, tr);
}

// bench times all paths, or one.
static void bench(int only) {
    if (only) paths = {only};
    for (int path : paths) {
        bool coop = path == 128 || path == 80 || path == 1283;
        bench_layer("octonion", 16384, 64, 64, path, coop ? 8 : 16, false, false);
        bench_layer("octonion", 16384, 176, 64, path, coop ? 3 : 6, false, false);
        bench_layer("octonion", 16384, 64, 176, path, coop ? 3 : 6, false, false);
        bench_layer("octonion", 8192, 160, 160, path, 1, false, false);
        bench_layer("octonion", 8192, 512, 512, path, 1, false, false);
        bench_layer("mixer", 16384, 64, 64, path, coop ? 8 : 16, true, false);
        if (coop) continue;
        bench_layer("walsh", 16384, 64, 64, path, 16, false, true);
        bench_layer("walsh", 8192, 160, 160, path, 4, false, true);
        bench_layer("walsh", 8192, 256, 256, path, 4, false, true);
        bench_layer("walsh", 8192, 512, 512, path, 2, false, true);
    }
    bench_gemm("512→512 to float32", NT, 16384, 512, 512, true);
    bench_gemm("512→512 add to float32", NT, 16384, 512, 512, true, {1}, 1, false, 1, 0, true);
    bench_gemm("512→512 add to bf16", NT, 16384, 512, 512, false, {1}, 1, false, 1, 0, true);
    bench_gemm("512→512", NT, 16384, 512, 512, false);
    bench_gemm("512→1408", NT, 16384, 1408, 512, false);
    bench_gemm("q, k, v", NT, 16384, 512, 512, false, {1}, 3, false, 1, 1);
    bench_gemm("q, k, v", NN, 16384, 512, 512, false, {1}, 1, false, 3);
    bench_gemm("q, k, v", TN, 512, 512, 16384, true, {2, 5}, 3, false, 1, 2);
    bench_gemm("gate, up", NT, 16384, 1408, 512, false, {1}, 2, false, 1, 1);
    bench_gemm("gate, up", NN, 16384, 512, 1408, false, {1}, 1, false, 2);
    bench_gemm("gate, up", TN, 1408, 512, 16384, true, {1, 3}, 2, false, 1, 2);
    bench_gemm("q, k, v 1280", NT, 10240, 1280, 1280, false, {1}, 3, false, 1, 1);
    bench_gemm("q, k, v 1280", TN, 1280, 1280, 10240, true, {1, 2}, 3, false, 1, 2);
    bench_gemm("4096→4096", NT, 8192, 4096, 4096, false);
    bench_gemm("walsh 4096", NT, 8192, 512, 512, false, {1}, 8, true);
    { // all weights of 8 layers of d 512 at once
        std::vector<Weights *> ws;
        std::vector<Layer> t;
        for (int i = 0; i < 56; i++) {
            int kind = i % 7;
            ws.push_back(new Weights(Case{8, kind == 5 || kind == 6 ? 176 : 64, kind == 4 ? 176 : 64, 0, 2, 0, 0, 0}));
            t.push_back(ws.back()->layer);
        }
        Array<Layer> Table(t);
        Array<double> Partial(chunks * t.size());
        double ms = time_rounds([&](int) {
            LAUNCH(refresh_sums, Dim(chunks, t.size()), 256, 0, Table.d, Partial.d);
            LAUNCH(refresh, Dim(44, t.size()), 256, 0, Table.d, Partial.d);
        });
        printf("refresh of 56 weights of d 512 (D and Dg): %.4f ms\n", ms);
    }
}
#endif
