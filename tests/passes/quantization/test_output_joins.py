"""Joined outputs: parts of far ranges keep their scales, others are joined as integers; which element is of which part."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import LowerQDQ, Quantize, calibrate, get_remarks
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.quantization.output_joins import output_parts

from ..small_models import model, samples, weights

op = relax.op
SHAPE = (1, 3, 4, 4)
_PARAMS = weights(boxes__weight=(4, 3, 1, 1), scores__weight=(6, 3, 1, 1), last__weight=(2, 10, 1, 1))


def _head(x: relax.Expr, p: dict, gain: float) -> relax.Expr:
    boxes = op.multiply(op.sigmoid(op.nn.conv2d(x, p["boxes.weight"])), relax.const(np.float32(gain)))
    return op.concat([boxes, op.sigmoid(op.nn.conv2d(x, p["scores.weight"]))], axis=1)


def _as_rows(head: relax.Expr, cells: int = 16) -> relax.Expr:
    return op.permute_dims(op.reshape(head, (1, 10, cells)), [0, 2, 1])


def _joined_as_integers(mod: tvm.IRModule) -> list[bool]:
    """Of each concatenation of a module in QDQ form whether its result is quantized."""
    calls = {var: value for var, value in bindings(mod["main"]) if isinstance(value, relax.Call)}
    quantized = {value.args[0] for value in calls.values() if value.op.name == "relax.quantize"}
    return [var in quantized for var, value in calls.items() if value.op.name == "relax.concat"]


def _remarks(mod: tvm.IRModule) -> list[str]:
    return [remark.message for remark in get_remarks(mod) if remark.pass_name == "Quantize"]


def _decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(wanted - found).sum()))


@pytest.mark.parametrize(
    ("gain", "precision", "as_integers"),
    [(640.0, "int8", False), (640.0, "uint8", False), (4.0, "int8", True), (640.0, "int16x8", True)],
)
def test_parts_of_far_ranges_keep_their_scales(gain: float, precision: str, as_integers: bool) -> None:
    mod = model(lambda x, p: _as_rows(_head(x, p, gain)), SHAPE, params=_PARAMS)
    data = samples(SHAPE)
    qdq = Quantize(calibrate(mod, [data]), precision=precision)(mod)
    assert _joined_as_integers(qdq) == [as_integers]
    assert len(_remarks(qdq)) == (not as_integers)
    first = [data[0][:1]]
    wanted = run(mod, first)[0]
    for form in (qdq, LowerQDQ()(qdq)):
        found = run(form, first)[0]
        assert _decibels(wanted[..., :4], found[..., :4]) > 25
        assert _decibels(wanted[..., 4:], found[..., 4:]) > 25


def test_joins_of_joins_follow() -> None:
    """Levels of a detector, joined along the cells."""

    def levels(x: relax.Expr, p: dict) -> relax.Expr:
        half = op.nn.max_pool2d(x, (2, 2), (2, 2))
        return op.concat([_as_rows(_head(x, p, 640.0)), _as_rows(_head(half, p, 640.0), 4)], axis=1)

    mod = model(levels, SHAPE, params=_PARAMS)
    qdq = Quantize(calibrate(mod, [samples(SHAPE)]))(mod)
    assert _joined_as_integers(qdq) == [False] * 3
    far, other, whole = _remarks(qdq)
    assert "differ by a factor of" in far
    assert "differ by a factor of" in other
    assert "joined in float themselves" in whole


def test_what_an_integer_operator_reads_stays_joined() -> None:
    def build(x: relax.Expr, p: dict) -> relax.Expr:
        return op.nn.conv2d(op.nn.max_pool2d(_head(x, p, 640.0)), p["last.weight"])

    mod = model(build, SHAPE, params=_PARAMS)
    qdq = Quantize(calibrate(mod, [samples(SHAPE)]))(mod)
    assert _joined_as_integers(qdq) == [True]
    assert _remarks(qdq) == []


def test_a_result_and_a_choice_of_it() -> None:
    """An operator in float that reads the join does not keep it in integers."""

    def build(x: relax.Expr, p: dict) -> relax.Expr:
        rows = _as_rows(_head(x, p, 640.0))
        return relax.Tuple([rows, op.argmax(op.strided_slice(rows, [2], [4], [10]), axis=2)])

    mod = model(build, SHAPE, params=_PARAMS)
    qdq = Quantize(calibrate(mod, [samples(SHAPE)]))(mod)
    assert _joined_as_integers(qdq) == [False]


def test_which_element_is_of_which_part() -> None:
    def build(x: relax.Expr, p: dict) -> relax.Expr:
        parts = op.split(_as_rows(_head(x, p, 640.0)), [3], axis=2)
        return relax.Tuple([op.nn.relu(x), parts[1], parts[0]])

    found = output_parts(model(build, SHAPE, params=_PARAMS))
    assert list(found) == [1]  # the other split is of boxes only
    names, labels = found[1]
    assert labels.shape == (1, 16, 7)
    assert len(names) == 2
    assert (labels == np.array([0, 1, 1, 1, 1, 1, 1])).all()
