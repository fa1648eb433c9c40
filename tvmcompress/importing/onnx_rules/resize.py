"""Resizing: one operator where it says what ONNX means, else weighted sums of shifted pixels, axis by axis.

Each axis is resized by itself. What an output pixel is made of (which input pixels, with what weights) follows from ONNX's
definition of Resize, with the scale that is given, which is not always the quotient of the sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...passes._tvm import relax
from ..onnx_versions import OUTWARDS
from .registry import CannotImportError, Node, Result, constant, onnx_op

_ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda p: np.ceil(p - 0.5),
    "round_prefer_ceil": lambda p: np.floor(p + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class _Axis:
    """How one axis is resized."""

    axis: int
    size: int
    out: int
    scale: float
    region: tuple[float, float] | None


@onnx_op("Resize")
def _resize(node: Node) -> Result:
    options = {
        "coordinates": node.text("coordinate_transformation_mode", "half_pixel"),
        "rounding": node.text("nearest_mode", "round_prefer_floor"),
    }
    axes = _axes(node, node.value(2), options["coordinates"])
    if options["rounding"] == OUTWARDS and all(axis.scale >= 1 for axis in axes):
        options["rounding"] = "floor"
    mode = node.text("mode", "nearest")
    antialias, exclude = bool(node.options.get("antialias", 0)), bool(node.options.get("exclude_outside", 0))
    plain = mode != "nearest" or options["rounding"] in _ROUNDING
    if plain and _is_plain(node, axes, mode, options["coordinates"], antialias):
        whole = list(node.shape())
        for axis in axes:
            whole[axis.axis] = axis.out
        return relax.op.image.resize2d(
            node.operand(0),
            (whole[2], whole[3]),
            layout="NCHW",
            method="nearest_neighbor" if mode == "nearest" else "linear",
            coordinate_transformation_mode=options["coordinates"],
            rounding_method=options["rounding"] if mode == "nearest" else "",
        )
    x, outside = node.operand(0), None
    for axis in axes:
        positions = _positions(axis, options["coordinates"])
        if mode == "nearest":
            rounding = options["rounding"]
            if rounding == OUTWARDS:
                rounding = "floor" if axis.scale >= 1 else "ceil"
            picks = np.clip(_ROUNDING[rounding](positions), 0, axis.size - 1).astype(np.int64)
            x = node.call(relax.op.take, x, constant(picks), axis.axis, "clip")
        else:
            alpha = float(node.options.get("cubic_coeff_a", -0.75))
            x = _weighted(node, x, axis, _matrix(axis, positions, mode, alpha, antialias, exclude))
        if options["coordinates"] == "tf_crop_and_resize":
            beyond = (positions < 0) | (positions > axis.size - 1)
            beyond = beyond.reshape([-1 if index == axis.axis else 1 for index in range(len(node.shape()))])
            outside = beyond if outside is None else outside | beyond
    if outside is not None and outside.any():
        filler = node.scalar(float(node.options.get("extrapolation_value", 0.0)))
        x = node.call(relax.op.where, constant(outside), filler, x)
    return x


def _axes(node: Node, scales: np.ndarray | None, coordinates: str) -> list[_Axis]:
    """The axes that change, and those with a region of their own."""
    shape, rank = node.shape(), len(node.shape())
    named = [int(axis) % rank for axis in node.options.get("axes", range(rank))]
    if node.given(2) and scales is None:
        raise CannotImportError("its scales must be constant, not computed at run time")
    sizes = node.integers(3, "sizes")
    if sizes:
        policy, wanted = node.text("keep_aspect_ratio_policy", "stretch"), sizes
        each = [size / shape[axis] for size, axis in zip(wanted, named)]
        if policy != "stretch":
            one = min(each) if policy == "not_larger" else max(each)
            each = [one] * len(named)
            wanted = [int(np.floor(one * shape[axis] + 0.5)) for axis in named]
        pairs = list(zip(wanted, each))
    elif scales is not None and scales.size:
        each = [float(scale) for scale in scales.reshape(-1)]
        pairs = [(int(np.floor(shape[axis] * scale)), scale) for axis, scale in zip(named, each)]
    else:
        raise CannotImportError("it has neither scales nor sizes")
    region = node.value(1) if node.given(1) else None
    if coordinates == "tf_crop_and_resize" and region is None:
        raise CannotImportError("its region must be constant, not computed at run time")
    found = []
    for place, (axis, (out, scale)) in enumerate(zip(named, pairs)):
        window = None
        if coordinates == "tf_crop_and_resize" and region is not None:
            window = (float(region[place]), float(region[place + len(named)]))
        if out < 1:
            raise CannotImportError("nothing is left of its operand; tensors without elements are not imported")
        if out != shape[axis] or scale != 1.0 or window not in (None, (0.0, 1.0)):
            found.append(_Axis(axis, shape[axis], out, scale, window))
    return found


def _is_plain(node: Node, axes: list[_Axis], mode: str, coordinates: str, antialias: bool) -> bool:
    """Whether `image.resize2d` computes the same: it knows sizes only, and takes their quotient for the scale."""
    known = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
    if len(node.shape()) != 4 or mode not in ("nearest", "linear") or antialias or coordinates not in known:
        return False
    if coordinates == "align_corners" and any(axis.out == 1 for axis in axes):  # TVM divides by the last place
        return False
    if not axes or any(axis.axis < 2 for axis in axes) or not node.dtype().startswith("float"):
        return False
    return all(np.isclose(axis.scale, axis.out / axis.size, rtol=1e-6) for axis in axes)


def _positions(axis: _Axis, mode: str) -> np.ndarray:
    """Where in the input each output pixel lies; in float32 as in ONNX Runtime, which decides between nearest pixels."""
    size, out, scale = axis.size, axis.out, np.float32(axis.scale)
    index = np.arange(out, dtype=np.float32)
    length = scale * size
    if mode == "align_corners":
        return index * (size - 1) / (length - 1) if length != 1 else np.zeros(out, np.float32)
    if mode == "asymmetric":
        return index / scale
    if mode == "tf_crop_and_resize":
        assert axis.region is not None
        start, end = axis.region
        if length > 1:
            return start * (size - 1) + index * (end - start) * (size - 1) / (length - 1)
        return np.full(out, 0.5 * (start + end) * (size - 1), np.float32)
    if mode == "pytorch_half_pixel" and out == 1:
        return np.zeros(1, np.float32)
    if mode == "half_pixel_symmetric":
        return size / 2 * (1 - out / length) + (index + 0.5) / scale - 0.5
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (index + 0.5) / scale - 0.5
    raise CannotImportError(f"its coordinate_transformation_mode '{mode}' is not known")


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0)


def _cubic(distance: np.ndarray, alpha: float) -> np.ndarray:
    d = np.abs(distance)
    near = (alpha + 2) * d**3 - (alpha + 3) * d**2 + 1
    far = alpha * d**3 - 5 * alpha * d**2 + 8 * alpha * d - 4 * alpha
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _matrix(axis: _Axis, positions: np.ndarray, mode: str, alpha: float, antialias: bool, exclude: bool) -> np.ndarray:
    """The weight of each input pixel in each output pixel, (out, size)."""
    if mode not in ("linear", "cubic"):
        raise CannotImportError(f"its mode '{mode}' is not known")
    # Where the image shrinks, an antialiasing filter is as wide as what it stands for.
    stretch = min(axis.scale, 1.0) if antialias else 1.0
    reach = (1 if mode == "linear" else 2) / stretch
    first, last = int(np.floor(positions.min() - reach)) - 1, int(np.ceil(positions.max() + reach)) + 1
    places = np.arange(first, last + 1)
    distance = (places[None] - positions[:, None]) * stretch
    weights = _linear(distance) if mode == "linear" else _cubic(distance, alpha)
    inside = (places >= 0) & (places < axis.size)
    if exclude:
        weights = np.where(inside, weights, 0.0)
    if exclude or antialias:
        weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((axis.out, axis.size))
    # Pixels outside are those at the border.
    np.add.at(matrix.T, np.clip(places, 0, axis.size - 1), weights.T)
    return matrix


def _weighted(node: Node, x: relax.Expr, axis: _Axis, matrix: np.ndarray) -> relax.Expr:
    """The sum over the pixels that count, each picked for all outputs at once."""
    used = matrix != 0
    shape = [-1 if index == axis.axis else 1 for index in range(len(node.shape()))]
    order = np.argsort(~used, axis=1, kind="stable")
    total = None
    for tap in range(int(used.sum(1).max())):
        picks = order[:, tap]
        weight = np.take_along_axis(matrix, picks[:, None], 1).reshape(shape).astype(node.dtype())
        part = (
            x
            if np.array_equal(picks, np.arange(axis.size))
            else node.call(relax.op.take, x, constant(picks), axis.axis, "clip")
        )
        part = node.call(relax.op.multiply, part, constant(weight))
        total = part if total is None else node.call(relax.op.add, total, part)
    assert total is not None
    return total
