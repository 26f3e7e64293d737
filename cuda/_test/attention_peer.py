"""Times PyTorch's flash attention and norms at the shapes of attention_test and
step_test bench: medians of device events, L2 flushed before each run."""
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def time_ms(f, reps=25):
    junk = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    times = []
    for i in range(reps + 3):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        junk.fill_(i)
        a.record()
        f()
        b.record()
        b.synchronize()
        if i >= 3:
            times.append(a.elapsed_time(b))
    return sorted(times)[len(times) // 2]


print(torch.__version__, torch.cuda.get_device_name())
for batch, t, heads, hd, p in [(32, 512, 8, 64, 0), (32, 512, 8, 64, 0.1), (32, 256, 8, 64, 0), (10, 1024, 20, 64, 0), (4, 2048, 16, 64, 0),
                               (16, 1024, 8, 32, 0), (8, 1024, 8, 96, 0), (8, 1024, 8, 128, 0)]:
    # [batch, T, heads, hd] in memory, as a model's projections leave it.
    q, k, v = (torch.randn(batch, t, heads, hd, device="cuda", dtype=torch.bfloat16).transpose(1, 2).requires_grad_() for _ in range(3))
    do = torch.randn(batch, t, heads, hd, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            with sdpa_kernel(backend):
                fwd = time_ms(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p))
                o = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)
                bwd = time_ms(lambda: torch.autograd.grad(o, (q, k, v), do, retain_graph=True))
            print(f"torch {backend.name:16} {batch}x{t}, {heads} heads of {hd}, dropout {p}: forward {fwd:.4f} ms, backward {bwd:.4f} ms", flush=True)
        except Exception as e:  # a backend that refuses the shape
            print(f"torch {backend.name}: {str(e).splitlines()[0]}", flush=True)

n = torch.randn(1 << 28, device="cuda", dtype=torch.float32)
m = torch.empty_like(n)
ms = time_ms(lambda: m.copy_(n), 9)
print(f"torch copy of 1 GiB: {ms:.4f} ms, {2 * n.numel() * 4 / ms / 1e9:.2f} TB/s")
