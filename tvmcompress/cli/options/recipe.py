"""The options that make up a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from ...recipe.recipe import Recipe


class Sets(NamedTuple):
    """The field of a recipe's table that an option sets."""

    table: str
    field: str


_pruning, _training, _quantization, _data = (
    partial(typer.Option, rich_help_panel=panel) for panel in ("Pruning", "Fine-tuning", "Quantization", "Data")
)


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
        int | None, _data("--calib-samples", min=1, help="Use at most so many of them (512 by default).")
    ] = None
    prune: Annotated[
        float | None, _pruning("--prune", metavar="RATIO", help="Remove this fraction of the channels."), Sets("prune", "ratio")
    ] = None
    target_macs: Annotated[
        float | None,
        _pruning("--target-macs", metavar="FRACTION", help="Prune until so much of the MACs is left."),
        Sets("prune", "target_macs"),
    ] = None
    target_params: Annotated[
        float | None,
        _pruning("--target-params", metavar="FRACTION", help="Prune until so much of the parameters is left."),
        Sets("prune", "target_params"),
    ] = None
    max_flash: Annotated[
        str | None,
        _pruning(
            "--max-flash",
            metavar="SIZE",
            help="Prune until code and constants fit, on the Cortex-M among the targets (64K, 1M).",
        ),
        Sets("prune", "max_flash"),
    ] = None
    max_ram: Annotated[
        str | None, _pruning("--max-ram", metavar="SIZE", help="Prune until activations fit (16K)."), Sets("prune", "max_ram")
    ] = None
    prune_blocks: Annotated[
        int | None,
        _pruning("--prune-blocks", min=0, metavar="N", help="First remove up to N residual blocks or layers."),
        Sets("prune", "blocks"),
    ] = None
    prune_heads: Annotated[
        float | None,
        _pruning("--prune-heads", metavar="RATIO", help="First remove this fraction of the heads."),
        Sets("prune", "heads"),
    ] = None
    sparsify: Annotated[
        str | None,
        _pruning(
            "--sparsify",
            metavar="FRACTION|N:M|<MAGNITUDE",
            help="Zero a fraction of the weights, all but N of M, or those below a magnitude ('<0.01').",
        ),
    ] = None
    scope: Annotated[
        str | None,
        _pruning(
            "--scope", help="The fraction leaves every layer (local), all together (global), or all built alike (isomorphic)."
        ),
        Sets("prune", "scope"),
    ] = None
    importance: Annotated[
        str | None,
        _pruning(
            "--importance",
            help="What channels are ranked by: output_energy (the default with --calib), l2 (without), l1, reconstruction, "
            "activation, apoz, fpgm, linf, bn_scale, random, taylor and fisher (these need PyTorch)" + _installed("criteria"),
        ),
        Sets("prune", "importance"),
    ] = None
    sensitivity: Annotated[
        Path | None,
        _pruning("--sensitivity", help="A sensitivity.json: compare layers by what `tvmcompress sensitivity` measured."),
        Sets("prune", "sensitivity"),
    ] = None
    round_to: Annotated[
        int | None,
        _pruning("--round-to", min=1, help="Keep multiples of this many channels (by default what suits the targets)."),
        Sets("prune", "round_to"),
    ] = None
    min_channels: Annotated[
        int | None, _pruning("--min-channels", min=1, help="Keep at least this many channels."), Sets("prune", "min_channels")
    ] = None
    rounds: Annotated[
        int | None,
        _pruning(
            "--rounds",
            min=1,
            help="Reach a budget in so many steps, ranking anew after each (1 by default, 2 with --no-repair).",
        ),
        Sets("prune", "rounds"),
    ] = None
    exclude: Annotated[
        list[str] | None,
        _pruning("--exclude", metavar="PATTERN", help="Layers whose outputs stay as they are (repeatable)."),
        Sets("prune", "exclude"),
    ] = None
    ratio: Annotated[
        list[str] | None,
        _pruning(
            "--ratio", metavar="PATTERN=RATIO", help="Another fraction for the layers of this pattern, 0 for none (repeatable)."
        ),
        Sets("prune", "ratios"),
    ] = None
    threshold: Annotated[
        float | None,
        _pruning("--threshold", metavar="SCORE", help="Remove the channels that score below this."),
        Sets("prune", "threshold"),
    ] = None
    repair: Annotated[
        bool | None,
        _pruning("--repair/--no-repair", help="Repair the weights left, from --calib.", show_default="repair"),
        Sets("prune", "reconstruct"),
    ] = None
    finetune: Annotated[
        int | None,
        _training("--finetune", min=1, metavar="EPOCHS", help="Train what is left (needs PyTorch)."),
        Sets("finetune", "epochs"),
    ] = None
    distill: Annotated[
        bool | None,
        _training(
            "--distill/--no-distill",
            help="Learn from the original, too (without labels, from it alone).",
            show_default="no-distill",
        ),
        Sets("finetune", "distill"),
    ] = None
    optimizer: Annotated[
        str | None, _training("--optimizer", help="adamw or sgd.", show_default="adamw"), Sets("finetune", "optimizer")
    ] = None
    learning_rate: Annotated[
        float | None,
        _training(
            "--learning-rate",
            metavar="RATE",
            help="At the start; of adamw relative to the size of the weights (0.01 by default).",
        ),
        Sets("finetune", "learning_rate"),
    ] = None
    augment: Annotated[
        list[str] | None,
        _training("--augment", help="Change images at random: flip, crop (repeatable)."),
        Sets("finetune", "augment"),
    ] = None
    quantize: Annotated[
        str | None,
        _quantization(
            "--quantize",
            metavar="TYPE",
            help="Quantize to int8, uint8, int16x8 (int16 activations), int4 (weights) or float16 (weights).",
        ),
        Sets("quantize", "precision"),
    ] = None
    preset: Annotated[
        str | None,
        _quantization("--preset", metavar="NAME", help="Quantize as `tvmcompress presets` lists it."),
        Sets("quantize", "preset"),
    ] = None
    weight_bits: Annotated[
        int | None, _quantization("--weight-bits", metavar="7|8", help="Bits of int8 weights."), Sets("quantize", "weight_bits")
    ] = None
    activation_bits: Annotated[
        int | None,
        _quantization("--activation-bits", metavar="7|8", help="Bits that the range of an activation is spread over."),
        Sets("quantize", "activation_bits"),
    ] = None
    group_size: Annotated[
        int | None,
        _quantization(
            "--group-size", min=0, metavar="N", help="Input channels that share a multiplier of int4 weights (0: all)."
        ),
        Sets("quantize", "group_size"),
    ] = None
    observer: Annotated[
        str | None,
        _quantization(
            "--observer",
            help="How ranges are found: mse (the default), minmax, moving_average, percentile, entropy"
            + _installed("observers"),
        ),
        Sets("quantize", "observer"),
    ] = None
    weights: Annotated[
        str | None, _quantization("--weights", help="One scale per_channel or per_tensor."), Sets("quantize", "weights")
    ] = None
    keep_float: Annotated[
        list[str] | None,
        _quantization("--keep-float", metavar="PATTERN", help="Layers that stay in float (repeatable)."),
        Sets("quantize", "exclude"),
    ] = None
    rounding: Annotated[
        str | None, _quantization("--rounding", help="double: as TFLite rounds; single: faster."), Sets("quantize", "rounding")
    ] = None
    quant_repair: Annotated[
        list[str] | None,
        _quantization(
            "--quant-repair",
            metavar="NAME",
            help="Repair from --calib: equalize (channel ranges across layers), smooth (outliers behind "
            "normalizations), bias (mean errors), gptq (rounding, errors "
            "made good), adaround (rounding, learned; slow), none (repeatable, in order; by default gptq for int4, bias for "
            "weights per_tensor)" + _installed("repairs"),
        ),
        Sets("quantize", "repair"),
    ] = None
    max_drop: Annotated[
        float | None,
        _quantization(
            "--max-drop",
            min=0,
            metavar="POINTS",
            help="Raise the precision of layers until the accuracy (without labels: the agreement) falls by no more.",
        ),
        Sets("quantize", "max_drop"),
    ] = None
    min_snr: Annotated[
        float | None,
        _quantization("--min-snr", metavar="DB", help="Raise it until the output's signal-to-noise ratio is no less."),
        Sets("quantize", "min_snr"),
    ] = None
    power_of_two: Annotated[
        bool | None,
        _quantization(
            "--power-of-two/--free-scales",
            help="Scales are powers of two, so that rescaling is a shift.",
            show_default="free-scales",
        ),
        Sets("quantize", "power_of_two"),
    ] = None
    symmetric: Annotated[
        bool | None,
        _quantization("--symmetric/--asymmetric", help="Activations have the zero point 0.", show_default="asymmetric"),
        Sets("quantize", "symmetric"),
    ] = None

    def recipe(self) -> Recipe:
        """The recipe of the file, with what options say put in its place.

        Raises:
            UserError: An option is out of range, stands without the step it belongs to, or there is nothing to do.
        """
        from .recipe_values import recipe_of

        return recipe_of(self)
