"""The record of requantization: what is stored of it, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer import ops
from tvmcompress.passes.integer.requantization import requantization_of

RESULT = {"output_zero_point": 3}
ONE = {**RESULT, "multiplier": 1 << 30, "shift": -1}
PAIR = {"input1_zero_point": 1, "input2_zero_point": 2}
STORED = {"output_zero_point", "qmin", "qmax", "rounding"}
GEOMETRY = {"strides", "padding", "dilation", "input_zero_point", "max_shift"}
SUM = {f"{name}_{part}" for name in ("input1", "input2", "output") for part in ("multiplier", "shift")}


def var(dtype: str = "int8") -> relax.Var:
    return relax.Var("x", relax.TensorType((1, 1, 1, 1), dtype))


def make(name: str, dtype: str = "int8", **more: Any) -> relax.Call:
    """A call of an operator, all of whose options are in the table below."""
    count, options, _ = OPERATORS[name]
    return getattr(ops, name)(*[var(dtype)] * count, **{**options, **more})


# Number of operands, options, and names of attributes besides `STORED`: saved models have these.
OPERATORS: dict[str, tuple[int, dict[str, Any], set[str]]] = {
    "qconv2d": (5, {**RESULT, "input_zero_point": 0}, {*GEOMETRY, "groups"}),
    "qdepthwise": (5, {**RESULT, "input_zero_point": 0}, GEOMETRY),
    "qdense": (5, {**RESULT, "input_zero_point": 0}, {"input_zero_point", "max_shift"}),
    "qadd": (2, {**RESULT, **PAIR, **ops.add_parameters(0.1, 0.2, 0.3)}, {*PAIR, *SUM, "left_shift"}),
    "qsub": (2, {**RESULT, **PAIR, **ops.add_parameters(0.1, 0.2, 0.3)}, {*PAIR, *SUM, "left_shift"}),
    "qmul": (2, {**ONE, **PAIR}, {*PAIR, "multiplier", "shift"}),
    "qmatmul": (2, {**ONE, **PAIR}, {*PAIR, "multiplier", "shift"}),
    "qrequantize": (1, {**ONE, "input_zero_point": 0}, {"input_zero_point", "multiplier", "shift"}),
    "qmean": (
        1,
        {**ONE, "input_zero_point": 0, "axes": [0], "keepdims": True},
        {"input_zero_point", "axes", "keepdims", "multiplier", "shift"},
    ),
    "qprelu": (
        2,
        {**ONE, "input_zero_point": 0, "slope_zero_point": 0, "negative_multiplier": 1, "negative_shift": 0},
        {"input_zero_point", "slope_zero_point", "negative_multiplier", "negative_shift", "multiplier", "shift"},
    ),
    "qnormalize": (
        3,
        {**ONE, "input_zero_point": 0, "axes": [0], "centred": True, "epsilon": 1},
        {"input_zero_point", "axes", "centred", "epsilon", "multiplier", "shift"},
    ),
    "qlogsoftmax": (4, ONE, {"multiplier", "shift"}),
}
NARROW = ["qmatmul", "qprelu", "qnormalize", "qlogsoftmax"]


@pytest.mark.parametrize("name", OPERATORS)
def test_what_is_stored(name: str) -> None:
    call = make(name, qmin=-5, rounding="single")
    assert call.op.name == f"tvmcompress.{name}"
    assert set(dict(call.attrs.items())) == STORED | OPERATORS[name][2]
    found = requantization_of(call.attrs)
    assert found == {"output_zero_point": 3, "qmin": -5, "qmax": 127, "rounding": "single"}
    if name not in NARROW:
        wide = make(name, "int16", out_dtype="int16", qmax=1000)
        assert wide.op.name == f"tvmcompress.w{name[1:]}"
        assert set(dict(wide.attrs.items())) == {*STORED, *OPERATORS[name][2], "out_dtype"}
        assert (wide.attrs.out_dtype, wide.attrs.qmax) == ("int16", 1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounding": "half"}, "rounding must be one of double, single, reduced, got half"),
        ({"qmin": 4, "qmax": 3}, "limits .4, 3. do not fit int8"),
        ({"qmax": 200}, "limits .-128, 200. do not fit int8"),
        ({"output_zero_point": 128}, "zero point 128"),
        ({"out_dtype": "uint8"}, "must be int8 or int16, got uint8"),
    ],
)
@pytest.mark.parametrize("name", ["qconv2d", "qadd", "qmul", "qlogsoftmax"])
def test_refusals(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        make(name, **options)


@pytest.mark.parametrize("name", NARROW)
def test_results_that_have_no_wide_form(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: the result must be int8, not int16"):
        make(name, out_dtype="int16")
