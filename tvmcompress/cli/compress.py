"""`tvmcompress compress`: everything, from a model file to a folder with what came out."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common
from .dry_run import DryRunOption, write_recipe
from .measuring import measure_all
from .options.data import ReadOptions
from .options.groups import with_groups
from .options.model import ModelArgument, ModelOptions
from .options.recipe import RecipeOptions
from .options.recipe_values import MORE, with_default
from .options.rpc import RpcOptions
from .options.samples import OPTIMISTIC, SampleOptions
from .options.targets import BuildOptions
from .process import command_line
from .progress import bars

if TYPE_CHECKING:
    from ..report.record import Report

_DEFAULT_OUTPUT = Path("out")


@with_groups
def compress(
    model: ModelArgument,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for everything that comes out.")] = _DEFAULT_OUTPUT,
    given: SampleOptions,
    asked: RecipeOptions,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            help="Folder for the state after every epoch, or block of brecq; a stopped run goes on.",
            rich_help_panel="Fine-tuning",
        ),
    ] = None,
    build: BuildOptions,
    where: RpcOptions,
    onnx: Annotated[
        bool | None,
        typer.Option(
            "--onnx/--no-onnx",
            help="Also write model.onnx, for ONNX Runtime and others.",
            show_default="onnx where it has a form in ONNX",
        ),
    ] = None,
    reading: ModelOptions,
    read: ReadOptions,
    html: common.HtmlOption = True,
    dry_run: DryRunOption = False,
    groups: Annotated[bool, typer.Option("--groups", help="Show what each group of channels lost, and why.")] = False,
    json: common.JsonOption = False,
) -> None:
    """Compress a model, build it for targets, and measure what came out.

    With --calib and no word on what is to be done it becomes int8, repaired from these samples.
    The output folder gets model.tvmc (the compressed model), model.onnx (the same for other runtimes; quantized models as
    QDQ), recipe.toml, report.json, report.html and a folder for each target. It is written whole or not at all.
    """
    from ..compression import compress as run
    from ..compression import limited_target
    from ..errors import UserError
    from ..files.output_folder import output_folder
    from ..report.record import RemarkRecord
    from ..report.result_folder import result_records, result_report, write_result

    plan = reading.recorded(asked.recipe())
    calibrated = given.calib is not None or given.calib_synthetic is not None
    usual = asked.recipe_file is None and not plan.entries() and calibrated
    plan = with_default(plan) if usual else plan
    given.check(asked, plan)
    if not plan.keeps_state and checkpoint is not None:
        raise UserError("--checkpoint says nothing without --finetune EPOCHS, --qat, --repair-distill or --quant-repair brecq")
    targets = build.target or []
    options = build.by_family(targets)
    limited_target(plan, targets)
    boards = where.pool(targets)
    if dry_run:
        given.load(plan, reading.load(model, plan), read, dry=True)
        write_recipe(plan, targets, output, json)
        return
    with output_folder(output) as folder:
        original = reading.load(model, plan)
        steps = read.preprocessing(original.inputs)
        if steps is not None:
            original = original.with_preprocessing(steps)
        samples = given.load(plan, original, read)
        with bars() as bar:
            result = run(
                original,
                samples.calibration,
                recipe=plan,
                train_data=samples.training,
                checkpoint=checkpoint,
                target=targets,
                search_data=samples.search,
                search_log=given.search_log,
                cache=given.cache,
                on_progress=bar,
            )
            tried = samples.evaluation or samples.calibration
            report = functools.partial(bar, "evaluate")
            models = result_records(result, samples.evaluation, tried, report)
        compressed = {"compressed": result.model}
        builds = measure_all(compressed, targets, tried, folder, options=options, tune=build.tune, boards=boards)
        warning = RemarkRecord(pass_name="mixed precision", subject="precisions", message=OPTIMISTIC)
        written = result_report(
            model.name, result, models, builds, command=command_line(), warning=warning if samples.optimistic else None
        )
        written = write_result(folder, written, result, onnx=onnx, html=html)
    if json:
        common.print_json(written)
    else:
        _show(written, output, groups)
        if usual:
            common.output().print(MORE)
    common.conclude(written, output)


def _show(report: Report, output: Path, groups: bool) -> None:
    from rich.text import Text

    from ..data.outliers import OUTLIERS
    from ..evaluation.output_parts import POOR_PARTS
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
    for remark in report.remarks:
        if remark.pass_name in (POOR_PARTS, OUTLIERS):
            common.print_line("Warning", f"{remark.subject}: {remark.message}")
    exchange = ", model.onnx (for other runtimes)" if "model.onnx" in report.files else ""
    files = f": model.tvmc (the model){exchange}, recipe.toml (the options), report.json (figures)."
    console.print(Text.assemble("Written to ", (str(output), "bold"), files))
    if "report.html" in report.files:
        common.show_page(output / "report.html")
