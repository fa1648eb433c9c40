"""Structured pruning beside Torch-Pruning: the same networks, the same ratios, nothing repaired or trained.

Usage: pip install torch torch-pruning
       OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/pruning_vs_torch_pruning.py

Time: finding the groups, scoring them by L2 norm and removing half of each; CPU time of one thread, medians of interleaved
runs.
Import of the model is not counted on either side. MACs and parameters: what each tool itself counts afterwards. Accuracy of
ResNet8 (CIFAR-10, MLPerf Tiny) where the trained model is there, globally ranked by the criteria named.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning
from torch import nn
from torch.nn import functional

import tvmcompress
from tvmcompress.passes import PruneChannels, PruneToBudget, get_surgery

ROUNDS = 5


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, even: bool = False) -> None:
        super().__init__()
        self.behind = stride == 2 and not even
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 0 if self.behind else 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.short = nn.Conv2d(inputs, outputs, 1, stride) if stride == 2 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W); unless `even`, stride 2 pads behind only, as TensorFlow does."""
        y = functional.pad(x, (0, 1, 0, 1)) if self.behind else x
        return functional.relu(self.second(functional.relu(self.first(y))) + self.short(x))


def resnet(depth: int, even: bool = False) -> nn.Module:
    """CIFAR ResNet of 6 * depth + 2 layers, normalization folded; `even` if all convolutions pad on both sides."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU()]
    for width in (16, 32, 64):
        for index in range(depth):
            first = index == 0 and width > 16
            layers.append(Residual(width // 2 if first else width, width, 2 if first else 1, even))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()


class Inverted(nn.Module):
    """MobileNetV2's block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 6 * inputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, wide, 1), nn.ReLU6(), nn.Conv2d(wide, wide, 3, stride, 1, groups=wide), nn.ReLU6(),
            nn.Conv2d(wide, outputs, 1),
        )  # fmt: skip
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W)."""
        return x + self.body(x) if self.adds else self.body(x)


def mobilenet() -> nn.Module:
    """MobileNetV2 at half width for 32x32 images."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU6()]
    width = 16
    for outputs, repeats, stride in ((16, 2, 1), (24, 3, 2), (32, 4, 2), (48, 3, 1), (80, 3, 2), (160, 1, 1)):
        for index in range(repeats):
            layers.append(Inverted(width, outputs, stride if index == 0 else 1))
            width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).eval()


class Dense(nn.Module):
    """DenseNet's layer of growth 12 with its bottleneck; normalization folded as far as it can be."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(inputs, 48, 1), nn.ReLU(), nn.Conv2d(48, 12, 3, 1, 1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W)."""
        return torch.cat([x, self.body(x)], 1)


def densenet(blocks: int, depth: int) -> nn.Module:
    """DenseNet of 2 * blocks * depth + blocks + 1 layers, compressed to 24 channels and pooled behind each block."""
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 3, 1, 1), nn.ReLU()]
    for _ in range(blocks):
        layers += [Dense(24 + 12 * index) for index in range(depth)]
        layers += [nn.Conv2d(24 + 12 * depth, 24, 1), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)).eval()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-56": lambda: resnet(9),
    "ResNet-110": lambda: resnet(18),
    "ResNet-302": lambda: resnet(50),
    "DenseNet, 304 layers": lambda: densenet(3, 50),
    "MobileNetV2": mobilenet,
}


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    print("# Pruning beside Torch-Pruning", "", (__doc__ or "").split("\n\n")[-1].strip(), "", sep="\n")
    print("| network, half of every group | ours, s | its time, s | MACs left | its MACs | parameters left | its parameters |")
    print("|---|---|---|---|---|---|---|")
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        print(compare(name, make()), flush=True)
    accuracies()


