"""Masks of attention: each way in which exporters write one is found, and keeps the same elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import Constant, relax
from tvmcompress.passes.graph.attention_mask import MaskedScores, masked_scores
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.rebuild import bindings

from ..small_models import model

LOW = np.float32(-1e9)
SHAPE = (2, 4)
KEPT = np.array([[1, 0, 1, 1], [1, 1, 0, 0]])
op = relax.op


def low() -> relax.Expr:
    return relax.const(np.full((), LOW))


def zero() -> relax.Expr:
    return relax.const(np.zeros((), np.float32))


def as_float(flag: relax.Expr) -> relax.Expr:
    return op.astype(flag, "float32")


def kept_flags(flag: relax.Expr) -> relax.Expr:
    return op.greater(flag, zero())


FORMS: dict[str, tuple[Callable[[relax.Expr, relax.Expr], relax.Expr], str]] = {
    "where": (lambda x, m: op.where(kept_flags(m), x, low()), "true"),
    "where_turned": (lambda x, m: op.where(op.less_equal(m, zero()), low(), x), "false"),
    "added_choice": (lambda x, m: op.add(x, op.where(kept_flags(m), zero(), low())), "true"),
    "added_choice_turned": (lambda x, m: op.add(op.where(op.less_equal(m, zero()), low(), zero()), x), "false"),
    "added_count": (
        lambda x, m: op.add(x, op.multiply(op.subtract(relax.const(np.float32(1)), as_float(op.astype(m, "int64"))), low())),
        "positive",
    ),
    "added_flags": (lambda x, m: op.add(x, op.multiply(as_float(op.less_equal(m, zero())), low())), "nonpositive"),
    "constant": (lambda x, m: op.add(x, relax.const(np.where(KEPT, 0, LOW).astype(np.float32))), "true"),
}


def constant(expr: relax.Expr) -> np.ndarray | None:
    return expr.value.numpy() if isinstance(expr, Constant) else None


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str) -> None:
    build, keeps = FORMS[name]
    mod = model(lambda x, m, params: op.nn.softmax(build(op.abs(x), m)), SHAPE, SHAPE)
    values = dict(bindings(mod["main"]))
    softmax = next(value for value in values.values() if getattr(value.op, "name", "") == "relax.nn.softmax")
    masked = masked_scores(softmax, values.get, constant)
    assert masked is not None
    assert masked.keeps == keeps
    source = values[masked.scores]
    assert isinstance(source, relax.Call)
    assert source.op.name == "relax.abs"
    # The elements kept are those that the model does not make zero.
    result = run(mod, [np.ones(SHAPE, np.float32), KEPT.astype(np.float32)])[0]
    np.testing.assert_array_equal(result > 0, KEPT.astype(bool))
    if isinstance(masked.mask, np.ndarray):
        np.testing.assert_array_equal(masked.mask, KEPT.astype(bool))


@pytest.mark.parametrize(
    "build",
    [
        lambda x, m: op.add(x, m),
        lambda x, m: op.where(op.greater(m, zero()), x, relax.const(np.float32(-10))),
        lambda x, m: op.add(x, relax.const(np.zeros(SHAPE, np.float32))),
        lambda x, m: op.add(x, op.multiply(m, low())),
        lambda x, m: op.multiply(x, m),
    ],
    ids=["a bias", "not low", "everything is kept", "no flags", "a product"],
)
def test_what_is_no_mask(build: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> None:
    mod = model(lambda x, m, params: op.nn.softmax(build(op.abs(x), m)), SHAPE, SHAPE)
    values = dict(bindings(mod["main"]))
    softmax = next(value for value in values.values() if getattr(value.op, "name", "") == "relax.nn.softmax")
    assert masked_scores(softmax, values.get, constant) is None


def test_masks_along_another_axis_are_left() -> None:
    build = FORMS["where"][0]
    mod = model(lambda x, m, params: op.nn.softmax(build(op.abs(x), m), axis=0), SHAPE, SHAPE)
    values = dict(bindings(mod["main"]))
    softmax = next(value for value in values.values() if getattr(value.op, "name", "") == "relax.nn.softmax")
    assert masked_scores(softmax, values.get, constant) is None


@pytest.mark.parametrize("dtype", ["bool", "int32"])
@pytest.mark.parametrize("keeps", ["true", "false", "positive", "nonpositive"])
def test_the_condition_is_true_for_what_is_kept(keeps: str, dtype: str) -> None:
    if dtype != "bool" and keeps in ("true", "false"):
        pytest.skip("a choice has a boolean condition")
    kept = KEPT.astype(bool)
    stored = kept if keeps in ("true", "positive") else ~kept
    builder = relax.BlockBuilder()
    mask = relax.Var("mask", relax.TensorType(SHAPE, dtype))
    with builder.function("main", [mask], attrs={"num_input": 1}):
        with builder.dataflow():
            out = builder.emit_output(op.astype(builder.emit(MaskedScores(mask, mask, keeps).condition(mask)), "int32"))
        builder.emit_func_output(out)
    np.testing.assert_array_equal(run(attach_params(builder.get(), {}), [stored.astype(dtype)])[0], KEPT)
