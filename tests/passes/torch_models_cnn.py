"""Convolutional classifiers in PyTorch, tiny and with random weights."""

# mypy: ignore-errors

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def conv(inputs, outputs, kernel=3, stride=1, groups=1, act=nn.ReLU, norm=nn.BatchNorm2d, dilation=1):
    """Convolution, normalization, activation."""
    padding = (kernel // 2) * dilation
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=norm is None)]
    layers += [norm(outputs)] if norm else []
    return nn.Sequential(*layers, *([act()] if act else []))


def head(channels, classes=5):
    """Global average pool and a classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Residual(nn.Module):
    """A body with a shortcut, projected where the shape changes."""

    def __init__(self, body, shortcut=None, act=nn.ReLU):
        super().__init__()
        self.body, self.shortcut, self.act = body, shortcut or nn.Identity(), act() if act else nn.Identity()

    def forward(self, x):
        return self.act(self.body(x) + self.shortcut(x))


class Parallel(nn.Module):
    """Branches whose results are concatenated."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class SqueezeExcite(nn.Module):
    """A gate a channel from the means of all channels."""

    def __init__(self, channels, squeezed, act=nn.ReLU, gate=nn.Sigmoid):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), act(), nn.Conv2d(squeezed, channels, 1), gate()
        )

    def forward(self, x):
        return x * self.gate(x)


def resnet_basic():
    def block(inputs, outputs, stride=1):
        shortcut = conv(inputs, outputs, 1, stride, act=None) if inputs != outputs else None
        return Residual(nn.Sequential(conv(inputs, outputs, 3, stride), conv(outputs, outputs, act=None)), shortcut)

    return nn.Sequential(conv(3, 8), block(8, 8), block(8, 8), block(8, 16, 2), block(16, 16), head(16))


def resnet_bottleneck(groups=1, inner=8):
    def block(inputs, outputs, stride=1):
        shortcut = conv(inputs, outputs, 1, stride, act=None) if inputs != outputs else None
        body = conv(inputs, inner, 1), conv(inner, inner, 3, stride, groups), conv(inner, outputs, 1, act=None)
        return Residual(nn.Sequential(*body), shortcut)

    stem = conv(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(*stem, block(8, 16), block(16, 16), block(16, 24, 2), head(24))


def resnext():
    return resnet_bottleneck(groups=4, inner=16)


def regnet():
    def block(inputs, outputs, stride=1):
        shortcut = conv(inputs, outputs, 1, stride, act=None) if (inputs, stride) != (outputs, 1) else None
        inner = conv(inputs, outputs, 1), conv(outputs, outputs, 3, stride, groups=outputs // 8)
        return Residual(
            nn.Sequential(*inner, SqueezeExcite(outputs, 6), conv(outputs, outputs, 1, act=None)), shortcut
        )

    return nn.Sequential(conv(3, 8, 3, 2), block(8, 16, 2), block(16, 16), block(16, 24), head(24))


def preactivation_resnet():
    """Normalization before the convolutions, so that it cannot be folded into them."""

    def half(inputs, outputs):
        return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))

    blocks = [Residual(nn.Sequential(half(8, 12), half(12, 8)), act=None) for _ in range(2)]
    return nn.Sequential(nn.Conv2d(3, 8, 3), *blocks, nn.BatchNorm2d(8), nn.ReLU(), head(8))


def densenet():
    class Dense(nn.Module):
        def __init__(self, inputs, growth):
            super().__init__()
            self.inner = nn.Sequential(
                *(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 8, 1, bias=False)),
                *(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, growth, 3, padding=1, bias=False)),
            )

        def forward(self, x):
            return torch.cat([x, self.inner(x)], 1)

    def transition(inputs, outputs):
        return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1), nn.AvgPool2d(2))

    first = conv(3, 8), Dense(8, 4), Dense(12, 4), transition(16, 8)
    return nn.Sequential(*first, Dense(8, 4), Dense(12, 4), nn.BatchNorm2d(16), nn.ReLU(), head(16))


