"""Requantization by products in float32: the same numbers, since every step of them is tried when a layer is compiled.

What an int8 result is of a sum rises by one at each of at most 255 thresholds. With numbers b, s, o and z of a channel,

    result = nearest(fma(float(acc + b), s, o)) + z

rises, too: conversion, fused product and rounding never fall. So both are the same for every sum that may occur if they are
the same right at each threshold, one below it, and at the least and the greatest sum. s and o are searched among the numbers
of float32 close to the factor; a layer all of whose channels have such takes four instructions for a register of sums, where
products of 64 bits take seven, of which two are products and one a permutation.

What does not fit float32 next to one threshold may fit where numbers are smaller: b has the zero point, or more or less than
that, and z the rest; z is left out where it is 0 for all. Where that is not enough a second factor is added, 2**-24 times as
large: s * x + o becomes s * x + (t * x + o). Where rounding takes ties away from zero on both sides of it (`FLOAT_SIGNED`), o
takes the sign of the biased sum, and z is the zero point.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....passes.integer.requantize import multiply

FLOAT, FLOAT_SIGNED = 3, 4
"""The forms, beside those of `wide_requantize`."""

_STEPS = {1: 4, 2: 16}
"""Factors that are tried on either side, by how many make one."""
_FINE = 2.0**-27
"""How far apart they are where there is a second one, relative to the first."""
_SHARES = (0.5, 0.25, 0.75)
"""Places in the interval of offsets that the thresholds leave."""
_MOVES = (0, -64, 64, -32, 32, -96, 96, -128, 128)
"""What is taken from z and put into b."""
_TOGETHER = 32
"""Channels that are searched for at a time."""
_LARGEST = (1 << 31) - 1
_CONVERTIBLE = 1 << 30
"""The largest biased sum: its product by a factor up to 1 stays within int32, beyond which conversion has no result."""


@dataclass(frozen=True)
class FloatOperands:
    """What a kernel is given in place of bias, multiplier and shift.

    Attributes:
        form: FLOAT or FLOAT_SIGNED.
        added: int32 (O / lanes, 1 or 2, lanes): b, and z where it is not 0 everywhere.
        factor: float32 (O / lanes, 1 or 2, lanes): s, and t where there is one.
        offset: float32 (O,).
    """

    form: int
    added: np.ndarray
    factor: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class _Steps:
    """The thresholds of channels: int64 (O, steps), those that cannot be reached left out by `reached`."""

    results: np.ndarray
    """int64 (steps,): what it takes a threshold to reach, without the zero point."""
    sums: np.ndarray
    reached: np.ndarray
    ends: np.ndarray
    """int64 (O, 2): the least and the greatest biased sum."""
    at_ends: np.ndarray
    """Their results, as `results`."""

    def of(self, channels: np.ndarray) -> _Steps:
        """The same of some channels."""
        return _Steps(self.results, self.sums[channels], self.reached[channels], self.ends[channels], self.at_ends[channels])


def float_operands(
    weight: np.ndarray,
    bias: np.ndarray,
    folded: np.ndarray,
    multiplier: np.ndarray,
    shift: np.ndarray,
    attrs: Any,
    lanes: int,
) -> FloatOperands | None:
    """The operands of a layer; None where a channel has none that are exact.

    Args:
        weight: int8 (O, everything else).
        bias: int32 (O,).
        folded: The same with the zero point of the input and the shift to unsigned folded in.
        multiplier: int32 (O,).
        shift: int32 (O,).
        attrs: Of the operator, with `rounding`, `qmin`, `qmax` and `output_zero_point`.
        lanes: Of a register, a divisor of O.
    """
    rounding, zero = str(attrs.rounding), int(attrs.output_zero_point)
    least, most = int(attrs.qmin) - zero, int(attrs.qmax) - zero
    if rounding not in ("single", "double") or int(shift.max()) > 0 or len(bias) % lanes:
        return None
    signed = rounding == "double" and least < 0
    # x - zero point is at most 255 in magnitude.
    reach = 255 * np.abs(weight.astype(np.int64)).sum(1)
    ends = bias.astype(np.int64)[:, None] + reach[:, None] * np.array([-1, 1])
    if np.abs(ends).max() > _LARGEST:
        return None
    scale = multiplier * 2.0 ** (shift.astype(np.float64) - 31)
    # Some channels at a time, the finest steps first: of a layer that has none the first few say so.
    order = np.array_split(np.argsort(scale), -(-len(scale) // _TOGETHER))
    wide, right = multiplier.astype(np.int64), shift.astype(np.int64)

    @functools.cache
    def steps(index: int) -> _Steps:
        part = order[index]
        return _thresholds(ends[part], wide[part], right[part], rounding, least, most)

    for factors, moves in ((1, _MOVES[:1]), (1, _MOVES), (2, _MOVES)):
        form = _Form(signed, factors, least, most)
        found = _Found.nothing(factors, len(scale))
        for index, part in enumerate(order):
            here = _search(steps(index), scale[part], form, [-zero] if signed else moves, zero)
            if here is None:
                break
            found.put(part, here)
        else:
            b = (folded.astype(np.int64) + found.places).astype(np.int32)  # sums are modulo 2**32
            added = np.stack([b, found.rest]) if signed or found.rest.any() else b[None]
            kind = FLOAT_SIGNED if signed else FLOAT
            return FloatOperands(kind, _in_blocks(added, lanes), _in_blocks(found.factor, lanes), found.offset)
    return None


def _in_blocks(numbers: np.ndarray, lanes: int) -> np.ndarray:
    """(parts, O) as (O / lanes, parts, lanes)."""
    return np.ascontiguousarray(numbers.reshape(len(numbers), -1, lanes).transpose(1, 0, 2))


def _thresholds(ends: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, rounding: str, least: int, most: int) -> _Steps:
    def results(sums: np.ndarray) -> np.ndarray:
        return np.clip(multiply(sums, multiplier[:, None], shift[:, None], rounding), least, most)

    wanted = np.arange(least + 1, most + 1)
    low, high = (np.repeat(ends[:, place, None], len(wanted), 1) for place in (0, 1))
    at_ends = results(ends)
    # Bisection: below `low` a result is not reached, at `high` it is.
    reached = (at_ends[:, :1] < wanted) & (wanted <= at_ends[:, 1:])
    for _ in range(int(ends[:, 1].max() - ends[:, 0].min()).bit_length() + 1):
        middle = (low + high) >> 1
        above = results(middle) >= wanted
        high, low = np.where(above, middle, high), np.where(above, low, middle)
    return _Steps(wanted, high, reached, ends, at_ends)


@dataclass(frozen=True)
class _Form:
    """How results are computed.

    Attributes:
        signed: Whether the offset takes the sign of the sum.
        factors: 1 or 2.
        least: The least result, without the zero point.
        most: The greatest.
    """

    signed: bool
    factors: int
    least: int
    most: int

    def near(self, scale: np.ndarray, step: int) -> np.ndarray:
        """Factors that are tried: float32 (1 or 2, O)."""
        nearest = scale.astype(np.float32)
        if self.factors == 1:
            return (nearest + step * np.spacing(nearest)).astype(np.float32)[None]
        return np.stack([nearest, (scale * (1 + step * _FINE) - nearest).astype(np.float32)])


@dataclass(frozen=True)
class _Found:
    """Numbers of every channel: what b has beyond the bias, z, factors and offset."""

    places: np.ndarray
    rest: np.ndarray
    factor: np.ndarray
    offset: np.ndarray

    @staticmethod
    def nothing(factors: int, count: int) -> _Found:
        """Zeros for so many channels."""
        numbers, floats = np.zeros(count, np.int64), np.zeros((factors, count), np.float32)
        return _Found(numbers, numbers.astype(np.int32), floats, np.zeros(count, np.float32))

    def put(self, channels: np.ndarray, numbers: _Found) -> None:
        """Set the numbers of some channels."""
        self.places[channels], self.rest[channels] = numbers.places, numbers.rest
        self.factor[:, channels], self.offset[channels] = numbers.factor, numbers.offset


def _search(steps: _Steps, scale: np.ndarray, form: _Form, moves: Sequence[int], zero: int) -> _Found | None:
    found = _Found.nothing(form.factors, len(scale))
    if form.signed:
        found.rest[:] = zero
    # Of a channel without steps there is an offset alone, or z.
    constant = steps.at_ends[:, 0] == steps.at_ends[:, 1]
    (found.rest if form.signed else found.offset)[constant] = steps.at_ends[constant, 0] + zero
    left = np.flatnonzero(~constant)
    for move in moves:
        inside, part = zero + move, steps.of(left)
        added = np.rint(inside / scale[left]) if inside else np.zeros(len(left))
        fits = (np.abs(part.ends + added[:, None]) <= _CONVERTIBLE).all(1)
        added = np.where(fits, added, 0).astype(np.int64)
        for step in sorted(range(-_STEPS[form.factors], _STEPS[form.factors] + 1), key=abs):
            tried = form.near(scale[left], step)
            low, high = _interval(part, added, tried, form, inside)
            for share in _SHARES:
                chosen = np.where(low < high, low + share * (high - low), 0.0).astype(np.float32)
                good = fits & _is_exact(part, added, tried, chosen, form, inside)
                at, keep = left[good], ~good
                rest = np.full(len(at), zero - inside, np.int32)
                found.put(at, _Found(added[good], rest, tried[:, good], chosen[good]))
                left, tried, low, high, part = left[keep], tried[:, keep], low[keep], high[keep], part.of(keep)
                added, fits = added[keep], fits[keep]
            if not len(left):
                return found
    return None if len(left) else found


def _interval(
    steps: _Steps, added: np.ndarray, factor: np.ndarray, form: _Form, inside: int
) -> tuple[np.ndarray, np.ndarray]:
    """Between which offsets every threshold is met, were there no rounding; `inside` is the result of a sum of 0."""
    edge, slope = steps.results + inside - 0.5, factor.astype(np.float64).sum(0)[:, None]
    first, second = (edge - _converted(steps.sums - less + added[:, None]) * slope for less in (0, 1))
    # Where the offset is taken away the two bounds change places.
    positive = (steps.results > 0) | (not form.signed)
    lows, highs = np.where(positive, first, -second), np.where(positive, second, -first)
    low = np.where(steps.reached, lows, -0.5).max(1, initial=-0.5)
    return low, np.where(steps.reached, highs, 0.5).min(1, initial=0.5)


def _is_exact(
    steps: _Steps, added: np.ndarray, factor: np.ndarray, offset: np.ndarray, form: _Form, inside: int
) -> np.ndarray:
    """Whether channels have exactly the results wanted."""
    wide = factor.astype(np.float64)[:, :, None]

    def results(sums: np.ndarray, towards: int) -> np.ndarray:
        value = _converted(sums + added[:, None])
        total = np.copysign(offset[:, None], value).astype(np.float64) if form.signed else offset.astype(np.float64)[:, None]
        for part in wide[::-1]:
            # Products are exact in float64, sums nearly: what they may be off lets no step pass.
            total = value * part + total
            total = (total + towards * (np.abs(total) * 2.0**-50 + 2.0**-80)).astype(np.float32).astype(np.float64)
        return np.clip(np.rint(total).astype(np.int64) - inside, form.least, form.most)

    unreached = ~steps.reached
    met = (results(steps.sums, -1) >= steps.results) | unreached
    met &= (results(steps.sums - 1, 1) < steps.results) | unreached
    ends = (results(steps.ends, -1) == steps.at_ends) & (results(steps.ends, 1) == steps.at_ends)
    return np.asarray(met.all(1) & ends.all(1))


def _converted(sums: np.ndarray) -> np.ndarray:
    """As float32, in float64."""
    return sums.astype(np.float32).astype(np.float64)
