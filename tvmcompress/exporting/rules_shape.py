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


@onnx_rule("gather_elements")
def _gather_elements(write: Writer, call: relax.Call) -> str:
    return write.emit("GatherElements", [write.tensor(arg) for arg in call.args], axis=int(call.attrs.axis))


def _wide(write: Writer, indices: relax.Expr) -> str:
    """Indices in int64, the only integers that some operators take."""
    from onnx import TensorProto

    name = write.tensor(indices)
    return name if dtype_of(indices) == np.int64 else write.emit("Cast", [name], to=TensorProto.INT64)


@onnx_rule("gather_nd")
def _gather_nd(write: Writer, call: relax.Call) -> str:
    return write.emit(
        "GatherND", [write.tensor(call.args[0]), _wide(write, call.args[1])], batch_dims=int(call.attrs.batch_dims)
    )


@onnx_rule("scatter_elements", "scatter_nd")
def _scatter(write: Writer, call: relax.Call) -> str:
    how = str(call.attrs.reduction)
    options: dict[str, Any] = {}
    if how != "update":
        options["reduction"] = how
    if call.op.name == "relax.scatter_nd":
        x, updates = write.tensor(call.args[0]), write.tensor(call.args[2])
        return write.emit("ScatterND", [x, _wide(write, call.args[1]), updates], **options)
    return write.emit("ScatterElements", [write.tensor(arg) for arg in call.args], axis=int(call.attrs.axis), **options)


@onnx_rule("topk")
def _topk(write: Writer, call: relax.Call) -> list[str]:
    attrs = call.attrs
    if str(attrs.ret_type) != "both" or str(attrs.dtype) != "int64":
        raise CannotWriteError("ONNX gives values and places together, in int64")
    operands = [write.tensor(call.args[0]), write.constant([int(attrs.k)])]
    return write.emit_all("TopK", operands, count=2, axis=int(attrs.axis), largest=int(bool(attrs.largest)))


@onnx_rule("image.grid_sample")
def _grid_sample(write: Writer, call: relax.Call) -> str:
    attrs = call.attrs
    if str(attrs.layout) not in ("NCHW", "NCDHW"):
        raise CannotWriteError(f"its layout is {attrs.layout}")
    x, grid = (write.tensor(arg) for arg in call.args)
    # The axes of the grid stand behind its vectors here.
    rank = len(static_shape(call))
    grid = write.emit("Transpose", [grid], perm=[0, *range(2, rank), 1])
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(str(attrs.method), str(attrs.method))
    options: dict[str, Any] = {"padding_mode": str(attrs.padding_mode), "align_corners": int(bool(attrs.align_corners))}
    return write.emit("GridSample", [x, grid], mode=mode, **options)


@onnx_rule("vision.roi_align")
def _roi_align(write: Writer, call: relax.Call) -> str:
    from onnx import TensorProto

    attrs = call.attrs
    if str(attrs.layout) != "NCHW":
        raise CannotWriteError(f"its layout is {attrs.layout}")
    x, rows = (write.tensor(arg) for arg in call.args)
    # The first column is the image, the others are the corners.
    parts = write.emit_all("Split", [rows, write.constant([1, 4])], count=2, axis=1)
    corners, scale = parts[1], float(attrs.spatial_scale)
    if attrs.aligned:
        # Relax takes the corners as they are, ONNX takes off half a pixel of the scaled image.
        corners = write.emit("Add", [corners, write.constant(np.asarray(0.5 / scale, np.float32))])
    images = write.emit("Cast", [write.emit("Squeeze", [parts[0], write.constant([1])])], to=TensorProto.INT64)
    height, width = ints(attrs.pooled_size)
    options: dict[str, Any] = {"output_height": height, "output_width": width, "spatial_scale": scale}
    return write.emit(
        "RoiAlign",
        [x, corners, images],
        sampling_ratio=max(int(attrs.sample_ratio), 0),
        coordinate_transformation_mode="half_pixel" if attrs.aligned else "output_half_pixel",
        mode=str(attrs.mode),
        **options,
    )


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
