"""Replace operators by those that have a kernel for x86, with their weights packed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from ....passes._tvm import relax, tvm
from ....passes.graph.module_params import static_shape
from ....passes.graph.rebuild import Rebuilder, rebuild
from ....passes.integer.registry import PREFIX, dtype_of
from ....passes.plugins.registry import Registry
from .addition import adds_simply, x86_qadd
from .convolution import pack_weights, x86_qconv2d
from .depthwise import pack_depthwise, x86_qdepthwise
from .exact_factors import float_operands
from .floating import block_size, lanes_of, pack_conv2d, pack_matmul, x86_conv2d, x86_matmul
from .integer_winograd import PRODUCTS, filtering_of, transform_integers, x86_qwinograd
from .intrinsics import HIGH_LANES, Dot, best_dot, bytewise, fits_int16, of_words
from .lookup import FEATURE, VECTOR, x86_qlut
from .products import halves, x86_pack, x86_product, x86_qpack, x86_qproduct
from .requantize import short_forms
from .tiles import FEATURES, Shape, pack_tiles, x86_tile_conv2d
from .wide_requantize import wide_operands
from .winograd import transform_weights, winograd_pays, x86_winograd

Use = Callable[[Rebuilder, relax.Var, relax.Call, frozenset[str]], "relax.Expr | None"]
"""Given the instruction sets, gives a call of the kernel, or None where it does not fit."""

FUSED = "fma"
"""The instruction set that has fused products of floats."""

KERNELS: Registry[Use] = Registry("x86 kernel")
"""By the full name of the operator."""


def select_kernels(mod: tvm.IRModule, features: frozenset[str]) -> tvm.IRModule:
    """Use the kernels of this package wherever one fits; other operators keep their generic definition.

    Args:
        mod: A model module with its parameter values attached, convolutions of floats on NHWC.
        features: The instruction sets to use, as `host.cpu_features` names them.
    """

    def rewrite(rebuilder: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if isinstance(value, relax.Call) and (use := KERNELS.get(getattr(value.op, "name", ""))) is not None:
            return use(rebuilder, var, value, features)
        return None

    return rebuild(mod, rewrite)


@dataclass(frozen=True)
class _Operands:
    """The constant arguments of an integer layer."""

    weight: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray


def _operands(rebuilder: Rebuilder, call: relax.Call) -> _Operands | None:
    values = [rebuilder.param_value(arg) for arg in call.args[1:]]
    known = [value for value in values if value is not None]
    return _Operands(*known) if len(known) == len(values) else None


@KERNELS.register(f"{PREFIX}qconv2d")
def _convolution(rebuilder: Rebuilder, var: relax.Var, call: relax.Call, features: frozenset[str]) -> relax.Expr | None:
    operands = _operands(rebuilder, call)
    if operands is None:
        return None
    c = operands.weight.shape[3]
    if int(call.attrs.groups) != 1:
        return None
    if features >= FEATURES and (tiled := _tiled_convolution(rebuilder, var.name, call, operands)) is not None:
        return tiled
    if (filtered := _filtered_convolution(rebuilder, var.name, call, operands, features)) is not None:
        return filtered
    dot = _dot(features, operands, int(call.attrs.input_zero_point))
    if c % dot.group and int(call.attrs.dilation[1]) != 1:
        # A run of columns has no gaps.
        return None
    return _packed_convolution(rebuilder, var.name, rebuilder.get(call.args[0]), operands, call.attrs, dot, FUSED in features)


def _filtered_convolution(
    rebuilder: Rebuilder, name: str, call: relax.Call, operands: _Operands, features: frozenset[str]
) -> relax.Expr | None:
    """By minimal filtering, where that takes less time."""
    attrs, weight = call.attrs, operands.weight
    plain = (*attrs.strides, *attrs.dilation) == (1, 1, 1, 1)
    dot = of_words(features, weight.shape[0])
    if dot not in PRODUCTS or not plain:
        return None
    if (filtering := filtering_of(weight, static_shape(call), dot)) is None:
        return None
    by_channel = weight.reshape(weight.shape[0], -1)
    whole = all(dim % filtering.tile == 0 for dim in static_shape(call)[1:3])
    # Tiles are of pixels without their zero point. No intrinsic takes one with a condition, as the last one of a row may have.
    arrays, forms = _requantization(operands, by_channel, operands.bias, attrs, dot if whole else None, FUSED in features)
    arrays = {"transformed": transform_integers(weight, filtering, dot), **arrays}
    given = [rebuilder.get(call.args[0]), *(rebuilder.param(f"{name}.{part}", value) for part, value in arrays.items())]
    return x86_qwinograd(given, attrs, forms, dot)


def _tiled_convolution(rebuilder: Rebuilder, name: str, call: relax.Call, operands: _Operands) -> relax.Expr | None:
    n, h, w, channels = static_shape(call.args[0])
    o, kh, kw, _ = operands.weight.shape
    _, rows, columns, _ = static_shape(call)
    attrs = call.attrs
    down, right = (int(step) for step in attrs.strides)
    top, left, bottom, end = (int(pad) for pad in attrs.padding)
    x = rebuilder.get(call.args[0])
    # A product of all pixels: rows are no border to a tile.
    merged = (kh, kw, down, right) == (1, 1, 1, 1) and not (top or left or bottom or end) and h > 1
    size, result = ((1, h * w), (1, h * w)) if merged else ((h, w), (rows, columns))
    shape = Shape(size, channels, result, o, (kh, kw), (down, right), (top, left, bottom, end))
    if n != 1 or any(int(step) != 1 for step in attrs.dilation) or not shape.pays:
        return None
    if not merged:
        return _on_tiles(rebuilder, name, x, operands, attrs)
    pixels = rebuilder.emit(relax.op.reshape(x, (1, *size, channels)), f"{name}.pixels")
    new = _on_tiles(rebuilder, name, pixels, operands, attrs)
    return relax.op.reshape(rebuilder.emit(new, f"{name}.row"), (1, rows, columns, o))


def _on_tiles(rebuilder: Rebuilder, name: str, x: relax.Expr, operands: _Operands, attrs: Any) -> relax.Expr:
    o, kh, kw, _ = operands.weight.shape
    packed, bias = pack_tiles(operands.weight, operands.bias, int(attrs.input_zero_point))
    arrays = {"packed": packed, "folded_bias": bias, "multiplier": operands.multiplier, "shift": operands.shift}
    given = [x, *(rebuilder.param(f"{name}.{part}", value) for part, value in arrays.items())]
    forms = short_forms(operands.weight.reshape(o, -1), operands.bias, operands.shift, attrs)
    return x86_tile_conv2d(given, attrs, (kh, kw), forms)


def _dot(features: frozenset[str], operands: _Operands, zero_point: int) -> Dot:
    """The best product for a convolution; one of bytes where its weights allow it."""
    channels = operands.weight.shape[0]
    dot = best_dot(features, channels)
    narrow = bytewise(dot, features)
    if narrow is None:
        return dot
    padded = -(-channels // narrow.lanes) * narrow.lanes
    packed = pack_weights(operands.weight, operands.bias, zero_point, narrow, padded)
    return narrow if fits_int16(packed.weight) else dot


def _packed_convolution(
    rebuilder: Rebuilder, name: str, x: relax.Expr, operands: _Operands, attrs: Any, dot: Dot, fused: bool
) -> relax.Expr:
    o, kh, kw, _ = operands.weight.shape
    channels = -(-o // dot.lanes) * dot.lanes
    packed = pack_weights(operands.weight, operands.bias, int(attrs.input_zero_point), dot, channels)
    arrays, forms = _requantization(operands, operands.weight.reshape(o, -1), packed.bias, attrs, dot, fused)
    new = x86_qconv2d(
        [x, *(rebuilder.param(f"{name}.{part}", value) for part, value in {"packed": packed.weight, **arrays}.items())],
        attrs,
        dot=dot,
        kernel=(kh, kw),
        flat=packed.flat,
        forms=forms,
    )
    if channels == o:
        return new
    return relax.op.strided_slice(rebuilder.emit(new, f"{name}.wide"), [3], [0], [o])


def _requantization(
    operands: _Operands, weight: np.ndarray, folded: np.ndarray, attrs: Any, dot: Dot | None, fused: bool
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Bias, multiplier and shift as a kernel takes them, and the attributes that say how.

    Args:
        operands: Of the layer.
        weight: int8 (O, everything else).
        folded: The bias with the zero point of the input folded in, which may have more channels.
        attrs: Of the layer.
        dot: The instruction; None where nothing takes whole registers.
        fused: Whether there are fused products of floats.
    """
    bias, multiplier, shift = operands.bias, operands.multiplier, operands.shift
    forms = short_forms(weight, bias, shift, attrs)
    if dot is not None and dot.lanes in HIGH_LANES:
        # Channels that only fill up a register have the least numbers that are allowed.
        more = (0, len(folded) - len(bias))
        wide_weight, wide_bias = np.pad(weight, (more, (0, 0))), np.pad(bias, more)
        m, right = np.pad(multiplier, more, constant_values=1 << 30), np.pad(shift, more, constant_values=-1)
        exact = float_operands(wide_weight, wide_bias, folded, m, right, attrs, dot.lanes) if fused else None
        if exact is not None:
            arrays = {"added": exact.added, "factor": exact.factor, "offset": exact.offset}
            return arrays, {**forms, "wide": exact.form}
        wide = wide_operands(wide_weight, wide_bias, folded, m, right, attrs, dot.lanes)
        if wide is not None:
            arrays = {"rounding": wide.rounding, "multiplier": wide.multiplier, "shift": wide.shift}
            return arrays, {**forms, "wide": wide.form}
    padded = {"multiplier": _padded(multiplier, len(folded)), "shift": _padded(shift, len(folded))}
    return {"folded_bias": folded, **padded}, forms


