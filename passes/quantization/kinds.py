"""What each operator is to the quantizer: whether it computes a result with a scale of its own, or only moves values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .._tvm import Constant, relax
from ..graph.einsum import matmul_form
from ..graph.module_params import static_shape
from ..graph.pointwise import POINTWISE, scalar_value
from ..numbers.affine import Affine

Params = Mapping[relax.Var, np.ndarray]

CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
TRANSPOSED = ("relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose")
# Layers with weights that are quantized for each output channel, and a bias.
WEIGHTED = (*CONVOLUTIONS, *TRANSPOSED, "relax.matmul")
CLIPS = ("relax.nn.relu", "relax.nn.relu6", "relax.clip")
# Of two tensors, one of which may be constant and is then quantized over its own range.
_SUMS = ("relax.add", "relax.subtract", "relax.multiply", "relax.divide")
# Of two tensors; a constant is quantized like the result.
_CHOICES = ("relax.maximum", "relax.minimum", "relax.where")
_NORMALIZATIONS = tuple(f"relax.nn.{kind}_norm" for kind in ("layer", "rms", "group", "instance"))
_REDUCTIONS = ("relax.mean", "relax.sum", "relax.nn.log_softmax")
# At the scale of the input, or over the whole input with a scale of its own.
_POOLS = (*(f"relax.nn.max_pool{rank}d" for rank in (1, 2, 3)), "relax.nn.avg_pool1d", "relax.nn.avg_pool2d")
_GLOBAL_POOLS = tuple(f"relax.nn.{kind}_pool{rank}d" for kind in ("avg", "adaptive_avg") for rank in (1, 2, 3))
# Of several tensors, each with its scale.
_JOINS = ("relax.concat", "relax.stack")
_MOVES = """
reshape permute_dims squeeze expand_dims flatten strided_slice flip broadcast_to tile repeat split max min take
gather_elements gather_nd
"""
# Every value of the operand comes out once.
REARRANGING = tuple(f"relax.{name}" for name in ("reshape", "permute_dims", "squeeze", "expand_dims", "flatten", "flip"))
# The result has the scale of the first operand.
MOVES = tuple(f"relax.{name}" for name in _MOVES.split())
# They move values in some of their modes.
_OFTEN_MOVES = ("relax.nn.pad", "relax.image.resize2d")
# Results in a known interval get the scale that TensorFlow Lite demands.
FIXED = {
    "relax.nn.softmax": Affine(1.0 / 256.0, -128),
    "relax.sigmoid": Affine(1.0 / 256.0, -128),
    "relax.tanh": Affine(1.0 / 128.0, 0),
}
_NAMES = {
    "function of one value": POINTWISE,
    "clip": CLIPS,
    "pool": (*_GLOBAL_POOLS, *_POOLS),
    "move": (*MOVES, *_OFTEN_MOVES),
    "join": _JOINS,
    "fixed scale": FIXED,
    "reduction": _REDUCTIONS,
    "normalization": _NORMALIZATIONS,
    "slope": ("relax.nn.prelu",),
    "choice": _CHOICES,
    "sum": _SUMS,
    "product": ("relax.einsum",),
    "layer": WEIGHTED,
}
KINDS = {name: kind for kind, names in _NAMES.items() for name in names}
"""What each operator is to the quantizer at most; shapes, constants and attributes decide whether a call is."""


def op_name(expr: relax.Expr | None) -> str:
    """The full name of the operator of a call; empty for anything else."""
    return getattr(expr.op, "name", "") if isinstance(expr, relax.Call) else ""


def is_float(expr: relax.Expr) -> bool:
    """Whether a tensor is float32."""
    return isinstance(expr.ty, relax.TensorType) and str(expr.ty.dtype) == "float32"


def is_constant(expr: relax.Expr, params: Params) -> bool:
    """Whether an operand is a parameter or a constant."""
    return isinstance(expr, Constant) or (isinstance(expr, relax.Var) and expr in params)


def weight_axis(call: relax.Call) -> int:
    """The axis of a layer's weight that counts output channels."""
    return 0 if call.op.name in CONVOLUTIONS else 1


def channel_axis(call: relax.Call) -> int:
    """The axis of a layer's result, channels first, that counts output channels."""
    return 1 if call.op.name != "relax.matmul" else len(static_shape(call)) - 1


def is_layer(call: relax.Call, params: Params) -> bool:
    """Whether a call is a convolution or matrix product of a tensor with constant weights, in the usual layout."""
    if op_name(call) not in WEIGHTED or not is_float(call) or is_constant(call.args[0], params):
        return False
    weight = params.get(call.args[1]) if isinstance(call.args[1], relax.Var) else None
    if weight is None:
        return False
    return weight.ndim == 2 if call.op.name == "relax.matmul" else str(call.attrs.data_layout).startswith("NC")


