"""Random flips, shifts and scales of images, one image pasted into another, and mixtures of any samples: for small sets."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from .backend import Tensor

AUGMENTATIONS = ("flip", "crop", "scale")

_SIDES, _RATIO = (0.8, 1.15), 0.15
"""Sides of what "scale" shows, in those of the image; the logarithm of how much one may be longer than the other."""


def augment(images: np.ndarray, names: Collection[str], rng: np.random.Generator) -> np.ndarray:
    """Images, each changed at random.

    Args:
        images: (samples, channels, height, width).
        names: "flip" mirrors left and right every second time; "crop" shifts by up to an eighth of the height and the
            width, the border repeated; "scale" shows a part or, with its border repeated, more of the image, 0.8 to 1.15 of its
            height and its width, which differ by up to a sixth besides, interpolated between the nearest four pixels.
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
    if "scale" in names:
        side, ratio = rng.uniform(*_SIDES, (count, 1)), np.exp(rng.uniform(-_RATIO, _RATIO, (count, 1)))
        return sampled(images, _scaled(rows, height, side * ratio, rng), _scaled(columns, width, side / ratio, rng))
    picked = images[np.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return np.ascontiguousarray(np.moveaxis(picked, -1, 1))


def _scaled(places: np.ndarray, size: int, side: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places along an axis, (samples, size), closer together or further apart, somewhere on the image or around it."""
    middle = (size - 1) / 2
    return middle + (places - middle) * side + rng.uniform(-1, 1, side.shape) * np.abs(1 - side) * size / 2


def sampled(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Images at places between pixels, by bilinear interpolation; outside the border's pixels are repeated.

    Args:
        images: (samples, channels, height, width).
        rows: (samples, new height), where each row lies in the image.
        columns: (samples, new width), likewise.

    Returns:
        (samples, channels, new height, new width), of the dtype of `images`.
    """
    result = np.moveaxis(images, 1, -1).astype(np.float32)
    for axis, places in ((1, rows), (2, columns)):
        size = result.shape[axis]
        inside = np.clip(places, 0, size - 1)
        below = np.minimum(inside.astype(int), max(0, size - 2))
        shape = [len(images), 1, 1, 1]
        shape[axis] = places.shape[1]
        lower, share = below.reshape(shape), (inside - below).astype(np.float32).reshape(shape)
        upper = np.minimum(lower + 1, size - 1)
        first, second = (np.take_along_axis(result, index, axis) for index in (lower, upper))
        result = first + share * (second - first)
    result = np.moveaxis(result, -1, 1)
    rounded = np.rint(result) if np.issubdtype(images.dtype, np.integer) else result
    return np.ascontiguousarray(rounded.astype(images.dtype))


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
