"""`tvmcompress compress`: the whole road, from a model file to a folder with what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common
from . import options as opt
from .common import command
from .measuring import build_options, check_targets, measure_all
from .progress import Bars, bars
from .recipe_options import with_recipe
from .search_data import OPTIMISTIC, search_and_evaluation

if TYPE_CHECKING:
    from ..compression import CompressionResult
    from ..data.dataset import Dataset
    from ..measuring.record import BuildRecord
    from ..recipe.recipe import Recipe
    from ..report.record import ModelRecord, Report

_DEFAULT_OUTPUT = Path("out")


@command
@with_recipe
def compress(
    model: Annotated[Path, typer.Argument(help="An .onnx file, or a .tvmc file of ours.", show_default=False)],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for everything that comes out.")] = _DEFAULT_OUTPUT,
    calib: opt.CalibOption = None,
    plan: Recipe,
    train_data: opt.TrainDataOption = None,
    checkpoint: opt.CheckpointOption = None,
    eval_data: opt.EvalOption = None,
    eval_skip: opt.EvalSkipOption = 0,
    search_data: opt.SearchDataOption = None,
    search_split: opt.SearchSplitOption = None,
    search_log: opt.SearchLogOption = None,
    target: opt.TargetOption = None,
    onnx: opt.OnnxOption = None,
    tune: opt.TuneOption = 0,
    threads: opt.ThreadsOption = None,
    patch_wise: opt.PatchWiseOption = False,
    emit: opt.EmitOption = None,
    soft_float: opt.SoftFloatOption = True,
    spend_flash: opt.SpendFlashOption = None,
    sparse_weights: opt.SparseWeightsOption = False,
    data_key: common.DataKeyOption = None,
    label_key: common.LabelKeyOption = None,
    layout: common.LayoutOption = None,
    scale: common.ScaleOption = None,
    mean: common.MeanOption = None,
    std: common.StdOption = None,
    shape: common.ShapeOption = None,
    batch: common.BatchOption = 1,
    groups: Annotated[bool, typer.Option("--groups", help="Show what each group of channels lost, and why.")] = False,
    json: common.JsonOption = False,
) -> None:
    """Compress a model, build it for targets, and measure what came out.

    The output folder gets model.tvmc (the compressed model), model.onnx (the same for other runtimes; quantized models as
    QDQ), recipe.toml, report.json and a folder for each target. It is written whole or not at all.
    """
    from ..compression import DEFAULT_SAMPLES, limited_target
    from ..compression import compress as run
    from ..data.dataset import load_data
    from ..errors import UserError
    from ..output_folder import output_folder

    if plan.finetune is None and (train_data or checkpoint) is not None:
        raise UserError(f"--{'train-data' if train_data else 'checkpoint'} says nothing without --finetune EPOCHS")
    check_targets(target or [], tune)
    options = build_options(
        target or [],
        threads=threads,
        patch_wise=patch_wise,
        emit=emit,
        soft_float=soft_float,
        spend_flash=spend_flash,
        sparse_weights=sparse_weights,
    )
    limited_target(plan, target or [])
    with output_folder(output) as folder:
        original = common.load_model(model, shape, batch)
        steps = common.preprocessing(scale, mean, std)
        common.check_channels(steps, original.inputs)
        if steps is not None:
            original = original.with_preprocessing(steps)
        read: dict[str, Any] = {"key": data_key, "label_key": label_key, "layout": layout}
        calibration = evaluation = training = None
        if calib is not None:
            limit = plan.calibration_samples or DEFAULT_SAMPLES
            calibration = load_data(calib, original.inputs, limit=limit, **read)
        if train_data is not None:
            training = load_data(train_data, original.inputs, **read)
        if eval_data is not None:
            evaluation = _skip(load_data(eval_data, original.inputs, need_labels=label_key is not None, **read), eval_skip)
        search, evaluation, same = search_and_evaluation(
            plan, original.inputs, search_data, search_split, evaluation, read
        )
        with bars() as bar:
            result = run(
                original,
                calibration,
                recipe=plan,
                train_data=training,
                checkpoint=checkpoint,
                target=target,
                search_data=search,
                search_log=search_log,
                on_progress=bar,
            )
            models = _records(result, evaluation, bar)
        builds = measure_all(
            {"compressed": result.model}, target or [], evaluation or calibration, folder, options=options, tune=tune
        )
        report = _report(model, result, models, builds, OPTIMISTIC if same else None)
        result.model.save(folder / "model.tvmc")
        if onnx is not False:
            _write_onnx(result, folder / "model.onnx", required=onnx is True)
        result.recipe.save(folder / "recipe.toml")
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        report = report.model_copy(update={"files": (*files, "report.json")})
        report.save(folder / "report.json")
    if json:
        print(report.model_dump_json(indent=1))
        return
    _show(report, output, groups)


def _write_onnx(result: CompressionResult, path: Path, required: bool) -> None:
    """The model as ONNX; one with an operator that ONNX lacks is left out unless it is asked for."""
    from ..errors import UnsupportedOperatorError
    from ..exporting import export_onnx

    try:
        export_onnx(result.qdq_model or result.model, path)
    except UnsupportedOperatorError:
        if required:
            raise


def _skip(data: Dataset, count: int) -> Dataset:
    from ..errors import UserError

    if count >= len(data):
        raise UserError(f"--eval-skip {count} leaves none of the {len(data)} samples of {data.source}")
    return data.between(count, None)


def _records(result: CompressionResult, data: Dataset | None, bar: Bars) -> tuple[ModelRecord, ...]:
    """The original and the compressed model, evaluated where there is data."""
    from ..evaluation.accuracy import evaluate
    from ..report.record import model_record

    if data is None:
        return model_record("original", result.original), model_record("compressed", result.model)
    after = evaluate(result.model, data, reference=result.original, on_progress=lambda done, all_: bar("evaluate", done, all_))
    return (
        model_record("original", result.original, after.of_reference()),
        model_record("compressed", result.model, after),
    )


def _report(
    path: Path,
    result: CompressionResult,
    models: tuple[ModelRecord, ...],
    builds: list[BuildRecord],
    warning: str | None,
) -> Report:
    from ..report.record import Host, RemarkRecord, Report, compression_records
    from ..report.surgery import surgery_record

    steps, remarks = compression_records(result)
    if warning is not None:
        remarks = (*remarks, RemarkRecord(pass_name="mixed precision", subject="precisions", message=warning))
    return Report(
        source=path.name,
        host=Host.this(),
        models=models,
        builds=tuple(builds),
        recipe=result.recipe,
        steps=steps,
        surgery=surgery_record(result),
        precisions=result.precisions,
        remarks=remarks,
    )


def _show(report: Report, output: Path, groups: bool) -> None:
    from ..report.console import builds_table, models_table, remarks_list, steps_table, surgery_table
    from ..report.memory import memory_map
    from ..report.precision import precision_table

    console = common.output()
    console.print(steps_table(report))
    console.print()
    if groups and report.surgery is not None:
        console.print(surgery_table(report.surgery))
        console.print()
    if report.precisions is not None:
        console.print(precision_table(report.precisions))
        console.print()
    console.print(models_table(report.models, common.is_wide(console)))
    if report.builds:
        console.print()
        console.print(builds_table(report, with_models=False))
        console.print(memory_map(report.builds))
    console.print()
    if report.remarks:
        console.print(remarks_list(report))
    exchange = ", model.onnx (for other runtimes)" if "model.onnx" in report.files else ""
    console.print(
        f"Written to [bold]{output}[/bold]: model.tvmc (the model){exchange}, recipe.toml (the options), "
        "report.json (figures)."
    )
