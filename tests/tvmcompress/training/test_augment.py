"""Random changes of images."""

from __future__ import annotations

import numpy as np

from tvmcompress.training.augment import augment


def images() -> np.ndarray:
    """(60, 2, 8, 16), each pixel with a value of its own."""
    return np.arange(60 * 2 * 8 * 16, dtype=np.float32).reshape(60, 2, 8, 16)


def test_flips_mirror_some() -> None:
    before = images()
    after = augment(before, ("flip",), np.random.default_rng(0))
    mirrored = [(image == other[:, :, ::-1]).all() for image, other in zip(after, before)]
    same = [(image == other).all() for image, other in zip(after, before)]
    assert all(one != two for one, two in zip(mirrored, same))
    assert 15 < sum(mirrored) < 45


def test_crops_shift_by_an_eighth_and_repeat_the_border() -> None:
    before = images()
    after = augment(before, ("crop",), np.random.default_rng(1))
    shifts = set()
    for image, other in zip(after, before):
        padded = np.pad(other, ((0, 0), (1, 1), (2, 2)), mode="edge")
        found = [
            (down, right)
            for down in range(3)
            for right in range(5)
            if (image == padded[:, down : down + 8, right : right + 16]).all()
        ]
        assert len(found) == 1
        shifts.update(found)
    assert len(shifts) > 10


def test_nothing_asked_changes_nothing() -> None:
    np.testing.assert_array_equal(augment(images(), (), np.random.default_rng(0)), images())
