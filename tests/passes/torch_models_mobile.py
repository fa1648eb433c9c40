"""Convolutional networks for small devices in PyTorch, tiny and with random weights."""

# mypy: ignore-errors

from __future__ import annotations

import torch
from torch import nn

from .torch_models_cnn import Parallel, Residual, SqueezeExcite, conv, head


def mobilenet_v1():
    def block(inputs, outputs, stride=1):
        return nn.Sequential(conv(inputs, inputs, 3, stride, inputs), conv(inputs, outputs, 1))

    return nn.Sequential(conv(3, 8, 3, 2), block(8, 12), block(12, 16, 2), block(16, 16), head(16))


def inverted(inputs, inner, outputs, stride=1, act=nn.ReLU6, squeezed=0, gate=nn.Sigmoid, kernel=3):
    """The block of MobileNetV2, V3 and EfficientNet."""
    gated = [SqueezeExcite(inner, squeezed, nn.ReLU if gate == nn.Hardsigmoid else act, gate)] if squeezed else []
    layers = [conv(inputs, inner, 1, act=act), conv(inner, inner, kernel, stride, inner, act), *gated]
    body = nn.Sequential(*layers, conv(inner, outputs, 1, act=None))
    return Residual(body, act=None) if inputs == outputs and stride == 1 else body


def mobilenet_v2():
    blocks = inverted(8, 16, 12), inverted(12, 24, 12), inverted(12, 24, 16, 2), inverted(16, 32, 16)
    return nn.Sequential(conv(3, 8, 3, 2, act=nn.ReLU6), *blocks, conv(16, 24, 1, act=nn.ReLU6), head(24))


def mobilenet_v3():
    options = {"act": nn.Hardswish, "gate": nn.Hardsigmoid, "squeezed": 6}
    blocks = inverted(8, 16, 8, act=nn.ReLU), inverted(8, 16, 12, 2, **options), inverted(12, 24, 12, **options)
    tail = nn.AdaptiveAvgPool2d(1), nn.Conv2d(20, 24, 1), nn.Hardswish(), nn.Flatten(), nn.Linear(24, 5)
    stem = conv(3, 8, 3, 2, act=nn.Hardswish)
    return nn.Sequential(stem, *blocks, conv(12, 20, 1, act=nn.Hardswish), *tail)


def efficientnet():
    options = {"act": nn.SiLU, "squeezed": 3}
    blocks = inverted(8, 16, 8, **options), inverted(8, 16, 12, 2, kernel=5, **options), inverted(12, 20, 12, **options)
    return nn.Sequential(conv(3, 8, 3, 2, act=nn.SiLU), *blocks, conv(12, 24, 1, act=nn.SiLU), head(24))


class Shuffle(nn.Module):
    """The channels of all groups interleaved."""

    def __init__(self, groups):
        super().__init__()
        self.groups = groups

    def forward(self, x):
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet_v1():
    def body(inputs, inner, outputs, stride=1, first=2):
        return nn.Sequential(
            *(conv(inputs, inner, 1, groups=first), Shuffle(2)),
            *(conv(inner, inner, 3, stride, inner, act=None), conv(inner, outputs, 1, groups=2, act=None)),
        )

    reduction = Parallel(nn.AvgPool2d(3, 2, 1), body(8, 8, 16, 2, first=1)), nn.ReLU()
    return nn.Sequential(conv(3, 8), *reduction, Residual(body(24, 8, 24)), Residual(body(24, 12, 24)), head(24))


def shufflenet_v2():
    class Unit(nn.Module):
        def __init__(self, channels):
            super().__init__()
            half = channels // 2
            inner = conv(half, half, 1), conv(half, half, 3, groups=half, act=None), conv(half, half, 1)
            self.body, self.shuffle = nn.Sequential(*inner), Shuffle(2)

        def forward(self, x):
            kept, changed = x.chunk(2, 1)
            return self.shuffle(torch.cat([kept, self.body(changed)], 1))

    left = nn.Sequential(conv(8, 8, 3, 2, 8, act=None), conv(8, 8, 1))
    right = nn.Sequential(conv(8, 8, 1), conv(8, 8, 3, 2, 8, act=None), conv(8, 8, 1))
    return nn.Sequential(conv(3, 8), Parallel(left, right), Shuffle(2), Unit(16), Unit(16), conv(16, 20, 1), head(20))


def ghostnet():
    class Ghost(nn.Module):
        """Half of the channels from a convolution, the others each from one of those; cut where they are too many."""

        def __init__(self, inputs, outputs, act=nn.ReLU):
            super().__init__()
            real = -(-outputs // 2)
            self.outputs = outputs
            self.primary, self.cheap = conv(inputs, real, 1, act=act), conv(real, real, 3, groups=real, act=act)

        def forward(self, x):
            primary = self.primary(x)
            return torch.cat([primary, self.cheap(primary)], 1)[:, : self.outputs]

    def bottleneck(channels, inner):
        layers = Ghost(channels, inner), SqueezeExcite(inner, 4, gate=nn.Hardsigmoid), Ghost(inner, channels, None)
        return Residual(nn.Sequential(*layers), act=None)

    return nn.Sequential(conv(3, 9, 3, 2), bottleneck(9, 16), bottleneck(9, 15), conv(9, 12, 1), head(12))


def mobilenet_with_shift():
    """Parts of the channels moved by one place in the place of a convolution."""

    class Shift(nn.Module):
        def forward(self, x):
            a, b, c = torch.split(x, [4, 4, x.shape[1] - 8], 1)
            return torch.cat([torch.roll(a, 1, 2), torch.roll(b, -1, 3), c], 1)

    def block(inputs, inner):
        return Residual(nn.Sequential(conv(inputs, inner, 1), Shift(), conv(inner, inputs, 1)))

    return nn.Sequential(conv(3, 8), block(8, 12), block(8, 14), head(8))


def volumes():
    """A network on volumes with factorized kernels."""
    layers = []
    for inputs, outputs in ((2, 6), (6, 8)):
        layers += [nn.Conv3d(inputs, outputs, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(outputs), nn.ReLU()]
        layers += [nn.Conv3d(outputs, outputs, (3, 1, 1), padding=(1, 0, 0)), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool3d(2), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 5))
