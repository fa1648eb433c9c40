"""Definitions of operators that TVM's own are not enough for, at infinite values and at indices out of range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..passes._tvm import relax, te, tirx, topi
from ..passes.graph.module_params import static_shape
from ..passes.reference.registry import ints

Legalization = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]


def _extreme(combine: Callable[[Any, Any], Any], first: float, plain: Callable[..., Any]) -> Legalization:
    """Reductions that begin at infinity. TVM's begin with the largest finite number, so that the maximum of a row of minus
    infinity, which a mask makes of a row of scores, is a finite one."""

    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        shape, dtype, keep = static_shape(call.args[0]), str(call.ty.dtype), bool(call.attrs.keepdims)
        given = range(len(shape)) if call.attrs.axis is None else ints(call.attrs.axis)
        axes = sorted(axis % len(shape) for axis in given)
        if not dtype.startswith("float"):
            return builder.call_te(plain, call.args[0], axes, keep)
        reducer = te.comm_reducer(lambda a, b: combine(a, b), lambda kind: tirx.const(first, kind), name=plain.__name__)

        def define(x: Any) -> Any:
            along = {axis: te.reduce_axis((0, shape[axis]), f"k{axis}") for axis in axes}
            kept = [axis for axis in range(len(shape)) if axis not in along]

            def element(*index: Any) -> Any:
                outer = dict(zip(range(len(shape)) if keep else kept, index))
                return reducer(x(*[along.get(axis, outer.get(axis)) for axis in range(len(shape))]), axis=list(along.values()))

            return te.compute(static_shape(call), element, name=f"{plain.__name__}imum")

        return builder.call_te(define, call.args[0], primfunc_name_hint=plain.__name__)

    return legalize


def _bounded(sizes: Callable[[relax.Call], Sequence[int]]) -> Legalization:
    """TVM's definition, at indices that stay inside: what data says must not reach foreign memory.

    Args:
        sizes: How many entries there are: one for all indices, or one for each place of the last axis of the indices.
    """

    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        found = sizes(call)

        def define(indices: Any) -> Any:
            def element(*index: Any) -> Any:
                value = indices(*index)
                last = tirx.const(found[0] - 1, value.ty.dtype)
                for place, size in enumerate(found[1:], start=1):
                    last = tirx.Select(index[-1] == place, tirx.const(size - 1, value.ty.dtype), last)
                return tirx.max(tirx.min(value, last), tirx.const(0, value.ty.dtype))

            return te.compute(indices.shape, element, name="inside")

        inside = builder.emit_te(define, call.args[1], primfunc_name_hint="inside")
        made = relax.Call(call.op, [call.args[0], inside, *call.args[2:]], call.attrs)
        return call.op.get_attr("FLegalize")(builder, builder.normalize(made))

    return legalize


def _along_axis(call: relax.Call) -> Sequence[int]:
    return [static_shape(call.args[0])[int(call.attrs.axis)]]


def _by_tuple(call: relax.Call) -> Sequence[int]:
    start = int(call.attrs.batch_dims) if call.op.name == "relax.gather_nd" else 0
    return static_shape(call.args[0])[start : start + static_shape(call.args[1])[-1]]


def _floor_mod(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Python's remainder, of infinite divisors, too, where TVM's x - floor(x / y) * y is not a number."""
    if not str(call.ty.dtype).startswith("float"):
        return builder.call_te(topi.floor_mod, *call.args)

    def define(x: Any, y: Any) -> Any:
        x, y = (topi.broadcast_to(value, static_shape(call)) for value in (x, y))
        usual = topi.floor_mod(x, y)

        def element(*index: Any) -> Any:
            a, b = x(*index), y(*index)
            zero = tirx.const(0, a.ty.dtype)
            endless = tirx.all(tirx.isinf(b), tirx.isfinite(a))
            same = tirx.any(a == zero, tirx.all(a < zero, b < zero), tirx.all(a > zero, b > zero))
            return tirx.Select(endless, tirx.Select(same, a, b), usual(*index))

        return te.compute(static_shape(call), element, name="remainder")

    return builder.call_te(define, *call.args, primfunc_name_hint="floor_mod")


LEGALIZE: dict[str, Legalization] = {
    "relax.max": _extreme(tirx.max, -np.inf, topi.max),
    "relax.min": _extreme(tirx.min, np.inf, topi.min),
    "relax.floor_mod": _floor_mod,
    "relax.gather_elements": _bounded(_along_axis),
    "relax.scatter_elements": _bounded(_along_axis),
    "relax.gather_nd": _bounded(_by_tuple),
    "relax.scatter_nd": _bounded(_by_tuple),
}
"""For `relax.transform.LegalizeOps`."""
