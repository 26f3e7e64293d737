# cuBLAS (torch.matmul, bf16) at the shapes of linear_bench.h, timed the same way.
import torch

def milliseconds(f):
    for i in range(4):
        f(i)
    times = []
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(12):
            f(i)
    graph.replay()
    for _ in range(11):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        graph.replay()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b) / 12)
    return sorted(times)[5]

def product(kind, m, n, k, batch=1):
    sets = 4
    shape = lambda r, c: (batch, r, c) if batch > 1 else (r, c)
    make = lambda r, c: [torch.randn(shape(r, c), device="cuda", dtype=torch.bfloat16) for _ in range(sets)]
    a = make(k, m) if kind == "tn" else make(m, k)
    b = make(n, k) if kind == "nt" else make(k, n)
    if kind == "tn":
        a = [x.mT for x in a]
    if kind == "nt":
        b = [x.mT for x in b]
    out = [torch.empty(shape(m, n), device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    ms = milliseconds(lambda i: torch.matmul(a[i % sets], b[i % sets], out=out[i % 3]))
    print(f"cuBLAS {kind} {m}x{n}x{k} batch {batch}: {ms:.4f} ms {2 * m * n * k * batch / ms / 1e9:.0f} TFLOP/s")

for d, o, t in [(512, 512, 16384), (512, 1408, 16384), (1408, 512, 16384), (1280, 1280, 8192), (4096, 4096, 8192)]:
    product("nt", t, o, d)
    product("nn", t, d, o)
    product("tn", o, d, t)
product("nt", 8192, 512, 512, 8)
product("nt", 16384, 64, 64, 8)
x, y = (torch.empty(1 << 27, device="cuda", dtype=torch.bfloat16) for _ in range(2))
ms = milliseconds(lambda i: y.copy_(x))
print(f"copy: {4 * x.numel() / ms / 1e9:.2f} TB/s")
