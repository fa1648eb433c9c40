"""The tables of a recipe that say how a model is quantized.

[quantize]
preset = "x86"
observer = "mse"

[quantize.layers."features.0*"]
precision = "int16x8"
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import Field, model_validator

from ..passes.numbers.schemes import Precision
from ..passes.repair.repairs import REPAIRS
from .presets import PRESETS
from .table import Table

WeightBits = Literal[7, 8]
ActivationBits = Literal[2, 3, 4, 5, 6, 7, 8]


class LayerRecipe(Table):
    """What is done otherwise in some layers.

    Attributes:
        observer: How the ranges of their results are found; None as everywhere.
        observer_options: Its options.
        weights: One scale for each output channel, or one for each tensor; None as everywhere.
        precision: In which numbers they compute; "float32" leaves them as they are; None as everywhere.
        weight_bits: 7 or 8; None as everywhere.
        activation_bits: 2 to 8; None as everywhere. Given 8, first and last layers have int4 weights, too.
        group_size: Input channels that share a multiplier of int4 weights; None as everywhere.
    """

    observer: str | None = None
    observer_options: dict[str, float] = Field(default={})
    weights: Literal["per_channel", "per_tensor"] | None = None
    precision: Precision | None = None
    weight_bits: WeightBits | None = None
    activation_bits: ActivationBits | None = None
    group_size: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _says_something(self) -> LayerRecipe:
        if all(value is None for name, value in self if name != "observer_options"):
            raise ValueError("it needs an observer, weights, a precision, bits or a group size")
        return self


class QuantizeRecipe(Table):
    """Static post-training quantization.

    Attributes:
        preset: A set of values by name, see `presets`; what is said beside it counts before it.
        precision: In which numbers layers compute: int8 or uint8 activations with int8 weights, int16x8 (int16 activations),
            int4 (int4 weights, int8 activations), float16 (weights stored as float16, nothing else quantized), float32.
        weight_bits: 8, or 7 for smaller products, which x86 multiplies faster.
        activation_bits: 8; 7 for ranges that leave room for values beyond them; 2 to 6 for activations clipped to so many
            bits where layers multiply them. What is only added or joined has 8, and so have the first and the last layers,
            whose weights are then int8 where those of others are int4.
        group_size: Input channels that share a multiplier of int4 weights; 0 for one group.
        observer: How the range of an activation is found; by default with the least squared error for 256 integers, for
            int16x8 by the smallest and largest value.
        observer_options: Its options, for instance the percentage that stays inside: {percentile = 99.9}.
        weights: One scale for each output channel, or one for each tensor.
        rounding: Requantization as TFLite rounds it ("double"), or with one rounding ("single"), which is faster.
        power_of_two: Whether all scales are powers of two.
        symmetric: Whether activations have the zero point 0 (uint8: 128).
        repair: What is repaired from the calibration data: "equalize" (ranges of channels across layers) and "smooth"
            (outliers behind normalizations) before ranges are found; then "bias" (mean errors), "gptq" (rounding with the
            errors made good), "adaround" (rounding learned) and "brecq" (rounding and steps of activations learned block by
            block, through PyTorch), in the order given. Empty for nothing; None for what has measurably helped: "gptq" where
            layers have int4 weights, "bias" where a weight has one scale; a search for precisions repairs only what is asked
            for, in each of its many trials.
        repair_options: Options of repairs, by name: those of their passes.
        exclude: Patterns of layers that stay in float.
        layers: What is done otherwise, by patterns of layers; the first that fits counts.
        max_drop: Choose the precision of layers so that the accuracy (without labels the agreement with the original)
            falls by at most so many points; see `mixed_precision`.
        min_snr: Choose it so that the signal-to-noise ratio of the output is at least so many dB.
    """

    preset: str | None = None
    precision: Precision = "int8"
    weight_bits: WeightBits = 8
    activation_bits: ActivationBits = 8
    group_size: int = Field(default=0, ge=0)
    observer: str = "mse"
    observer_options: dict[str, float] = Field(default={})
    weights: Literal["per_channel", "per_tensor"] = "per_channel"
    rounding: Literal["double", "single"] = "double"
    power_of_two: bool = False
    symmetric: bool = False
    repair: tuple[str, ...] | None = None
    repair_options: dict[str, dict[str, bool | int | float]] = Field(default={})
    exclude: tuple[str, ...] = ()
    layers: dict[str, LayerRecipe] = Field(default={})
    max_drop: float | None = Field(default=None, ge=0, lt=100)
    min_snr: float | None = None

    @model_validator(mode="after")
    def _known_names(self) -> QuantizeRecipe:
        for name in (*(self.repair or ()), *self.repair_options):
            REPAIRS[name]
        return self

    @model_validator(mode="after")
    def _groups_of_int4(self) -> QuantizeRecipe:
        if self.searches:  # which may choose int4
            return self
        grouped = [scheme for scheme in self.schemes().values() if scheme["group_size"]]
        if grouped and not any(scheme["precision"] == "int4" for scheme in grouped):
            raise ValueError(f"group_size is of int4 weights and says nothing with {grouped[-1]['precision']}")
        return self

    @model_validator(mode="after")
    def _bits_of_activations(self) -> QuantizeRecipe:
        few = [scheme["precision"] for scheme in self.schemes().values() if scheme["activation_bits"] < 7]
        if few and not self.searches and not {"int8", "uint8", "int4"}.intersection(few):
            raise ValueError(f"activation_bits is of int8, uint8 and int4 and says nothing with {few[-1]}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        name = values.get("preset")
        given = {key: value for key, value in values.items() if value is not None}
        found = {**PRESETS[name].values, **given} if isinstance(name, str) else dict(values)
        if found.get("precision") != "int4" and "group_size" not in given:
            # The preset's groups were of the weights that it would have had.
            found.pop("group_size", None)
        # With 65536 integers nothing is won by clipping.
        return {"observer": "minmax", **found} if found.get("precision") == "int16x8" else found

    @property
    def searches(self) -> bool:
        """Whether the precision of layers is to be chosen under a limit."""
        return self.max_drop is not None or self.min_snr is not None

    @property
    def repairs(self) -> tuple[str, ...]:
        """What is repaired, in order."""
        if self.repair is not None:
            return self.repair
        if self.searches:
            return ()
        if any(scheme["precision"] == "int4" for scheme in self.schemes().values()):
            return ("gptq",)
        return ("bias",) if self.weights == "per_tensor" else ()

    def schemes(self) -> dict[str, dict[str, Any]]:
        """The arguments of `passes.Scheme` by patterns of layers, in the order in which they count."""
        fields = ("precision", "weight_bits", "activation_bits", "group_size")
        common = {name: getattr(self, name) for name in fields}
        special = {
            pattern: {**common, **{name: value for name in fields if (value := getattr(layer, name)) is not None}}
            for pattern, layer in self.layers.items()
        }
        return {**special, "*": common}

    def precision_of(self, layer: str) -> Precision:
        """In which numbers the layer of a name computes."""
        if any(fnmatchcase(layer, pattern) for pattern in self.exclude):
            return "float32"
        found: Precision = next(s["precision"] for pattern, s in self.schemes().items() if fnmatchcase(layer, pattern))
        return found

    @property
    def needs_ranges(self) -> bool:
        """Whether any layer computes with integers, so that samples are needed."""
        return any(scheme["precision"] not in ("float16", "float32") for scheme in self.schemes().values())
