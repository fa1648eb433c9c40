"""How accumulators become a result: what the integer operators have in common, as keyword arguments and as attributes.

The result is accumulator * factor + zero point, rounded and clipped; see `requantize` for the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Required, TypedDict

import numpy as np

from .._tvm import relax
from .registry import typed_call

_ROUNDINGS = ("double", "single", "reduced")
_DEFAULTS = {"qmin": -128, "qmax": 127, "rounding": "double"}


class Requantization(TypedDict, total=False):
    """How accumulators become a result.

    Attributes:
        output_zero_point: Of the result.
        qmin: Lower limit of the result, the clip of a fused activation; -128 by default.
        qmax: Upper limit; 127 by default.
        rounding: "double", the default, or "single"; for sums of products of int16 also "reduced".
        out_dtype: Of the result, "int8" by default. Operators of which `ops` names a wide form also give "int16".
    """

    output_zero_point: Required[int]
    qmin: int
    qmax: int
    rounding: str
    out_dtype: str


class ScalarRequantization(Requantization):
    """A requantization by one factor, multiplier * 2**(shift - 31).

    Attributes:
        multiplier: See `requantize.quantize_multiplier`.
        shift: The same.
    """

    multiplier: int
    shift: int


class LayerRequantization(Requantization, total=False):
    """A requantization by a factor for each output channel; those are operands.

    Attributes:
        max_shift: No shift is larger, 30 by default; at most 0 says that there is no left shift.
        accumulator: "int32" or "int64": where products are added up; needed with int16.
    """

    max_shift: int
    accumulator: str


def requantized_call(name: str, args: list[relax.Expr], requantization: Mapping[str, Any], **attrs: Any) -> relax.Call:
    """A call of `q<name>`, or of `w<name>` as `registry.typed_call` has it.

    Args:
        name: Of the operator, without prefix.
        args: Its operands.
        requantization: A `Requantization`.
        attrs: What the operator has besides.

    Raises:
        ValueError: The rounding is unknown, or zero point and limits do not fit the dtype of the result.
    """
    record = {**_DEFAULTS, **requantization}
    out_dtype = record.pop("out_dtype", "int8")
    if record["rounding"] not in _ROUNDINGS:
        raise ValueError(f"q{name}: the rounding must be one of {', '.join(_ROUNDINGS)}, got {record['rounding']}")
    if out_dtype not in ("int8", "int16"):
        raise ValueError(f"q{name}: the result must be int8 or int16, got {out_dtype}")
    low, zero, high = (int(record[key]) for key in ("qmin", "output_zero_point", "qmax"))
    info = np.iinfo(out_dtype)
    if not (info.min <= low <= high <= info.max and info.min <= zero <= info.max):
        raise ValueError(f"q{name}: zero point {zero} and limits [{low}, {high}] do not fit {out_dtype}")
    return typed_call(name, args, out_dtype, **attrs, **record)


def requantization_of(attrs: Any) -> Requantization:
    """The record of a call with an int8 result, from its attributes."""
    return {
        "output_zero_point": int(attrs.output_zero_point),
        "qmin": int(attrs.qmin),
        "qmax": int(attrs.qmax),
        "rounding": str(attrs.rounding),
    }
