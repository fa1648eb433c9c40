"""Integer arithmetic that rounds as LiteRT's reference kernel of fully connected layers does it in double precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...passes.integer.requantize import INT32_MAX, quantize_multiplier

# Products of a sum and a multiplier, with what rounds them, stay below 2**63.
_PRODUCT_BITS = 62


def exact_multipliers(
    factors: Sequence[float], sums: tuple[np.ndarray, np.ndarray], results: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers that under single rounding give round(sum * factor), computed in double precision, for every sum.

    The rounded product steps up by one at certain sums. A multiplier is right when it steps at the same ones, which are
    linear bounds on it; the nearest to the factor within these bounds is taken. In 8 bits there nearly always is one; where
    there is none, the nearest to the factor may round sums next to a tie the other way.

    Args:
        factors: Of every channel, double precision.
        sums: The smallest and the largest sum of every channel, int64.
        results: The smallest and the largest result that is not clipped, without its zero point.

    Returns:
        (multipliers, shifts), int32, as `quantize_multipliers`.
    """
    pairs = [_exact(float(factor), int(low), int(high), results) for factor, low, high in zip(factors, *sums, strict=True)]
    return np.array([q for q, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int32)


def _exact(factor: float, low: int, high: int, results: tuple[int, int]) -> tuple[int, int]:
    multiplier, shift = quantize_multiplier(factor)
    spare = max(max(-low, high, 1).bit_length() + 31 - _PRODUCT_BITS, 0)
    multiplier, shift = max((multiplier + (1 << spare >> 1)) >> spare, 0), shift + spare
    if multiplier == 0:
        return 0, 0
    first, last = (int(_rounded(np.array(bound * factor))) for bound in (low, high))
    steps = np.arange(max(first, results[0]) + 1, min(last, results[1]) + 1, dtype=np.int64)
    if not steps.size:
        return multiplier, shift
    at = _first_sums(steps, factor)
    # The rounded product of a sum s is at least k where s * multiplier >= (2 * k - 1) * 2**(30 - shift).
    bound = (2 * steps - 1) << (30 - shift)
    least = np.concatenate([-(-bound[at > 0] // at[at > 0]), bound[at <= 0] // (at[at <= 0] - 1) + 1])
    before = at[at > 1] - 1
    most = np.concatenate([-(-bound[at > 1] // before) - 1, bound[at < 0] // at[at < 0], [INT32_MAX]])
    lowest, highest = int(least.max(initial=0)), int(most.min())
    return (min(max(multiplier, lowest), highest) if lowest <= highest else multiplier), shift


def _first_sums(steps: np.ndarray, factor: float) -> np.ndarray:
    """The smallest sum whose rounded product is at least each of `steps`."""
    found = np.ceil((steps - 0.5) / factor).astype(np.int64)
    for _ in range(2):
        found -= _rounded((found - 1) * factor) >= steps
    for _ in range(2):
        found += _rounded(found * factor) < steps
    return found


def _rounded(x: np.ndarray) -> np.ndarray:
    """Half away from zero, without an error of its own."""
    whole = np.trunc(x)
    return whole + np.where(np.abs(x - whole) >= 0.5, np.sign(x), 0.0)
