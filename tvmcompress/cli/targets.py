"""`tvmcompress targets`: where models can be built for, and what is missing here to do so."""

from __future__ import annotations

from .common import JsonOption, command, output


@command
def targets(json: JsonOption = False) -> None:
    """List the targets, how figures are measured on each, and whether its tools are installed."""
    from ..report.console import targets_table
    from ..targets.registry import get_target, list_targets

    rows = [(description, get_target(description.name).missing_tools()) for description in list_targets()]
    if json:
        from json import dumps

        print(dumps([{**row.model_dump(mode="json"), "missing": missing} for row, missing in rows], indent=1))
        return
    output().print(targets_table(rows))
