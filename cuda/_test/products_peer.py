# Dense layers in PyTorch beside ours, timed the way of cuda/product_test.go:
# medians of graphs that go round operands larger than the L2 cache, in
# microseconds. First the products of testdata/products.txt through cuBLAS,
# then nn.Linear forward and forward with backward, eager and compiled.
# Usage: products_peer.py products.txt
import sys
import torch

torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False

def microseconds(f, count=8):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(4):
            f(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for i in range(count):
            f(i)
    times = []
    for _ in range(10):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        times.append(1000 * start.elapsed_time(stop) / count)
    return sorted(times[1:])[4]

def product(kind, m, n, k, batch, chain, shared, result):
    def many(rows, cols, name):
        count = 1 if shared == name else batch * chain
        shape = (rows, cols) if count == 1 else (count, rows, cols)
        return lambda: torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    a = many(k, m, "A") if kind == "tn" else many(m, k, "A")
    b = many(n, k, "B") if kind == "nt" else many(k, n, "B")
    sets = min(6, 2 + (100 << 20) // (m * k + n * k))
    pairs = [(a(), b()) for _ in range(sets)]
    if kind == "tn":
        pairs = [(x.mT, y) for x, y in pairs]
    if kind == "nt":
        pairs = [(x, y.mT) for x, y in pairs]
    if chain > 1:  # a sum of products in float32 is one product of joined matrices; joining them is not timed
        pairs = [(torch.cat(list(x), 1), torch.cat(list(y), 0)) for x, y in pairs]
    if batch > 1:
        pairs = [tuple(t.expand(batch, *t.shape) if t.dim() == 2 else t for t in p) for p in pairs]
    f = torch.bmm if batch > 1 else torch.mm
    if result == "f32":
        return microseconds(lambda i: f(*pairs[i % sets], out_dtype=torch.float32))
    out = torch.empty((batch, m, n) if batch > 1 else (m, n), device="cuda", dtype=torch.bfloat16)
    return microseconds(lambda i: f(*pairs[i % sets], out=out))

def layer(tokens, width, out):
    linear = torch.nn.Linear(width, out, bias=False, device="cuda", dtype=torch.bfloat16)
    xs = [torch.randn(tokens, width, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    dy = torch.randn(tokens, out, device="cuda", dtype=torch.bfloat16)
    def both(f):
        def step(i):
            torch.autograd.grad(f(xs[i % 3]), (xs[i % 3], linear.weight), dy)
        return step
    compiled = torch.compile(linear)
    with torch.no_grad():
        forward = [microseconds(lambda i: linear(xs[i % 3])), microseconds(lambda i: compiled(xs[i % 3]))]
    print(f"nn.Linear {tokens} x {width} -> {out}: forward {forward[0]:.1f}, compiled {forward[1]:.1f};"
          f" with backward {microseconds(both(linear)):.1f}, compiled {microseconds(both(compiled)):.1f} us", flush=True)

if len(sys.argv) > 1:
    for line in open(sys.argv[1]):
        if line.startswith("#"):
            continue
        name, kind, m, n, k, batch, chain, shared, result = line.split()
        try:
            us = product(kind, int(m), int(n), int(k), int(batch), int(chain), shared, result)
            print(f"cuBLAS {name:18} {us:8.1f} us {2e-6 * int(m) * int(n) * int(k) * int(batch) * int(chain) / us:5.0f} TFLOP/s", flush=True)
        except Exception as e:  # one product that fails does not stop the others
            print(f"cuBLAS {name:18} failed: {str(e).splitlines()[0]}", flush=True)
for shape in [(16384, 512, 512), (16384, 512, 1408), (16384, 1408, 512), (8192, 1280, 1280), (8192, 4096, 4096)]:
    try:
        layer(*shape)
    except Exception as e:
        print("nn.Linear", shape, "failed:", str(e).splitlines()[0], flush=True)
