"""Named ways of quantizing, as values of the table `[quantize]` of a recipe."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..passes.plugins.registry import Registry


class Preset(NamedTuple):
    """A way of quantizing.

    Attributes:
        purpose: What it is for.
        values: Of the table `[quantize]`.
    """

    purpose: str
    values: dict[str, Any]


PRESETS: Registry[Preset] = Registry("preset")
PRESETS["default"] = Preset("int8, weights per channel, TFLite's rounding", {})
PRESETS["tflite"] = Preset(
    "what TFLite's converter does: asymmetric int8 activations over the whole range seen, double rounding",
    {"precision": "int8", "observer": "minmax", "weights": "per_channel", "rounding": "double"},
)
PRESETS["accurate"] = Preset(
    "int8, ranges of least squared error; rounding with the errors made good, mean errors corrected",
    {"precision": "int8", "observer": "mse", "repair": ["gptq", "bias"]},
)
PRESETS["small"] = Preset(
    "int4 weights in groups of 32 input channels, rounded with the errors made good, mean errors corrected",
    {"precision": "int4", "group_size": 32, "observer": "mse", "repair": ["gptq", "bias"]},
)
PRESETS["x86"] = Preset(
    "7-bit weights, multiplied as bytes on x86 without VNNI, and one rounding",
    {"weight_bits": 7, "rounding": "single"},
)
PRESETS["shift"] = Preset("scales that are powers of two: rescaling is a shift", {"power_of_two": True})
PRESETS["int16x8"] = Preset("int16 activations, int8 weights", {"precision": "int16x8"})
PRESETS["transformer"] = Preset(
    "outliers behind normalizations moved into weights, ranges that leave out the rarest values",
    {"observer": "percentile", "repair": ["smooth"]},
)
PRESETS["float16"] = Preset("weights stored as float16, computation in float32", {"precision": "float16"})
