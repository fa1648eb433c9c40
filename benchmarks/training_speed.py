"""A step of training beside the same step written in PyTorch.

Usage: OMP_NUM_THREADS=1 python benchmarks/training_speed.py [--steps 30]

ResNet8 for 32x32 images, batches of 64, AdamW, cross-entropy, the same samples. The script in PyTorch is what a user would
write: `torch.nn` layers without normalization (it is folded in deployed models), channels first as by default. Ours draws
batches from the data, converts them, clips gradients, averages weights. Steps of both in turns, the median and the fastest
tenth of each, CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from trained import folder, load, pixels

from tvmcompress.data.dataset import load_data
from tvmcompress.recipe.recipe import FinetuneRecipe
from tvmcompress.training.averaging import Average
from tvmcompress.training.bridge import TorchModel
from tvmcompress.training.finetuning import Training

BATCH = 64


class Block(nn.Module):
    """Two convolutions and a way past them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1)
        self.second = nn.Conv2d(after, after, 3, 1, 1)
        self.past = nn.Conv2d(before, after, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's result."""
        return functional.relu(self.second(functional.relu(self.first(x))) + self.past(x))


class ResNet8(nn.Module):
    """MLPerf Tiny's, normalizations folded."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.blocks(functional.relu(self.stem(x))).mean((2, 3)))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=30)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    trained = load("ic", 1)
    file = np.load(folder() / "data" / "cifar10_train8068.npz")
    x, y = pixels(file["x_uint8"][:1000], "ic"), file["y"][:1000].astype(np.int64)
    data = load_data((x, y), trained.model.inputs)
    recipe = FinetuneRecipe(batch_size=BATCH, learning_rate=1e-5)
    training = Training(trained.model, TorchModel(trained.model.module), data, None, recipe)
    optimizer, average = training.optimizer(1e-5), Average(training.values(), 1000)
    native = ResNet8()
    own = torch.optim.AdamW(native.parameters(), 1e-5)
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {"ours": [], "PyTorch": []}
    for step in range(steps + 3):
        rows = rng.permutation(1000)[:BATCH]
        begun = time.process_time()
        training.learn([rows], rng, optimizer)
        average.update()
        between = time.process_time()
        own.zero_grad(set_to_none=True)
        functional.cross_entropy(native(images[rows] / 255), labels[rows]).backward()
        own.step()
        ended = time.process_time()
        if step > 2:
            times["ours"].append(between - begun)
            times["PyTorch"].append(ended - between)
    median = {name: float(np.median(values)) for name, values in times.items()}
    low = {name: float(np.quantile(values, 0.1)) for name, values in times.items()}
    print("| | ms a step, median | fastest tenth |", "|---|---|---|", sep="\n")
    for name in times:
        print(f"| {name} | {1000 * median[name]:.1f} | {1000 * low[name]:.1f} |")
    print(f"| ours / PyTorch | {median['ours'] / median['PyTorch']:.2f} | {low['ours'] / low['PyTorch']:.2f} |")


if __name__ == "__main__":
    main()
