"""Derivatives in NumPy against differences of what the references compute."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import evaluate_call, plain_value
from tvmcompress.passes.repair import gradients
from tvmcompress.passes.repair.gradients import DERIVATIVES

op, nn = relax.op, relax.op.nn


def call_of(make, *shapes):
    """A call on variables of these shapes, float64."""
    variables = [relax.Var(f"x{index}", relax.TensorType(shape, "float64")) for index, shape in enumerate(shapes)]
    return relax.BlockBuilder().normalize(make(*variables))


def check(make, *shapes, low=None, seed=0):
    """The derivative along random directions of a random weighting of the result, against a central difference."""
    rng = np.random.default_rng(seed)
    call = call_of(make, *shapes)
    values = [rng.standard_normal(shape) if low is None else rng.random(shape) + low for shape in shapes]
    others = list(call.args)[len(shapes) :]
    assert not any(isinstance(arg, relax.Var) for arg in others)

    def run(arrays):
        return evaluate_call(call, [*arrays, *map(plain_value, others)])

    result = run(values)
    weights = rng.standard_normal(result.shape)
    parts = DERIVATIVES[call.op.name](call, [*values, *map(plain_value, others)], result, weights)
    found = [part() if callable(part) else part for part in parts]
    for index, value in enumerate(values):
        assert found[index].shape == value.shape
        direction = rng.standard_normal(value.shape)
        step = 1e-6
        moved = ([*values[:index], value + sign * step * direction, *values[index + 1 :]] for sign in (1, -1))
        ahead, behind = map(run, moved)
        expected = ((ahead - behind) * weights).sum() / (2 * step)
        assert (found[index] * direction).sum() == pytest.approx(expected, rel=2e-5, abs=2e-6)


POINTWISE = {
    "relu": nn.relu,
    "relu6": nn.relu6,
    "sigmoid": op.sigmoid,
    "tanh": op.tanh,
    "silu": nn.silu,
    "gelu": nn.gelu,
    "negative": op.negative,
    "erf": op.erf,
    "exp": op.exp,
    "square": op.square,
    "clip": lambda x: op.clip(x, -0.5, 0.7),
    "softmax": lambda x: nn.softmax(x, axis=1),
    "mean": lambda x: op.mean(x, [0, 2], keepdims=False),
    "mean_kept": lambda x: op.mean(x, [1], keepdims=True),
    "mean_whole": op.mean,
    "reshape": lambda x: op.reshape(x, (6, 4)),
    "expand_dims": lambda x: op.expand_dims(x, 1),
    "permute": lambda x: op.permute_dims(x, [2, 0, 1]),
    "reverse": op.permute_dims,
}


@pytest.mark.parametrize("name", POINTWISE)
def test_of_one_tensor(name):
    check(POINTWISE[name], (2, 3, 4))


def test_of_roots():
    check(op.sqrt, (3, 4), low=0.5)


@pytest.mark.parametrize("shapes", [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 1)), ((1, 4), (2, 3, 4)), ((4,), (5, 1))], ids=str)
@pytest.mark.parametrize("function", [op.add, op.subtract, op.multiply, op.divide], ids=lambda function: function.__name__)
def test_broadcasting(function, shapes):
    check(function, *shapes, low=0.5)


@pytest.mark.parametrize(
    "shapes", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (3, 4, 2))], ids=str
)
def test_matrix_products(shapes):
    check(op.matmul, *shapes)


def test_layer_norm():
    check(lambda x, gamma, beta: nn.layer_norm(x, gamma, beta, -1), (2, 3, 5), (5,), (5,))
    check(lambda x, gamma, beta: nn.layer_norm(x, gamma, beta, [1, 2]), (2, 3, 5), (3, 5), (3, 5))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_convolutions(data):
    draw = data.draw
    groups, ins, outs = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    flat = draw(st.booleans())
    rank = 1 if flat else 2
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilation = [draw(st.integers(1, 2)) for _ in range(rank)]
    sizes = [draw(st.integers((k - 1) * d + 1, 7)) for k, d in zip(kernel, dilation)]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    padding = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    make = nn.conv1d if flat else nn.conv2d
    check(
        lambda x, w: make(x, w, strides=strides, padding=padding, dilation=dilation, groups=groups),
        (2, groups * ins, *sizes),
        (groups * outs, ins, *kernel),
        seed=draw(st.integers(0, 1000)),
    )


def test_convolutions_of_more_samples_than_are_held_at_a_time(monkeypatch):
    monkeypatch.setattr(gradients, "_CHUNK_BYTES", 2 * 4 * 9 * 16 * 8)  # two
    check(lambda x, w: nn.conv2d(x, w, padding=1, groups=2), (5, 4, 4, 4), (6, 2, 3, 3))


def test_what_is_not_covered_says_so():
    call = call_of(lambda x, w: nn.conv2d(x, w, data_layout="NHWC", kernel_layout="OHWI"), (1, 4, 4, 2), (3, 1, 1, 2))
    with pytest.raises(NotImplementedError, match="channels-first"):
        DERIVATIVES["relax.nn.conv2d"](call, [np.zeros((1, 4, 4, 2)), np.zeros((3, 1, 1, 2))], None, np.zeros((1, 4, 4, 3)))
