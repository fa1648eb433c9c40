"""Requantization in registers of 256 or 512 bits: the same numbers as `passes.integer.requantize` from one 64-bit sum.

All that is added on the way from a sum to its result is added at once, to the product of 64 bits whose upper half is
then shifted. With the multiplier m, a shift to the right s of at least 1 and the zero point z,

    result = upper(acc * m + r) >> (s - 1),  r = bias * m + 2**30 + 2**31 * (2**(s - 1) + z * 2**s)

are both of the roundings of "double", since a floor of a floor is one floor; but for the rule that ties of negative
numbers go away from zero. Where the result is clipped at the zero point or above it, as behind ReLU, that is never seen
(`LINEAR`); nor does "single" know it, whose r has 2**(30 + s) in place of the two halves. Otherwise (`SIGNED`) one is
taken off where the biased sum is negative. That takes a further bit of the upper half: twice the product. As twice a
multiplier does not fit a signed number, acc * (2 * m - 2**32) is taken and acc added to its upper half.

Products are taken of even and of odd lanes, so r comes in this order, and an instruction that picks lanes of two registers
puts the upper halves together.
"""

# TVMScript's annotations are calls, which are no types to mypy.
# mypy: disable-error-code="valid-type"

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from ....passes._tvm import te, tirx
from .intrinsics import HIGH_ANNOTATION, HIGH_LANES

NONE, LINEAR, SIGNED = 0, 1, 2
"""The forms, as operators have them for an attribute; NONE: that of `requantize`."""

UPPER = {
    (form, lanes): f"x86.{name}.{lanes}" for form, name in ((LINEAR, "upper"), (SIGNED, "upper_signed")) for lanes in HIGH_LANES
}
"""int32[n] = (int32[n] * int32[n] + int64[n]) >> 32 and the same with the first operand added, by form and lanes."""


@dataclass(frozen=True)
class WideOperands:
    """What a kernel is given in place of bias, multiplier and shift.

    Attributes:
        form: LINEAR or SIGNED.
        rounding: int64 (O / lanes, 2, lanes / 2), even lanes first.
        multiplier: int32 (O,).
        shift: int32 (1, O); under SIGNED (2, O), the second row the least sum whose biased one is not negative.
    """

    form: int
    rounding: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray


def wide_operands(
    weight: np.ndarray,
    bias: np.ndarray,
    folded: np.ndarray,
    multiplier: np.ndarray,
    shift: np.ndarray,
    attrs: Any,
    lanes: int,
) -> WideOperands | None:
    """The operands of a layer; None where a number might not fit.

    Args:
        weight: int8 (O, everything else).
        bias: int32 (O,).
        folded: The same with the zero point of the input and the shift to unsigned folded in.
        multiplier: int32 (O,).
        shift: int32 (O,), negative to the right.
        attrs: Of the operator, with `rounding`, `qmin` and `output_zero_point`.
        lanes: Of a register.
    """
    single, zero = str(attrs.rounding) == "single", int(attrs.output_zero_point)
    if len(bias) % lanes or int(shift.max()) >= 0:
        return None
    linear = single or int(attrs.qmin) >= zero
    m, right = multiplier.astype(np.int64), -shift.astype(np.int64)
    if not linear and int(m.min()) < 1 << 30:
        return None
    # No sum before or behind the bias is larger; each term of the 64-bit sum then stays below 2**61.
    largest = 255 * np.abs(weight.astype(np.int64)).sum(1) + np.abs(bias.astype(np.int64))
    if (largest + (abs(zero) + 1) * 2.0**right >= 2.0**29).any():
        return None
    one = np.int64(1)
    half = one << (right + 30)
    r = folded.astype(np.int64) * m + half + (np.int64(zero) << (right + 31)) + (0 if single else one << 30)
    if linear:
        return WideOperands(LINEAR, _by_lanes(r, lanes), multiplier, (right - 1).astype(np.int32)[None])
    rows = np.stack([right, -folded.astype(np.int64)]).astype(np.int32)
    return WideOperands(SIGNED, _by_lanes(2 * r, lanes), (2 * m - (one << 32)).astype(np.int32), rows)


