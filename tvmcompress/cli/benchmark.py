"""`tvmcompress benchmark`: models on targets, side by side."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common
from .completion import models as complete_models
from .measuring import measure_all
from .options.data import ReadOptions
from .options.groups import with_groups
from .options.model import ModelOptions
from .options.recipe import RecipeOptions
from .options.rpc import RpcOptions
from .options.samples import OPTIMISTIC, SampleOptions, Samples
from .options.targets import BuildOptions
from .process import command_line
from .progress import bars

if TYPE_CHECKING:
    from ..compression import CompressionResult
    from ..data.dataset import Dataset
    from ..model import Model
    from ..recipe.recipe import Recipe
    from ..report.record import ModelRecord, Report


@with_groups
def benchmark(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Models to compare, the first with the others: .onnx, .tflite or .tvmc.",
            show_default=False,
            autocompletion=complete_models,
        ),
    ],
    *,
    build: BuildOptions,
    where: RpcOptions,
    given: SampleOptions,
    asked: RecipeOptions,
    runs: Annotated[
        int | None, typer.Option("--runs", min=1, help="Inferences to time on x86 and on boards.", rich_help_panel="Targets")
    ] = None,
    skip_missing: Annotated[
        bool,
        typer.Option("--skip-missing", help="Go on without targets whose tools are missing.", rich_help_panel="Targets"),
    ] = False,
    save: Annotated[
        Path | None, typer.Option("-o", "--output", help="Keep the builds, report.json and report.html in this folder.")
    ] = None,
    reading: ModelOptions,
    read: ReadOptions,
    html: common.HtmlOption = True,
    json: common.JsonOption = False,
) -> None:
    """Measure models on targets, side by side.

    With --prune or --quantize one model is compressed by each step alone and by all together, and every version is
    measured.
    """
    from contextlib import nullcontext

    from ..compression import limited_target
    from ..errors import UserError
    from ..files.output_folder import output_folder
    from ..report.html import save_html
    from ..report.record import Host, RemarkRecord, Report, StepRecord, compression_records, used_sensitivity
    from ..report.surgery import surgery_record

    plan = reading.recorded(asked.recipe())
    given.check(plan, asked)
    compressing = bool(plan.entries())
    targets = build.target or ["x86"]
    if compressing and len(models) > 1:
        raise UserError("pruning and quantization take one model; to compare several, compress them first")
    options = build.by_family(targets, skip_missing=skip_missing)
    limited_target(plan, targets)
    boards = where.pool(targets)
    with output_folder(save) if save is not None else nullcontext() as folder:
        loaded = {_name(path, models): reading.load(path, plan) for path in models}
        first = next(iter(loaded.values()))
        samples = given.load(plan, first.inputs, read)
        steps: tuple[StepRecord, ...] = ()
        remarks: tuple[RemarkRecord, ...] = ()
        whole: CompressionResult | None = None
        if compressing:
            results = _versions(first, samples, plan, targets, search_log=given.search_log, cache=given.cache)
            loaded = {"original": first, **{name: result.model for name, result in results.items()}}
            whole = list(results.values())[-1]
            steps, remarks = compression_records(whole)
            if samples.optimistic:
                remarks = (*remarks, RemarkRecord(pass_name="mixed precision", subject="precisions", message=OPTIMISTIC))
        records = _records(loaded, samples.evaluation, samples.calibration if compressing else None)
        builds = measure_all(
            loaded,
            targets,
            samples.evaluation,
            folder,
            options=options,
            tune=build.tune,
            runs=runs,
            skip_missing=skip_missing,
            boards=boards,
        )
        report = Report(
            source=", ".join(path.name for path in models),
            host=Host.this(),
            models=tuple(records),
            builds=tuple(builds),
            recipe=plan if compressing else None,
            steps=steps,
            surgery=None if whole is None else surgery_record(whole),
            precisions=None if whole is None else whole.precisions,
            remarks=remarks,
            command=command_line(),
            sensitivity=used_sensitivity(plan),
            gate=plan.gate,
        )
        if folder is not None:
            report.save(folder / "report.json")
            if html:
                save_html(report, folder / "report.html")
    if json:
        common.print_json(report)
    else:
        _show(report)
        if save is not None and html:
            common.show_page(save / "report.html")
    common.conclude(report, save)


def _show(report: Report) -> None:
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
    original: Model, samples: Samples, plan: Recipe, targets: list[str], **kept: Path | None
) -> dict[str, CompressionResult]:
    from ..measuring.benchmarking import ablation

    with bars() as bar:
        return ablation(
            original,
            samples.calibration,
            plan,
            target=targets,
            train_data=samples.training,
            search_data=samples.search,
            on_progress=bar,
            **kept,
        )


def _records(models: dict[str, Model], samples: Dataset | None, calibration: Dataset | None) -> list[ModelRecord]:
    """Every model, evaluated where there is data; versions of one model with the noise of their layers."""
    from ..evaluation.accuracy import evaluate
    from ..report.record import layers_against, model_record

    first = next(iter(models.values()))
    if samples is None:
        return [model_record(name, model, layers=layers_against(first, model, calibration)) for name, model in models.items()]
    records = []
    with bars() as bar:
        for name, model in models.items():
            report = functools.partial(bar, f"evaluate {name}")
            evaluation = evaluate(model, samples, reference=first, on_progress=report)
            noise = layers_against(first, model, samples)
            records.append(model_record(name, model, evaluation, noise))
    return records
