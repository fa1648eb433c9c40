"""`tvmcompress benchmark`: models on targets, side by side."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common
from .completion import models as complete_models
from .dry_run import DryRunOption, write_recipe
from .measuring import measure_all
from .options.data import ReadOptions
from .options.groups import with_groups
from .options.model import ModelOptions
from .options.recipe import RecipeOptions
from .options.rpc import RpcOptions
from .options.samples import OPTIMISTIC, SampleOptions, Samples
from .options.targets import BuildOptions
from .options.timing import TimingOptions
from .process import command_line
from .progress import bars

if TYPE_CHECKING:
    from ..compression import CompressionResult
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
    variant: Annotated[
        list[Path] | None,
        typer.Option(
            "--variant", help="A recipe: every model is measured as it is, and as each of these makes it (repeatable)."
        ),
    ] = None,
    timing: TimingOptions,
    log: Annotated[
        Path | None,
        typer.Option("--log", help="Keep every measurement in this file; what is there is neither built nor measured again."),
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
    dry_run: DryRunOption = False,
    json: common.JsonOption = False,
) -> None:
    """Measure models on targets, side by side.

    With --prune or --quantize every model is compressed by each step alone and by all together, and every version is
    measured; with --variant as each of these recipes says.
    """
    from contextlib import nullcontext

    from ..compression import limited_target
    from ..files.output_folder import output_folder
    from ..report.html import save_html
    from ..report.record import Host, RemarkRecord, Report, StepRecord, compression_records, used_sensitivity
    from ..report.surgery import surgery_record

    plan = reading.recorded(asked.recipe())
    recipes = _variants(variant or [], plan)
    given.check(asked, plan, *recipes.values())
    compressing = bool(plan.entries() or recipes)
    targets = build.target or ["x86"]
    options = build.by_family(targets, skip_missing=skip_missing)
    limited_target(plan, targets)
    boards = where.pool(targets)
    compare = timing.runtimes(targets, boards is not None)
    if dry_run:
        for path in models:
            given.load(plan, reading.load(path, plan), read, dry=True)
        write_recipe(plan, targets, save, json)
        return
    with output_folder(save) if save is not None else nullcontext() as folder:
        steps: tuple[StepRecord, ...] = ()
        remarks: tuple[RemarkRecord, ...] = ()
        whole: CompressionResult | None = None
        versions: dict[str, Version] = {}
        for path in models:
            original = reading.load(path, plan)
            name = _name(path, models)
            prefix = f"{name} " if len(models) > 1 else ""
            samples = given.load(plan, original, read)
            if not compressing:
                first = next(iter(versions.values())).model if versions else original
                versions[name] = Version(original, first, samples, path)
                continue
            results = _compressed(original, samples, plan, recipes, targets, given)
            versions[f"{prefix}original"] = Version(original, original, samples, path)
            versions |= {f"{prefix}{name}": Version(r.model, original, samples, None, r) for name, r in results.items()}
            whole = list(results.values())[-1]
            steps, remarks = compression_records(whole)
            if samples.optimistic:
                remarks = (*remarks, RemarkRecord(pass_name="mixed precision", subject="precisions", message=OPTIMISTIC))
        records = _records(versions, compressing)
        with tempfile.TemporaryDirectory(prefix="tvmcompress-") as scratch:
            builds = measure_all(
                {name: version.model for name, version in versions.items()},
                targets,
                samples.evaluation,
                folder,
                options=options,
                tune=build.tune,
                timing=timing.measuring,
                compare=compare,
                files=_files(versions, Path(scratch)) if compare else None,
                log=log,
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
        _show(report, timing.percentile or [])
        if save is not None and html:
            common.show_page(save / "report.html")
    common.conclude(report, save)


def _show(report: Report, percentiles: Sequence[float]) -> None:
    from ..report.console import remarks_list, report_tables
    from ..report.memory import memory_map
    from ..report.timing import runtimes_table, times_table

    console = common.output()
    console.print(report_tables(report, common.is_wide(console)))
    console.print(memory_map(report.builds))
    if percentiles:
        console.print(times_table(report.builds, percentiles))
    if any(build.runtimes for build in report.builds):
        console.print(runtimes_table(report.builds))
    if report.remarks:
        console.print(remarks_list(report))


def _name(path: Path, all_paths: list[Path]) -> str:
    """What a model is called: its file, with the folder where files have the same name."""
    return path.stem if sum(other.stem == path.stem for other in all_paths) == 1 else str(path.with_suffix(""))


@dataclass(frozen=True)
class Version:
    """One version of a model.

    Attributes:
        model: It.
        original: What it is compared with.
        samples: For it.
        source: The file that it was read from; None where it was made here.
        result: How it was made; None where it was read.
    """

    model: Model
    original: Model
    samples: Samples
    source: Path | None
    result: CompressionResult | None = None


def _variants(paths: Sequence[Path], plan: Recipe) -> dict[str, Recipe]:
    """The recipes of --variant by the names of their files."""
    from ..errors import UserError
    from ..recipe.recipe import Recipe

    if paths and plan.entries():
        raise UserError("--variant takes the place of --prune, --quantize and --recipe; put what these say into a variant")
    recipes = {path.stem: Recipe.load(path) for path in paths}
    if len(recipes) < len(paths):
        raise UserError("two variants have the same name; rename one of the files")
    for path in paths:
        if not recipes[path.stem].entries():
            raise UserError(f"the variant {path} does nothing: it has no step")
    return recipes


def _compressed(
    original: Model, samples: Samples, plan: Recipe, recipes: dict[str, Recipe], targets: list[str], given: SampleOptions
) -> dict[str, CompressionResult]:
    """What each variant makes of a model, or each step of a recipe alone and all together."""
    from ..compression import compress
    from ..measuring.benchmarking import ablation

    with bars() as bar:
        options: dict[str, Any] = {
            "target": targets, "train_data": samples.training, "search_data": samples.search, "on_progress": bar,
            "search_log": given.search_log, "cache": given.cache,
        }  # fmt: skip
        if not recipes:
            return ablation(original, samples.calibration, plan, **options)
        return {name: compress(original, samples.calibration, recipe=recipe, **options) for name, recipe in recipes.items()}


def _files(versions: dict[str, Version], folder: Path) -> dict[str, Path]:
    """Models as other runtimes read them: their own files, or as ONNX where they have such a form."""
    from ..errors import UnsupportedOperatorError
    from ..exporting import export_onnx

    found = {}
    for number, (name, version) in enumerate(versions.items()):
        if version.source is not None and version.source.suffix in (".onnx", ".tflite"):
            found[name] = version.source
        elif version.result is not None:
            place = folder / f"{number}.onnx"
            try:
                export_onnx(version.result.qdq_model or version.model, place)
            except UnsupportedOperatorError:
                continue
            found[name] = place
    return found


def _records(versions: dict[str, Version], compressing: bool) -> list[ModelRecord]:
    """Every model, evaluated where there is data; versions of one model with the noise of their layers."""
    from ..evaluation.accuracy import evaluate
    from ..report.record import layers_against, model_record

    records = []
    with bars() as bar:
        for name, version in versions.items():
            data = version.samples.evaluation
            looked_at = data or (version.samples.calibration if compressing else None)
            noise = layers_against(version.original, version.model, looked_at)
            if data is None:
                records.append(model_record(name, version.model, layers=noise))
                continue
            report = functools.partial(bar, f"evaluate {name}")
            evaluation = evaluate(version.model, data, reference=version.original, on_progress=report)
            records.append(model_record(name, version.model, evaluation, noise))
    return records
