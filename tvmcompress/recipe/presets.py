"""Named ways of quantizing, as values of the table `[quantize]` of a recipe."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("int8, weights per channel, TFLite's rounding", {}),
    "tflite": (
        "what TFLite's converter does: asymmetric int8 activations over the whole range seen, double rounding",
        {"precision": "int8", "observer": "minmax", "weights": "per_channel", "rounding": "double"},
    ),
    "accurate": (
        "int8, ranges of least squared error; rounding with the errors made good, mean errors corrected",
        {"precision": "int8", "observer": "mse", "repair": ["gptq", "bias"]},
    ),
    "small": (
        "int4 weights in groups of 32 input channels, rounded with the errors made good, mean errors corrected",
        {"precision": "int4", "group_size": 32, "observer": "mse", "repair": ["gptq", "bias"]},
    ),
    "x86": (
        "7-bit weights, multiplied as bytes on x86 without VNNI, and one rounding",
        {"weight_bits": 7, "rounding": "single"},
    ),
    "shift": ("scales that are powers of two: rescaling is a shift", {"power_of_two": True}),
    "int16x8": ("int16 activations, int8 weights", {"precision": "int16x8"}),
    "transformer": (
        "outliers behind normalizations moved into weights, ranges that leave out the rarest values",
        {"observer": "percentile", "repair": ["smooth"]},
    ),
    "float16": ("weights stored as float16, computation in float32", {"precision": "float16"}),
}
"""For each name what it is for, and its values."""


def preset_values(name: str) -> dict[str, Any]:
    """The values of a preset.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset '{name}'; choose one of {', '.join(PRESETS)}")
    return dict(PRESETS[name][1])
