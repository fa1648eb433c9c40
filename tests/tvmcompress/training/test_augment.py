"""Random changes of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmcompress.training.augment import augment, cut, sampled


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


def test_scales_show_more_or_less_of_an_image() -> None:
    """Of a plane that rises evenly to the right and faster downwards the rise says how large the part is."""
    down, right = np.mgrid[0:32, 0:32].astype(np.float32)
    plane = np.broadcast_to(100 * down + right, (60, 1, 32, 32))
    after = augment(plane, ("scale",), np.random.default_rng(2))
    assert (after.shape, after.dtype) == (plane.shape, plane.dtype)
    for axis, rise in ((1, 100), (2, 1)):
        sides = np.median(np.diff(after[:, 0], axis=axis), axis=(1, 2)) / rise
        assert 0.8 / np.exp(0.15) < sides.min() < 0.85
        assert 1.1 < sides.max() < 1.15 * np.exp(0.15)
    assert after.min() >= plane.min()
    assert after.max() <= plane.max()


@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=2),
    st.lists(st.floats(-3, 9, width=32), min_size=1, max_size=5),
    st.lists(st.floats(-3, 9, width=32), min_size=1, max_size=5),
)
def test_places_between_pixels_are_interpolated(sizes: list[int], rows: list[float], columns: list[float]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    before = np.random.default_rng(0).normal(size=(2, 3, *sizes)).astype(np.float32)
    after = sampled(before, np.array([rows, rows[::-1]]), np.array([columns, columns[::-1]]))
    for image, made, (down, right) in zip(before, after, ((rows, columns), (rows[::-1], columns[::-1]))):
        places = np.meshgrid(np.clip(down, 0, sizes[0] - 1), np.clip(right, 0, sizes[1] - 1), indexing="ij")
        for plane, found in zip(image, made):
            np.testing.assert_allclose(found, ndimage.map_coordinates(plane, places, order=1), atol=1e-5)


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
