"""Networks in PyTorch that give images, boxes or pairs, and those on signals: tiny and with random weights."""

# mypy: ignore-errors

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .torch_models_cnn import Residual, conv, head


class UNet(nn.Module):
    """Skips joined by concatenation, upsampling by a transposed convolution or bilinearly."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = conv(3, 6), conv(6, 8), nn.Sequential(conv(8, 12), conv(12, 12))
        self.up2, self.merge2 = nn.ConvTranspose2d(12, 8, 2, 2), conv(16, 8)
        self.up1, self.merge1 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), conv(14, 6)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(functional.max_pool2d(a, 2))
        c = self.up2(self.bottom(functional.max_pool2d(b, 2)))
        b = self.merge2(torch.cat([b, c], 1))
        return self.last(self.merge1(torch.cat([a, self.up1(b)], 1)))


class FeaturePyramid(nn.Module):
    """Three levels, added from the top down; one head for all of them."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([conv(3, 8, 3, 2), conv(8, 12, 3, 2), conv(12, 16, 3, 2)])
        self.lateral = nn.ModuleList(nn.Conv2d(c, 8, 1) for c in (8, 12, 16))
        self.smooth = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.tower = nn.Sequential(nn.Conv2d(8, 10, 3, padding=1), nn.ReLU())
        self.classes, self.boxes = nn.Conv2d(10, 6, 3, padding=1), nn.Conv2d(10, 8, 3, padding=1)

    def forward(self, x):
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        levels = [lateral(level) for lateral, level in zip(self.lateral, levels)]
        for index in (1, 0):
            up = functional.interpolate(levels[index + 1], size=levels[index].shape[2:], mode="nearest")
            levels[index] = levels[index] + up
        classes, boxes = [], []
        for smooth, level in zip(self.smooth, levels):
            y = self.tower(smooth(level))
            classes.append(self.classes(y).permute(0, 2, 3, 1).reshape(y.shape[0], -1, 3))
            boxes.append(self.boxes(y).permute(0, 2, 3, 1).reshape(y.shape[0], -1, 4))
        return torch.cat(classes, 1), torch.cat(boxes, 1)


