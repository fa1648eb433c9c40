"""Train the network that tells a bearing's faults apart, and write it as model.onnx.

    pip install 'tvmcompress[train]'
    python train.py          # about a minute
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from signals import CLASSES, WINDOW, windows
from torch import nn

import tvmcompress


def network() -> nn.Sequential:
    """(N, 1, WINDOW) acceleration to (N, 4) logits; 20 thousand parameters."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride in ((1, 16, 15, 2), (16, 24, 9, 2), (24, 32, 9, 4), (32, 48, 7, 2), (48, 48, 3, 2)):
        convolution = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        layers += [convolution, nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(48, len(CLASSES)))


def main() -> None:
    """Train, tell the accuracy, write."""
    parser = argparse.ArgumentParser(description="Train and write model.onnx.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--windows", type=int, default=4000)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.manual_seed(0)
    x, y = (torch.from_numpy(array) for array in windows(options.windows, seed=0))
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    steps = -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=options.epochs * steps)
    for _ in range(options.epochs):
        for rows in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows], label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        held, labels = (torch.from_numpy(array) for array in windows(800, seed=3))
        print(f"{(net(held).argmax(1) == labels).float().mean():.2%} of 800 windows that training never saw")
    program = torch.export.export(net, (torch.zeros(1, 1, WINDOW),))
    tvmcompress.export_onnx(tvmcompress.load(program), options.output / "model.onnx")


if __name__ == "__main__":
    main()
