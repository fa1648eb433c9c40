"""Resizing images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .registry import Context, Value, register_reference


def _source_positions(size_in: int, size_out: int, mode: str) -> np.ndarray:
    """Where in the input each output index lies (ONNX Resize, coordinate_transformation_mode)."""
    index = np.arange(size_out, dtype=np.float64)
    if mode == "align_corners":
        return index * ((size_in - 1) / (size_out - 1)) if size_out > 1 else np.zeros(1)
    if mode == "asymmetric":
        return index * (size_in / size_out)
    if mode == "pytorch_half_pixel" and size_out == 1:
        return np.zeros(1)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (index + 0.5) * (size_in / size_out) - 0.5
    raise NotImplementedError(f"resize2d with coordinates '{mode}' has no reference here")


_ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round": lambda p: np.floor(p + 0.5),
    "": lambda p: np.floor(p + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda p: np.ceil(p - 0.5),
    "round_prefer_ceil": lambda p: np.floor(p + 0.5),
}


def source_rows(size_in: int, size_out: int, method: str, mode: str, rounding: str) -> tuple[np.ndarray, np.ndarray | None]:
    """For each output index along one axis the input index, and for linear interpolation the weight of the next one.

    Args:
        size_in: Length of the input's axis.
        size_out: Length of the output's.
        method: "nearest_neighbor" or "linear".
        mode: How coordinates are mapped.
        rounding: How nearest neighbours are chosen.

    Raises:
        NotImplementedError: The mode has no reference here.
    """
    position = _source_positions(size_in, size_out, mode)
    if method == "nearest_neighbor":
        return np.clip(_ROUNDING[rounding](position), 0, size_in - 1).astype(np.int64), None
    position = np.clip(position, 0, size_in - 1)
    low = np.floor(position)
    return low.astype(np.int64), position - low


@register_reference("relax.image.resize2d")
def _resize2d(args: Sequence[Value], context: Context) -> Value:
    x, size = args[0], args[1]
    attrs = context.attrs
    layout, method = str(attrs.layout), str(attrs.method)
    mode = str(attrs.coordinate_transformation_mode)
    if method not in ("nearest_neighbor", "linear"):
        raise NotImplementedError(f"resize2d by method '{method}' has no reference here")
    for name, size_out in zip("HW", size):
        axis = layout.index(name)
        size_in = x.shape[axis]
        position = _source_positions(size_in, int(size_out), mode)
        if method == "nearest_neighbor":
            rounded = _ROUNDING[str(attrs.rounding_method)](position)
            x = x.take(np.clip(rounded, 0, size_in - 1).astype(np.int64), axis)
            continue
        low = np.floor(position)
        shape = [1] * x.ndim
        shape[axis] = -1
        weight = (position - low).astype(x.dtype).reshape(shape)
        first = x.take(np.clip(low, 0, size_in - 1).astype(np.int64), axis)
        second = x.take(np.clip(low + 1, 0, size_in - 1).astype(np.int64), axis)
        x = first * (1 - weight) + second * weight
    return x
