"""Affine quantization: real = scale * (integer - zero_point)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Scales below this are raised to it: the tensor is zero for all purposes, and products of scales must not underflow.
SMALLEST_SCALE = 1e-12


@dataclass(frozen=True)
class Range:
    """The real interval that a tensor's values are represented in; clipped to it.

    Attributes:
        low: Lower end.
        high: Upper end, not below `low`.
        seen: The smallest and the largest value seen, where the ends were chosen for few integers: more of them hold all.
    """

    low: float
    high: float
    seen: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"not a range: [{self.low}, {self.high}]")

    @property
    def wide(self) -> Range:
        """The interval of everything seen."""
        return self if self.seen is None else Range(*self.seen)


@dataclass(frozen=True)
class Affine:
    """How the integers of one tensor are to be read.

    Attributes:
        scale: Positive, exactly representable in float32.
        zero_point: The integer that means 0.
        dtype: "int8" or another integer dtype.
        bits: Of how many bits integers are, if not of all that the dtype has: of 4 those of int8 are in [-8, 7].
    """

    scale: float
    zero_point: int
    dtype: str = "int8"
    bits: int | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest integer."""
        return integer_limits(self.dtype, self.bits)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Integers nearest to real values (float32, half to even, as relax.quantize does it), saturated."""
        scaled = np.rint(np.asarray(x, np.float32) / np.float32(self.scale)) + np.float32(self.zero_point)
        return np.clip(scaled, *self.limits).astype(self.dtype)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """Real values of integers, float32."""
        return (q.astype(np.int32) - self.zero_point).astype(np.float32) * np.float32(self.scale)

    def clip_limits(self, low: float, high: float) -> tuple[int, int]:
        """The integers that stand for the ends of a clip to [low, high], as TensorFlow Lite rounds them."""
        qmin, qmax = self.limits

        def position(value: float) -> float:
            # Half away from zero.
            return np.copysign(np.floor(abs(value) / self.scale + 0.5), value) + self.zero_point

        lower = qmin if not np.isfinite(low) else int(np.clip(position(low), qmin, qmax))
        upper = qmax if not np.isfinite(high) else int(np.clip(position(high), qmin, qmax))
        return lower, max(lower, upper)


def integer_limits(dtype: str, bits: int | None = None) -> tuple[int, int]:
    """The smallest and the largest integer of a dtype, or of so many of its bits: int8 with 4 has [-8, 7], uint8 [0, 15]."""
    full = np.iinfo(dtype)
    unused = 0 if bits is None else int(full.bits) - bits
    return int(full.min) >> unused, int(full.max) >> unused


def power_of_two(scale: np.ndarray | float) -> np.ndarray:
    """The smallest powers of two that are not below positive scales, float64."""
    mantissa, exponent = np.frexp(np.asarray(scale, np.float64))
    return np.ldexp(1.0, exponent - (mantissa == 0.5))


def affine_of_range(
    found: Range,
    dtype: str = "int8",
    symmetric: bool = False,
    shift_only: bool = False,
    bits: int | None = None,
    clipped: bool = False,
) -> Affine:
    """The scale and zero point that represent a range, extended so that zero is exactly representable.

    A range of nothing but zero gets the scale 1.

    Args:
        found: The range.
        dtype: Of the integers.
        symmetric: Whether the zero point must be 0 (for unsigned dtypes the middle); the smallest integer is then
            unused.
        shift_only: Whether the scale must be a power of two; the smallest that holds the range is taken.
        bits: Onto how many of the dtype's bits the range is spread, if not all: int8 with 7 onto [-64, 63], uint8 onto
            [0, 127].
        clipped: Whether integers beyond those bits are left out, too.
    """
    info = _Limits(*integer_limits(dtype, bits))
    kept = bits if clipped else None
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    if symmetric:
        middle = 0 if info.min < 0 else (int(info.max) + 1) // 2
        limit = max(-low, high)
        scale = limit / (int(info.max) - middle) if limit > 0 else 1.0
        return Affine(_representable(scale, shift_only), middle, dtype, kept)
    if high == low:
        return Affine(1.0, 0 if info.min < 0 else int(info.min), dtype, kept)
    scale = _representable((high - low) / (int(info.max) - int(info.min)), shift_only)
    zero_point = int(np.clip(np.rint(int(info.min) - low / scale), info.min, info.max))
    return Affine(scale, zero_point, dtype, kept)


class _Limits(NamedTuple):
    min: int
    max: int


def _representable(scale: float, shift_only: bool) -> float:
    """A scale as it is stored: float32, not too small, a power of two if need be."""
    scale = max(scale, SMALLEST_SCALE)
    return float(power_of_two(scale)) if shift_only else float(np.float32(scale))
