"""Weights as the inner loops read them: pairs of halfwords, for two output channels at a time.

The activations of four consecutive k are unpacked by SXTB16 into two words, (k0, k2) and (k1, k3), so weights come in the
same order. Two forms:

*Byte planes* keep one byte a weight: a halfword holds 256 * wA + wB for the channels A and B. Accumulating whole words
gives 256 * sumA + sumB; SXTB16 of the same words gives wB alone and so sumB; sumA = (raw - sumB) >> 8. This is exact while
256 * wA + wB fits a halfword and |sumA| < 2**23, bias included, which is proven from the weights here.

*Wide* weights are halfwords already: no unpacking in the loop, twice the flash.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from ...kernels.vectors import i32
from .words import qsub

_ORDER = [0, 2, 1, 3]


def first_plane(raw: tirx.PrimExpr, low: tirx.PrimExpr, gain: int) -> tirx.PrimExpr:
    """`gain` times the first channel's sum, from that of whole words and the second channel's."""
    return qsub(raw, low) >> i32(8 if gain == 1 else 7)


def second_plane(low: tirx.PrimExpr, gain: int) -> tirx.PrimExpr:
    """`gain` times the second channel's sum."""
    return low if gain == 1 else low << i32(1)


def planes_are_exact(weights: np.ndarray, bias: np.ndarray | None = None) -> bool:
    """Whether byte planes represent `weights` (O, K) int8 without error for every int8 input.

    Args:
        weights: The weights.
        bias: (O,) int32 that sums start from; none means 0.
    """
    w = weights.astype(np.int64)
    start = np.zeros(len(w), np.int64) if bias is None else bias.astype(np.int64)
    if w.shape[0] % 2:
        w, start = np.concatenate([w, np.zeros_like(w[:1])]), np.append(start, 0)
    halfwords = 256 * w[0::2] + w[1::2]
    # SXTB16 of the low byte recovers wB; the raw word is 256 * (wA + carry) + wB in two's complement by construction.
    if halfwords.size and (halfwords.min() < -(1 << 15) or halfwords.max() >= 1 << 15):
        return False
    highest = start + np.maximum(127 * w, -128 * w).sum(1)
    lowest = start + np.minimum(127 * w, -128 * w).sum(1)
    greatest = np.maximum(highest, -lowest)
    return bool(greatest.size == 0 or greatest.max() < 1 << 23)


def byte_planes(weights: np.ndarray) -> np.ndarray:
    """Pack (O, K) int8, K a multiple of 4, into (ceil(O / 2), K / 4, 2) int32."""
    w = _even(weights).astype(np.int32)
    halfwords = (256 * w[0::2] + w[1::2]).astype(np.int16)
    grouped = halfwords.reshape(len(halfwords), -1, 4)[..., _ORDER]
    return np.ascontiguousarray(grouped).view(np.int32)


def int16_words(weights: np.ndarray, gain: int) -> np.ndarray:
    """Pack `gain` times (O, K) int8, K a multiple of 4, into (ceil(O / 2), K / 4, 2 channels, 2) int32."""
    w = _even(weights).astype(np.int16) * np.int16(gain)
    grouped = w.reshape(len(w) // 2, 2, -1, 4).transpose(0, 2, 1, 3)[..., _ORDER]
    return np.ascontiguousarray(grouped).view(np.int32)


def _even(weights: np.ndarray) -> np.ndarray:
    return np.concatenate([weights, np.zeros_like(weights[:1])]) if len(weights) % 2 else weights


def pair_parameters(bias: np.ndarray, parameters: np.ndarray, form: str, gain: int) -> np.ndarray:
    """Per pair of channels: [start A, start B, p0 A, p0 B, p1 A, p1 B, ...].

    Args:
        bias: (O,) int32.
        parameters: (words, O) int32 of the epilogue.
        form: "planes" for a first sum of whole words, 256 A + B; "late" for planes where the bias of A joins at the end;
            "wide" for sums apart.
        gain: As of `Epilogue.gain`. Byte planes apply it when they are taken apart, so only what joins later has it.

    Returns:
        (ceil(O / 2), 2 + 2 * words) int32.
    """
    rows = np.concatenate([bias.astype(np.int32)[None], parameters.astype(np.int32)])
    if rows.shape[1] % 2:
        rows = np.concatenate([rows, np.zeros_like(rows[:, :1])], axis=1)
    pairs = np.ascontiguousarray(rows.reshape(len(rows), -1, 2).transpose(1, 0, 2).reshape(rows.shape[1] // 2, -1))
    if form == "planes":
        pairs[:, 0] = 256 * pairs[:, 0] + pairs[:, 1]
    else:
        pairs[:, : 2 if form == "wide" else 1] *= gain
    return pairs
