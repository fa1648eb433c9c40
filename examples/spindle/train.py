"""Train an autoencoder on spectra of sound tools alone, and write it as model.onnx.

    pip install 'tvmcompress[train]'
    python train.py          # half a minute
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import torch
from spectra import BANDS, spectra
from torch import nn

import tvmcompress


def main() -> None:
    """Train, tell the error, write."""
    parser = argparse.ArgumentParser(description="Train and write model.onnx.")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.manual_seed(0)
    sound = torch.from_numpy(spectra(4000, seed=0))
    widths = (BANDS, 64, 32, 8, 32, 64)
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Linear(64, BANDS))
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=options.epochs * -(-len(sound) // 64))
    for _ in range(options.epochs):
        for rows in torch.randperm(len(sound)).split(64):
            loss = nn.functional.mse_loss(net(sound[rows]), sound[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    print(f"mean squared error {loss.item():.4f}")
    program = torch.export.export(net.eval(), (torch.zeros(1, BANDS),))
    tvmcompress.export_onnx(tvmcompress.load(program), options.output / "model.onnx")


if __name__ == "__main__":
    main()
