"""The extremes and the histogram of a tensor in one operator, for calibration.

The operator `tvmcompress.x86_statistics` reads a float32 tensor, whose order of elements does not matter, and gives the counts
of `passes.numbers.histogram.Histogram` for it alone. Several histograms are kept side by side, since an element that falls into
the bin of the one before it would wait for it; zeros, of which there are many behind a ReLU, are not counted one by one.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from ....passes._tvm import relax, tirx
from ....passes.graph.module_params import static_shape
from ....passes.integer.registry import make_call, register_operator, tensor_type
from ....passes.layout.converter import RULES, SAME, Converter, Form
from ....passes.numbers.histogram import BINS, LEAST_EXPONENT, Histogram
from .intrinsics import OPAQUE

_LANES = 16
_SIDE_BY_SIDE = 4
_BLOCK = 512
"""Elements whose bins are computed, in vectors, before they are counted."""
_LOW, _HIGH, _LARGEST, _ZEROS, _COUNT = range(2 * BINS, 2 * BINS + 5)
_SIZE = 2 * BINS + 5
_INFINITY = 0x7F800000
"""The bits of infinity; those of other numbers of no finite value are larger."""


def x86_statistics(x: relax.Expr, counted: bool = True) -> relax.Call:
    """The operator; its result is what `as_histogram` takes.

    Args:
        x: float32, any shape.
        counted: Whether there is a histogram besides the extremes.
    """
    return make_call(_STATISTICS, [x], counted=int(counted))


def as_histogram(result: np.ndarray) -> Histogram | None:
    """What the operator has found; None where values are not finite.

    Args:
        result: int32, of the operator. Where nothing was counted, the histogram's extremes alone say something.
    """
    if result[_LARGEST] >= _INFINITY:
        return None
    low, high = (float(result[place : place + 1].view(np.float32)[0]) for place in (_LOW, _HIGH))
    return Histogram.of_counts(result[: 2 * BINS], low, high, int(result[_COUNT]), int(result[_ZEROS]))


def legalize_statistics(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A call of the function."""
    made = builder.add_func(statistics_function(len(static_shape(call.args[0])), bool(call.attrs.counted)), "x86_statistics")
    return relax.call_tir(made, list(call.args), out_ty=_infer(call))


@cache
def statistics_function(axes: int, counted: bool) -> tirx.PrimFunc:
    """The function: (x float32 of any shape of so many axes, result int32).

    Sizes are known when it is called: tensors of all shapes share one function, which is compiled once.
    """
    with IRBuilder() as ib, T.prim_func(s_tir=True):
        T.func_name("x86_statistics")
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": OPAQUE})
        shape = [tirx.Var(f"n{axis}", "int64") for axis in range(axes)]
        given = T.arg("x", T.Buffer(shape, "float32"))
        result = T.arg("result", T.Buffer((_SIZE,), "int32"))
        count = math.prod(shape, start=_index(1))
        x = T.decl_buffer((count,), "float32", data=given.data)
        with T.sblock("root"):
            extremes = _Extremes()
            _all_of(count, lambda at, lanes: extremes.see(x[at], lanes))
            extremes.store(result)
            T.buffer_store(result, count.astype("int32"), [_COUNT])
            with T.serial(0, 2 * BINS) as place:
                T.buffer_store(result, _int(0), [place])
            if counted:
                with T.If(result[_LARGEST] < _int(_INFINITY)), T.Then():
                    _count(x, count, result)
    return ib.get()


class _Extremes:
    """The smallest and the largest value, and the largest magnitude, of each lane."""

    def __init__(self) -> None:
        self.low, self.high = (T.sblock_alloc_buffer((_LANES,), "float32") for _ in range(2))
        self.largest, self.zeros = (T.sblock_alloc_buffer((_LANES,), "int32") for _ in range(2))
        at = _lanes(0)
        T.buffer_store(self.low, tirx.Broadcast(tirx.const(np.inf, "float32"), _LANES), [at])
        T.buffer_store(self.high, tirx.Broadcast(tirx.const(-np.inf, "float32"), _LANES), [at])
        for buffer in (self.largest, self.zeros):
            T.buffer_store(buffer, tirx.Broadcast(_int(0), _LANES), [at])

    def see(self, value: Any, lanes: int) -> None:
        at = _lanes(0) if lanes > 1 else _int(0)
        kind = f"int32x{lanes}" if lanes > 1 else "int32"
        magnitude = tirx.bitwise_and(tirx.reinterpret(kind, value), _wide(_int(0x7FFFFFFF), lanes))
        T.buffer_store(self.low, tirx.Select(value < self.low[at], value, self.low[at]), [at])
        T.buffer_store(self.high, tirx.Select(value > self.high[at], value, self.high[at]), [at])
        T.buffer_store(self.largest, tirx.max(self.largest[at], magnitude), [at])
        one, none = (_wide(_int(number), lanes) for number in (1, 0))
        T.buffer_store(self.zeros, self.zeros[at] + tirx.Select(magnitude == none, one, none), [at])

    def store(self, result: Any) -> None:
        with T.serial(1, _LANES) as lane:
            T.buffer_store(self.low, tirx.min(self.low[0], self.low[lane]), [0])
            T.buffer_store(self.high, tirx.max(self.high[0], self.high[lane]), [0])
            T.buffer_store(self.largest, tirx.max(self.largest[0], self.largest[lane]), [0])
            T.buffer_store(self.zeros, self.zeros[0] + self.zeros[lane], [0])
        T.buffer_store(result, tirx.reinterpret("int32", self.low[0]), [_LOW])
        T.buffer_store(result, tirx.reinterpret("int32", self.high[0]), [_HIGH])
        T.buffer_store(result, self.largest[0], [_LARGEST])
        T.buffer_store(result, self.zeros[0], [_ZEROS])


