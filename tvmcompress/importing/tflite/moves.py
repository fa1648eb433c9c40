"""TFLite operators that move values, whatever these are: shapes, slices, padding, gathering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ...passes._tvm import relax
from ...passes.graph.module_params import static_shape
from ...passes.integer import ops
from ...passes.layout.converter import to_first
from .file import TfliteOperator, TfliteTensor
from .importer import Importer, identifier, plain


@plain("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def _reshape(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    return relax.op.reshape(importer.value(operator.operand(0)), operator.output.shape)


@plain("DENSIFY")
def _densify(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    """Sparse constants have their zeros already when they are read."""
    if operator.operand(0).data is None:
        raise importer.refuse(operator, "its operand is not constant")
    return importer.value(operator.operand(0))


@plain("SHAPE")
def _shape(importer: Importer, operator: TfliteOperator) -> None:
    importer.set_constant(operator, np.array(operator.operand(0).shape))


@plain("TRANSPOSE")
def _transpose(importer: Importer, operator: TfliteOperator) -> relax.Expr | None:
    x, order = operator.operand(0), operator.integers(1)
    rank = len(x.shape)
    if importer.is_first(x) and tuple(order) == to_first(rank):
        return importer.first(x)
    return relax.op.permute_dims(importer.value(x), [axis % rank for axis in order])


@plain("CAST")
def _cast(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x = operator.operand(0)
    if x.is_quantized or operator.output.is_quantized:
        raise importer.refuse(operator, "its operand or its result is quantized")
    return relax.op.astype(importer.value(x), operator.output.dtype)


def _bind_moved(importer: Importer, operator: TfliteOperator, x: TfliteTensor, results: Sequence[relax.Expr]) -> None:
    """Bind results that are in the layout in which `x` was computed."""
    first = importer.is_first(x) and len(x.shape) > 2
    for tensor, expr in zip(operator.outputs, results, strict=True):
        importer.bind(tensor, expr, first=first)


@plain("SLICE")
def _slice(importer: Importer, operator: TfliteOperator) -> None:
    x, begin, size = operator.operand(0), operator.integers(1), operator.integers(2)
    ends = [full if length == -1 else start + length for full, start, length in zip(x.shape, begin, size)]
    expr, places = importer.moved(x)
    _bind_moved(importer, operator, x, [relax.op.strided_slice(expr, places, begin, ends)])


@plain("STRIDED_SLICE")
def _strided_slice(importer: Importer, operator: TfliteOperator) -> None:
    x, out = operator.operand(0), operator.output
    begin, end, steps = (operator.integers(index) for index in (1, 2, 3))
    masks = {name: int(operator.option(f"{name}Mask", 0)) for name in ("Begin", "End", "Ellipsis", "NewAxis", "ShrinkAxis")}
    if operator.option("Offset", False):
        raise importer.refuse(operator, "its ends count from its begins")
    slices: list[Any] = []
    for index, (first, last, step) in enumerate(zip(begin, end, steps)):
        bit = 1 << index
        if masks["Ellipsis"] & bit:
            slices.append(Ellipsis)
        elif masks["NewAxis"] & bit:
            slices.append(None)
        elif masks["ShrinkAxis"] & bit:
            # A masked begin is the first position, even where only one is taken.
            slices.append(0 if masks["Begin"] & bit else first)
        else:
            slices.append(slice(None if masks["Begin"] & bit else first, None if masks["End"] & bit else last, step))
    # Which positions of each axis are taken, as NumPy understands it.
    taken = _positions(x.shape, slices)
    expr, places = importer.moved(x)
    backwards = [place for place, kept in zip(places, taken) if kept.step < 0]
    for place in backwards:
        expr = importer.emit(relax.op.flip(expr, place), identifier(out.name))
    ranges = [
        range(size - 1 - kept.start, size - 1 - kept.stop, -kept.step) if kept.step < 0 else kept
        for size, kept in zip(x.shape, taken)
    ]
    begins, ends, jumps = ([getattr(kept, name) for kept in ranges] for name in ("start", "stop", "step"))
    sliced = relax.op.strided_slice(expr, places, begins, ends, jumps)
    if len(out.shape) == len(x.shape) and tuple(len(kept) for kept in taken) == out.shape:
        _bind_moved(importer, operator, x, [sliced])
        return
    shadow = importer.emit(sliced, identifier(out.name))
    if importer.is_first(x):
        rank = len(x.shape)
        shadow = importer.emit(relax.op.permute_dims(shadow, [0, *range(2, rank), 1]), identifier(out.name))
    importer.bind(out, relax.op.reshape(shadow, out.shape))


def _positions(shape: tuple[int, ...], slices: list[Any]) -> list[range]:
    """The range of positions that every axis of a tensor is read at."""
    named = [entry for entry in slices if entry is not None]
    if Ellipsis in named:
        place = named.index(Ellipsis)
        named[place : place + 1] = [slice(None)] * (len(shape) - len(named) + 1)
    named += [slice(None)] * (len(shape) - len(named))
    found = []
    for size, entry in zip(shape, named):
        if isinstance(entry, int):
            entry = slice(entry % size, entry % size + 1)
        found.append(range(*entry.indices(size)))
    return found


@plain("SPLIT", "SPLIT_V")
def _split(importer: Importer, operator: TfliteOperator) -> None:
    plain_split = operator.kind == "SPLIT"
    x = operator.operand(1 if plain_split else 0)
    rank = len(x.shape)
    axis = operator.integers(0 if plain_split else 2)[0] % rank
    expr, places = importer.moved(x)
    sizes = [tensor.shape[axis] for tensor in operator.outputs]
    starts = [0, *(int(end) for end in np.cumsum(sizes))]
    parts = [relax.op.strided_slice(expr, [places[axis]], [start], [start + size]) for start, size in zip(starts, sizes)]
    if len(set(sizes)) == 1 and len(sizes) > 1:
        whole = importer.emit(relax.op.split(expr, len(sizes), places[axis]), f"{identifier(x.name)}.split")
        parts = [relax.TupleGetItem(whole, index) for index in range(len(sizes))]
    _bind_moved(importer, operator, x, parts if len(sizes) > 1 else [expr])


@plain("PACK")
def _pack(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    out = operator.output
    axis = int(operator.option("Axis", 0)) % len(out.shape)
    shape = (*out.shape[:axis], 1, *out.shape[axis + 1 :])
    parts = [
        importer.emit(relax.op.reshape(importer.value(operator.operand(index)), shape), identifier(out.name))
        for index in range(len(operator.inputs))
    ]
    return relax.op.concat(parts, axis) if len(parts) > 1 else parts[0]


@plain("UNPACK")
def _unpack(importer: Importer, operator: TfliteOperator) -> list[relax.Expr]:
    x = operator.operand(0)
    axis = int(operator.option("Axis", 0)) % len(x.shape)
    value = importer.value(x)
    parts = [
        importer.emit(relax.op.strided_slice(value, [axis], [index], [index + 1]), f"{identifier(x.name)}.part")
        for index in range(len(operator.outputs))
    ]
    return [relax.op.reshape(part, out.shape) for part, out in zip(parts, operator.outputs)]


@plain("GATHER")
def _gather(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, indices, out = operator.operand(0), operator.operand(1), operator.output
    if int(operator.option("BatchDims", 0)) != 0:
        raise importer.refuse(operator, "it gathers in each sample of a batch on its own")
    axis = int(operator.option("Axis", 0)) % len(x.shape)
    value = importer.value(indices)
    flat = value
    if len(indices.shape) != 1:
        flat = importer.emit(relax.op.reshape(value, (int(np.prod(indices.shape)),)), f"{identifier(out.name)}.indices")
    taken = importer.emit(relax.op.take(importer.value(x), flat, axis, mode="clip"), identifier(out.name))
    return taken if static_shape(taken) == out.shape else relax.op.reshape(taken, out.shape)


@plain("PAD", "PADV2")
def _pad(importer: Importer, operator: TfliteOperator) -> None:
    x, out = operator.operand(0), operator.output
    widths = np.array(operator.integers(1)).reshape(-1, 2)
    expr, places = importer.moved(x)
    own = np.zeros_like(widths)
    own[places] = widths
    flat = [int(width) for width in own.reshape(-1)]
    value = operator.constant(2) if operator.kind == "PADV2" else None
    number = (out.zero_point if out.is_quantized else 0) if value is None else value.reshape(-1)[0]
    if out.dtype in ("int8", "int16") and out.is_quantized:
        padded = ops.qpad(expr, pad_width=flat, value=int(number))
    else:
        padded = relax.op.nn.pad(expr, flat, "constant", float(number))
    _bind_moved(importer, operator, x, [padded])


@plain("MIRROR_PAD")
def _mirror_pad(importer: Importer, operator: TfliteOperator) -> None:
    x = operator.operand(0)
    mode: Literal["symmetric", "reflect"] = "symmetric" if int(operator.option("Mode", 0)) == 1 else "reflect"
    expr, places = importer.moved(x)
    for axis, (before, after) in enumerate(np.array(operator.integers(1)).reshape(-1, 2)):
        if before or after:
            positions = np.pad(np.arange(x.shape[axis]), (int(before), int(after)), mode=mode)
            expr = importer.emit(_taken(expr, positions, places[axis]), f"{identifier(operator.output.name)}.padded")
    _bind_moved(importer, operator, x, [expr])


def _taken(expr: relax.Expr, positions: np.ndarray, axis: int) -> relax.Expr:
    return relax.op.take(expr, relax.const(positions.astype(np.int64)), axis, mode="clip")


@plain("REVERSE_V2")
def _reverse(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x = operator.operand(0)
    expr = importer.value(x)
    for axis in operator.integers(1):
        expr = importer.emit(relax.op.flip(expr, axis % len(x.shape)), f"{identifier(operator.output.name)}.flipped")
    return expr


@plain("TILE", "BROADCAST_TO")
def _repeat(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, numbers = importer.value(operator.operand(0)), operator.integers(1)
    return relax.op.tile(x, numbers) if operator.kind == "TILE" else relax.op.broadcast_to(x, tuple(numbers))


@plain("DEPTH_TO_SPACE")
def _depth_to_space(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    n, h, w, c = operator.operand(0).shape
    size = int(operator.option("BlockSize", 1))
    shape = (n, h, w, size, size, c // size**2)
    return _blocks(importer, operator, shape, [0, 1, 3, 2, 4, 5])


@plain("SPACE_TO_DEPTH")
def _space_to_depth(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    n, h, w, c = operator.operand(0).shape
    size = int(operator.option("BlockSize", 1))
    return _blocks(importer, operator, (n, h // size, size, w // size, size, c), [0, 1, 3, 2, 4, 5])


def _blocks(importer: Importer, operator: TfliteOperator, shape: Sequence[int], order: list[int]) -> relax.Expr:
    stem = identifier(operator.output.name)
    blocks = importer.emit(relax.op.reshape(importer.value(operator.operand(0)), tuple(shape)), f"{stem}.blocks")
    moved = importer.emit(relax.op.permute_dims(blocks, order), f"{stem}.blocks")
    return relax.op.reshape(moved, operator.output.shape)


@plain("SPACE_TO_BATCH_ND")
def _space_to_batch(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, out, sizes = operator.operand(0), operator.output, operator.integers(1)
    widths = [0, 0, *operator.integers(2), *[0, 0] * (len(x.shape) - 1 - len(sizes))]
    expr, stem = importer.value(x), identifier(out.name)
    if any(widths):
        padded = (
            ops.qpad(expr, pad_width=widths, value=out.zero_point)
            if out.is_quantized
            else relax.op.nn.pad(expr, widths, "constant", 0.0)
        )
        expr = importer.emit(padded, f"{stem}.padded")
    n, *rest = static_shape(expr)
    count = len(sizes)
    blocks = [part for length, size in zip(rest, sizes) for part in (length // size, size)]
    split = importer.emit(relax.op.reshape(expr, (n, *blocks, *rest[count:])), f"{stem}.blocks")
    order = [*(2 + 2 * i for i in range(count)), 0, *(1 + 2 * i for i in range(count))]
    order += range(2 * count + 1, len(rest) + count + 1)
    moved = importer.emit(relax.op.permute_dims(split, order), f"{stem}.blocks")
    return relax.op.reshape(moved, out.shape)


@plain("BATCH_TO_SPACE_ND")
def _batch_to_space(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, out, sizes = operator.operand(0), operator.output, operator.integers(1)
    crops = np.array(operator.integers(2)).reshape(-1, 2)
    n, *rest = x.shape
    count, stem = len(sizes), identifier(out.name)
    samples = n // int(np.prod(sizes))
    split = importer.emit(relax.op.reshape(importer.value(x), (*sizes, samples, *rest)), f"{stem}.blocks")
    order = [count, *(axis for i in range(count) for axis in (count + 1 + i, i)), *range(2 * count + 1, len(rest) + count + 1)]
    moved = importer.emit(relax.op.permute_dims(split, order), f"{stem}.blocks")
    whole = [length * size for length, size in zip(rest, sizes)]
    spread = importer.emit(relax.op.reshape(moved, (samples, *whole, *rest[count:])), f"{stem}.blocks")
    ends = [length - int(crop[1]) for length, crop in zip(whole, crops)]
    return relax.op.strided_slice(spread, list(range(1, count + 1)), [int(crop[0]) for crop in crops], ends)


@plain("ARG_MAX", "ARG_MIN")
def _argument(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, out = operator.operand(0), operator.output
    make = relax.op.argmax if operator.kind == "ARG_MAX" else relax.op.argmin
    axis = operator.integers(1)[0] % len(x.shape)
    found = importer.emit(make(importer.value(x), axis), identifier(out.name))
    return found if out.dtype == "int64" else relax.op.astype(found, out.dtype)


@plain("REDUCE_MAX", "REDUCE_MIN")
def _reduced(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, out = operator.operand(0), operator.output
    if x.is_quantized and (x.scale, x.zero_point) != (out.scale, out.zero_point):
        raise importer.refuse(operator, "its operand and its result have different scales")
    make = relax.op.max if operator.kind == "REDUCE_MAX" else relax.op.min
    axes = sorted({axis % len(x.shape) for axis in operator.integers(1)})
    return make(importer.value(x), axes, bool(operator.option("KeepDims", False)))
