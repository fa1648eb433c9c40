"""The options that make up a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.models import OptionInfo

from ..completion import layers

if TYPE_CHECKING:
    from ...recipe.recipe import Recipe


class Setting(OptionInfo):
    """An option that sets a field of a recipe's table: that of its own name, unless told another."""

    def __init__(self, table: str, panel: str, *flags: str, field: str = "", **options: Any) -> None:
        super().__init__(default=..., param_decls=flags or None, rich_help_panel=panel, **options)
        self.table, self.field = table, field


_pruning, _training, _quantization = (
    partial(Setting, table, panel)
    for table, panel in (("prune", "Pruning"), ("finetune", "Fine-tuning"), ("quantize", "Quantization"))
)

_gate = partial(Setting, "gate", "Data")

_PLUGINS = entry_points()


def _installed(group: str) -> str:
    """The end of a help: names that other packages bring, read without importing them."""
    names = sorted(point.name for point in _PLUGINS.select(group=f"tvmcompress.{group}"))
    return f"; of other packages: {', '.join(names)}." if names else "."


@dataclass(frozen=True)
class RecipeOptions:
    """What is to be done with a model; what is None or empty was not given."""

    recipe_file: Annotated[
        Path | None, typer.Option("--recipe", help="A TOML file that says all this; options replace its entries.")
    ] = None
    calib_samples: Annotated[
        int | None, typer.Option(min=1, help="Use at most so many of them (512 by default).", rich_help_panel="Data")
    ] = None
    prune: Annotated[float | None, _pruning(help="Remove this fraction of the channels.", metavar="RATIO", field="ratio")] = (
        None
    )
    target_macs: Annotated[float | None, _pruning(help="Prune until so much of the MACs is left.", metavar="FRACTION")] = None
    target_params: Annotated[
        float | None, _pruning(help="Prune until so much of the parameters is left.", metavar="FRACTION")
    ] = None
    max_flash: Annotated[
        str | None,
        _pruning(help="Prune until code and constants fit, on the Cortex-M among the targets (64K, 1M).", metavar="SIZE"),
    ] = None
    max_ram: Annotated[str | None, _pruning(help="Prune until activations fit (16K).", metavar="SIZE")] = None
    prune_blocks: Annotated[
        int | None, _pruning(help="First remove up to N residual blocks or layers.", min=0, metavar="N", field="blocks")
    ] = None
    prune_heads: Annotated[
        float | None, _pruning(help="First remove this fraction of the heads.", metavar="RATIO", field="heads")
    ] = None
    sparsify: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="Pruning",
            help="Zero a fraction of the weights, all but N of M, or those below a magnitude ('<0.01').",
            metavar="FRACTION|N:M|<MAGNITUDE",
        ),
    ] = None
    scope: Annotated[
        str | None,
        _pruning(help="The fraction leaves every layer (local), all together (global), or all built alike (isomorphic)."),
    ] = None
    importance: Annotated[
        str | None,
        _pruning(
            help="What channels are ranked by: output_energy (the default with --calib), l2 (without), l1, reconstruction, "
            "activation, apoz, fpgm, linf, bn_scale, random, repaired (measured), taylor and fisher (these need PyTorch)"
            + _installed("criteria")
        ),
    ] = None
    selection: Annotated[
        str | None,
        _pruning(
            help="remove what matters least, fold it into what is like it, or best: what costs each layer less.",
            show_default="remove",
        ),
    ] = None
    sensitivity: Annotated[
        Path | None, _pruning(help="A sensitivity.json: compare layers by what `tvmcompress sensitivity` measured.")
    ] = None
    round_to: Annotated[
        int | None, _pruning(help="Keep multiples of this many channels (by default what suits the targets).", min=1)
    ] = None
    min_channels: Annotated[int | None, _pruning(help="Keep at least this many channels.", min=1)] = None
    rounds: Annotated[
        int | None,
        _pruning(help="Reach a budget in so many steps, ranking anew after each (1 by default, 2 with --no-repair).", min=1),
    ] = None
    exclude: Annotated[
        list[str] | None,
        _pruning(help="Layers whose outputs stay as they are (repeatable).", metavar="PATTERN", autocompletion=layers),
    ] = None
    ratio: Annotated[
        list[str] | None,
        _pruning(
            help="Another fraction for the layers of this pattern, 0 for none (repeatable).",
            metavar="PATTERN=RATIO",
            field="ratios",
        ),
    ] = None
    threshold: Annotated[float | None, _pruning(help="Remove the channels that score below this.", metavar="SCORE")] = None
    repair: Annotated[
        bool | None, _pruning(help="Repair the weights left, from --calib.", show_default="repair", field="reconstruct")
    ] = None
    repair_blocks: Annotated[
        bool | None,
        _pruning(
            help="Repair whole blocks of layers together: closer, and three to ten times as long.",
            show_default="no-repair-blocks",
            field="solve_blocks",
        ),
    ] = None
    repair_distill: Annotated[
        bool | None,
        _pruning(
            help="Then train what is left to do what the original does, on --calib alone (needs PyTorch; minutes).",
            show_default="no-repair-distill",
            field="distill",
        ),
    ] = None
    finetune: Annotated[
        int | None, _training(help="Train what is left (needs PyTorch).", min=1, metavar="EPOCHS", field="epochs")
    ] = None
    qat: Annotated[
        int | None,
        Setting(
            "qat", "Fine-tuning", help="Train on under quantization (needs PyTorch).", min=1, metavar="EPOCHS", field="epochs"
        ),
    ] = None
    distill: Annotated[
        bool | None, _training(help="Learn from the original, too (without labels, from it alone).", show_default="no-distill")
    ] = None
    optimizer: Annotated[str | None, _training(help="adamw, sgd or muon.", show_default="adamw")] = None
    learning_rate: Annotated[
        float | None,
        _training(help="The largest; of adamw relative to the size of the weights (by default found).", metavar="RATE"),
    ] = None
    augment: Annotated[list[str] | None, _training(help="Change images at random: flip, crop, scale (repeatable).")] = None
    mixed_precision: Annotated[
        bool | None,
        _training(
            help="Compute in bfloat16 while training; faster on processors that have instructions for it.",
            show_default="no-mixed-precision",
        ),
    ] = None
    quantize: Annotated[
        str | None,
        _quantization(
            help="Quantize to int8, uint8, int16x8 (int16 activations), int4 (weights) or float16 (weights).",
            metavar="TYPE",
            field="precision",
        ),
    ] = None
    preset: Annotated[str | None, _quantization(help="Quantize as `tvmcompress presets` lists it.", metavar="NAME")] = None
    weight_bits: Annotated[int | None, _quantization(help="Bits of int8 weights.", metavar="7|8")] = None
    activation_bits: Annotated[
        int | None,
        _quantization(
            help="Bits that the range of an activation is spread over; below 7, what layers multiply is clipped to them.",
            metavar="2..8",
        ),
    ] = None
    group_size: Annotated[
        int | None, _quantization(help="Input channels that share a multiplier of int4 weights (0: all).", min=0, metavar="N")
    ] = None
    observer: Annotated[
        str | None,
        _quantization(
            help="How ranges are found: mse (the default), minmax, moving_average, percentile, entropy"
            + _installed("observers")
        ),
    ] = None
    weights: Annotated[str | None, _quantization(help="One scale per_channel or per_tensor.")] = None
    keep_float: Annotated[
        list[str] | None,
        _quantization(
            help="Layers that stay in float (repeatable).", metavar="PATTERN", field="exclude", autocompletion=layers
        ),
    ] = None
    rounding: Annotated[str | None, _quantization(help="double: as TFLite rounds; single: faster.")] = None
    quant_repair: Annotated[
        list[str] | None,
        _quantization(
            help="Repair from --calib: equalize (channel ranges across layers), smooth (outliers behind "
            "normalizations), bias (mean errors), gptq (rounding, errors "
            "made good), adaround (rounding, learned; slow), brecq (rounding and activations' steps, by blocks; "
            "slow, needs PyTorch), none (repeatable, in order; by default gptq for int4, bias for weights per_tensor)"
            + _installed("repairs"),
            metavar="NAME",
            field="repair",
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        _quantization(
            help="Raise the precision of layers until the accuracy (without labels: the agreement) falls by no more.",
            min=0,
            metavar="POINTS",
        ),
    ] = None
    min_snr: Annotated[
        float | None, _quantization(help="Raise it until the output's signal-to-noise ratio is no less.", metavar="DB")
    ] = None
    power_of_two: Annotated[
        bool | None,
        _quantization(
            "--power-of-two/--free-scales",
            help="Scales are powers of two, so that rescaling is a shift.",
            show_default="free-scales",
        ),
    ] = None
    symmetric: Annotated[
        bool | None,
        _quantization("--symmetric/--asymmetric", help="Activations have the zero point 0.", show_default="asymmetric"),
    ] = None
    gate_drop: Annotated[
        float | None,
        _gate(
            help="End with exit code 4 where the accuracy on --eval (without labels: the agreement) falls by more.",
            min=0,
            metavar="POINTS",
            field="max_drop",
        ),
    ] = None
    gate_accuracy: Annotated[
        float | None,
        _gate(help="End with exit code 4 where less is right on --eval.", metavar="PERCENT", field="min_accuracy"),
    ] = None

    def recipe(self) -> Recipe:
        """The recipe of the file, with what options say put in its place.

        Raises:
            UserError: An option is out of range, stands without the step it belongs to, or there is nothing to do.
        """
        from .recipe_values import recipe_of

        return recipe_of(self)