def compare(name: str, network: nn.Module) -> str:
    """A line of the first table."""
    model = imported(network)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        start = time.process_time()
        pruned = PruneChannels(0.5)(model.module)
        ours.append(time.process_time() - start)
        other = copy.deepcopy(network)
        start = time.process_time()
        pruner(other, 0.5, global_=False).step()
        theirs.append(time.process_time() - start)
    surgery = get_surgery(pruned)
    assert surgery is not None
    macs, params = torch_pruning.utils.count_ops_and_params(other, example())
    cells = [
        name,
        f"{statistics.median(ours):.2f}",
        f"{statistics.median(theirs):.2f}",
        *(f"{surgery.macs_after / 1e6:.2f} M", f"{macs / 1e6:.2f} M"),
        *(f"{surgery.params_after:,}", f"{params:,}"),
    ]
    return "| " + " | ".join(cells) + " |"


def accuracies() -> None:
    """The second table, where the trained model is there."""
    from trained import load

    trained = load("ic", 200)
    network = resnet(1)
    fill(network, trained.model.params)
    images = torch.from_numpy(trained.images)
    with torch.no_grad():
        assert np.abs(network(images[:8]).softmax(1).numpy() - trained.model.run(trained.images[:8])[0]).max() < 1e-4

    def right(other: nn.Module) -> float:
        with torch.no_grad():
            return float((other(images).argmax(1).numpy() == trained.labels).mean() * 100)

    fractions = (0.9, 0.8, 0.7, 0.6, 0.5)
    print("", "| ResNet8, accuracy %, MACs left |" + "".join(f" {f:.0%} |" for f in fractions), "|---|" + "---|" * 5, sep="\n")
    whole, _ = torch_pruning.utils.count_ops_and_params(network, example())
    curves: dict[str, list[float]] = {"Torch-Pruning, group L2": []}
    for fraction in fractions:
        # One shot at the smallest global ratio that meets the budget, as its users would search it.
        for step in range(1, 40):
            other = copy.deepcopy(network)
            pruner(other, 0.02 * step, global_=True).step()
            macs, _ = torch_pruning.utils.count_ops_and_params(other, example())
            if macs <= fraction * whole:
                break
        curves["Torch-Pruning, group L2"].append(right(other))
    for criterion in ("l2", "output_energy", "reconstruction"):
        values = []
        for fraction in fractions:
            removal = PruneToBudget(macs=fraction, importance=criterion, samples=[trained.calibration])
            values.append(trained.accuracy(trained.model.apply(removal)))
        curves[f"ours, {criterion}"] = values
    for name, values in curves.items():
        print(f"| {name} |" + "".join(f" {value:.1f} |" for value in values))


def imported(network: nn.Module) -> Any:
    """The network through ONNX."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        torch.onnx.export(network, (example(),), str(path), opset_version=17, dynamo=False)
        return tvmcompress.load(path)


def example() -> torch.Tensor:
    """An input."""
    return torch.zeros(1, 3, 32, 32)


def pruner(network: nn.Module, ratio: float, global_: bool) -> Any:
    """Torch-Pruning's pruner by magnitude over groups."""
    return torch_pruning.pruner.BasePruner(
        network,
        example(),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=global_,
        pruning_ratio=ratio,
        ignored_layers=[layer for layer in network.modules() if isinstance(layer, nn.Linear)],
    )


def fill(network: nn.Module, params: dict[str, np.ndarray]) -> None:
    """The weights of an imported ResNet8, whose shortcuts come before the convolutions they stand beside, or ResNet20."""
    blocks = [layer for layer in network if isinstance(layer, Residual)]  # type: ignore[attr-defined]
    order = [network[0]]  # type: ignore[index]
    for block in blocks:
        short = [block.short] if isinstance(block.short, nn.Conv2d) else []
        order += [*short, block.first, block.second] if len(blocks) == 3 else [block.first, block.second, *short]
    order.append(network[-1])  # type: ignore[index]
    weights, biases = ([value for name, value in params.items() if name.endswith(end)] for end in ("_weight", "_bias"))
    with torch.no_grad():
        for layer, weight, bias in zip(order, weights, biases, strict=True):
            # Of the last layer the inputs come first.
            layer.weight.copy_(torch.from_numpy(weight if weight.ndim == 4 else weight.T.copy()))
            layer.bias.copy_(torch.from_numpy(bias.reshape(-1)))


if __name__ == "__main__":
    main()