class Yolo(nn.Module):
    """Cross-stage partial blocks, spatial pyramid pooling, two scales, boxes decoded with a grid of anchors."""

    class Partial(nn.Module):
        def __init__(self, inputs, outputs, inner):
            super().__init__()
            self.inner = inner
            self.first, self.last = conv(inputs, 2 * inner, 1, act=nn.SiLU), conv(3 * inner, outputs, 1, act=nn.SiLU)
            self.body = Residual(nn.Sequential(conv(inner, 7, act=nn.SiLU), conv(7, inner, act=nn.SiLU)), act=None)

        def forward(self, x):
            parts = list(self.first(x).split((self.inner, self.inner), 1))
            parts.append(self.body(parts[-1]))
            return self.last(torch.cat(parts, 1))

    class Pyramid(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.first, self.last = conv(channels, 6, 1, act=nn.SiLU), conv(24, channels, 1, act=nn.SiLU)
            self.pool = nn.MaxPool2d(5, 1, 2)

        def forward(self, x):
            parts = [self.first(x)]
            for _ in range(3):
                parts.append(self.pool(parts[-1]))
            return self.last(torch.cat(parts, 1))

    def __init__(self):
        super().__init__()
        self.stem, self.c1 = conv(3, 8, 3, 2, act=nn.SiLU), self.Partial(8, 10, 6)
        self.down, self.c2 = conv(10, 14, 3, 2, act=nn.SiLU), nn.Sequential(self.Partial(14, 12, 6), self.Pyramid(12))
        self.merge = self.Partial(22, 10, 5)
        self.heads = nn.ModuleList([nn.Conv2d(10, 14, 1), nn.Conv2d(12, 14, 1)])
        self.register_buffer("anchors", torch.rand(2, 1, 1, 2))

    def forward(self, x):
        small = self.c1(self.stem(x))
        large = self.c2(self.down(small))
        small = self.merge(torch.cat([functional.interpolate(large, scale_factor=2.0, mode="nearest"), small], 1))
        results = []
        for layer, y in zip(self.heads, (small, large)):
            n, _, h, w = y.shape
            y = torch.sigmoid(layer(y).view(n, 2, 7, h, w).permute(0, 1, 3, 4, 2).contiguous())
            centre, size, rest = y.split((2, 2, 3), 4)
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            centre = (centre * 2 - 0.5 + torch.stack((columns, rows), 2)) * 8
            results.append(torch.cat([centre, (size * 2) ** 2 * self.anchors, rest], 4).view(n, -1, 7))
        return torch.cat(results, 1), small


class DeepLab(nn.Module):
    """Dilated convolutions in parallel with the pooled image, and a decoder with a skip."""

    def __init__(self):
        super().__init__()
        self.low, self.high = conv(3, 8, 3, 2), nn.Sequential(conv(8, 12, 3, 2), conv(12, 12, dilation=2))
        self.branches = nn.ModuleList([conv(12, 6, 1), conv(12, 6, dilation=2), conv(12, 6, dilation=3)])
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(12, 6, 1))
        self.project, self.skip, self.last = conv(24, 10, 1), conv(8, 4, 1), nn.Conv2d(14, 3, 3, padding=1)

    def forward(self, x):
        low = self.low(x)
        y = self.high(low)
        pooled = functional.interpolate(self.pooled(y), size=y.shape[2:], mode="bilinear", align_corners=False)
        y = self.project(torch.cat([*(branch(y) for branch in self.branches), pooled], 1))
        y = functional.interpolate(y, size=low.shape[2:], mode="bilinear", align_corners=False)
        return functional.interpolate(self.last(torch.cat([y, self.skip(low)], 1)), scale_factor=2.0, mode="nearest")


class WeightedPyramid(nn.Module):
    """BiFPN: levels added with learned weights that are normalized in the graph, separable convolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = conv(3, 8, 3, 2, act=nn.SiLU), conv(8, 8, 3, 2, act=nn.SiLU)
        self.weights = nn.Parameter(torch.rand(2, 2) + 0.5)
        self.down, self.up = (
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 10, 1), nn.SiLU(), nn.Conv2d(10, 8, 1))
            for _ in range(2)
        )
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        a = self.first(x)
        b = self.second(a)
        weights = functional.relu(self.weights)
        weights = weights / (weights.sum(1, keepdim=True) + 1e-4)
        a = self.down(weights[0, 0] * a + weights[0, 1] * functional.interpolate(b, scale_factor=2.0))
        b = self.up(weights[1, 0] * b + weights[1, 1] * functional.max_pool2d(a, 2))
        return self.head(a), self.head(b)


class SuperResolution(nn.Module):
    """Residual blocks without normalization, pixel shuffle, and the enlarged input added."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(
            *(Residual(nn.Sequential(conv(8, 10, norm=None), conv(10, 8, norm=None, act=None)), act=None) for _ in "ab")
        )
        self.up = nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.PixelShuffle(2), nn.ReLU())
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        y = self.first(x)
        y = self.up(y + self.body(y) * 0.5)
        return self.last(y) + functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class StyleTransfer(nn.Module):
    """Mirrored borders, instance normalization, nearest upsampling, space to depth at the front."""

    def __init__(self):
        super().__init__()
        norm = lambda channels: nn.InstanceNorm2d(channels, affine=True)  # noqa: E731
        self.first = nn.Sequential(nn.PixelUnshuffle(2), nn.ReflectionPad2d(1), nn.Conv2d(12, 8, 3), norm(8), nn.ReLU())
        inner = nn.ReflectionPad2d(1), nn.Conv2d(8, 10, 3), norm(10), nn.ReLU(), nn.ReplicationPad2d(1)
        self.body = Residual(nn.Sequential(*inner, nn.Conv2d(10, 8, 3), norm(8)), act=None)
        self.last = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU())
        self.image = nn.Sequential(nn.ZeroPad2d((1, 2, 1, 0)), nn.Conv2d(6, 3, (2, 4)), nn.Tanh())

    def forward(self, x):
        return self.image(self.last(self.body(self.first(x))))


