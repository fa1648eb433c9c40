"""`tvmcompress benchmark`: models on targets, side by side."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common
from . import options as opt
from .common import command
from .measuring import build_options, check_targets, measure_all
from .progress import bars
from .recipe_options import with_recipe
from .search_data import OPTIMISTIC, search_and_evaluation

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..model import Model
    from ..recipe.recipe import Recipe
    from ..report.record import ModelRecord


@command
@with_recipe
def benchmark(
    models: Annotated[
        list[Path],
        typer.Argument(help="Models to compare, the first with the others: .onnx or .tvmc.", show_default=False),
    ],
    *,
    target: opt.TargetOption = None,
    calib: opt.CalibOption = None,
    plan: Recipe,
    train_data: opt.TrainDataOption = None,
    eval_data: opt.EvalOption = None,
    eval_skip: opt.EvalSkipOption = 0,
    search_data: opt.SearchDataOption = None,
    search_split: opt.SearchSplitOption = None,
    search_log: opt.SearchLogOption = None,
    tune: opt.TuneOption = 0,
    threads: opt.ThreadsOption = None,
    patch_wise: opt.PatchWiseOption = False,
    emit: opt.EmitOption = None,
    soft_float: opt.SoftFloatOption = True,
    spend_flash: opt.SpendFlashOption = None,
    sparse_weights: opt.SparseWeightsOption = False,
    runs: Annotated[
        int | None, typer.Option("--runs", min=1, help="Inferences to time on x86.", rich_help_panel="Targets")
    ] = None,
    skip_missing: Annotated[
        bool,
        typer.Option("--skip-missing", help="Go on without targets whose tools are missing.", rich_help_panel="Targets"),
    ] = False,
    save: Annotated[Path | None, typer.Option("-o", "--output", help="Keep the builds and report.json in this folder.")] = None,
    data_key: common.DataKeyOption = None,
    label_key: common.LabelKeyOption = None,
    layout: common.LayoutOption = None,
    scale: common.ScaleOption = None,
    mean: common.MeanOption = None,
    std: common.StdOption = None,
    shape: common.ShapeOption = None,
    batch: common.BatchOption = 1,
    json: common.JsonOption = False,
) -> None:
    """Measure models on targets, side by side.

    With --prune or --quantize one model is compressed by each step alone and by all together, and every version is
    measured.
    """
    from contextlib import nullcontext

    from ..compression import for_targets, limited_target
    from ..data.dataset import load_data
    from ..errors import UserError
    from ..output_folder import output_folder
    from ..recipe.recipe import Recipe
    from ..report.record import Host, RemarkRecord, Report

    compressing = plan != Recipe(calibration_samples=plan.calibration_samples)
    targets = target or ["x86"]
    if compressing and len(models) > 1:
        raise UserError("pruning and quantization take one model; to compare several, compress them first")
    check_targets(targets, tune, skip_missing)
    options = build_options(
        targets,
        threads=threads,
        patch_wise=patch_wise,
        emit=emit,
        soft_float=soft_float,
        spend_flash=spend_flash,
        sparse_weights=sparse_weights,
    )
    limited_target(plan, targets)
    plan = for_targets(plan, targets)
    with output_folder(save) if save is not None else nullcontext() as folder:
        steps = common.preprocessing(scale, mean, std)
        loaded = {_name(path, models): common.load_model(path, shape, batch) for path in models}
        first = next(iter(loaded.values()))
        common.check_channels(steps, first.inputs)
        read: dict[str, Any] = {"key": data_key, "label_key": label_key, "layout": layout, "preprocessing": steps}
        samples = None if eval_data is None else load_data(eval_data, first.inputs, **read).between(eval_skip, None)
        remarks: tuple[RemarkRecord, ...] = ()
        if compressing:
            calibration = None if calib is None else load_data(calib, first.inputs, **read)
            training = None if train_data is None else load_data(train_data, first.inputs, **read)
            search, samples, same = search_and_evaluation(plan, first.inputs, search_data, search_split, samples, read)
            loaded = _versions(
                first,
                calibration,
                plan,
                targets,
                train_data=training,
                search_data=search,
                search_log=search_log,
            )
            if same:
                remarks = (RemarkRecord(pass_name="mixed precision", subject="precisions", message=OPTIMISTIC),)
        records = _records(loaded, samples)
        builds = measure_all(
            loaded, targets, samples, folder, options=options, tune=tune, runs=runs, skip_missing=skip_missing
        )
        report = Report(
            source=", ".join(path.name for path in models),
            host=Host.this(),
            models=tuple(records),
            builds=tuple(builds),
            recipe=plan if compressing else None,
            remarks=remarks,
        )
        if folder is not None:
            report.save(folder / "report.json")
    if json:
        print(report.model_dump_json(indent=1))
        return
    from ..report.console import remarks_list, report_tables
    from ..report.memory import memory_map

    console = common.output()
    console.print(report_tables(report, common.is_wide(console)))
    console.print(memory_map(report.builds))
    if report.remarks:
        console.print(remarks_list(report))


def _name(path: Path, all_paths: list[Path]) -> str:
    """What a model is called: its file, with the folder where files have the same name."""
    return path.stem if sum(other.stem == path.stem for other in all_paths) == 1 else str(path.with_suffix(""))


def _versions(
    original: Model, calibration: Dataset | None, plan: Recipe, targets: list[str], **options: Any
) -> dict[str, Model]:
    from ..measuring.benchmarking import ablation

    with bars() as bar:
        results = ablation(original, calibration, plan, target=targets, on_progress=bar, **options)
    return {"original": original, **{name: result.model for name, result in results.items()}}


def _records(models: dict[str, Model], samples: Dataset | None) -> list[ModelRecord]:
    from ..evaluation.accuracy import evaluate
    from ..report.record import model_record

    if samples is None:
        return [model_record(name, model) for name, model in models.items()]
    first = next(iter(models.values()))
    records = []
    with bars() as bar:
        for name, model in models.items():
            tell = functools.partial(bar, f"evaluate {name}")
            evaluation = evaluate(model, samples, reference=first, on_progress=tell)
            records.append(model_record(name, model, evaluation))
    return records
