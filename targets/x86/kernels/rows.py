"""Softmax and layer normalization of float32: functions with several sums over rows, in vectors.

A row is taken as (K / 16, 16), so that a sum runs over whole vectors and ends with those of the sixteen lanes, which are
added in pairs. Rows that are no multiple of sixteen are filled up with what changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ....passes._tvm import relax, te, tirx
from ....passes.graph.module_params import static_shape
from ....passes.reference.registry import ints
from ...legalize import Legalization
from .functions import exponential

ROWS_ANNOTATION = "x86.rows"
"""Annotation of the last block of such a function."""

_LANES = 16


def _blocks(x: Any, shape: tuple[int, ...], filler: float) -> Any:
    """x (..., K) as (..., ceil(K / 16), 16)."""
    *rows, size = shape

    def element(*i: Any) -> Any:
        place = i[-2] * _LANES + i[-1]
        if size % _LANES == 0:
            return x(*i[:-2], place)
        return tirx.if_then_else(place < size, x(*i[:-2], place), tirx.const(filler, "float32"))

    return te.compute((*rows, -(-size // _LANES), _LANES), element, name="blocks")


def _over_row(values: Any, reduce: Callable[..., Any], combine: Callable[[Any, Any], Any], name: str) -> Any:
    """A sum, or maximum, over the last two axes, as (..., 1)."""
    *rows, count, lanes = (int(dim) for dim in values.shape)
    axis = te.reduce_axis((0, count), "part")
    partial = te.compute((*rows, lanes), lambda *i: reduce(values(*i[:-1], axis, i[-1]), axis=axis), name=f"{name}_of_lanes")
    # Halves are added to each other in blocks of their own: vectors as long as possible.
    while lanes > 1:
        lanes //= 2
        partial = te.compute((*rows, lanes), _pairs(partial, lanes, combine), name=f"{name}_{lanes}")
    return partial


def _pairs(values: Any, half: int, combine: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda *i: combine(values(*i), values(*i[:-1], i[-1] + half))


def _softmax(x: Any, shape: tuple[int, ...]) -> Any:
    blocks = _blocks(x, shape, -math.inf)
    largest = _over_row(blocks, te.max, tirx.max, "largest")
    exps = te.compute(blocks.shape, lambda *i: exponential(blocks(*i) - largest(*i[:-2], 0)), name="exps")
    total = _over_row(exps, te.sum, lambda a, b: a + b, "total")
    inverse = te.compute(total.shape, lambda *i: tirx.const(1.0, "float32") / total(*i), name="inverse")

    def share(*i: Any) -> Any:
        return exps(*i[:-1], i[-1] // _LANES, i[-1] % _LANES) * inverse(*i[:-1], 0)

    return te.compute(shape, share, name="softmax", attrs={ROWS_ANNOTATION: 1})


def _layer_norm(x: Any, gamma: Any, beta: Any, shape: tuple[int, ...], epsilon: float) -> Any:
    size = shape[-1]
    blocks = _blocks(x, shape, 0.0)
    share = tirx.const(1.0 / size, "float32")
    total = _over_row(blocks, te.sum, lambda a, b: a + b, "total")

    def centred(*i: Any) -> Any:
        value = blocks(*i) - total(*i[:-2], 0) * share
        return value if size % _LANES == 0 else tirx.Select(i[-2] * _LANES + i[-1] < size, value, tirx.const(0.0, "float32"))

    off = te.compute(blocks.shape, centred, name="centred")
    squares = te.compute(off.shape, lambda *i: off(*i) * off(*i), name="squares")
    variance = _over_row(squares, te.sum, lambda a, b: a + b, "variance")
    reciprocal = te.compute(
        variance.shape,
        lambda *i: tirx.const(1.0, "float32") / tirx.sqrt(variance(*i) * share + tirx.const(epsilon, "float32")),
        name="reciprocal_root",
    )

    def element(*i: Any) -> Any:
        return off(*i[:-1], i[-1] // _LANES, i[-1] % _LANES) * reciprocal(*i[:-1], 0) * gamma(i[-1]) + beta(i[-1])

    return te.compute(shape, element, name="normalized", attrs={ROWS_ANNOTATION: 1})


def _takes_rows(call: relax.Call, axes: list[int]) -> bool:
    shape = static_shape(call)
    return str(call.ty.dtype) == "float32" and [axis % len(shape) for axis in axes] == [len(shape) - 1] and shape[-1] > 1


def _legalize_softmax(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    if not _takes_rows(call, [int(call.attrs.axis)]):
        return call.op.get_attr("FLegalize")(builder, call)
    return builder.call_te(lambda x: _softmax(x, static_shape(call)), call.args[0], primfunc_name_hint="softmax")


def _legalize_layer_norm(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    plain = bool(call.attrs.center) and bool(call.attrs.scale)
    if not plain or not _takes_rows(call, list(ints(call.attrs.axes))):
        return call.op.get_attr("FLegalize")(builder, call)

    def define(x: Any, gamma: Any, beta: Any) -> Any:
        return _layer_norm(x, gamma, beta, static_shape(call), float(call.attrs.epsilon))

    return builder.call_te(define, *call.args, primfunc_name_hint="layer_norm")


ROWS: dict[str, Legalization] = {"relax.nn.softmax": _legalize_softmax, "relax.nn.layer_norm": _legalize_layer_norm}
"""For `relax.transform.LegalizeOps`."""