def autoencoder():
    encoder = nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(), nn.Flatten()
    middle = nn.Linear(8 * 16, 10), nn.ReLU(), nn.Linear(10, 8 * 16), nn.Unflatten(1, (8, 4, 4))
    decoder = (
        *(nn.ConvTranspose2d(8, 6, 3, 2, 1, 1), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.ConvTranspose2d(6, 6, 4, 2, 1, groups=6), nn.ConvTranspose2d(6, 4, 3, 1, 1, groups=2), nn.Conv2d(4, 3, 1)),
    )
    return nn.Sequential(*encoder, *middle, *decoder, nn.Sigmoid())


class Siamese(nn.Module):
    """One network on two inputs, compared by difference, product and cosine."""

    def __init__(self):
        super().__init__()
        layers = conv(3, 8, norm=None), conv(8, 10, 3, 2, norm=None), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.body = nn.Sequential(*layers, nn.Linear(10, 8))
        self.last = nn.Linear(16, 3)

    def forward(self, a, b):
        a, b = self.body(a), self.body(b)
        cosine = (functional.normalize(a, dim=1) * functional.normalize(b, dim=1)).sum(1)
        return self.last(torch.cat([torch.abs(a - b), a * b], 1)), cosine


class Experts(nn.Module):
    """A gated mixture: every expert runs, a softmax weighs them; a hard threshold by where."""

    def __init__(self):
        super().__init__()
        self.body = conv(3, 10, 3, 2)
        self.experts = nn.ModuleList(nn.Sequential(conv(10, 6), conv(6, 8)) for _ in range(3))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3))
        self.head = head(8)

    def forward(self, x):
        x = self.body(x)
        x = torch.where(x > 0.1, x, x * 0.2)
        weights = torch.softmax(self.gate(x), 1)
        y = sum(weights[:, i, None, None, None] * expert(x) for i, expert in enumerate(self.experts))
        return self.head(y)


class TemporalConvolutions(nn.Module):
    """Causal dilated convolutions of a signal with gates and skips (WaveNet, TCN)."""

    class Layer(nn.Module):
        def __init__(self, channels, inner, dilation):
            super().__init__()
            self.dilation = dilation
            self.both, self.last = nn.Conv1d(channels, 2 * inner, 3, dilation=dilation), nn.Conv1d(inner, channels, 1)
            self.skip = nn.Conv1d(inner, 10, 1)

        def forward(self, x):
            a, b = self.both(functional.pad(x, (2 * self.dilation, 0))).chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            return x + self.last(y), self.skip(y)

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 8, 1)
        self.layers = nn.ModuleList(self.Layer(8, 6, dilation) for dilation in (1, 2, 4))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(10, 12, 1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.classes = nn.Linear(12, 4)

    def forward(self, x):
        x, total = self.first(x), 0
        for layer in self.layers:
            x, skip = layer(x)
            total = total + skip
        return self.classes(self.last(total))


def signal_cnn():
    layers = []
    for inputs, outputs in ((1, 6), (6, 8), (8, 10)):
        layers += [nn.Conv1d(inputs, outputs, 5, 2, 2), nn.BatchNorm1d(outputs), nn.ReLU()]
    up = nn.ConvTranspose1d(10, 8, 4, 2, 1), nn.ReLU(), nn.MaxPool1d(2)
    return nn.Sequential(*layers, *up, nn.Flatten(), nn.Linear(8 * 8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))
