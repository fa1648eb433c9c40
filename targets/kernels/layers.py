"""Reading an integer layer: its constants, and the sizes of a convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...passes._tvm import Constant, relax
from ...passes.graph.module_params import static_shape
from .band import Band


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

    def band_of(self, rows: int, slack: int = 0) -> Band:
        """The band of input rows for `rows` output rows."""
        return Band(
            height=self.height,
            width=self.width,
            channels=self.channels,
            top=self.top,
            left=self.left,
            columns=(self.out_width - 1) * self.strides[1] + self.kernel[1],
            rows=(rows - 1) * self.strides[0] + self.kernel[0],
            step=rows * self.strides[0],
            slack=slack,
            zero_point=self.input_zero_point,
        )


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


def row_sizes(count: int, inputs: int, outputs: int, zero_point: int = 0) -> dict[str, Any]:
    """The fields of a `ConvolutionShape`, of a fully connected layer over `count` tokens: the pointwise one of a row."""
    sizes = {"height": 1, "width": count, "channels": inputs, "out_height": 1, "out_width": count, "out_channels": outputs}
    return {**sizes, "kernel": (1, 1), "strides": (1, 1), "top": 0, "left": 0, "input_zero_point": zero_point}


def is_plain(call: relax.Call) -> bool:
    """Whether a convolution has neither groups nor dilation."""
    return int(getattr(call.attrs, "groups", 1)) == 1 and [int(d) for d in call.attrs.dilation] == [1, 1]


def averaged_pixels(call: relax.Call) -> int | None:
    """How many pixels a `qavgpool` averages that covers the whole image; None for any other."""
    _, height, width, _ = static_shape(call.args[0])
    whole = [int(p) for p in call.attrs.pool_size] == [height, width] and not any(int(p) for p in call.attrs.padding)
    return height * width if whole else None


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


def checked_bias(call: relax.Call, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """`folded_bias`, where every sum stays within 32 bits for every input.

    Raises:
        NotRepresentable: One may not.
    """
    folded = folded_bias(call, weight, bias)
    if (np.abs(folded.astype(np.int64)) + 128 * np.abs(weight.astype(np.int64)).sum(1)).max(initial=0) >= 1 << 31:
        raise NotRepresentable("a sum that leaves 32 bits")
    return folded
