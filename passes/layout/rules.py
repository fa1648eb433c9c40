"""How operators are carried over from channels-first to channels-last, one rule an operator or family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._tvm import Constant, relax, tirx, tvm
from ..graph.module_params import static_shape
from ..reference.registry import ints
from .converter import (
    LAST,
    RANKS,
    SAME,
    Converter,
    Form,
    is_call,
    is_decoding,
    is_single,
    layout_rule,
    permute,
    to_last,
)

Result = tuple[relax.Expr, Form] | None


def with_attrs(call: relax.Call, args: Sequence[relax.Expr], **changes: Any) -> relax.Call:
    """A call of the same operator with other arguments and some other attributes."""
    info = type(call.attrs).__tvm_ffi_type_info__
    values = {field.name: getattr(call.attrs, field.name) for field in info.fields}
    return relax.Call(call.op, list(args), tvm.ir.make_node(info.type_key, **{**values, **changes}), call.ty_args)


def _rank(expr: relax.Expr) -> int:
    return int(expr.ty.ndim) if isinstance(expr.ty, relax.TensorType) else -1


def _is_constant(convert: Converter, expr: relax.Expr) -> bool:
    """Whether an operand is a parameter or constant, perhaps dequantized or widened."""
    source = convert.values.get(expr) if isinstance(expr, relax.Var) else None
    return convert.build.param_value(source.args[0] if is_decoding(source) else expr) is not None


def _last_axis(x: relax.Expr, axis: int) -> int:
    """An axis of a tensor, counted with the channels last."""
    return to_last(_rank(x)).index(axis % _rank(x))


def _spatial(x: relax.Expr) -> str:
    """The letters of the axes behind batch and channels: W, HW or DHW."""
    return "DHW"[5 - _rank(x) :]


@layout_rule("nn.conv1d", "nn.conv2d", "nn.conv3d")
def _convolution(convert: Converter, call: relax.Call) -> Result:
    attrs, axes = call.attrs, _spatial(call)
    layouts = (str(attrs.data_layout), str(attrs.kernel_layout), str(attrs.out_layout))
    if layouts != (f"NC{axes}", f"OI{axes}", f"NC{axes}") or not _is_constant(convert, call.args[1]):
        return None
    args = [convert.get(call.args[0], LAST), convert.get(call.args[1], LAST)]
    last = f"N{axes}C"
    return with_attrs(call, args, data_layout=last, kernel_layout=f"O{axes}I", out_layout=last), LAST


@layout_rule("nn.conv1d_transpose", "nn.conv2d_transpose")
def _transposed(convert: Converter, call: relax.Call) -> Result:
    attrs, axes = call.attrs, _spatial(call)
    layouts = (str(attrs.data_layout), str(attrs.kernel_layout), str(attrs.out_layout))
    if layouts != (f"NC{axes}", f"IO{axes}", f"NC{axes}") or not _is_constant(convert, call.args[1]):
        return None
    # TVM has no kernels of its own for this: the weights stay as they are.
    args = [convert.get(call.args[0], LAST), convert.original(call.args[1])]
    return with_attrs(call, args, data_layout=f"N{axes}C", out_layout=f"N{axes}C"), LAST


_POOLS = [f"nn.{kind}_pool{rank}d" for kind in ("max", "avg", "adaptive_avg") for rank in (1, 2, 3)]


@layout_rule(*_POOLS)
def _pool(convert: Converter, call: relax.Call) -> Result:
    axes = _spatial(call)
    if str(call.attrs.layout) != f"NC{axes}":
        return None
    return with_attrs(call, [convert.get(call.args[0], LAST)], layout=f"N{axes}C", out_layout=f"N{axes}C"), LAST


@layout_rule("image.resize2d")
def _resize(convert: Converter, call: relax.Call) -> Result:
    if str(call.attrs.layout) != "NCHW":
        return None
    return with_attrs(call, [convert.get(call.args[0], LAST), call.args[1]], layout="NHWC"), LAST


_ELEMENTWISE = """
add subtract multiply divide maximum minimum power nn.relu nn.relu6 nn.silu nn.gelu nn.gelu_tanh nn.selu nn.leakyrelu
nn.softplus sigmoid tanh exp log sqrt rsqrt erf abs negative floor ceil round sign sin cos square clip astype isnan isinf
isfinite logical_not less less_equal greater greater_equal equal not_equal logical_and logical_or where
"""


@layout_rule(*_ELEMENTWISE.split())
def _elementwise(convert: Converter, call: relax.Call) -> Result:
    tensors = [arg for arg in call.args if isinstance(arg.ty, relax.TensorType)]
    moving = [arg for arg in tensors if not _is_constant(convert, arg)]
    forms = {convert.form_of(arg) for arg in moving}
    if len(moving) == 1 and forms.isdisjoint({SAME, LAST}):
        # A flattened image keeps its order under a function of one value.
        others = [arg for arg in tensors if not arg.same_as(moving[0])]
        if all(arg.ty.ndim == 0 for arg in others):
            form = forms.pop()
            return _with_form(convert, call, form), form
        return None
    if LAST not in forms or _rank(call) not in RANKS:
        return None
    # A lower rank broadcasts along the last axes, which are others now.
    if any(_rank(arg) not in (0, _rank(call)) for arg in tensors):
        return None
    return _with_form(convert, call, LAST), LAST


def _with_form(convert: Converter, call: relax.Call, form: Form) -> relax.Call:
    args = [
        convert.get(arg, form) if isinstance(arg.ty, relax.TensorType) and arg.ty.ndim != 0 else convert.original(arg)
        for arg in call.args
    ]
    return relax.Call(call.op, args, call.attrs, call.ty_args)


@layout_rule("quantize", "dequantize")
def _affine(convert: Converter, call: relax.Call) -> Result:
    x, scale, zero = call.args
    if convert.build.param_value(x) is not None:
        return None
    form = convert.form_of(x)
    args = [convert.get(x, form), convert.original(scale), convert.original(zero)]
    if is_single(scale):
        return relax.Call(call.op, args, call.attrs, call.ty_args), form
    if form != LAST:
        return None
    return with_attrs(call, args, axis=_last_axis(call, int(call.attrs.axis))), LAST


@layout_rule("mean", "sum", "max", "min", "variance", "std", "prod")
def _reduction(convert: Converter, call: relax.Call) -> Result:
    if convert.form_of(call.args[0]) != LAST or call.attrs.axis is None:
        return None
    rank = _rank(call.args[0])
    axes = [axis % rank for axis in ints(call.attrs.axis)]
    new = sorted(_last_axis(call.args[0], axis) for axis in axes)
    x = convert.get(call.args[0], LAST)
    if call.attrs.keepdims:
        return with_attrs(call, [x], axis=new), LAST
    # Without the axes, what remains must be in the old order.
    rest = [axis for axis in to_last(rank) if axis not in axes]
    return (with_attrs(call, [x], axis=new), SAME) if rest == sorted(rest) else None


@layout_rule("nn.softmax", "nn.log_softmax", "flip")
def _one_axis(convert: Converter, call: relax.Call) -> Result:
    if convert.form_of(call.args[0]) != LAST:
        return None
    return with_attrs(call, [convert.get(call.args[0], LAST)], axis=_last_axis(call.args[0], int(call.attrs.axis))), LAST


@layout_rule("concat")
def _concat(convert: Converter, call: relax.Call) -> Result:
    fields = list(call.args[0].fields) if isinstance(call.args[0], relax.Tuple) else []
    if not any(convert.form_of(field) == LAST for field in fields) or call.attrs.axis is None:
        return None
    parts = relax.Tuple([convert.get(field, LAST) for field in fields])
    return with_attrs(call, [parts], axis=_last_axis(call, int(call.attrs.axis))), LAST


@layout_rule("split")
def _split(convert: Converter, call: relax.Call) -> Result:
    if convert.form_of(call.args[0]) != LAST:
        return None
    return with_attrs(call, [convert.get(call.args[0], LAST)], axis=_last_axis(call.args[0], int(call.attrs.axis))), LAST


@layout_rule("strided_slice")
def _strided_slice(convert: Converter, call: relax.Call) -> Result:
    if convert.form_of(call.args[0]) != LAST or not isinstance(call.args[1], relax.Tuple):
        return None
    axes = relax.Tuple([tirx.IntImm("int64", _last_axis(call, int(axis.value))) for axis in call.args[1].fields])
    args = [convert.get(call.args[0], LAST), axes, *call.args[2:]]
    return relax.Call(call.op, args, call.attrs, call.ty_args), LAST


@layout_rule("nn.layer_norm")
def _layer_norm(convert: Converter, call: relax.Call) -> Result:
    axes = ints(call.attrs.axes)
    if convert.form_of(call.args[0]) != LAST or len(axes) != 1:
        return None
    args = [convert.get(call.args[0], LAST), *map(convert.original, call.args[1:])]
    return with_attrs(call, args, axes=[_last_axis(call, axes[0])]), LAST


@layout_rule("nn.group_norm", "nn.instance_norm")
def _group_norm(convert: Converter, call: relax.Call) -> Result:
    if convert.form_of(call.args[0]) != LAST:
        return None
    args = [convert.get(call.args[0], LAST), *map(convert.original, call.args[1:])]
    axes = sorted(_last_axis(call, axis) for axis in ints(call.attrs.axes))
    return with_attrs(call, args, axes=axes, channel_axis=_last_axis(call, int(call.attrs.channel_axis))), LAST


@layout_rule("nn.prelu")
def _prelu(convert: Converter, call: relax.Call) -> Result:
    if convert.form_of(call.args[0]) != LAST:
        return None
    args = [convert.get(call.args[0], LAST), convert.original(call.args[1])]
    return with_attrs(call, args, axis=_last_axis(call, int(call.attrs.axis))), LAST


@layout_rule("nn.pad")
def _pad(convert: Converter, call: relax.Call) -> Result:
    if convert.form_of(call.args[0]) != LAST:
        return None
    width = ints(call.attrs.pad_width)
    moved = [width[2 * axis + side] for axis in to_last(_rank(call)) for side in (0, 1)]
    return with_attrs(call, [convert.get(call.args[0], LAST)], pad_width=moved), LAST


@layout_rule("permute_dims")
def _permute_dims(convert: Converter, call: relax.Call) -> Result:
    if convert.form_of(call.args[0]) != LAST or call.attrs.axes is None:
        return None
    axes = [_last_axis(call.args[0], axis) for axis in ints(call.attrs.axes)]
    x = convert.get(call.args[0], LAST)
    return (x if axes == sorted(axes) else permute(x, axes)), SAME


@layout_rule("reshape", "flatten", "squeeze")
def _reshape(convert: Converter, call: relax.Call) -> Result:
    x = call.args[0]
    if convert.form_of(x) != LAST:
        return None
    shape = static_shape(call)
    n, c, *spatial = static_shape(x)
    size = int(np.prod(spatial))
    if shape[:2] == (n, c) and len(shape) in RANKS and size > 1:
        # Places are counted in the same order, whatever the number of their axes.
        return relax.op.reshape(convert.get(x, LAST), (n, *shape[2:], c)), LAST
    new = relax.op.reshape(convert.get(x, LAST), shape)
    if size == 1 or c == 1:
        return new, SAME
    return (new, Form("flat", (c, *spatial))) if shape == (n, c * size) else None


@layout_rule("matmul")
def _matmul(convert: Converter, call: relax.Call) -> Result:
    """A flattened image times a weight: the rows of the weight are put in the image's order."""
    x, weight = call.args
    form = convert.form_of(x)
    if form.image is None or _rank(weight) != 2 or not _is_constant(convert, weight):
        return None
    size = int(np.prod(form.image))
    order = np.moveaxis(np.arange(size).reshape(form.image), 0, -1).reshape(-1)
    source = convert.values.get(weight) if isinstance(weight, relax.Var) else None
    if is_decoding(source):
        scaled = is_call(source, "dequantize") and not is_single(source.args[1])
        if scaled and int(source.attrs.axis) % 2 == 0:
            return None
        rows = _reordered(convert, source.args[0], order)
        new = convert.build.emit(
            relax.Call(source.op, [rows, *map(convert.original, source.args[1:])], source.attrs), weight.name
        )
    else:
        new = _reordered(convert, weight, order)
    return relax.Call(call.op, [convert.get(x, form), new], call.attrs, call.ty_args), SAME


def _reordered(convert: Converter, expr: relax.Expr, order: np.ndarray) -> relax.Expr:
    value = convert.build.param_value(expr)
    assert value is not None
    assert isinstance(expr, (relax.Var, Constant))
    return convert.permuted(expr, value[order])
