# A dense transformer of GPT-2's kind in PyTorch, of the shapes that "spinnet
# bench gpu" trains: learned positions, LayerNorm, flash attention, GELU, tied
# output, no dropout, no biases. Whole training steps as PyTorch does them best
# by ordinary means: torch.compile, bf16 autocast, fused AdamW, gradients
# clipped. All models compile at the same time; then each is timed alone.
import statistics
import subprocess
import sys
import time

SHAPES = {  # layers, heads, width, vocabulary, block, batch, micro-batches a step
    "gpu/chars": (8, 8, 512, 65, 512, 32, 1),
    "gpu/50k": (8, 8, 512, 50304, 256, 32, 4),
    "gpu/124m": (24, 20, 1280, 50304, 1024, 10, 1),
}

def train(name):
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    layers, heads, width, vocab, block, batch, micro = SHAPES[name]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
            self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
            self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = (z.view(b, t, heads, -1).transpose(1, 2) for z in self.qkv(self.norm1(x)).split(width, 2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, width))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(block, width)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.norm = nn.LayerNorm(width, bias=False)
            for p in self.parameters():
                if p.dim() > 1:
                    nn.init.normal_(p, std=0.02)

        def forward(self, ids, targets):
            x = self.tokens(ids) + self.positions.weight
            for b in self.blocks:
                x = b(x)
            logits = F.linear(self.norm(x), self.tokens.weight)
            return F.cross_entropy(logits.view(-1, vocab), targets.view(-1))

    torch.manual_seed(int(time.time()))
    torch.set_float32_matmul_precision("high")
    model = Model().cuda()
    run = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = [torch.randint(vocab, (batch, block + 1)).pin_memory() for _ in range(4 * micro)]

    def step(i):
        for m in range(micro):
            data = ids[(i * micro + m) % len(ids)].to("cuda", non_blocking=True)
            with torch.autocast("cuda", torch.bfloat16):
                loss = run(data[:, :-1].contiguous(), data[:, 1:].contiguous()) / micro
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for i in range(3):
        step(i)
    torch.cuda.synchronize()
    print("ready", flush=True)
    sys.stdin.readline()
    times = []
    for i in range(24):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step(i)
        torch.cuda.synchronize()
        if i >= 4:
            times.append(1000 * (time.perf_counter() - start))
    ms = statistics.median(times)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"PyTorch {name} {ms:.2f} ms {batch * block * micro / ms * 1000:.0f} tokens/s,"
          f" {parameters / 1e6:.1f} M parameters, {torch.cuda.max_memory_allocated() >> 20} MiB", flush=True)

if len(sys.argv) > 1:
    train(sys.argv[1])
    sys.exit()
peers = [subprocess.Popen([sys.executable, __file__, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in SHAPES]
ready = [p.stdout.readline() for p in peers]
for name, p, line in zip(SHAPES, peers, ready):
    if line.strip() != "ready":
        print(f"PyTorch {name} failed: {line.strip()}")
        continue
    p.stdin.write("\n")
    p.stdin.flush()
    print(p.stdout.read().strip(), flush=True)
    p.wait()