def is_product(call: relax.Call, params: Params) -> bool:
    """Whether a call is a matrix product without weights for each output channel: of two tensors that the inputs
    decide, or with a constant that is no matrix or stands first."""
    if not is_float(call) or is_layer(call, params):
        return False
    if op_name(call) == "relax.matmul":
        computed = [arg for arg in call.args if not is_constant(arg, params)]
        return bool(computed) and all(len(static_shape(arg)) >= 2 for arg in call.args)
    return op_name(call) == "relax.einsum" and matmul_form(call) is not None


def constant_operand(call: relax.Call, params: Params) -> int | None:
    """The position of the constant tensor, quantized over its own range, among the operands of a sum, product or table
    look-up; None when there is none."""
    product = op_name(call) == "relax.matmul" and is_product(call, params)
    if op_name(call) in _SUMS or product or is_lookup(call, params):
        found = [position for position, arg in enumerate(call.args) if is_float(arg) and is_constant(arg, params)]
        return found[0] if found else None
    return None


def is_lookup(call: relax.Call, params: Params) -> bool:
    """Whether a call takes rows of a constant table by computed indices, as an embedding does."""
    return op_name(call) == "relax.take" and is_float(call) and is_constant(call.args[0], params)


def computes(call: relax.Call, params: Params) -> bool:
    """Whether the result gets a scale of its own, and a clip behind it can be part of the operator."""
    name = op_name(call)
    if not is_float(call):
        return False
    if is_layer(call, params) or is_product(call, params):
        return True
    if name in _SUMS or name in _CHOICES:
        return _of_tensors(call, params)
    if name in _REDUCTIONS:
        return True
    if name in _NORMALIZATIONS:
        return all(is_constant(arg, params) for arg in call.args[1:])
    if name == "relax.nn.prelu":
        return is_constant(call.args[1], params)
    if name.startswith("relax.nn.adaptive_avg_pool"):
        return all(dim == 1 for dim in static_shape(call)[2:]) and str(call.attrs.layout).startswith("NC")
    return name.startswith("relax.nn.avg_pool") and is_global_pool(call)


def _of_tensors(call: relax.Call, params: Params) -> bool:
    """Whether a call combines tensors rather than one tensor with a number; at least one is not constant."""
    operands = [arg for arg in call.args if is_float(arg)]
    computed = [arg for arg in operands if not is_constant(arg, params)]
    if call.op.name == "relax.where":
        return bool(computed)
    numbers = [arg for arg in operands if scalar_value(arg, params) is not None]
    return bool(computed) and not numbers


def scaled_by(call: relax.Call | None, params: Params) -> tuple[relax.Expr, float] | None:
    """(tensor, positive factor) of a multiplication with, or division by, a number."""
    if op_name(call) not in ("relax.multiply", "relax.divide"):
        return None
    assert call is not None
    factor = scalar_value(call.args[1], params)
    if factor is None or not np.isfinite(factor) or float(factor) <= 0 or is_constant(call.args[0], params):
        return None
    return call.args[0], float(factor) if call.op.name == "relax.multiply" else 1.0 / float(factor)


def joins(call: relax.Call) -> bool:
    """Whether a call joins tensors, or else computes a result with a scale of its own that no clip can be part of."""
    return is_float(call) and (op_name(call) in _JOINS or op_name(call) == "relax.nn.softmax" or is_pool(call))


def is_global_pool(call: relax.Call) -> bool:
    """Whether an average pooling takes in its whole input with one window."""
    attrs = call.attrs
    spatial = [axis for axis, kind in enumerate(str(attrs.layout)) if kind in "DHW"]
    shape, out = static_shape(call.args[0]), static_shape(call)
    single = all(out[axis] == 1 for axis in spatial)
    whole = [int(k) for k in attrs.pool_size] == [shape[axis] for axis in spatial]
    return single and whole and not any(int(p) for p in attrs.padding)


def is_pool(call: relax.Call) -> bool:
    """Whether a call is a pooling at the scale of its input."""
    if op_name(call) not in _POOLS:
        return False
    return all(int(d) == 1 for d in call.attrs.dilation) and str(call.attrs.layout).startswith("NC")


def is_move(call: relax.Call, params: Params) -> bool:
    """Whether a call only moves or chooses values of its first operand."""
    name = op_name(call)
    if name == "relax.nn.pad":
        return str(call.attrs.pad_mode) != "constant" or float(call.attrs.pad_value) == 0.0
    if name == "relax.image.resize2d":
        return str(call.attrs.method) in ("nearest_neighbor", "linear") and str(call.attrs.layout) == "NCHW"
    return name in MOVES and not is_lookup(call, params)