def _by_lanes(values: np.ndarray, lanes: int) -> np.ndarray:
    return np.ascontiguousarray(values.reshape(-1, lanes // 2, 2).transpose(0, 2, 1))


def wide_requantized(acc: Any, rounding: Any, multiplier: Any, shift: Any, attrs: Any) -> Any:
    """The int8 results of sums whose last axis is of whole registers.

    Args:
        acc: int32, without bias.
        rounding: Of `WideOperands`, like the next two.
        multiplier: As there.
        shift: As there.
        attrs: With `wide`, the form, and the limits.
    """
    form, lanes = int(attrs.wide), 2 * int(rounding.shape[2])

    def upper(*i: Any) -> Any:
        k = i[-1]
        product = acc(*i).astype("int64") * multiplier[k].astype("int64")
        added = product + rounding[k // lanes, k % 2, k % lanes // 2]
        value = tirx.shift_right(added, tirx.const(32, "int64")).astype("int32")
        return value + acc(*i) if form == SIGNED else value

    high = te.compute(acc.shape, upper, name="high", attrs={HIGH_ANNOTATION: UPPER[form, lanes]})
    least, most = (tirx.const(int(limit), "int32") for limit in (attrs.qmin, attrs.qmax))

    def element(*i: Any) -> Any:
        value = high(*i)
        if form == SIGNED:
            value = value - (acc(*i) < shift[1, i[-1]]).astype("int32")
        return tirx.max(tirx.min(tirx.shift_right(value, shift[0, i[-1]]), most), least).astype("int8")

    return te.compute(acc.shape, element, name="requantized")


def _register(form: int, lanes: int) -> None:
    half = lanes // 2
    pair, vector = f"int64x{half}", f"int32x{lanes}"
    upper_halves = [place + lane for lane in range(1, lanes, 2) for place in (0, lanes)]

    def every(value: int) -> Any:
        return T.broadcast(T.int64(value), half)

    def even(value: Any) -> Any:
        return T.shift_right(T.shift_left(value, every(32)), every(32))

    def odd(value: Any) -> Any:
        return T.shift_right(value, every(32))

    def added(a: Any, b: Any, even_rounding: Any, odd_rounding: Any) -> Any:
        sums = (even(a) * even(b) + even_rounding, odd(a) * odd(b) + odd_rounding)
        return T.Shuffle([T.reinterpret(part, dtype=vector) for part in sums], upper_halves)

    def with_first(value: Any, first: Any) -> Any:
        return value + first if form == SIGNED else value

    @T.prim_func(s_tir=True)
    def definition(
        A: T.Buffer((lanes,), "int32", offset_factor=1),
        B: T.Buffer((lanes,), "int32", offset_factor=1),
        R: T.Buffer((2, half), "int64", offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(A[0:lanes], B[0:lanes], R[0:2, 0:half])
            T.writes(C[0:lanes])
            for i in T.serial(0, lanes):
                with T.sblock("high"):
                    vi = T.axis.spatial(lanes, i)
                    C[vi] = with_first(
                        T.cast(
                            T.shift_right(T.cast(A[vi], "int64") * T.cast(B[vi], "int64") + R[vi % 2, vi // 2], T.int64(32)),
                            "int32",
                        ),
                        A[vi],
                    )

    @T.prim_func(s_tir=True)
    def instructions(
        A: T.Buffer((lanes,), "int32", offset_factor=1),
        B: T.Buffer((lanes,), "int32", offset_factor=1),
        R: T.Buffer((2, half), "int64", offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(A[0:lanes], B[0:lanes], R[0:2, 0:half])
            T.writes(C[0:lanes])
            C[T.ramp(T.int32(0), 1, lanes)] = with_first(
                added(
                    T.reinterpret(A.vload([0], vector), dtype=pair),
                    T.reinterpret(B.vload([0], vector), dtype=pair),
                    R.vload([0, 0], pair),
                    R.vload([1, 0], pair),
                ),
                A.vload([0], vector),
            )

    TensorIntrin.register(UPPER[form, lanes], definition, instructions)


# In a thread of its own for the reason that `intrinsics` gives.
with ThreadPoolExecutor(1) as _executor:
    list(_executor.map(lambda key: _register(*key), UPPER))
