"""bench_step.rs in PyTorch: the same shapes, batch, clipping and AdamW; attention by scaled_dot_product_attention.

python bench_step.py [--models 1.0M,5.5M,14.6M,lora] [--threads 1,2] [--variants eager-f32,compiled-f32,eager-bf16,compiled-bf16] [--steps 12]

bf16 is autocast over f32 parameters. `lora` has the shape of smollm2 with random values: time does not depend on them.
"""

import argparse
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn

ROWS, TOKENS = 8, 256
# vocabulary, width, layers, heads, key-value heads, feed-forward width
SHAPES = {
    "1.0M": (2048, 128, 4, 4, 2, 352),
    "5.5M": (4096, 256, 6, 8, 4, 704),
    "14.6M": (4096, 384, 8, 6, 3, 1024),
    "lora": (49152, 576, 30, 9, 3, 1536),
}


class Linear(nn.Module):
    def __init__(self, inputs, outputs, rank):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * 0.02, requires_grad=rank == 0)
        if rank:
            self.a = nn.Parameter(torch.randn(rank, inputs) * 0.02)
            self.b = nn.Parameter(torch.zeros(outputs, rank))
        self.rank = rank

    def forward(self, x):
        y = F.linear(x, self.weight)
        return y + F.linear(F.linear(x, self.a), self.b) * (16 / self.rank) if self.rank else y


class Layer(nn.Module):
    def __init__(self, width, heads, kv_heads, ffn, rank):
        super().__init__()
        self.heads, self.kv_heads, self.head = heads, kv_heads, width // heads
        kv = kv_heads * self.head
        self.q, self.k, self.v, self.o = (Linear(width, n, rank) for n in (width, kv, kv, width))
        self.gate, self.up, self.down = Linear(width, ffn, rank), Linear(width, ffn, rank), Linear(ffn, width, rank)
        self.gains = nn.ParameterList([nn.Parameter(torch.ones(width), requires_grad=rank == 0) for _ in range(2)])

    def forward(self, x, cos, sin):
        b, t, c = x.shape
        h = F.rms_norm(x, (c,), self.gains[0], 1e-5)
        q = turn(self.q(h).view(b, t, self.heads, self.head).transpose(1, 2), cos, sin)
        k = turn(self.k(h).view(b, t, self.kv_heads, self.head).transpose(1, 2), cos, sin)
        v = self.v(h).view(b, t, self.kv_heads, self.head).transpose(1, 2)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(a.transpose(1, 2).reshape(b, t, c))
        h = F.rms_norm(x, (c,), self.gains[1], 1e-5)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def turn(x, cos, sin):
    a, b = x.chunk(2, -1)
    return (x * cos + torch.cat((-b, a), -1) * sin).to(x.dtype)


class Llama(nn.Module):
    def __init__(self, vocab, width, layers, heads, kv_heads, ffn, rank=0):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(vocab, width) * 0.02, requires_grad=rank == 0)
        self.layers = nn.ModuleList([Layer(width, heads, kv_heads, ffn, rank) for _ in range(layers)])
        self.gain = nn.Parameter(torch.ones(width), requires_grad=rank == 0)
        half = width // heads // 2
        angles = torch.arange(TOKENS)[:, None] * (1e4 ** (-torch.arange(half) / half))[None]
        self.register_buffer("cos", torch.cat((angles.cos(), angles.cos()), -1))
        self.register_buffer("sin", torch.cat((angles.sin(), angles.sin()), -1))

    def forward(self, tokens):
        x = self.embedding[tokens]
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        x = F.rms_norm(x, (x.shape[-1],), self.gain, 1e-5)
        logits = F.linear(x[:, :-1], self.embedding)
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), tokens[:, 1:].reshape(-1))


def run(name, variant, threads, steps):
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    vocab = SHAPES[name][0]
    model = Llama(*SHAPES[name], rank=8 if name == "lora" else 0)
    trained = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    loss_of = torch.compile(model) if variant.startswith("compiled") else model
    tokens = torch.randint(0, vocab, (ROWS, TOKENS))
    walls, processors = [], []
    for step in range(steps + 2):
        wall, processor = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.endswith("bf16")):
            loss = loss_of(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adam.step()
        adam.zero_grad()
        if step >= 2:
            walls.append(time.perf_counter() - wall)
            processors.append(time.process_time() - processor)
    n = ROWS * TOKENS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{name:6} {variant} {threads} thread(s): {n / min(walls):6.0f} tokens/s at best, "
        f"{n / sorted(walls)[len(walls) // 2]:6.0f} median; processor {n / min(processors):6.0f} tokens/s a core; "
        f"peak {peak} MiB; loss {loss.item():.4f}",
        flush=True,
    )


parser = argparse.ArgumentParser()
parser.add_argument("--models", default="1.0M,5.5M,14.6M")
parser.add_argument("--threads", default="1,2")
parser.add_argument("--variants", default="eager-f32,compiled-f32,eager-bf16,compiled-bf16")
parser.add_argument("--steps", type=int, default=12)
arguments = parser.parse_args()
for variant in arguments.variants.split(","):
    for threads in arguments.threads.split(","):
        for name in arguments.models.split(","):
            run(name, variant, int(threads), arguments.steps)
