"""`tvmcompress inspect`: what a model is made of."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import JsonOption, output, print_json
from .options.groups import with_groups
from .options.model import ModelArgument, ModelOptions


@with_groups
def inspect(
    model: ModelArgument,
    *,
    groups: Annotated[bool, typer.Option("--groups", help="Show the groups of channels that pruning can remove.")] = False,
    reading: ModelOptions,
    json: JsonOption = False,
) -> None:
    """Show the layers of a model: shapes, multiply-accumulates, parameters, and what can be pruned."""
    subject = reading.load(model)
    from ..report.inspection import inspection

    record = inspection(model.name, subject)
    if json:
        print_json(record)
        return
    from ..report.console import groups_table, layers_table, model_header

    console = output()
    console.print(model_header(record))
    console.print(layers_table(record))
    if groups:
        console.print(groups_table(record))
    else:
        prunable = sum(not group.frozen for group in record.groups)
        console.print(f"{prunable} groups of channels can be pruned; --groups shows them.")