@KERNELS.register(f"{PREFIX}qadd")
def _add(rebuilder: Rebuilder, var: relax.Var, call: relax.Call, features: frozenset[str]) -> relax.Expr | None:
    return x86_qadd(call, rebuilder.get(call.args[0]), rebuilder.get(call.args[1])) if adds_simply(call) else None


@KERNELS.register(f"{PREFIX}qdepthwise")
def _depthwise(rebuilder: Rebuilder, var: relax.Var, call: relax.Call, features: frozenset[str]) -> relax.Expr | None:
    operands = _operands(rebuilder, call)
    if operands is None:
        return None
    _, kh, kw, channels = operands.weight.shape
    dot = best_dot(features, channels)
    if channels != static_shape(call.args[0])[3] or channels % dot.lanes:
        return None
    by_channel = operands.weight.reshape(kh * kw, channels).T
    packed, bias = pack_depthwise(operands.weight, operands.bias, int(call.attrs.input_zero_point), dot)
    arrays, forms = _requantization(operands, by_channel, bias, call.attrs, dot, FUSED in features)
    given = [rebuilder.param(f"{var.name}.{part}", value) for part, value in {"packed": packed, **arrays}.items()]
    return x86_qdepthwise([rebuilder.get(call.args[0]), *given], call.attrs, dot=dot, kernel=(kh, kw), forms=forms)


