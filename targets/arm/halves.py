"""Float layers in float16, where a core has arithmetic for it: eight products of a vector at once instead of four.

Convolutions and products of matrices are formed in float16, and what adds to them, clips or moves values follows. All else
(softmax, normalizations, means, functions such as the exponential) is computed in float32, and so is what has constants beyond
the range of float16. The library takes and gives float32.
"""

from __future__ import annotations

import numpy as np

from ...passes._tvm import Constant, relax, tvm
from ...passes.errors import UserError
from ...passes.graph.decode_weights import is_stored_weight
from ...passes.graph.rebuild import Rebuilder, bindings
from ...passes.layout.rules import with_attrs
from ..base import TargetDescription
from .features import needed

_FEATURE = "asimdhp"
_MOST = float(np.finfo(np.float16).max)
_PRODUCTS = {"relax.nn.conv2d", "relax.matmul"}
_FOLLOW = {
    *("relax.add", "relax.subtract", "relax.multiply", "relax.maximum", "relax.minimum", "relax.negative", "relax.clip"),
    *("relax.nn.relu", "relax.nn.leakyrelu", "relax.nn.max_pool2d", "relax.reshape", "relax.permute_dims", "relax.concat"),
    *("relax.expand_dims", "relax.squeeze", "relax.strided_slice", "relax.split", "relax.broadcast_to", "relax.flip"),
}


def check_halves(description: TargetDescription) -> None:
    """Refuse float16 for a core that has no arithmetic for it.

    Raises:
        UserError: It has none.
    """
    if _FEATURE not in {feature.name for feature in needed(description.tvm)}:
        raise UserError(
            f"a {description.core} has no float16 arithmetic ({_FEATURE}, Armv8.2); build for a core that has it, "
            "such as cortex-a76, or without --float16"
        )


def in_halves(mod: tvm.IRModule) -> tvm.IRModule:
    """A float model, parameters attached, that computes in float16."""
    rebuilder = Rebuilder(mod)
    for var, value in bindings(rebuilder.source):
        new = _computed(rebuilder, value)
        is_alias = isinstance(new, (relax.Var, Constant))
        rebuilder.values[var] = new if is_alias else rebuilder.emit(new, var.name)
    return rebuilder.finish(_whole(rebuilder, rebuilder.source.body.body))


def _computed(rebuilder: Rebuilder, value: relax.Expr) -> relax.Expr:
    """What stands in the place of a value."""
    if not isinstance(value, relax.Call):
        return _whole(rebuilder, value)
    name = getattr(value.op, "name", "")
    if name in _PRODUCTS:
        args = [_half(rebuilder, arg) for arg in value.args]
        if None not in args:
            return with_attrs(value, args, out_dtype="float16")
    if name in _FOLLOW and any(_is_half(rebuilder.get(arg)) for arg in _tensors(value)):
        made = {arg: _half(rebuilder, arg) for arg in _tensors(value)}
        if None not in made.values():
            return _with_tensors(value, made)
    return _with_tensors(value, {arg: _whole(rebuilder, arg) for arg in _tensors(value)})


def _tensors(call: relax.Call) -> list[relax.Expr]:
    """The tensors that a call reads, those in a tuple as well."""
    found = [field for arg in call.args for field in (arg.fields if isinstance(arg, relax.Tuple) else [arg])]
    return [arg for arg in found if isinstance(getattr(arg, "ty", None), relax.TensorType)]


def _with_tensors(call: relax.Call, made: dict[relax.Expr, relax.Expr]) -> relax.Call:
    args = [
        relax.Tuple([made.get(field, field) for field in arg.fields]) if isinstance(arg, relax.Tuple) else made.get(arg, arg)
        for arg in call.args
    ]
    return relax.Call(call.op, args, call.attrs, call.ty_args)


def _is_half(expr: relax.Expr) -> bool:
    return isinstance(expr.ty, relax.TensorType) and str(expr.ty.dtype) == "float16"


def _half(rebuilder: Rebuilder, expr: relax.Expr) -> relax.Expr | None:
    """A tensor in float16; None where it is a constant beyond its range, or no float32."""
    source = rebuilder.source_value(expr)
    if source is not None and is_stored_weight(source) and _is_half(source.args[0]):
        return rebuilder.get(source.args[0])
    value = rebuilder.param_value(expr)
    if value is not None and value.dtype == np.float32:
        if np.abs(value).max(initial=0) > _MOST:
            return None
        halves, name = value.astype(np.float16), rebuilder.param_name(expr)
        return relax.const(halves) if name is None else rebuilder.param(f"{name}.float16", halves)
    new = rebuilder.get(expr)
    if _is_half(new):
        return new
    return relax.op.astype(new, "float16") if str(new.ty.dtype) == "float32" else None


def _whole(rebuilder: Rebuilder, expr: relax.Expr) -> relax.Expr:
    """A tensor, or a tuple of some, as other operators and callers take it."""
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([_whole(rebuilder, field) for field in expr.fields])
    new = rebuilder.get(expr)
    if not isinstance(expr.ty, relax.TensorType) or str(expr.ty.dtype) == "float16":
        return new
    # The parts of a split are fields of a tuple.
    new = new if isinstance(new, (relax.Var, Constant)) else rebuilder.emit(new)
    return rebuilder.emit(relax.op.astype(new, "float32")) if _is_half(new) else new
