"""Convolutions, matrix products, pools, normalizations and reductions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..passes._tvm import relax
from ..passes.graph.module_params import static_shape
from ..passes.reference.registry import ints
from .writer import CannotWriteError, Writer, dtype_of, onnx_rule


def _layouts(call: relax.Call, **wanted: str) -> None:
    for attr, layout in wanted.items():
        if str(getattr(call.attrs, attr)) != layout:
            raise CannotWriteError(f"its {attr.replace('_', ' ')} is {getattr(call.attrs, attr)}; ONNX has {layout}")


def _geometry(call: relax.Call) -> dict[str, Any]:
    attrs, rank = call.attrs, len(static_shape(call)) - 2
    padding = ints(attrs.padding)
    return {
        "strides": ints(attrs.strides),
        "dilations": ints(attrs.dilation),
        "pads": padding if len(padding) == 2 * rank else padding * 2,
    }


def _axes_of_images(call: relax.Call) -> str:
    """The axes behind batch and channels: W, HW or DHW."""
    return "DHW"[5 - len(static_shape(call)) :]


@onnx_rule("nn.conv1d", "nn.conv2d", "nn.conv3d")
def _conv(write: Writer, call: relax.Call) -> str:
    axes = _axes_of_images(call)
    _layouts(call, data_layout=f"NC{axes}", kernel_layout=f"OI{axes}")
    bias = write.bias_vector()
    operands = [write.tensor(arg) for arg in call.args] + ([bias] if bias is not None else [])
    shape = static_shape(call.args[1])[2:]
    return write.emit("Conv", operands, kernel_shape=shape, group=int(call.attrs.groups), **_geometry(call))


@onnx_rule("nn.conv1d_transpose", "nn.conv2d_transpose", "nn.conv3d_transpose")
def _conv_transpose(write: Writer, call: relax.Call) -> str:
    axes = _axes_of_images(call)
    _layouts(call, data_layout=f"NC{axes}", kernel_layout=f"IO{axes}")
    return write.emit(
        "ConvTranspose",
        [write.tensor(arg) for arg in call.args],
        kernel_shape=static_shape(call.args[1])[2:],
        group=int(call.attrs.groups),
        output_padding=ints(call.attrs.output_padding),
        **_geometry(call),
    )


@onnx_rule("matmul")
def _matmul(write: Writer, call: relax.Call) -> str:
    bias = write.bias_vector()
    operands = [write.tensor(arg) for arg in call.args]
    return write.emit("MatMul", operands) if bias is None else write.emit("Gemm", [*operands, bias])


@onnx_rule("einsum")
def _einsum(write: Writer, call: relax.Call) -> str:
    return write.emit("Einsum", [write.tensor(field) for field in call.args[0].fields], equation=str(call.attrs.subscripts))


@onnx_rule(*(f"nn.{kind}_pool{rank}d" for kind in ("max", "avg") for rank in (1, 2, 3)))
def _pool(write: Writer, call: relax.Call) -> str:
    average = "avg" in call.op.name
    _layouts(call, layout=f"NC{_axes_of_images(call)}")
    geometry, kernel = _geometry(call), ints(call.attrs.pool_size)
    if average:
        if all(step == 1 for step in geometry["dilations"]):
            del geometry["dilations"]
        geometry["count_include_pad"] = int(bool(call.attrs.count_include_pad))
    # A size that is rounded up is padding at the end.
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, geometry.get("dilations", [1] * len(kernel)))]
    half = len(kernel)
    for axis, (size, out) in enumerate(zip(static_shape(call.args[0])[2:], static_shape(call)[2:])):
        before = geometry["pads"][axis]
        needed = (out - 1) * geometry["strides"][axis] + spans[axis] - size - before
        geometry["pads"][half + axis] = max(geometry["pads"][half + axis], needed)
    if any(pad >= span for pad, span in zip(geometry["pads"], spans * 2)):
        raise CannotWriteError("its padding is as large as its window")
    kind = "AveragePool" if average else "MaxPool"
    return write.emit(kind, [write.tensor(call.args[0])], kernel_shape=kernel, **geometry)


@onnx_rule(*(f"nn.adaptive_avg_pool{rank}d" for rank in (1, 2, 3)))
def _adaptive_avg_pool(write: Writer, call: relax.Call) -> str:
    _layouts(call, layout=f"NC{_axes_of_images(call)}")
    sizes, outs = static_shape(call.args[0])[2:], static_shape(call)[2:]
    x = write.tensor(call.args[0])
    if all(out == 1 for out in outs):
        return write.emit("GlobalAveragePool", [x])
    if any(size % out for size, out in zip(sizes, outs)):
        raise CannotWriteError(f"{list(sizes)} is no multiple of {list(outs)}")
    kernel = [size // out for size, out in zip(sizes, outs)]
    return write.emit("AveragePool", [x], kernel_shape=kernel, strides=kernel)


# Normalizations


def _weights(write: Writer, call: relax.Call) -> list[str]:
    """Scale and shift; ones and zeros where the operator does without."""
    found = []
    for arg, used, fill in zip(call.args[1:3], (call.attrs.scale, call.attrs.center), (1, 0)):
        found.append(write.tensor(arg) if used else write.constant(np.full(static_shape(arg), fill, dtype_of(arg))))
    return found


@onnx_rule("nn.batch_norm")
def _batch_norm(write: Writer, call: relax.Call) -> list[str]:
    if int(call.attrs.axis) != 1:
        raise CannotWriteError("its channels are not axis 1")
    mean, variance = (write.tensor(arg) for arg in call.args[3:])
    operands = [write.tensor(call.args[0]), *_weights(write, call), mean, variance]
    return [write.emit("BatchNormalization", operands, epsilon=float(call.attrs.epsilon)), mean, variance]


def _axes_at_the_end(write: Writer, call: relax.Call) -> tuple[str, list[int], int]:
    """The operand with the axes of a normalization last, its order of axes, and how many are normalized over."""
    rank = len(static_shape(call))
    axes = [axis % rank for axis in ints(call.attrs.axes)]
    order = [axis for axis in range(rank) if axis not in axes] + axes
    x = write.tensor(call.args[0])
    return (x if order == sorted(order) else write.emit("Transpose", [x], perm=order)), order, len(axes)


def _in_order(write: Writer, x: str, order: list[int]) -> str:
    """The axes back where they were."""
    back = [order.index(axis) for axis in range(len(order))]
    return x if order == back else write.emit("Transpose", [x], perm=back)


@onnx_rule("nn.layer_norm")
def _layer_norm(write: Writer, call: relax.Call) -> str:
    x, order, count = _axes_at_the_end(write, call)
    operands = [x, *_weights(write, call)]
    normal = write.emit("LayerNormalization", operands, axis=-count, epsilon=float(call.attrs.epsilon))
    return _in_order(write, normal, order)


@onnx_rule("nn.rms_norm")
def _rms_norm(write: Writer, call: relax.Call) -> str:
    x, order, count = _axes_at_the_end(write, call)
    mean = write.emit("ReduceMean", [write.emit("Mul", [x, x])], axes=list(range(-count, 0)), keepdims=1)
    epsilon = write.constant(np.asarray(float(call.attrs.epsilon), dtype_of(call)))
    root = write.emit("Sqrt", [write.emit("Add", [mean, epsilon])])
    normal = write.emit("Mul", [write.emit("Div", [x, root]), write.tensor(call.args[1])])
    return _in_order(write, normal, order)


@onnx_rule("nn.instance_norm", "nn.group_norm")
def _group_norm(write: Writer, call: relax.Call) -> str:
    shape = static_shape(call)
    rank, channels = len(shape), shape[1]
    axes = sorted(axis % rank for axis in ints(call.attrs.axes))
    if int(call.attrs.channel_axis) % rank != 1 or axes != list(range(2, rank)):
        raise CannotWriteError("it is not over the axes behind the channels")
    x, epsilon = write.tensor(call.args[0]), float(call.attrs.epsilon)
    if call.op.name.endswith("instance_norm"):
        return write.emit("InstanceNormalization", [x, *_weights(write, call)], epsilon=epsilon)
    groups, dtype = int(call.attrs.num_groups), dtype_of(call)
    rows = write.emit("Reshape", [x, write.constant([shape[0], groups, -1])])
    plain = [write.constant(np.full(groups, fill, dtype)) for fill in (1, 0)]
    normal = write.emit("InstanceNormalization", [rows, *plain], epsilon=epsilon)
    result = write.emit("Reshape", [normal, write.constant(list(shape))])
    wide = write.constant([channels] + [1] * (rank - 2))
    for kind, name in zip(("Mul", "Add"), _weights(write, call)):
        result = write.emit(kind, [result, write.emit("Reshape", [name, wide])])
    return result


@onnx_rule("nn.softmax", "nn.log_softmax")
def _softmax(write: Writer, call: relax.Call) -> str:
    kind = "LogSoftmax" if "log" in call.op.name else "Softmax"
    return write.emit(kind, [write.tensor(call.args[0])], axis=int(call.attrs.axis))


# Reductions

_REDUCTIONS = {"mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd"}


def _axes(call: relax.Call) -> list[int]:
    rank = len(static_shape(call.args[0]))
    return list(range(rank)) if call.attrs.axis is None else [axis % rank for axis in ints(call.attrs.axis)]


@onnx_rule(*_REDUCTIONS)
def _reduce(write: Writer, call: relax.Call) -> str:
    x, axes, keep = write.tensor(call.args[0]), _axes(call), bool(call.attrs.keepdims)
    rank = len(static_shape(call.args[0]))
    if call.op.name == "relax.mean" and keep and rank == 4 and sorted(axes) == [2, 3]:
        return write.emit("GlobalAveragePool", [x])
    return write.emit(_REDUCTIONS[call.op.name.removeprefix("relax.")], [x], axes=axes, keepdims=int(keep))


@onnx_rule("sum")
def _sum(write: Writer, call: relax.Call) -> str:
    operands = [write.tensor(call.args[0]), write.constant(_axes(call))]
    return write.emit("ReduceSum", operands, keepdims=int(bool(call.attrs.keepdims)))


@onnx_rule("variance", "std")
def _variance(write: Writer, call: relax.Call) -> str:
    x, axes = write.tensor(call.args[0]), _axes(call)
    off = write.emit("Sub", [x, write.emit("ReduceMean", [x], axes=axes, keepdims=1)])
    squares = write.emit("Mul", [off, off])
    result = write.emit("ReduceMean", [squares], axes=axes, keepdims=int(bool(call.attrs.keepdims)))
    return write.emit("Sqrt", [result]) if call.op.name == "relax.std" else result


@onnx_rule("argmax", "argmin")
def _arg(write: Writer, call: relax.Call) -> str:
    from onnx import helper

    x, axis, keep = write.tensor(call.args[0]), call.attrs.axis, int(bool(call.attrs.keepdims))
    if axis is None:
        if keep:
            raise CannotWriteError("it is over all axes and keeps them")
        x = write.emit("Reshape", [x, write.constant([math.prod(static_shape(call.args[0]))])])
    kind = "ArgMax" if call.op.name.endswith("max") else "ArgMin"
    found = write.emit(kind, [x], axis=0 if axis is None else int(axis), keepdims=keep)
    if dtype_of(call) == np.int64:
        return found
    return write.emit("Cast", [found], to=helper.np_dtype_to_tensor_dtype(dtype_of(call)))
