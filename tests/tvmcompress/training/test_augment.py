"""Random changes of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmcompress.training.augment import augment, cut


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


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(2, 5), st.integers(0, 1000))
def test_one_box_of_all_samples_is_that_of_others(sizes: list[int], count: int, seed: int) -> None:
    torch = pytest.importorskip("torch")
    shape = (count, 2, *sizes)
    before = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    (after,), share = cut([torch.from_numpy(before)], np.random.default_rng(seed))
    theirs = after.numpy() == before[::-1]
    assert ((after.numpy() == before) | theirs).all()
    if count % 2 == 0:  # otherwise the one in the middle is pasted into itself
        assert (theirs == theirs[:1, :1]).all()
        assert theirs[0, 0].mean() == pytest.approx(1 - share)
        rows = np.nonzero(theirs[0, 0])
        assert theirs[0, 0][tuple(slice(at.min(), at.max() + 1) for at in rows)].all()


def test_boxes_have_all_areas_and_places() -> None:
    torch = pytest.importorskip("torch")
    found = [cut([torch.from_numpy(images())], np.random.default_rng(seed)) for seed in range(200)]
    assert np.histogram([share for _, share in found], 4, (0, 1))[0].min() > 20
    assert len({float(made[0][0, 0, 0, 0]) for made, _ in found}) == 2
    assert len({float(made[0][0, 0, 7, 15]) for made, _ in found}) == 2
