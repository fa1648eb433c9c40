"""Random flips and shifts of images, as small sets need them, one image pasted into another, and mixtures of any samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from .backend import Tensor

AUGMENTATIONS = ("flip", "crop")


def augment(images: np.ndarray, names: Collection[str], rng: np.random.Generator) -> np.ndarray:
    """Images, each changed at random.

    Args:
        images: (samples, channels, height, width).
        names: "flip" mirrors left and right every second time; "crop" shifts by up to an eighth of the height and the
            width, the border repeated.
        rng: Where chance comes from.

    Returns:
        The shape and dtype of `images`.
    """
    count, _, height, width = images.shape
    rows, columns = (np.broadcast_to(np.arange(size), (count, size)) for size in (height, width))
    if "flip" in names:
        mirrored = rng.random((count, 1)) < 0.5
        columns = np.where(mirrored, columns[:, ::-1], columns)
    if "crop" in names:
        down, right = (rng.integers(-(size // 8), size // 8, (count, 1), endpoint=True) for size in (height, width))
        rows, columns = np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)
    picked = images[np.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return np.ascontiguousarray(np.moveaxis(picked, -1, 1))


def mix(inputs: Sequence[Tensor], share: float) -> list[Tensor]:
    """Samples mixed in pairs, the first with the last: `share` of each and the rest of the other; integers stay."""
    return [share * value + (1 - share) * value.flip(0) if value.is_floating_point() else value for value in inputs]


def cut(inputs: Sequence[Tensor], rng: np.random.Generator) -> tuple[list[Tensor], float]:
    """Images with a rectangle of another one in them, the first with the last: its place and size are the same in all of them,
    its area evenly distributed.

    Args:
        inputs: Floats of more than two axes, of which all but samples and channels are cut; others stay.
        rng: Where chance comes from.

    Returns:
        The images, and which share of them is their own.
    """
    first = inputs[0]
    sides = np.maximum(1, np.round(np.array(first.shape[2:]) * rng.random() ** (1 / (first.ndim - 2)))).astype(int)
    starts = [int(rng.integers(0, size - side, endpoint=True)) for size, side in zip(first.shape[2:], sides)]
    place = (slice(None), slice(None), *(slice(start, start + int(side)) for start, side in zip(starts, sides)))
    made = first.clone()
    made[place] = first.flip(0)[place]
    return [made, *inputs[1:]], 1 - float(np.prod(sides / np.array(first.shape[2:])))