def _count(x: Any, count: Any, result: Any) -> None:
    """Add the elements other than zero to the histogram, and the zeros to theirs."""
    bins = T.sblock_alloc_buffer((_BLOCK,), "int32")
    width = 2 * BINS + _LANES  # where zeros go, each lane to its own place
    counts = T.sblock_alloc_buffer((_SIDE_BY_SIDE * width,), "int32")
    with T.serial(0, _SIDE_BY_SIDE * width) as place:
        T.buffer_store(counts, _int(0), [place])
    scale = T.sblock_alloc_buffer((1,), "float32")
    # 1 / width of a bin, a power of two: with k the exponent of the largest magnitude, bits of the float 2^(log2(BINS) - k).
    exponent = tirx.max(tirx.shift_right(result[_LARGEST], _int(23)), _int(LEAST_EXPONENT + 126))
    bits = _int(BINS.bit_length() - 1 + 126 + 127) - exponent
    T.buffer_store(scale, tirx.reinterpret("float32", tirx.shift_left(bits, _int(23))), [0])

    def place_of(value: Any, lanes: int) -> Any:
        kind = f"int32x{lanes}" if lanes > 1 else "int32"
        place = tirx.floor(value * _wide(scale[0], lanes)).astype(kind) + _wide(_int(BINS), lanes)
        own = _lanes(2 * BINS) if lanes > 1 else _int(2 * BINS)
        return tirx.Select(value == _wide(tirx.const(0.0, "float32"), lanes), own, place)

    def add(place: Any, beside: int) -> None:
        at = place + _int(beside * width)
        T.buffer_store(counts, counts[at] + _int(1), [at])

    whole = tirx.floordiv(count, _index(_BLOCK))
    with T.serial(_index(0), whole) as block:
        with T.serial(0, _BLOCK // _LANES) as step:
            first = block * _BLOCK + step.astype("int64") * _LANES
            T.buffer_store(bins, place_of(x[_lanes(first)], _LANES), [_lanes(step * _LANES)])
        with T.serial(0, _BLOCK // _SIDE_BY_SIDE) as step:
            for beside in range(_SIDE_BY_SIDE):
                add(bins[step * _SIDE_BY_SIDE + beside], beside)
    with T.serial(whole * _BLOCK, count) as index:
        add(place_of(x[index], 1), 0)
    with T.serial(0, _SIDE_BY_SIDE) as beside, T.serial(0, 2 * BINS) as place:
        T.buffer_store(result, result[place] + counts[beside * width + place], [place])
    T.buffer_store(result, result[BINS] + result[_ZEROS], [BINS])


def _all_of(count: Any, see: Any) -> None:
    """All elements, in vectors, then those left."""
    whole = tirx.floordiv(count, _index(_LANES))
    with T.serial(_index(0), whole) as step:
        see(_lanes(step * _LANES), _LANES)
    with T.serial(whole * _LANES, count) as index:
        see(index, 1)


def _lanes(start: Any) -> Any:
    first = _int(start) if isinstance(start, int) else start
    return tirx.Ramp(first, tirx.const(1, first.ty.dtype), _LANES)


def _wide(value: Any, lanes: int) -> Any:
    return tirx.Broadcast(value, lanes) if lanes > 1 else value


def _int(value: int) -> Any:
    return tirx.const(value, "int32")


def _index(value: int) -> Any:
    return tirx.const(value, "int64")


def _infer(call: relax.Call) -> relax.TensorType:
    return tensor_type((_SIZE,), "int32")


def _define(call: relax.Call, *tensors: Any) -> Any:
    raise NotImplementedError("x86_statistics has no tensor expression; lower it by `legalize_statistics`")


_STATISTICS = register_operator("x86_statistics", 1, "Extremes and histogram of a tensor", _infer, _define)


def _any_order(convert: Converter, call: relax.Call) -> tuple[relax.Expr, Form]:
    """The elements may come in any order."""
    x = call.args[0]
    return relax.Call(call.op, [convert.get(x, convert.form_of(x))], call.attrs), SAME


RULES["tvmcompress.x86_statistics"] = _any_order
