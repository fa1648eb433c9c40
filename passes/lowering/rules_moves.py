"""What moves values, puts tensors together or chooses between them, as integer operators."""

from __future__ import annotations

import numpy as np

from .._tvm import relax
from ..graph.module_params import static_shape
from ..integer import ops
from ..quantization.kinds import REARRANGING, op_name
from ..reference.registry import ints
from ..reference.resize import source_rows
from .walk import CannotLowerError, Integers, Lowering, Wanted, lowering_rule, operand

_MOVES = """
reshape permute_dims squeeze expand_dims flatten strided_slice flip broadcast_to tile repeat max min gather_elements
gather_nd
"""


@lowering_rule(*_MOVES.split(), wide=True)
def _move(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x = _operand_or_result(lower, call, wanted)
    moved = relax.Call(call.op, [x.expr, *map(lower.plain, list(call.args)[1:])], call.attrs, call.ty_args)
    return lower.then_rescaled(moved, x.affine, wanted)


def _operand_or_result(lower: Lowering, call: relax.Call, wanted: Wanted) -> Integers:
    """What is moved: a tensor known as integers, or one that is computed as the result is wanted."""
    try:
        return lower.integers(call.args[0])
    except CannotLowerError:
        if op_name(call) not in REARRANGING:
            raise
        inner = lower.scaled(call.args[0], 1.0, wanted)
        return Integers(inner if isinstance(inner, relax.Var) else lower.emit(inner, wanted.name), wanted.affine)


@lowering_rule("take", wide=True)
def _take(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x = operand(lower, call.args[0])
    taken = relax.Call(call.op, [x.expr, lower.plain(call.args[1])], call.attrs, call.ty_args)
    return lower.then_rescaled(taken, x.affine, wanted)


@lowering_rule("split", wide=True)
def _split(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    item = lower.source(var)
    if not isinstance(item, relax.TupleGetItem):
        raise CannotLowerError("its parts are not taken one by one")
    x = lower.integers(call.args[0])
    parts = lower.emit(relax.Call(call.op, [x.expr, *list(call.args)[1:]], call.attrs), f"{wanted.name}.parts")
    return lower.then_rescaled(relax.TupleGetItem(parts, item.index), x.affine, wanted)


@lowering_rule("concat", wide=True)
def _concat(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    fields = list(call.args[0].fields) if isinstance(call.args[0], relax.Tuple) else []
    tensors = [operand(lower, field, wanted.affine) for field in fields]
    if not tensors or call.attrs.axis is None:
        raise CannotLowerError("its operands are not known one by one")
    same = [tensor.affine == wanted.affine for tensor in tensors]
    factors = [
        ops.IDENTITY if equal else lower.factor(tensor.affine.scale / wanted.affine.scale)
        for equal, tensor in zip(same, tensors)
    ]
    return ops.qconcat(
        [tensor.expr for tensor in tensors],
        axis=int(call.attrs.axis) % len(static_shape(call)),
        input_zero_points=[tensor.affine.zero_point for tensor in tensors],
        multipliers=[multiplier for multiplier, _ in factors],
        shifts=[shift for _, shift in factors],
        **lower.result(wanted),
    )


@lowering_rule("nn.pad", wide=True)
def _pad(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x = lower.integers(call.args[0])
    if str(call.attrs.pad_mode) != "constant":
        moved = relax.Call(call.op, [x.expr], call.attrs, call.ty_args)
        return lower.then_rescaled(moved, x.affine, wanted)
    value = int(x.affine.quantize(np.asarray(float(call.attrs.pad_value))))
    padded = ops.qpad(x.expr, pad_width=ints(call.attrs.pad_width), value=value)
    return lower.then_rescaled(padded, x.affine, wanted)


@lowering_rule("image.resize2d", wide=True)
def _resize(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x, attrs = lower.integers(call.args[0]), call.attrs
    method, mode, rounding = str(attrs.method), str(attrs.coordinate_transformation_mode), str(attrs.rounding_method)
    if str(attrs.layout) != "NHWC" or method not in ("nearest_neighbor", "linear"):
        raise CannotLowerError(f"it resizes by '{method}'")
    _, h, w, _ = static_shape(call.args[0])
    _, oh, ow, _ = static_shape(call)
    try:
        rows, down = source_rows(h, oh, method, mode, rounding)
        columns, right = source_rows(w, ow, method, mode, rounding)
    except NotImplementedError as error:
        raise CannotLowerError(str(error)) from None
    resized = ops.qresize(
        x.expr,
        rows=rows.tolist(),
        columns=columns.tolist(),
        row_weights=None if down is None else np.rint(down * 1024).astype(int).tolist(),
        column_weights=None if right is None else np.rint(right * 1024).astype(int).tolist(),
    )
    return lower.then_rescaled(resized, x.affine, wanted)


@lowering_rule("stack", wide=True)
def _stack(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    fields = list(call.args[0].fields) if isinstance(call.args[0], relax.Tuple) else []
    return relax.op.stack([_like_result(lower, field, wanted) for field in fields], int(call.attrs.axis))


@lowering_rule("where", wide=True)
def _where(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    first, second = (_like_result(lower, arg, wanted) for arg in call.args[1:])
    return relax.op.where(lower.plain(call.args[0]), first, second)


@lowering_rule("maximum", "minimum", wide=True)
def _extreme(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    return relax.Call(call.op, [_like_result(lower, arg, wanted) for arg in call.args], call.attrs)


def _like_result(lower: Lowering, expr: relax.Expr, wanted: Wanted) -> relax.Expr:
    """An operand that is already as the result is wanted."""
    found = lower.rescaled(operand(lower, expr, wanted.affine), wanted)
    return found if isinstance(found, relax.Var) else lower.emit(found, f"{wanted.name}.operand")
