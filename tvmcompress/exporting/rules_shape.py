"""Operators that move values: shapes, orders, slices, resizing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..passes._tvm import relax
from ..passes.graph.module_params import static_shape
from ..passes.reference.registry import ints
from .writer import CannotWriteError, Writer, dtype_of, numbers, onnx_rule


@onnx_rule("reshape", "flatten", "squeeze", "expand_dims")
def _reshape(write: Writer, call: relax.Call) -> str:
    return write.emit("Reshape", [write.tensor(call.args[0]), write.constant(list(static_shape(call)))])


@onnx_rule("broadcast_to")
def _broadcast_to(write: Writer, call: relax.Call) -> str:
    return write.emit("Expand", [write.tensor(call.args[0]), write.constant(list(static_shape(call)))])


@onnx_rule("permute_dims")
def _permute_dims(write: Writer, call: relax.Call) -> str:
    rank = len(static_shape(call))
    axes = range(rank)[::-1] if call.attrs.axes is None else [axis % rank for axis in ints(call.attrs.axes)]
    return write.emit("Transpose", [write.tensor(call.args[0])], perm=list(axes))


def _fields(call: relax.Call) -> list[relax.Expr]:
    if not isinstance(call.args[0], relax.Tuple):
        raise CannotWriteError("its operands are not known one by one")
    return list(call.args[0].fields)


@onnx_rule("concat")
def _concat(write: Writer, call: relax.Call) -> str:
    if call.attrs.axis is None:
        raise CannotWriteError("it has no axis")
    return write.emit("Concat", [write.tensor(field) for field in _fields(call)], axis=int(call.attrs.axis))


@onnx_rule("stack")
def _stack(write: Writer, call: relax.Call) -> str:
    axis = int(call.attrs.axis) % len(static_shape(call))
    place = write.constant([axis])
    return write.emit("Concat", [write.emit("Unsqueeze", [write.tensor(field), place]) for field in _fields(call)], axis=axis)


@onnx_rule("split")
def _split(write: Writer, call: relax.Call) -> list[str]:
    axis = int(call.attrs.axis) % len(static_shape(call.args[0]))
    sizes = [int(field.shape[axis]) for field in call.ty.fields]
    operands = [write.tensor(call.args[0]), write.constant(sizes)]
    return write.emit_all("Split", operands, count=len(sizes), axis=axis)


@onnx_rule("strided_slice")
def _strided_slice(write: Writer, call: relax.Call) -> str:
    axes, begin, end = (numbers(arg) for arg in call.args[1:4])
    steps = numbers(call.args[4]) if len(call.args) > 4 else [1] * len(axes)
    operands = [write.constant(values) for values in (begin, end, axes, steps)]
    return write.emit("Slice", [write.tensor(call.args[0]), *operands])


@onnx_rule("flip")
def _flip(write: Writer, call: relax.Call) -> str:
    bounds = ([-1], [np.iinfo(np.int64).min], [int(call.attrs.axis)], [-1])
    return write.emit("Slice", [write.tensor(call.args[0]), *(write.constant(values) for values in bounds)])


@onnx_rule("take")
def _take(write: Writer, call: relax.Call) -> str:
    from onnx import TensorProto

    x, indices = (write.tensor(arg) for arg in call.args)
    if dtype_of(call.args[1]) not in (np.int32, np.int64):
        indices = write.emit("Cast", [indices], to=TensorProto.INT64)
    if call.attrs.axis is None:
        return write.emit("Gather", [write.emit("Reshape", [x, write.constant([-1])]), indices], axis=0)
    return write.emit("Gather", [x, indices], axis=int(call.attrs.axis))


@onnx_rule("repeat")
def _repeat(write: Writer, call: relax.Call) -> str:
    x, axis = write.tensor(call.args[0]), call.attrs.axis
    if axis is None:
        x = write.emit("Reshape", [x, write.constant([-1])])
    shape = static_shape(call.args[0])
    length = int(np.prod(shape)) if axis is None else shape[int(axis)]
    order = write.constant(np.repeat(np.arange(length), int(call.attrs.repeats)).tolist())
    return write.emit("Gather", [x, order], axis=0 if axis is None else int(axis))


@onnx_rule("tile")
def _tile(write: Writer, call: relax.Call) -> str:
    x, repeats, shape = write.tensor(call.args[0]), ints(call.attrs.repeats), static_shape(call.args[0])
    rank = max(len(repeats), len(shape))
    if rank > len(shape):
        x = write.emit("Reshape", [x, write.constant([1] * (rank - len(shape)) + list(shape))])
    return write.emit("Tile", [x, write.constant([1] * (rank - len(repeats)) + repeats)])


@onnx_rule("nn.pad")
def _pad(write: Writer, call: relax.Call) -> str:
    width, mode = ints(call.attrs.pad_width), str(call.attrs.pad_mode)
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
    if mode not in modes:
        raise CannotWriteError(f"it pads by '{mode}'")
    operands = [write.tensor(call.args[0]), write.constant([*width[::2], *width[1::2]])]
    if mode == "constant":
        operands.append(write.constant(np.asarray(float(call.attrs.pad_value), dtype_of(call))))
    return write.emit("Pad", operands, mode=modes[mode])


_NEAREST = {
    "": "round_prefer_ceil",
    "round": "round_prefer_ceil",
    "round_prefer_ceil": "round_prefer_ceil",
    "round_prefer_floor": "round_prefer_floor",
    "floor": "floor",
    "ceil": "ceil",
}


@onnx_rule("image.resize2d")
def _resize(write: Writer, call: relax.Call) -> str:
    attrs, method = call.attrs, str(call.attrs.method)
    if str(attrs.layout) != "NCHW":
        raise CannotWriteError(f"its layout is {attrs.layout}")
    modes = {"nearest_neighbor": "nearest", "linear": "linear", "cubic": "cubic"}
    coordinates = str(attrs.coordinate_transformation_mode)
    known = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    if method not in modes or coordinates not in known:
        raise CannotWriteError(f"it resizes by '{method}' with coordinates '{coordinates}'")
    options: dict[str, Any] = {"mode": modes[method], "coordinate_transformation_mode": coordinates}
    if method == "nearest_neighbor":
        options["nearest_mode"] = _NEAREST[str(attrs.rounding_method)]
    if method == "cubic":
        options |= {"cubic_coeff_a": float(attrs.cubic_alpha), "exclude_outside": int(attrs.cubic_exclude)}
    sizes = write.constant(list(static_shape(call)))
    return write.emit("Resize", [write.tensor(call.args[0]), "", "", sizes], **options)
