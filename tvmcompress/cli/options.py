"""The options that say what is to be done with a model, on which data and targets, shared by `compress` and `benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_PRUNING, _TRAINING, _QUANTIZATION, _TARGETS, _DATA = "Pruning", "Fine-tuning", "Quantization", "Targets", "Data"

CalibOption = Annotated[
    Path | None,
    typer.Option("--calib", help="Samples of what the model will see: .npz, .npy or a folder of .npy.", rich_help_panel=_DATA),
]
CalibSamplesOption = Annotated[
    int | None,
    typer.Option("--calib-samples", min=1, help="Use at most so many of them (512 by default).", rich_help_panel=_DATA),
]
EvalOption = Annotated[
    Path | None, typer.Option("--eval", help="Labelled data: accuracy before and after.", rich_help_panel=_DATA)
]
EvalSkipOption = Annotated[
    int, typer.Option("--eval-skip", min=0, help="Leave out the first samples of --eval.", rich_help_panel=_DATA)
]
PruneOption = Annotated[
    float | None,
    typer.Option("--prune", metavar="RATIO", help="Remove this fraction of the channels.", rich_help_panel=_PRUNING),
]
TargetMacsOption = Annotated[
    float | None,
    typer.Option(
        "--target-macs", metavar="FRACTION", help="Prune until so much of the MACs is left.", rich_help_panel=_PRUNING
    ),
]
TargetParamsOption = Annotated[
    float | None,
    typer.Option(
        "--target-params", metavar="FRACTION", help="Prune until so much of the parameters is left.", rich_help_panel=_PRUNING
    ),
]
MaxFlashOption = Annotated[
    str | None,
    typer.Option(
        "--max-flash",
        metavar="SIZE",
        help="Prune until code and constants fit, on the Cortex-M among the targets (64K, 1M).",
        rich_help_panel=_PRUNING,
    ),
]
MaxRamOption = Annotated[
    str | None,
    typer.Option("--max-ram", metavar="SIZE", help="Prune until activations fit (16K).", rich_help_panel=_PRUNING),
]
BlocksOption = Annotated[
    int | None,
    typer.Option(
        "--prune-blocks", min=0, metavar="N", help="First remove up to N residual blocks or layers.", rich_help_panel=_PRUNING
    ),
]
HeadsOption = Annotated[
    float | None,
    typer.Option("--prune-heads", metavar="RATIO", help="First remove this fraction of the heads.", rich_help_panel=_PRUNING),
]
SparsifyOption = Annotated[
    str | None,
    typer.Option(
        "--sparsify",
        metavar="FRACTION|N:M|<MAGNITUDE",
        help="Zero a fraction of the weights, all but N of M, or those below a magnitude ('<0.01').",
        rich_help_panel=_PRUNING,
    ),
]
ScopeOption = Annotated[
    str | None,
    typer.Option(
        "--scope",
        help="The fraction leaves every layer (local), all together (global), or all built alike (isomorphic).",
        rich_help_panel=_PRUNING,
    ),
]
ImportanceOption = Annotated[
    str | None,
    typer.Option(
        "--importance",
        help="What channels are ranked by: output_energy (the default with --calib), l2 (without), l1, reconstruction, "
        "activation, apoz, fpgm, taylor and fisher (these need PyTorch), ...",
        rich_help_panel=_PRUNING,
    ),
]
SensitivityOption = Annotated[
    Path | None,
    typer.Option(
        "--sensitivity",
        help="A sensitivity.json: compare layers by what `tvmcompress sensitivity` measured.",
        rich_help_panel=_PRUNING,
    ),
]
RoundsOption = Annotated[
    int | None,
    typer.Option(
        "--rounds",
        min=1,
        help="Reach a budget in so many steps, ranking anew after each (1 by default, 2 with --no-repair).",
        rich_help_panel=_PRUNING,
    ),
]
MinChannelsOption = Annotated[
    int | None,
    typer.Option("--min-channels", min=1, help="Keep at least this many channels.", rich_help_panel=_PRUNING),
]
RoundToOption = Annotated[
    int | None,
    typer.Option(
        "--round-to",
        min=1,
        help="Keep multiples of this many channels (by default what suits the targets).",
        rich_help_panel=_PRUNING,
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude", metavar="PATTERN", help="Layers whose outputs stay as they are (repeatable).", rich_help_panel=_PRUNING
    ),
]
RepairOption = Annotated[
    bool | None,
    typer.Option(
        "--repair/--no-repair",
        help="Repair the weights left, from --calib.",
        show_default="repair",
        rich_help_panel=_PRUNING,
    ),
]
RatiosOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ratio",
        metavar="PATTERN=RATIO",
        help="Another fraction for the layers of this pattern, 0 for none (repeatable).",
        rich_help_panel=_PRUNING,
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold", metavar="SCORE", help="Remove the channels that score below this.", rich_help_panel=_PRUNING
    ),
]
FinetuneOption = Annotated[
    int | None,
    typer.Option("--finetune", min=1, metavar="EPOCHS", help="Train what is left (needs PyTorch).", rich_help_panel=_TRAINING),
]
TrainDataOption = Annotated[
    Path | None,
    typer.Option("--train-data", help="What it learns from, with labels or without: .npz, ...", rich_help_panel=_TRAINING),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint", help="Folder for the state after every epoch; a stopped run goes on.", rich_help_panel=_TRAINING
    ),
]
DistillOption = Annotated[
    bool | None,
    typer.Option(
        "--distill/--no-distill",
        help="Learn from the original, too (without labels, from it alone).",
        show_default="no-distill",
        rich_help_panel=_TRAINING,
    ),
]
LearningRateOption = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        metavar="RATE",
        help="At the start; of adamw relative to the size of the weights (0.01 by default).",
        rich_help_panel=_TRAINING,
    ),
]
OptimizerOption = Annotated[
    str | None, typer.Option("--optimizer", help="adamw or sgd.", show_default="adamw", rich_help_panel=_TRAINING)
]
AugmentOption = Annotated[
    list[str] | None,
    typer.Option("--augment", help="Change images at random: flip, crop (repeatable).", rich_help_panel=_TRAINING),
]
QuantizeOption = Annotated[
    str | None,
    typer.Option(
        "--quantize",
        metavar="TYPE",
        help="Quantize to int8, uint8, int16x8 (int16 activations), int4 (weights) or float16 (weights).",
        rich_help_panel=_QUANTIZATION,
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset", metavar="NAME", help="Quantize as `tvmcompress presets` lists it.", rich_help_panel=_QUANTIZATION
    ),
]
WeightBitsOption = Annotated[
    int | None,
    typer.Option("--weight-bits", metavar="7|8", help="Bits of int8 weights.", rich_help_panel=_QUANTIZATION),
]
ActivationBitsOption = Annotated[
    int | None,
    typer.Option(
        "--activation-bits",
        metavar="7|8",
        help="Bits that the range of an activation is spread over.",
        rich_help_panel=_QUANTIZATION,
    ),
]
GroupSizeOption = Annotated[
    int | None,
    typer.Option(
        "--group-size",
        min=0,
        metavar="N",
        help="Input channels that share a multiplier of int4 weights (0: all).",
        rich_help_panel=_QUANTIZATION,
    ),
]
ObserverOption = Annotated[
    str | None,
    typer.Option(
        "--observer",
        help="How ranges are found: mse (the default), minmax, moving_average, percentile, entropy.",
        rich_help_panel=_QUANTIZATION,
    ),
]
KeepFloatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-float", metavar="PATTERN", help="Layers that stay in float (repeatable).", rich_help_panel=_QUANTIZATION
    ),
]
MaxDropOption = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        min=0,
        metavar="POINTS",
        help="Raise the precision of layers until the accuracy (without labels: the agreement) falls by no more.",
        rich_help_panel=_QUANTIZATION,
    ),
]
MinSnrOption = Annotated[
    float | None,
    typer.Option(
        "--min-snr",
        metavar="DB",
        help="Raise it until the output's signal-to-noise ratio is no less.",
        rich_help_panel=_QUANTIZATION,
    ),
]
SearchDataOption = Annotated[
    Path | None,
    typer.Option(
        "--search-data", help="Samples that --max-drop and --min-snr hold on (--eval by default).", rich_help_panel=_DATA
    ),
]
SearchSplitOption = Annotated[
    float | None,
    typer.Option(
        "--search-split",
        metavar="FRACTION",
        help="They hold on this part of --eval; the rest is evaluated.",
        rich_help_panel=_DATA,
    ),
]
SearchLogOption = Annotated[
    Path | None,
    typer.Option(
        "--search-log",
        help="Keep what the search tries in this file, and go on with what is there.",
        rich_help_panel=_QUANTIZATION,
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option("--weights", help="One scale per_channel or per_tensor.", rich_help_panel=_QUANTIZATION),
]
PowerOfTwoOption = Annotated[
    bool | None,
    typer.Option(
        "--power-of-two/--free-scales",
        help="Scales are powers of two, so that rescaling is a shift.",
        show_default="free-scales",
        rich_help_panel=_QUANTIZATION,
    ),
]
SymmetricOption = Annotated[
    bool | None,
    typer.Option(
        "--symmetric/--asymmetric",
        help="Activations have the zero point 0.",
        show_default="asymmetric",
        rich_help_panel=_QUANTIZATION,
    ),
]
QuantRepairOption = Annotated[
    list[str] | None,
    typer.Option(
        "--quant-repair",
        metavar="NAME",
        help="Repair from --calib: equalize (channel ranges across layers), smooth (outliers behind "
        "normalizations), bias (mean errors), gptq (rounding, errors "
        "made good), adaround (rounding, learned; slow), none (repeatable, in order; by default gptq for int4, bias for "
        "weights per_tensor).",
        rich_help_panel=_QUANTIZATION,
    ),
]
OnnxOption = Annotated[
    bool | None,
    typer.Option(
        "--onnx/--no-onnx",
        help="Also write model.onnx, for ONNX Runtime and others.",
        show_default="onnx where it has a form in ONNX",
    ),
]
RoundingOption = Annotated[
    str | None,
    typer.Option("--rounding", help="double: as TFLite rounds; single: faster.", rich_help_panel=_QUANTIZATION),
]
RecipeOption = Annotated[
    Path | None, typer.Option("--recipe", help="A TOML file that says all this; options replace its entries.")
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="Build and measure for this target (repeatable).", rich_help_panel=_TARGETS),
]
TuneOption = Annotated[
    int,
    typer.Option("--tune", min=0, metavar="N", help="Try N schedules on this machine first (x86).", rich_help_panel=_TARGETS),
]
PatchWiseOption = Annotated[
    bool,
    typer.Option(
        "--patch-wise",
        help="Compute the first layers strip by strip where that takes less RAM (Cortex-M, int8).",
        rich_help_panel=_TARGETS,
    ),
]
EmitOption = Annotated[
    str | None,
    typer.Option(
        "--emit",
        metavar="object|c",
        help="Kernels for Cortex as object files (the default, faster), or as C99 source for any compiler.",
        rich_help_panel=_TARGETS,
    ),
]
SpendFlashOption = Annotated[
    str | None,
    typer.Option(
        "--spend-flash",
        metavar="SIZE",
        help="Flash to spend for fewer instructions, on weights of 16 bits where they save most (Cortex-M4, M7, M33; 8K).",
        rich_help_panel=_TARGETS,
    ),
]
SparseWeightsOption = Annotated[
    bool,
    typer.Option(
        "--sparse-weights/--dense-weights",
        help="Store int8 weights of pattern 2:4 in 2.5 bytes for four: less flash, more instructions (Cortex-M).",
        rich_help_panel=_TARGETS,
    ),
]
SoftFloatOption = Annotated[
    bool,
    typer.Option(
        "--soft-float/--no-soft-float",
        help="Compute float layers by library calls on a core without a floating-point unit, or refuse them.",
        rich_help_panel=_TARGETS,
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads of an inference on x86.", rich_help_panel=_TARGETS)
]
