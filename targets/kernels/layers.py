"""Reading an integer layer: its constants, and the sizes of a convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...passes._tvm import Constant, relax
from ...passes.graph.module_params import static_shape


class NotRepresentable(ValueError):
    """A multiplier or a bound that the fast arithmetic cannot express; the generic kernel can."""


@dataclass(frozen=True)
class ConvolutionShape:
    """The shape of a convolution, NHWC with batch 1, no groups.

    Attributes:
        height, width, channels: Of the input.
        out_height, out_width, out_channels: Of the output.
        kernel, strides: (vertical, horizontal).
        top, left: Padding before; what lies behind follows from the sizes.
        input_zero_point: What padding holds.
    """

    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    out_channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    top: int
    left: int
    input_zero_point: int


def convolution_sizes(call: relax.Call) -> dict[str, Any]:
    """The fields of a `ConvolutionShape`, of a `qconv2d` without groups."""
    outputs, *kernel, _ = static_shape(call.args[1])
    return _sizes(call, outputs, (kernel[0], kernel[1]))


def depthwise_sizes(call: relax.Call) -> dict[str, Any]:
    """The fields of a `ConvolutionShape`, of a `qdepthwise`."""
    _, *kernel, outputs = static_shape(call.args[1])
    return _sizes(call, outputs, (kernel[0], kernel[1]))


def _sizes(call: relax.Call, outputs: int, kernel: tuple[int, int]) -> dict[str, Any]:
    attrs = call.attrs
    _, height, width, channels = static_shape(call.args[0])
    _, out_height, out_width, _ = static_shape(call)
    return {
        "height": height,
        "width": width,
        "channels": channels,
        "out_height": out_height,
        "out_width": out_width,
        "out_channels": outputs,
        "kernel": kernel,
        "strides": tuple(int(s) for s in attrs.strides),
        "top": int(attrs.padding[0]),
        "left": int(attrs.padding[1]),
        "input_zero_point": int(attrs.input_zero_point),
    }


def constant_values(call: relax.Call) -> list[np.ndarray] | None:
    """Weights, bias, multipliers and shifts of a layer; None where one of them is computed."""
    values = [arg.value.numpy() for arg in call.args[1:] if isinstance(arg, Constant)]
    return values if len(values) == len(call.args) - 1 else None


def folded_bias(call: relax.Call, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The bias with the input's zero point taken out of the sum over (O, K) weights."""
    folded = bias.astype(np.int64) - int(call.attrs.input_zero_point) * weight.astype(np.int64).sum(1)
    if np.abs(folded).max(initial=0) >= 1 << 31:
        raise NotRepresentable("a bias that leaves 32 bits")
    return folded.astype(np.int32)