@KERNELS.register(f"{PREFIX}qdense")
def _dense(rebuilder: Rebuilder, var: relax.Var, call: relax.Call, features: frozenset[str]) -> relax.Expr | None:
    """A dense layer as a 1x1 convolution over a row of pixels, one for each sample or token."""
    operands = _operands(rebuilder, call)
    *outer, _ = static_shape(call.args[0])
    if operands is None:
        return None
    o, k = operands.weight.shape
    image = rebuilder.emit(relax.op.reshape(rebuilder.get(call.args[0]), (1, 1, math.prod(outer), k)), f"{var.name}.pixels")
    attrs = {key: call.attrs[key] for key in dict(call.attrs.items())}
    attrs.update(strides=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1])
    as_conv = _Operands(operands.weight.reshape(o, 1, 1, k), operands.bias, operands.multiplier, operands.shift)
    tokens = math.prod(outer)
    shape = Shape((1, tokens), k, (1, tokens), o, (1, 1), (1, 1), (0, 0, 0, 0))
    if features >= FEATURES and shape.pays:
        new = _on_tiles(rebuilder, var.name, image, as_conv, SimpleNamespace(**attrs))
    else:
        dot = _dot(features, as_conv, int(call.attrs.input_zero_point))
        new = _packed_convolution(rebuilder, var.name, image, as_conv, SimpleNamespace(**attrs), dot, FUSED in features)
    return relax.op.reshape(rebuilder.emit(new, f"{var.name}.row"), (*outer, o))


