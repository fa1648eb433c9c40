"""Padding, strides and activations as TFLite's options give them, for every dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...passes.integer.requantize import quantize_multiplier
from .file import TfliteOperator, TfliteTensor
from .importer import Importer

# Limits of the fused activations, by their number in the format.
_ACTIVATIONS = {0: (None, None), 1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
_UNSUPPORTED = {4: "TANH", 5: "SIGN_BIT"}


def activation_limits(importer: Importer, operator: TfliteOperator) -> tuple[float | None, float | None]:
    """The limits that the fused activation of an operator puts on its result.

    Raises:
        UnsupportedOperatorError: The activation is no clip.
    """
    number = int(operator.option("FusedActivationFunction", 0))
    if number not in _ACTIVATIONS:
        raise importer.refuse(operator, f"its fused activation is {_UNSUPPORTED.get(number, number)}")
    return _ACTIVATIONS[number]


def clip(importer: Importer, operator: TfliteOperator) -> dict[str, Any]:
    """The limits of a fused activation in the output's integers (`CalculateActivationRangeQuantized`)."""
    low, high = activation_limits(importer, operator)
    return clip_to(operator.output, low, high)


def clip_to(output: TfliteTensor, low: float | None, high: float | None) -> dict[str, Any]:
    """Real limits in a tensor's integers."""
    smallest, largest = output.limits

    def quantized(limit: float) -> int:
        # std::round: halves away from zero.
        value = np.float32(limit) / np.float32(output.scale)
        return output.zero_point + int(np.floor(np.abs(value) + 0.5) * np.sign(value))

    return {
        "qmin": smallest if low is None else max(smallest, quantized(low)),
        "qmax": largest if high is None else min(largest, quantized(high)),
    }


def one_factor(factor: float) -> dict[str, Any]:
    """A real factor as the integer operators take it."""
    return dict(zip(("multiplier", "shift"), quantize_multiplier(factor)))


def rescaling(x: TfliteTensor, out: TfliteTensor, factor: float, limits: Mapping[str, int] | None = None) -> dict[str, Any]:
    """How a tensor gets onto the result's scale: a `ScalarRequantization`, and the tensor's zero point."""
    ends = dict(zip(("qmin", "qmax"), out.limits)) if limits is None else limits
    zero_points = {"input_zero_point": x.zero_point, "output_zero_point": out.zero_point}
    return {**zero_points, "out_dtype": out.dtype, **one_factor(factor), **ends}


def padding(
    operator: TfliteOperator,
    size: Sequence[int],
    out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int] | None = None,
) -> tuple[list[int], list[int]]:
    """Padding in front and behind, axis by axis."""
    if operator.option("Padding", 0) != 0:
        return [0] * len(size), [0] * len(size)
    gaps = dilation or [1] * len(size)
    totals = [max((o - 1) * s + (k - 1) * d + 1 - n, 0) for n, o, k, s, d in zip(size, out, kernel, strides, gaps)]
    return [total // 2 for total in totals], [total - total // 2 for total in totals]