def inception():
    def module(inputs):
        return Parallel(
            conv(inputs, 4, 1),
            nn.Sequential(conv(inputs, 4, 1), conv(4, 6, 5)),
            nn.Sequential(
                conv(inputs, 4, 1),
                nn.Conv2d(4, 5, (1, 7), padding=(0, 3)),
                nn.Conv2d(5, 6, (7, 1), padding=(3, 0)),
                Parallel(nn.Conv2d(6, 4, (1, 3), padding=(0, 1)), nn.Conv2d(6, 4, (3, 1), padding=(1, 0))),
            ),
            nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv(inputs, 4, 1)),
        )

    reduction = Parallel(conv(22, 6, 3, 2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(conv(3, 8), module(8), reduction, module(28), nn.Dropout(0.2), head(22))


def squeezenet():
    def fire(inputs, squeezed, expanded):
        both = Parallel(conv(squeezed, expanded, 1, norm=None), conv(squeezed, expanded, 3, norm=None))
        return nn.Sequential(conv(inputs, squeezed, 1, norm=None), both)

    last = nn.Dropout(), nn.Conv2d(16, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    return nn.Sequential(conv(3, 8, norm=None), pool, fire(8, 4, 6), fire(12, 5, 8), *last)


def vgg():
    features = conv(3, 8), conv(8, 8), nn.MaxPool2d(2), conv(8, 12, norm=None), nn.MaxPool2d(2)
    dense = nn.Linear(12 * 16, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5)
    return nn.Sequential(*features, nn.Flatten(), *dense)


def repvgg():
    """Three parallel branches, one of them only a normalization."""

    class Block(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.three, self.one = conv(channels, channels, 3, act=None), conv(channels, channels, 1, act=None)
            self.identity = nn.BatchNorm2d(channels)

        def forward(self, x):
            return functional.relu(self.three(x) + self.one(x) + self.identity(x))

    return nn.Sequential(conv(3, 8), Block(8), conv(8, 12, 3, 2), Block(12), head(12))


def res2net():
    """Parts of the channels, each convolved with what the part before it gave."""

    class Hierarchy(nn.Module):
        def __init__(self, width, scale):
            super().__init__()
            self.convs = nn.ModuleList(conv(width, width) for _ in range(scale - 1))
            self.width = width

        def forward(self, x):
            parts = torch.split(x, self.width, 1)
            results, last = [parts[0]], None
            for layer, part in zip(self.convs, parts[1:]):
                last = layer(part if last is None else part + last)
                results.append(last)
            return torch.cat(results, 1)

    blocks = [
        Residual(nn.Sequential(conv(12, 16, 1), Hierarchy(4, 4), conv(16, 12, 1, act=None))) for _ in range(2)
    ]
    return nn.Sequential(conv(3, 12), *blocks, head(12))


def selective_kernel():
    """A softmax over two branches decides a channel at a time between kernels."""

    class Selective(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.channels = channels
            self.small, self.large = conv(channels, channels, 3), conv(channels, channels, 3, dilation=2)
            self.squeeze, self.select = nn.Linear(channels, 6), nn.Linear(6, 2 * channels)

        def forward(self, x):
            branches = torch.stack([self.small(x), self.large(x)], 1)
            pooled = branches.sum(1).mean((2, 3))
            weights = self.select(functional.relu(self.squeeze(pooled))).view(-1, 2, self.channels, 1, 1)
            return (branches * torch.softmax(weights, 1)).sum(1)

    return nn.Sequential(conv(3, 10), Residual(Selective(10)), conv(10, 12, 3, 2), Selective(12), head(12))


def attention_module():
    """CBAM: gates a channel, then gates a place from the mean and the maximum over the channels."""

    class Gates(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.mlp = nn.Sequential(nn.Linear(channels, 6), nn.ReLU(), nn.Linear(6, channels))
            self.place = nn.Conv2d(2, 1, 7, padding=3)

        def forward(self, x):
            gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
            x = x * torch.sigmoid(gate)[:, :, None, None]
            both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
            return x * torch.sigmoid(self.place(both))

    block = Residual(nn.Sequential(conv(8, 12), conv(12, 8, act=None), Gates(8)))
    return nn.Sequential(conv(3, 8), block, conv(8, 10, 3, 2), head(10))


def global_context():
    """A gate from a softmax over places, and efficient channel attention: a convolution over the channels' means."""

    class Context(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.mask = nn.Conv2d(channels, 1, 1)
            self.transform = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1))

        def forward(self, x):
            n, c, h, w = x.shape
            weights = torch.softmax(self.mask(x).view(n, 1, h * w), 2)
            context = torch.matmul(x.view(n, c, h * w), weights.transpose(1, 2)).view(n, c, 1, 1)
            return x + self.transform(context)

    class Neighbours(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

        def forward(self, x):
            y = self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1)
            return x * torch.sigmoid(y)[..., None, None]

    return nn.Sequential(conv(3, 8), conv(8, 12), Context(12), conv(12, 10), Neighbours(), conv(10, 8), head(8))


def normalizations():
    """Group, instance and layer normalization of images in one residual network."""
    group, instance = lambda channels: nn.GroupNorm(4, channels), lambda c: nn.InstanceNorm2d(c, affine=True)
    single = lambda channels: nn.GroupNorm(1, channels)  # noqa: E731
    return nn.Sequential(
        conv(3, 16, norm=group),
        Residual(nn.Sequential(conv(16, 12, norm=group), conv(12, 16, act=None, norm=group))),
        conv(16, 10, 3, 2, norm=instance, act=nn.LeakyReLU),
        Residual(nn.Sequential(conv(10, 12, norm=instance), conv(12, 10, norm=None, act=nn.PReLU))),
        conv(10, 12, norm=single, act=nn.ELU),
        conv(12, 8, norm=None, act=nn.Softplus),
        head(8),
    )
