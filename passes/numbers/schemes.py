"""Numerical schemes: in which numbers a layer computes.

| precision | weights | activations |
|---|---|---|
| int8 | int8, one scale a channel or a tensor | int8 with a zero point |
| uint8 | int8 | uint8 with a zero point |
| int16x8 | int8 | int16 without a zero point (TensorFlow Lite's 16x8) |
| int4 | int4, a multiplier for each group of input channels | int8 with a zero point |
| float16 | stored as float16 | float32 |
| float32 | float32 | float32 |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from ..errors import UserError

Precision = Literal["int8", "uint8", "int16x8", "int4", "float16", "float32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

_ACTIVATIONS = {"int8": "int8", "uint8": "uint8", "int16x8": "int16", "int4": "int8"}


@dataclass(frozen=True)
class Scheme:
    """In which numbers a layer computes.

    Attributes:
        precision: One of `PRECISIONS`.
        weight_bits: 8, or 7 for weights in [-63, 63]: the sum of two products with 8-bit activations then fits 16 bits,
            which x86's vpmaddubsw needs. Of int8, uint8 and int16x8.
        activation_bits: 8; 7 for activations spread over half of the integers, which leaves room for values beyond the
            range seen; 2 to 6 for activations that are clipped to so many bits where layers multiply them, the first and
            the last excepted. Of int8, uint8 and int4.
        group_size: Input channels that share a multiplier of int4 weights; 0 for one group.

    Raises:
        UserError: A value is out of range.
    """

    precision: Precision = "int8"
    weight_bits: int = 8
    activation_bits: int = 8
    group_size: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(f"a precision is one of {', '.join(PRECISIONS)}, not '{self.precision}'")
        if self.weight_bits not in (7, 8):
            raise UserError(f"weight_bits is 7 or 8, not {self.weight_bits}")
        if self.activation_bits not in range(2, 9):
            raise UserError(f"activation_bits is 2 to 8, not {self.activation_bits}")
        if self.group_size < 0:
            raise UserError(f"group_size is a number of input channels, or 0 for one group; not {self.group_size}")

    @property
    def quantized(self) -> bool:
        """Whether the layer computes with integers."""
        return self.precision in _ACTIVATIONS

    @property
    def activations(self) -> str:
        """The dtype of the layer's input and result."""
        return _ACTIVATIONS.get(self.precision, "float32")

    @property
    def clipped_bits(self) -> int | None:
        """The bits that activations are clipped to; None where they have all of their dtype's integers."""
        return self.activation_bits if self.activation_bits < 7 and self.activations in ("int8", "uint8") else None

    @property
    def weight_limits(self) -> tuple[int, int]:
        """The smallest and the largest integer of a weight."""
        if self.precision == "int4":
            return -8, 7
        largest = 2 ** (self.weight_bits - 1) - 1
        return -largest, largest


class Schemes:
    """The scheme of every layer, by patterns of names.

    Args:
        patterns: Scheme or precision by pattern (as of `fnmatch`); the first that fits counts, and int8 where none does.
        exclude: Patterns of layers that stay in float, before all others.

    Raises:
        UserError: A precision is unknown.
    """

    def __init__(self, patterns: Mapping[str, Scheme | Precision], exclude: tuple[str, ...] = ()) -> None:
        self._patterns: dict[str, Scheme] = {pattern: Scheme("float32") for pattern in exclude}
        for pattern, given in patterns.items():
            self._patterns.setdefault(pattern, given if isinstance(given, Scheme) else Scheme(given))
        self._default = Scheme()

    def __getitem__(self, name: str) -> Scheme:
        """The scheme of the layer of a name."""
        return next((found for pattern, found in self._patterns.items() if fnmatchcase(name, pattern)), self._default)

    def stays_float(self, name: str) -> bool:
        """Whether the layer of a name computes in float."""
        return not self[name].quantized
