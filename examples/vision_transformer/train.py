"""Train a small vision transformer on handwritten digits, and write it as model.onnx.

    pip install 'tvmcompress[train]' scikit-learn
    python train.py          # two minutes

Images of 8 x 8 pixels are cut into 16 patches of 2 x 2, each a token of width 48; two blocks of attention with three
heads follow, and the mean of the tokens decides. The images are those of examples/train_digits.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import tvmcompress

WIDTH, HEADS, TOKENS = 48, 3, 16


class Block(nn.Module):
    """Attention, then a dense network, each behind a normalization and around it a way past."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.projection = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.dense = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(self.before(x)).reshape(-1, TOKENS, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        attention = torch.softmax(query @ key.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5, -1)
        x = x + self.projection((attention @ value).transpose(1, 2).reshape(-1, TOKENS, WIDTH))
        return x + self.dense(self.between(x))


class VisionTransformer(nn.Module):
    """(N, 1, 8, 8) pixels in 0..16 to (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, 2, 2)
        self.places = nn.Parameter(torch.randn(1, TOKENS, WIDTH) * 0.02)
        self.blocks = nn.Sequential(Block(), Block(), nn.LayerNorm(WIDTH))
        self.classifier = nn.Linear(WIDTH, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(image / 16).flatten(2).transpose(1, 2) + self.places
        return self.classifier(self.blocks(tokens).mean(1))


def shifted(images: torch.Tensor) -> torch.Tensor:
    """Each batch moved by up to a pixel, so that the network sees more than 1197 images."""
    down, right = (int(torch.randint(-1, 2, ())) for _ in range(2))
    return nn.functional.pad(images, (1, 1, 1, 1))[:, :, 1 + down : 9 + down, 1 + right : 9 + right]


def main() -> None:
    """Train, tell the accuracy, write."""
    parser = argparse.ArgumentParser(description="Train and write model.onnx.")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.manual_seed(0)
    digits = load_digits()
    images = digits.images.astype("float32")[:, None]
    split = train_test_split(images, digits.target, test_size=600, random_state=0, stratify=digits.target)
    x, held, y, labels = (torch.from_numpy(part) for part in split)
    net = VisionTransformer()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=options.epochs * -(-len(x) // 64))
    for _ in range(options.epochs):
        net.train()
        for rows in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(net(shifted(x[rows])), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        print(f"{(net(held).argmax(1) == labels).float().mean():.2%} of 600 images that training never saw")
    program = torch.export.export(net, (torch.zeros(1, 1, 8, 8),))
    tvmcompress.export_onnx(tvmcompress.load(program), options.output / "model.onnx")


if __name__ == "__main__":
    main()
