"""Transformers and other networks on tokens in PyTorch, tiny and with random weights."""

# mypy: ignore-errors

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .torch_models_cnn import conv, head


def mlp(width, inner, act=nn.GELU):
    return nn.Sequential(nn.Linear(width, inner), act(), nn.Linear(inner, width))


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values; an optional bias on the scores."""

    def __init__(self, width, heads, inner, tokens=None):
        super().__init__()
        self.heads, self.inner = heads, inner
        self.qkv, self.proj = nn.Linear(width, 3 * inner), nn.Linear(inner, width)
        self.bias = nn.Parameter(torch.randn(heads, tokens, tokens)) if tokens else None

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * (self.inner // self.heads) ** -0.5
        if self.bias is not None:
            scores = scores + self.bias
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, self.inner))


class Block(nn.Module):
    """Normalization before attention and before the perceptron."""

    def __init__(self, width, attention, inner):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), attention
        self.norm2, self.mlp = nn.LayerNorm(width), mlp(width, inner)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(1, 17, 12))
        self.blocks = nn.Sequential(*(Block(12, Attention(12, 2, 16), 20) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class WindowAttention(nn.Module):
    """Swin: attention inside of windows, moved by half a window in every second block."""

    def __init__(self, width, side, window, shift):
        super().__init__()
        self.side, self.window, self.shift = side, window, shift
        self.attention = Attention(width, 2, width, window * window)

    def forward(self, x):
        n, _, c = x.shape
        count, w = self.side // self.window, self.window
        x = x.view(n, self.side, self.side, c)
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(n, count, w, count, w, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, w * w, c)
        x = self.attention(x).view(n, count, count, w, w, c).permute(0, 1, 3, 2, 4, 5).reshape(n, self.side, self.side, c)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), (1, 2))
        return x.reshape(n, self.side * self.side, c)


class Swin(nn.Module):
    class Merge(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 16, bias=False)

        def forward(self, x):
            n, t, c = x.shape
            x = x.view(n, int(t**0.5), int(t**0.5), c)
            x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1).flatten(1, 2)
            return self.reduce(self.norm(x))

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 2, 2)
        first = (Block(12, WindowAttention(12, 8, 4, shift), 20) for shift in (0, 2))
        self.blocks = nn.Sequential(*first, self.Merge(12), Block(16, WindowAttention(16, 4, 2, 1), 24), nn.LayerNorm(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class MlpMixer(nn.Module):
    class Layer(nn.Module):
        def __init__(self, tokens, width):
            super().__init__()
            self.norm1, self.tokens = nn.LayerNorm(width), mlp(tokens, 10)
            self.norm2, self.channels = nn.LayerNorm(width), mlp(width, 20)

        def forward(self, x):
            x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
            return x + self.channels(self.norm2(x))

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.layers = nn.Sequential(self.Layer(16, 12), self.Layer(16, 12), nn.LayerNorm(12))
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.layers(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class ConvNext(nn.Module):
    class Layer(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.depthwise, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
            self.mlp, self.scale = mlp(width, 2 * width), nn.Parameter(torch.rand(width))

        def forward(self, x):
            y = self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))
            return x + (self.scale * y).permute(0, 3, 1, 2)

    class ChannelsFirstNorm(nn.Module):
        """Layer normalization over the channels, written out."""

        def __init__(self, width):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

        def forward(self, x):
            x = x - x.mean(1, keepdim=True)
            x = x / torch.sqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)
            return self.weight[:, None, None] * x + self.bias[:, None, None]

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 8, 2, 2), self.ChannelsFirstNorm(8), self.Layer(8)),
            *(self.ChannelsFirstNorm(8), nn.Conv2d(8, 12, 2, 2), self.Layer(12)),
        )
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.norm(self.layers(x).mean((2, 3))))


class PoolFormer(nn.Module):
    """Pooling mixes the tokens; group normalization with one group, layer scale."""

    def __init__(self):
        super().__init__()
        self.first, self.pool = nn.Conv2d(3, 8, 4, 4), nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.norms = nn.ModuleList(nn.GroupNorm(1, 8) for _ in range(2))
        self.mlp = nn.Sequential(nn.Conv2d(8, 20, 1), nn.GELU(approximate="tanh"), nn.Conv2d(20, 8, 1))
        self.scales, self.head = nn.Parameter(torch.rand(2, 8, 1, 1)), head(8)

    def forward(self, x):
        x = self.first(x)
        y = self.norms[0](x)
        x = x + self.scales[0] * (self.pool(y) - y)
        return self.head(x + self.scales[1] * self.mlp(self.norms[1](x)))


class MobileVit(nn.Module):
    """Convolutions around a transformer on patches that are unfolded."""

    def __init__(self):
        super().__init__()
        self.first, self.into = conv(3, 8, 3, 2, act=nn.SiLU), nn.Sequential(conv(8, 8), nn.Conv2d(8, 12, 1, bias=False))
        self.blocks = nn.Sequential(*(Block(12, Attention(12, 2, 12), 16) for _ in range(2)), nn.LayerNorm(12))
        self.back, self.fuse, self.head = conv(12, 8, 1, act=nn.SiLU), conv(16, 10, act=nn.SiLU), head(10)

    def forward(self, x):
        x = self.first(x)
        y = self.into(x)
        n, c, h, w = y.shape
        y = y.reshape(n * c * h // 2, 2, w // 2, 2).transpose(1, 2).reshape(n, c, h * w // 4, 4).permute(0, 3, 2, 1)
        y = self.blocks(y.reshape(n * 4, h * w // 4, c)).reshape(n, 4, h * w // 4, c).permute(0, 3, 2, 1)
        y = y.reshape(n * c * h // 2, w // 2, 2, 2).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.fuse(torch.cat([x, self.back(y)], 1)))


class SegFormer(nn.Module):
    """Keys and values of fewer places, and a depthwise convolution inside of the perceptron."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm1, self.norm2 = nn.Conv2d(3, 12, 7, 2, 3), nn.LayerNorm(12), nn.LayerNorm(12)
        self.reduce, self.norm, self.kv = nn.Conv2d(12, 12, 2, 2), nn.LayerNorm(12), nn.Linear(12, 24)
        self.q, self.proj, self.fc1, self.fc2 = (nn.Linear(*s) for s in ((12, 12), (12, 12), (12, 20), (20, 12)))
        self.depthwise, self.last = nn.Conv2d(20, 20, 3, padding=1, groups=20), nn.Conv2d(12, 3, 1)

    def forward(self, image):
        x = self.patches(image)
        n, c, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        y = self.norm1(x)
        q = self.q(y).reshape(n, h * w, 2, c // 2).permute(0, 2, 1, 3)
        y = self.reduce(y.transpose(1, 2).reshape(n, c, h, w)).reshape(n, c, -1).permute(0, 2, 1)
        k, v = self.kv(self.norm(y)).reshape(n, -1, 2, 2, c // 2).permute(2, 0, 3, 1, 4)
        y = ((q @ k.transpose(-2, -1) * (c // 2) ** -0.5).softmax(-1) @ v).transpose(1, 2).reshape(n, h * w, c)
        x = x + self.proj(y)
        y = self.fc1(self.norm2(x)).transpose(1, 2).view(n, 20, h, w)
        x = x + self.fc2(functional.gelu(self.depthwise(y).flatten(2).transpose(1, 2)))
        return self.last(x.transpose(1, 2).reshape(n, c, h, w))


class Bert(nn.Module):
    """Encoder of integer tokens, normalization behind every block, three projections, a mask."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(20, 12), nn.Embedding(8, 12)
        self.qkv = nn.ModuleList(nn.Linear(12, 16) for _ in range(3))
        self.out, self.mlp, self.pooler, self.last = nn.Linear(16, 12), mlp(12, 24), nn.Linear(12, 10), nn.Linear(10, 3)
        self.norms = nn.ModuleList(nn.LayerNorm(12) for _ in range(3))

    def forward(self, tokens, mask):
        x = self.norms[0](self.words(tokens) + self.places(torch.arange(8)))
        n = x.shape[0]
        q, k, v = (layer(x).view(n, 8, 2, 8).transpose(1, 2) for layer in self.qkv)
        scores = q @ k.transpose(-1, -2) / 8**0.5 + (1 - mask[:, None, None, :]) * -10000.0
        x = self.norms[1](x + self.out((scores.softmax(-1) @ v).permute(0, 2, 1, 3).reshape(n, 8, 16)))
        return self.last(torch.tanh(self.pooler(self.norms[2](x + self.mlp(x))[:, 0])))


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Llama(nn.Module):
    """Decoder: RMSNorm, rotary positions, keys and values shared by several heads, causal mask, SwiGLU."""

    def __init__(self, tokens=6):
        super().__init__()
        self.embed, self.norm1, self.norm2, self.norm = nn.Embedding(24, 12), RmsNorm(12), RmsNorm(12), RmsNorm(12)
        self.q, self.k, self.v = (nn.Linear(12, size, bias=False) for size in (24, 12, 12))
        self.o, self.gate, self.up = (nn.Linear(*s, bias=False) for s in ((24, 12), (12, 20), (12, 20)))
        self.down, self.last = nn.Linear(20, 12, bias=False), nn.Linear(12, 24, bias=False)
        angles = torch.arange(tokens)[:, None] * torch.tensor([1.0, 0.1, 0.01])
        self.register_buffer("cos", torch.cat([angles, angles], 1).cos())
        self.register_buffer("sin", torch.cat([angles, angles], 1).sin())
        self.register_buffer("mask", torch.ones(tokens, tokens).tril().bool())

    def rotate(self, x):
        a, b = x.chunk(2, -1)
        return x * self.cos + torch.cat([-b, a], -1) * self.sin

    def forward(self, tokens):
        x = self.embed(tokens)
        n, t, _ = x.shape
        y = self.norm1(x)
        q = self.rotate(self.q(y).view(n, t, 4, 6).transpose(1, 2))
        k, v = self.rotate(self.k(y).view(n, t, 2, 6).transpose(1, 2)), self.v(y).view(n, t, 2, 6).transpose(1, 2)
        k, v = (z[:, :, None].expand(n, 2, 2, t, 6).reshape(n, 4, t, 6) for z in (k, v))
        scores = (q @ k.transpose(2, 3) * 6**-0.5).masked_fill(~self.mask, float("-inf"))
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, 24))
        y = self.norm2(x)
        x = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return self.last(self.norm(x))


class EncoderDecoder(nn.Module):
    """PyTorch's own multi-head attention: learned queries attend to themselves and to an image (DETR)."""

    def __init__(self):
        super().__init__()
        self.patches, self.queries = conv(3, 12, 4, 4), nn.Parameter(torch.randn(5, 1, 12))
        self.own, self.cross = nn.MultiheadAttention(12, 2), nn.MultiheadAttention(12, 3)
        self.norm, self.mlp = nn.LayerNorm(12), mlp(12, 20, nn.ReLU)
        self.classes, self.boxes = nn.Linear(12, 4), nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4))

    def forward(self, x):
        x = self.patches(x).flatten(2).permute(2, 0, 1)
        q = self.queries + x.mean(0)
        q = q + self.own(q, q, q, need_weights=False)[0]
        q = self.norm(q + self.cross(q, x, x, need_weights=False)[0])
        q = (q + self.mlp(q)).transpose(0, 1)
        return self.classes(q), self.boxes(q).sigmoid()


class Encoder(nn.Module):
    """PyTorch's own encoder layer, normalization behind; one layer applied twice (ALBERT)."""

    def __init__(self):
        super().__init__()
        self.first, self.layer = nn.Linear(6, 12), nn.TransformerEncoderLayer(12, 2, 20, batch_first=True)
        self.last = nn.Linear(12, 3)

    def forward(self, x):
        return self.last(self.layer(self.layer(self.first(x))).mean(1))


class EinsumAttention(nn.Module):
    """Attention by einsum, between tokens and then between channels (XCiT)."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 10), nn.Linear(10, 3)
        self.q, self.k, self.v, self.o = (nn.Linear(a, b) for a, b in ((10, 12), (10, 12), (10, 12), (12, 10)))
        self.cq, self.ck, self.cv, self.co = (nn.Linear(a, b) for a, b in ((10, 8), (10, 8), (10, 8), (8, 10)))

    def forward(self, x):
        x = self.first(x)
        n, t, _ = x.shape
        q, k, v = (layer(x).view(n, t, 2, 6) for layer in (self.q, self.k, self.v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
        x = x + self.o(torch.einsum("bhqk,bkhd->bqhd", scores, v).reshape(n, t, 12))
        q, k, v = (layer(x).transpose(1, 2) for layer in (self.cq, self.ck, self.cv))
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        y = (q @ k.transpose(1, 2)).softmax(-1) @ v
        return self.last((x + self.co(y.transpose(1, 2))).mean(1))


class Conformer(nn.Module):
    """Half-step perceptrons, gated linear unit and depthwise convolution over time, attention."""

    def __init__(self):
        super().__init__()
        self.first, self.norms = nn.Linear(6, 12), nn.ModuleList(nn.LayerNorm(12) for _ in range(3))
        self.before, self.attention, self.last = mlp(12, 16, nn.SiLU), Attention(12, 2, 12), nn.Linear(12, 5)
        self.up, self.depthwise = nn.Conv1d(12, 28, 1), nn.Conv1d(14, 14, 5, padding=2, groups=14)
        self.norm, self.down = nn.BatchNorm1d(14), nn.Conv1d(14, 12, 1)

    def forward(self, x):
        x = self.first(x)
        x = x + 0.5 * self.before(self.norms[0](x))
        x = x + self.attention(self.norms[1](x))
        y = functional.glu(self.up(self.norms[2](x).transpose(1, 2)), 1)
        return self.last(x + self.down(functional.silu(self.norm(self.depthwise(y)))).transpose(1, 2)).log_softmax(-1)
