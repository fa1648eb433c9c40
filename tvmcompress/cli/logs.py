"""`tvmcompress logs`: tuning logs, looked at and kept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .common import JsonOption, output, print_json

LogArgument = Annotated[
    str, typer.Argument(metavar="LOG", help="A target's name (x86, or a core such as cortex-m4), or a log's folder.")
]

logs = typer.Typer(help="Look at tuning logs, put them together, leave out what is of no more use.", no_args_is_help=True)


@logs.command("list")
def list_logs(json: JsonOption = False) -> None:
    """The logs that builds consult."""
    from ..report.tuning import logs_table
    from ..tuning.logs import find_logs, summary

    found = [summary(target, directory) for target, directory in find_logs()]
    if json:
        print_json([{**asdict(log), "directory": str(log.directory)} for log in found])
    elif found:
        output().print(logs_table(found))
    else:
        output().print("There is no tuning log yet; `tvmcompress tune` writes one.")


@logs.command()
def show(log: LogArgument, json: JsonOption = False) -> None:
    """What a log knows, workload by workload."""
    from ..report.tuning import log_table
    from ..tuning.logs import entries, open_log

    found = list(entries(open_log(log)))
    if json:
        print_json([asdict(entry) for entry in found])
    else:
        output().print(log_table(found))


@logs.command()
def merge(
    sources: Annotated[list[str], typer.Argument(metavar="LOG...", help="Names of targets, or folders.")],
    into: Annotated[Path, typer.Option("--into", help="Folder of the log to write to.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Put the records of several logs into one."""
    from ..tuning.logs import merge as put_together
    from ..tuning.logs import open_log

    merged = put_together([open_log(source) for source in sources], into)
    if json:
        print_json({"directory": str(into), "records": len(merged)})
    else:
        output().print(f"{into} has {len(merged)} records.")


@logs.command()
def prune(log: LogArgument, json: JsonOption = False) -> None:
    """Leave out failures, what kernels of today make void, and what another record beats in every way."""
    from ..tuning.logs import open_log
    from ..tuning.logs import prune as leave_out

    before, after = leave_out(open_log(log))
    if json:
        print_json({"before": before, "after": after})
    else:
        output().print(f"{after} of {before} records are left.")


@logs.command()
def verify(log: LogArgument, json: JsonOption = False) -> None:
    """Read every record, and name what builds would pass over."""
    from ..tuning.logs import open_log
    from ..tuning.logs import verify as check

    opened = open_log(log)
    problems = check(opened)
    if json:
        print_json({"records": len(opened), "problems": problems})
        return
    for sentence in problems:
        output().print(sentence)
    output().print(f"{len(opened)} records were read whole; {len(problems)} workloads have none that builds use.")
