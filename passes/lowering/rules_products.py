"""Matrix products of two tensors, Einstein sums among them, as integer operators."""

from __future__ import annotations

from .._tvm import relax
from ..graph.einsum import matmul_form
from ..graph.module_params import static_shape
from ..integer import ops
from .walk import CannotLowerError, Integers, Lowering, Wanted, lowering_rule, operand


def product(lower: Lowering, call: relax.Call, wanted: Wanted) -> relax.Expr:
    """A `matmul` of two tensors; one may be constant, and then has one scale."""
    a, b = (operand(lower, arg) for arg in call.args)
    if min(len(static_shape(tensor.expr)) for tensor in (a, b)) < 2:
        raise CannotLowerError("one of its operands is a vector")
    return _qmatmul(lower, a, b, wanted)


def _qmatmul(lower: Lowering, a: Integers, b: Integers, wanted: Wanted) -> relax.Expr:
    if "int16" in (a.affine.dtype, b.affine.dtype, wanted.affine.dtype):
        raise CannotLowerError("a product of two tensors has no form for int16")
    depth = static_shape(a.expr)[-1]
    if depth > ops.largest_depth(a.affine.zero_point, b.affine.zero_point):
        raise CannotLowerError(f"sums of {depth} products could leave 32 bits")
    return ops.qmatmul(
        a.expr,
        b.expr,
        input1_zero_point=a.affine.zero_point,
        input2_zero_point=b.affine.zero_point,
        **lower.requantization(wanted, a.affine.scale * b.affine.scale),
    )


@lowering_rule("einsum")
def _einsum(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    form = matmul_form(call)
    if form is None:
        raise CannotLowerError(f"'{call.attrs.subscripts}' is no matrix product")
    sides = []
    for field, axes, shape in zip(call.args[0].fields, form.axes, form.shapes):
        found = operand(lower, field)
        sides.append(Integers(_arranged(lower, found.expr, axes, shape, wanted.name), found.affine))
    multiplied = lower.emit(_qmatmul(lower, sides[0], sides[1], wanted), f"{wanted.name}.product")
    apart = relax.op.reshape(multiplied, form.product)
    if form.result == tuple(range(len(form.result))):
        return apart
    return relax.op.permute_dims(lower.emit(apart, f"{wanted.name}.product"), list(form.result))


def _arranged(lower: Lowering, x: relax.Expr, axes: tuple[int, ...], shape: tuple[int, int, int], name: str) -> relax.Expr:
    if axes != tuple(range(len(axes))):
        x = lower.emit(relax.op.permute_dims(x, list(axes)), f"{name}.operand")
    return x if static_shape(x) == shape else lower.emit(relax.op.reshape(x, shape), f"{name}.operand")
