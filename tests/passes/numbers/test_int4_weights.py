"""Four-bit weights: packing, and scales that are no worse than any simple choice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes.numbers.int4_weights import pack_int4, quantize_int4, spread, unpack_int4


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=33))
@settings(deadline=None)
def test_packed_values_come_back(values: list[int]) -> None:
    array = np.array(values, np.int8)
    packed = pack_int4(array)
    assert packed.dtype == np.uint8
    assert packed.size == (len(values) + 1) // 2
    np.testing.assert_array_equal(unpack_int4(packed, array.shape), array)


def test_the_first_value_lies_in_the_lower_half() -> None:
    np.testing.assert_array_equal(pack_int4(np.array([1, -2, 7], np.int8)), [0xE1, 0x07])


def _error(weight: np.ndarray, group_size: int, **options: object) -> np.ndarray:
    """Squared error of every channel, from the definition."""
    found = quantize_int4(weight, group_size, **options)
    total = np.zeros(len(weight))
    for o, i, k in np.ndindex(weight.shape):
        multiplier = int(found.multipliers[o, i // group_size if group_size else 0])
        total[o] += (found.scales[o] * multiplier * int(found.values[o, i, k]) - weight[o, i, k]) ** 2
    return total


@given(seed=st.integers(0, 2**31), inputs=st.integers(1, 9), group_size=st.integers(0, 5), tail=st.booleans())
@settings(max_examples=30, deadline=None)
def test_no_worse_than_the_largest_weight_at_the_end(seed: int, inputs: int, group_size: int, tail: bool) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((3, inputs, 4)) ** (3 if tail else 1)
    scale = np.maximum(weight.max((1, 2)) / 7, weight.min((1, 2)) / -8)[:, None, None]
    naive = np.square(np.clip(np.rint(weight / scale), -8, 7) * scale - weight).sum((1, 2))
    found = _error(weight, group_size)
    # Scales of groups are multiples of a fifteenth of the channel's; one of them can be off by half of that.
    assert (found <= naive * (1.0 if not group_size or group_size >= inputs else 1.1) + 1e-6).all()


def test_a_group_of_small_weights_keeps_its_precision() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 32, 9))
    weight[:, :16] *= 0.05
    apart = _error(weight[:, :16], 0) + _error(weight[:, 16:], 0)
    assert (_error(weight, 16) < 1.02 * apart).all()
    assert (_error(weight, 0) > 1.1 * apart).all()


def test_odd_weights() -> None:
    found = quantize_int4(np.zeros((2, 4, 1)), 2)
    assert not found.values.any()
    assert (found.scales > 0).all()
    held = quantize_int4(np.full((2, 4, 1), 0.1), smallest=np.array([1e-3, 5.0]))
    assert held.scales[1] == 5.0
    assert held.scales[0] < 0.1
    weight = np.random.default_rng(0).standard_normal((3, 8, 1))
    assert np.log2(quantize_int4(weight, shift_only=True).scales) % 1 == pytest.approx(0)
    common = quantize_int4(weight, 4, per_channel=False)
    assert np.unique(common.scales).size == 1
    effective = common.values * spread(common.multipliers, 8, 4)[:, :, None].astype(int)
    assert np.abs(effective).max() <= 120
