"""Random flips and shifts of images, as small sets of images need them, and mixtures of any samples."""

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
