"""`tvmcompress targets`: where models can be built for, and what is missing here to do so."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import JsonOption, output, print_json


def targets(
    name: Annotated[str | None, typer.Argument(help="One target, by name or by the path of its description.")] = None,
    json: JsonOption = False,
) -> None:
    """List the targets, how figures are measured on each, and whether its tools are installed; or show one."""
    from ..report.console import target_details, targets_table
    from ..targets.registry import get_target, list_targets

    known = list_targets() if name is None else [get_target(name).description]
    rows = [(get_target(name or description.name), description) for description in known]
    if json:
        records = [{**description.model_dump(mode="json"), "missing": target.missing_tools()} for target, description in rows]
        if name is not None:
            records[0]["details"] = rows[0][0].details()
        print_json(records)
    elif name is None:
        output().print(targets_table([(description, target.missing_tools()) for target, description in rows]))
    else:
        output().print(target_details(rows[0][1], rows[0][0].details(), rows[0][0].missing_tools()))