@KERNELS.register("relax.nn.conv2d")
def _float_convolution(rebuilder: Rebuilder, var: relax.Var, call: relax.Call, features: frozenset[str]) -> relax.Expr | None:
    weight = rebuilder.param_value(call.args[1])
    attrs = call.attrs
    layouts = (attrs.data_layout, attrs.kernel_layout, attrs.out_layout)
    if weight is None or layouts != ("NHWC", "HWIO", "NHWC") or int(attrs.groups) != 1 or weight.dtype != np.float32:
        return None
    channels, lanes = weight.shape[3], lanes_of(features)
    plain = (*attrs.strides, *attrs.dilation) == (1, 1, 1, 1)
    if plain and winograd_pays(weight, static_shape(call)):
        packed = rebuilder.param(f"{var.name}.transformed", transform_weights(weight, block_size(channels, lanes)))
        return x86_winograd(rebuilder.get(call.args[0]), packed, attrs, lanes)
    packed = rebuilder.param(f"{var.name}.packed", pack_conv2d(weight, block_size(channels, lanes)))
    return x86_conv2d(rebuilder.get(call.args[0]), packed, attrs, channels, lanes)


@KERNELS.register("relax.matmul")
def _float_product(rebuilder: Rebuilder, var: relax.Var, call: relax.Call, features: frozenset[str]) -> relax.Expr | None:
    weight = rebuilder.param_value(call.args[1])
    *outer, _ = static_shape(call.args[0])
    if _is_product_of_tensors(call) and weight is None and str(call.ty.dtype) == "float32":
        columns, lanes = static_shape(call)[-1], lanes_of(features)
        packed = rebuilder.emit(x86_pack(rebuilder.get(call.args[1]), lanes), f"{var.name}.packed")
        return x86_product(rebuilder.get(call.args[0]), packed, columns, lanes)
    if weight is None or weight.ndim != 2 or not outer or weight.dtype != np.float32:
        return None
    channels, lanes = weight.shape[1], lanes_of(features)
    packed = rebuilder.param(f"{var.name}.packed", pack_matmul(weight, block_size(channels, lanes)))
    x = rebuilder.get(call.args[0])
    if len(outer) == 1:
        return x86_matmul(x, packed, channels, lanes)
    rows = rebuilder.emit(relax.op.reshape(x, (math.prod(outer), weight.shape[0])), f"{var.name}.rows")
    return relax.op.reshape(
        rebuilder.emit(x86_matmul(rows, packed, channels, lanes), f"{var.name}.product"), (*outer, weight.shape[1])
    )


@KERNELS.register(f"{PREFIX}qmatmul")
def _integer_product(rebuilder: Rebuilder, var: relax.Var, call: relax.Call, features: frozenset[str]) -> relax.Expr | None:
    if not _is_product_of_tensors(call):
        return None
    columns = static_shape(call)[-1]
    lanes = halves(features, columns).lanes
    zero_point = int(call.attrs.input2_zero_point)
    packed = rebuilder.emit(x86_qpack(rebuilder.get(call.args[1]), zero_point, lanes), f"{var.name}.packed")
    return x86_qproduct(rebuilder.get(call.args[0]), packed, call.attrs, columns)


@KERNELS.register(f"{PREFIX}qlut")
def _lookup(rebuilder: Rebuilder, var: relax.Var, call: relax.Call, features: frozenset[str]) -> relax.Expr | None:
    shape = static_shape(call)
    if FEATURE not in features or math.prod(shape) < VECTOR or dtype_of(call.args[1]) != "int8":
        return None
    row = rebuilder.emit(relax.op.reshape(rebuilder.get(call.args[0]), (math.prod(shape),)), f"{var.name}.values")
    return relax.op.reshape(rebuilder.emit(x86_qlut(row, rebuilder.get(call.args[1])), f"{var.name}.looked_up"), shape)


def _is_product_of_tensors(call: relax.Call) -> bool:
    """Whether both factors have the same leading axes, and columns enough for vectors."""
    first, second = (static_shape(arg) for arg in call.args)
    return len(first) >= 2 and first[:-2] == second[:-2] and second[-1] > 1


def _padded(values: np.ndarray, channels: int) -> np.ndarray:
    return np.pad(values, (0, channels - values.size))
