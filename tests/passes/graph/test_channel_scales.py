"""Scales of channels and moments of normalizations travel with a module, and compare what was scaled."""

from __future__ import annotations

import numpy as np

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.channel_scales import ChannelScale, get_channel_scales, record_channel_scales
from tvmcompress.passes.graph.normalization_statistics import Moments, get_statistics, record_statistics

from ..small_models import model

FACTORS = np.array([2.0, 0.5, 4.0])


def test_divided_channels_are_what_they_were() -> None:
    value = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4)
    divided = value / FACTORS.astype(np.float32).reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(ChannelScale(FACTORS, 1).undone(divided), value)
    last = value.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(ChannelScale(FACTORS, -1).undone(last / FACTORS.astype(np.float32)), last)
    other = np.ones((1, 5), np.float32)
    np.testing.assert_array_equal(ChannelScale(FACTORS, 1).undone(other), other)


def test_scales_of_several_passes_multiply() -> None:
    mod = model(lambda x, params: relax.op.exp(x), (1, 3))
    assert record_channel_scales(mod, {}) is mod
    assert get_channel_scales(mod) == {}
    mod = record_channel_scales(mod, {"a": ChannelScale(FACTORS, 1), "b": ChannelScale(FACTORS, -1)})
    found = get_channel_scales(record_channel_scales(mod, {"a": ChannelScale(FACTORS, 1)}))
    np.testing.assert_array_equal(found["a"].factors, [4.0, 0.25, 16.0])
    np.testing.assert_array_equal(found["b"].factors, FACTORS)
    assert (found["a"].axis, found["b"].axis) == (1, -1)


def test_moments_are_kept_by_the_names_of_weights() -> None:
    mod = model(lambda x, params: relax.op.exp(x), (1, 3))
    assert record_statistics(mod, {}) is mod
    mod = record_statistics(mod, {"w": Moments(FACTORS, FACTORS)})
    found = get_statistics(record_statistics(mod, {"v": Moments(-FACTORS, FACTORS), "w": Moments(FACTORS, 2 * FACTORS)}))
    np.testing.assert_array_equal(found["v"].mean, -FACTORS)
    np.testing.assert_array_equal(found["w"].deviation, 2 * FACTORS)
