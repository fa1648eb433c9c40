"""`tvmcompress benchmark`: models on targets, side by side."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common
from .measuring import measure_all
from .options.data import ReadOptions
from .options.groups import with_groups
from .options.model import ModelOptions
from .options.recipe import RecipeOptions
from .options.rpc import RpcOptions
from .options.samples import OPTIMISTIC, SampleOptions, Samples
from .options.targets import BuildOptions
from .progress import bars

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..model import Model
    from ..recipe.recipe import Recipe
    from ..report.record import ModelRecord, Report


@with_groups
def benchmark(
    models: Annotated[
        list[Path],
        typer.Argument(help="Models to compare, the first with the others: .onnx or .tvmc.", show_default=False),
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
    save: Annotated[Path | None, typer.Option("-o", "--output", help="Keep the builds and report.json in this folder.")] = None,
    reading: ModelOptions,
    read: ReadOptions,
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
    from ..report.record import Host, RemarkRecord, Report

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
        remarks: tuple[RemarkRecord, ...] = ()
        if compressing:
            loaded = _versions(first, samples, plan, targets, search_log=given.search_log, cache=given.cache)
            if samples.optimistic:
                remarks = (RemarkRecord(pass_name="mixed precision", subject="precisions", message=OPTIMISTIC),)
        records = _records(loaded, samples.evaluation)
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
            remarks=remarks,
            gate=plan.gate,
        )
        if folder is not None:
            report.save(folder / "report.json")
    if json:
        common.print_json(report)
    else:
        _show(report)
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


def _versions(original: Model, samples: Samples, plan: Recipe, targets: list[str], **kept: Path | None) -> dict[str, Model]:
    from ..measuring.benchmarking import ablation

    with bars() as bar:
        results = ablation(
            original,
            samples.calibration,
            plan,
            target=targets,
            train_data=samples.training,
            search_data=samples.search,
            on_progress=bar,
            **kept,
        )
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
            report = functools.partial(bar, f"evaluate {name}")
            evaluation = evaluate(model, samples, reference=first, on_progress=report)
            records.append(model_record(name, model, evaluation))
    return records
