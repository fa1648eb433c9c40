"""Float convolution and matrix product with weights packed in blocks of output channels.

A tile of output channels reads its weights as one stream from the first to the last byte. From the plain layout it
would read a cache line in every row of a matrix, and where rows are a power of two apart those lines share few cache
sets.

| operator | activations | weights |
|---|---|---|
| `tvmcompress.x86_conv2d` | (N, H, W, C) | (O / block, KH, KW, C, block) |
| `tvmcompress.x86_matmul` | (M, K) | (N / block, K, block) |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....passes._tvm import relax, te, tirx
from ....passes.graph.module_params import static_shape
from ....passes.integer.conv import output_sizes, te_pad
from ....passes.integer.registry import make_call, register_operator, tensor_type
from .intrinsics import BLOCK_ANNOTATION, LANES_ANNOTATION
from .widths import padded_width


def block_size(channels: int, lanes: int) -> int:
    """Output channels of a block: whole vectors, if possible such that divide `channels`."""
    divides = next((count for count in (16, 8) if channels % count == 0), None)
    return divides or (16 if lanes == 16 and channels > 8 else 8)


def lanes_of(features: frozenset[str]) -> int:
    """Floats of a register."""
    return 16 if "avx512f" in features else 8


def pack_conv2d(weight: np.ndarray, block: int) -> np.ndarray:
    """(KH, KW, C, O) as (O / block, KH, KW, C, block), O filled up with zeros."""
    weight = np.pad(weight, [(0, 0)] * (weight.ndim - 1) + [(0, -weight.shape[-1] % block)])
    *rest, channels = weight.shape
    return np.ascontiguousarray(np.moveaxis(weight.reshape(*rest, channels // block, block), -2, 0))


def pack_matmul(weight: np.ndarray, block: int) -> np.ndarray:
    """(K, N) as (N / block, K, block), N filled up with zeros."""
    return pack_conv2d(weight, block)


def x86_conv2d(x: relax.Expr, packed: relax.Expr, attrs: Any, channels: int, lanes: int) -> relax.Call:
    """The convolution.

    Args:
        x: float32 (N, H, W, C).
        packed: From `pack_conv2d`.
        attrs: Of the `nn.conv2d` that it stands for.
        channels: O.
        lanes: `lanes_of` what is compiled for.
    """
    return make_call(
        _CONV,
        [x, packed],
        strides=list(attrs.strides),
        padding=list(attrs.padding),
        dilation=list(attrs.dilation),
        channels=channels,
        lanes=lanes,
    )


def x86_matmul(x: relax.Expr, packed: relax.Expr, channels: int, lanes: int) -> relax.Call:
    """The matrix product.

    Args:
        x: float32 (M, K).
        packed: From `pack_matmul`.
        channels: N.
        lanes: `lanes_of` what is compiled for.
    """
    return make_call(_MATMUL, [x, packed], channels=channels, lanes=lanes)


def _infer_conv(call: relax.Call) -> relax.TensorType:
    n, *size, _ = static_shape(call.args[0])
    _, *kernel, _, _ = static_shape(call.args[1])
    return tensor_type((n, *output_sizes(call, size, kernel), int(call.attrs.channels)), "float32")


def _define_conv(call: relax.Call, x: Any, weight: Any) -> Any:
    blocks, kh, kw, c, block = static_shape(call.args[1])
    (sh, sw), (dh, dw) = call.attrs.strides, call.attrs.dilation
    n, rows, width, channels = _infer_conv(call).shape
    # Positions that fill up a tile, and channels that fill up a block, are computed and not kept.
    more = padded_width(int(width)) - int(width)
    top, left, bottom, right = (int(pad) for pad in call.attrs.padding)
    padded = te_pad(x, (top, left, bottom, right + more * int(sw)), 0)
    row, col, depth = te.reduce_axis((0, kh), "kh"), te.reduce_axis((0, kw), "kw"), te.reduce_axis((0, c), "ic")

    def element(n: Any, i: Any, j: Any, k: Any) -> Any:
        value = padded[n, i * sh + row * dh, j * sw + col * dw, depth]
        return te.sum(value * weight[k // block, row, col, depth, k % block], axis=[row, col, depth])

    acc = te.compute((n, rows, width + more, blocks * block), element, name="conv", attrs=float_annotations(call, block))
    return _kept(acc, (n, rows, width, channels)) if more or channels != blocks * block else acc


def _infer_matmul(call: relax.Call) -> relax.TensorType:
    return tensor_type((static_shape(call.args[0])[0], int(call.attrs.channels)), "float32")


def _define_matmul(call: relax.Call, x: Any, weight: Any) -> Any:
    blocks, depth, block = static_shape(call.args[1])
    axis = te.reduce_axis((0, depth), "k")

    rows, columns = (int(dim) for dim in _infer_matmul(call).shape)
    more = padded_width(rows) - rows

    def element(i: Any, j: Any) -> Any:
        row = tirx.min(i, tirx.const(rows - 1, "int32")) if more else i
        return te.sum(x[row, axis] * weight[j // block, axis, j % block], axis=[axis])

    acc = te.compute((rows + more, blocks * block), element, name="product", attrs=float_annotations(call, block))
    return _kept(acc, (rows, columns)) if more or columns != blocks * block else acc


def _kept(acc: Any, shape: Sequence[Any]) -> Any:
    return te.compute(shape, lambda *i: acc(*i), name="kept")


def float_annotations(call: relax.Call, block: int) -> dict[str, int]:
    """Annotations of the block of a sum: how its weights lie, and how many floats a register holds."""
    lanes = min(int(call.attrs.lanes), block)
    return {BLOCK_ANNOTATION: block, **({LANES_ANNOTATION: lanes} if lanes > 8 else {})}


_CONV = register_operator("x86_conv2d", 2, "Float convolution, weights packed for x86", _infer_conv, _define_conv)
_MATMUL = register_operator("x86_matmul", 2, "Float matrix product, weights packed for x86", _infer_matmul, _define_matmul)
