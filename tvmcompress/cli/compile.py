"""`tvmcompress compile`: a model as it is, built for targets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common
from .measuring import measure_all
from .options.groups import with_groups
from .options.model import ModelArgument, ModelOptions
from .options.rpc import RpcOptions
from .options.targets import BuildOptions
from .process import command_line

_DEFAULT_OUTPUT = Path("out")


@with_groups
def compile(
    model: ModelArgument,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the builds.")] = _DEFAULT_OUTPUT,
    build: BuildOptions,
    where: RpcOptions,
    reading: ModelOptions,
    html: common.HtmlOption = True,
    json: common.JsonOption = False,
) -> None:
    """Build a model as it is, and measure it: nothing is pruned or quantized, see compress for that.

    The output folder gets model.tvmc, report.json, report.html and a folder for each target (x86 where none is named), which
    run and package take.
    """
    from ..files.output_folder import output_folder
    from ..report.console import report_tables
    from ..report.html import save_html
    from ..report.memory import memory_map
    from ..report.record import Host, Report, model_record

    targets = build.target or ["x86"]
    options = build.by_family(targets)
    boards = where.pool(targets)
    with output_folder(output) as folder:
        loaded = reading.load(model)
        builds = measure_all({model.stem: loaded}, targets, None, folder, options=options, tune=build.tune, boards=boards)
        loaded.save(folder / "model.tvmc")
        report = Report(
            source=model.name,
            host=Host.this(),
            models=(model_record(model.stem, loaded),),
            builds=tuple(builds),
            command=command_line(),
        )
        report.save(folder / "report.json")
        if html:
            save_html(report, folder / "report.html")
    if json:
        common.print_json(report)
    else:
        console = common.output()
        console.print(report_tables(report, common.is_wide(console)))
        console.print(memory_map(report.builds))
        if html:
            common.show_page(output / "report.html")
    common.conclude(report, output)
