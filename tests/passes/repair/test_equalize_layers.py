"""EqualizeLayers: ranges meet in the middle, the float result stays."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes import EqualizeLayers, UserError, get_params, get_remarks
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.channel_scales import get_channel_scales
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.normalization_statistics import Moments, get_statistics, record_statistics

from ..small_models import model, samples, weights

op = relax.op
SHAPE = (1, 3, 6, 6)


def _conv(x, p, name, **options):
    return op.add(op.nn.conv2d(x, p[f"{name}.weight"], **options), p[f"{name}.bias"])


def _ranges(weight, axis):
    return np.abs(weight).max(tuple(a for a in range(weight.ndim) if a != axis))


def _uneven(params, seed=0):
    """The parameters with very different output channels."""
    rng = np.random.default_rng(seed)
    return {
        name: (value * np.exp(rng.normal(0, 1.5, (len(value), *[1] * (value.ndim - 1))))).astype(np.float32)
        for name, value in params.items()
    }


def test_two_layers_meet_at_the_geometric_mean():
    params = _uneven(weights(a__weight=(4, 3, 3, 3), a__bias=(1, 4, 1, 1), b__weight=(5, 4, 1, 1), b__bias=(1, 5, 1, 1)))
    mod = model(lambda x, p: _conv(op.nn.relu(_conv(x, p, "a")), p, "b"), SHAPE, params=params)
    after = get_params(EqualizeLayers()(mod))
    first, second = _ranges(params["a.weight"], 0), _ranges(params["b.weight"], 1)
    scale = np.sqrt(first / second)
    np.testing.assert_allclose(after["a.weight"], params["a.weight"] / scale[:, None, None, None], rtol=1e-5)
    np.testing.assert_allclose(after["a.bias"], params["a.bias"] / scale[:, None, None], rtol=1e-5)
    np.testing.assert_allclose(after["b.weight"], params["b.weight"] * scale[:, None, None], rtol=1e-5)
    np.testing.assert_allclose(_ranges(after["a.weight"], 0), np.sqrt(first * second), rtol=1e-5)
    np.testing.assert_allclose(_ranges(after["b.weight"], 1), np.sqrt(first * second), rtol=1e-5)


def test_a_separable_chain_meets_at_the_cube_root():
    params = _uneven(
        weights(
            a__weight=(4, 3, 1, 1), a__bias=(1, 4, 1, 1), d__weight=(4, 1, 3, 3), d__bias=(1, 4, 1, 1),
            b__weight=(5, 4, 1, 1), b__bias=(1, 5, 1, 1),
        )
    )  # fmt: skip

    def build(x, p):
        y = op.nn.relu(_conv(x, p, "a"))
        return _conv(op.nn.relu(_conv(y, p, "d", groups=4, padding=1)), p, "b")

    after = get_params(EqualizeLayers(tolerance=1e-6)(model(build, SHAPE, params=params)))
    places = (("a.weight", 0), ("d.weight", 0), ("b.weight", 1))
    wanted = np.cbrt(np.prod([_ranges(params[name], axis) for name, axis in places], axis=0))
    for name, axis in places:
        np.testing.assert_allclose(_ranges(after[name], axis), wanted, rtol=1e-4)


@given(
    seed=st.integers(0, 1000),
    between=st.sampled_from(["relu", "leaky", "none", "max_pool", "avg_pool"]),
    head=st.sampled_from(["mean", "flatten", "pool"]),
    groups=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=30, deadline=None)
def test_the_float_result_stays(seed, between, head, groups):
    params = _uneven(
        weights(
            seed, a__weight=(4, 3, 3, 3), a__bias=(1, 4, 1, 1), b__weight=(8, 4 // groups, 3, 3), b__bias=(1, 8, 1, 1),
            f__weight=(8 * 36 if head == "flatten" else 8, 7), f__bias=(7,), g__weight=(7, 3),
        ),
        seed,
    )  # fmt: skip
    kinds = {
        "relu": op.nn.relu,
        "leaky": lambda x: op.nn.leakyrelu(x, 0.1),
        "none": lambda x: x,
        "max_pool": lambda x: op.nn.max_pool2d(x, (3, 3), (1, 1), (1, 1, 1, 1)),
        "avg_pool": lambda x: op.nn.avg_pool2d(op.nn.relu(x), (3, 3), (1, 1), (1, 1, 1, 1)),
    }

    def build(x, p):
        y = op.nn.relu(_conv(kinds[between](_conv(x, p, "a", padding=1)), p, "b", padding=1, groups=groups))
        if head == "pool":
            y = op.nn.adaptive_avg_pool2d(y, (1, 1))
        y = op.reshape(y, (1, 288 if head == "flatten" else 8)) if head != "mean" else op.mean(y, [2, 3])
        return op.matmul(op.nn.relu(op.add(op.matmul(y, p["f.weight"]), p["f.bias"])), p["g.weight"])

    mod = model(build, SHAPE, params=params)
    equal = EqualizeLayers()(mod)
    x = samples(SHAPE, count=8)
    before, after = run(mod, x)[0], run(equal, x)[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())
    changed = [name for name, value in get_params(equal).items() if not np.array_equal(value, params[name])]
    assert sorted(changed) == ["a.bias", "a.weight", "b.bias", "b.weight", "f.bias", "f.weight", "g.weight"]


def test_a_clip_stands_in_the_way():
    params = _uneven(weights(a__weight=(4, 3, 1, 1), a__bias=(1, 4, 1, 1), b__weight=(5, 4, 1, 1), b__bias=(1, 5, 1, 1)))
    mod = model(lambda x, p: _conv(op.clip(_conv(x, p, "a"), 0, 6), p, "b"), SHAPE, params=params)
    after = EqualizeLayers()(mod)
    for name, value in get_params(after).items():
        np.testing.assert_array_equal(value, params[name])
    assert any(r.subject == "a" and "clip" in r.message for r in get_remarks(after))


def test_a_result_with_other_readers_keeps_its_scale():
    params = _uneven(weights(a__weight=(3, 3, 1, 1), a__bias=(1, 3, 1, 1), b__weight=(3, 3, 1, 1), b__bias=(1, 3, 1, 1)))

    def build(x, p):
        y = op.nn.relu(_conv(x, p, "a"))
        return op.add(y, _conv(y, p, "b"))

    after = EqualizeLayers()(model(build, SHAPE, params=params))
    np.testing.assert_array_equal(get_params(after)["a.weight"], params["a.weight"])
    assert any("no two layers" in r.message for r in get_remarks(after))


def test_dead_channels_are_left_alone():
    params = _uneven(weights(a__weight=(4, 3, 1, 1), a__bias=(1, 4, 1, 1), b__weight=(5, 4, 1, 1), b__bias=(1, 5, 1, 1)))
    params["a.weight"][1] *= 1e-20
    params["a.weight"][2] = 0
    after = get_params(EqualizeLayers()(model(lambda x, p: _conv(op.nn.relu(_conv(x, p, "a")), p, "b"), SHAPE, params=params)))
    np.testing.assert_array_equal(after["a.bias"][0, 1:3], params["a.bias"][0, 1:3])
    np.testing.assert_array_equal(after["b.weight"][:, 1:3], params["b.weight"][:, 1:3])
    assert np.isfinite(after["b.weight"]).all()


def test_recorded_statistics_move_along():
    params = _uneven(weights(a__weight=(4, 3, 1, 1), a__bias=(1, 4, 1, 1), b__weight=(5, 4, 1, 1), b__bias=(1, 5, 1, 1)))
    mod = model(lambda x, p: _conv(op.nn.relu(_conv(x, p, "a")), p, "b"), SHAPE, params=params)
    mod = record_statistics(mod, {"a.weight": Moments(np.arange(4.0), np.ones(4))})
    after = EqualizeLayers()(mod)
    scale = _ranges(params["a.weight"], 0) / _ranges(get_params(after)["a.weight"], 0)
    np.testing.assert_allclose(get_statistics(after)["a.weight"].mean, np.arange(4) / scale, rtol=1e-5)
    np.testing.assert_allclose(get_statistics(after)["a.weight"].deviation, 1 / scale, rtol=1e-5)


def test_tensors_between_are_known_to_be_in_another_scale():
    params = _uneven(
        weights(a__weight=(4, 3, 1, 1), a__bias=(1, 4, 1, 1), b__weight=(5, 4, 1, 1), b__bias=(1, 5, 1, 1), f__weight=(180, 3))
    )

    def build(x, p):
        y = op.nn.relu(_conv(op.nn.relu(_conv(x, p, "a")), p, "b"))
        return op.matmul(op.reshape(y, (1, 180)), p["f.weight"])

    mod = model(build, SHAPE, params=params)
    equal = EqualizeLayers()(mod)
    inputs, tensors = samples(SHAPE, count=4), {}
    run(mod, inputs, lambda name, value: tensors.setdefault(name, value.copy()))
    scales, compared = get_channel_scales(equal), []

    def compare(name, value):
        undone = scales[name].undone(value) if name in scales else value
        np.testing.assert_allclose(undone, tensors[name], rtol=1e-4, atol=1e-5 * np.abs(tensors[name]).max(), err_msg=name)
        compared.append(name)

    run(equal, inputs, compare)
    assert set(scales) == {"a", "a.bias_add", "a.relu", "b", "b.bias_add", "b.relu", "b.reshape"}
    assert set(scales) <= set(compared)


def test_options_out_of_range():
    with pytest.raises(UserError, match="at least one iteration"):
        EqualizeLayers(iterations=0)
