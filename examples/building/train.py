"""Train the network that tells whether a room is in use, and write it as model.onnx.

    pip install 'tvmcompress[train]'
    python train.py          # about a minute
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rooms import CLASSES, STEPS, rooms
from torch import nn

import tvmcompress


class RoomNet(nn.Module):
    """(N, 4, STEPS) of a sensor and (N, 4) of the clock to (N, 3) logits."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((4, 24, 1), (24, 32, 2), (32, 48, 2), (48, 48, 2)):
            layers += [nn.Conv1d(inputs, outputs, 5, stride, 2, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.sensor = nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 6, 32), nn.ReLU())
        self.clock = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
        self.together = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, len(CLASSES)))

    def forward(self, series: torch.Tensor, calendar: torch.Tensor) -> torch.Tensor:
        return self.together(torch.cat([self.sensor(series), self.clock(calendar)], 1))


def main() -> None:
    """Train, tell the accuracy, write."""
    parser = argparse.ArgumentParser(description="Train and write model.onnx.")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--rooms", type=int, default=6000)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.manual_seed(0)
    series, calendar, y = (torch.from_numpy(array) for array in rooms(options.rooms, seed=0))
    net = RoomNet()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=options.epochs * -(-len(y) // 64))
    for _ in range(options.epochs):
        for rows in torch.randperm(len(y)).split(64):
            loss = nn.functional.cross_entropy(net(series[rows], calendar[rows]), y[rows], label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        held, clock, labels = (torch.from_numpy(array) for array in rooms(900, seed=3))
        print(f"{(net(held, clock).argmax(1) == labels).float().mean():.2%} of 900 rooms that training never saw")
    program = torch.export.export(net, (torch.zeros(1, 4, STEPS), torch.zeros(1, 4)))
    tvmcompress.export_onnx(tvmcompress.load(program), options.output / "model.onnx")


if __name__ == "__main__":
    main()
