"""`tvmcompress inspect`: what a model is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import BatchOption, JsonOption, ShapeOption, command, load_model, output


@command
def inspect(
    model: Annotated[Path, typer.Argument(help="An .onnx file, or a .tvmc file of ours.", show_default=False)],
    groups: Annotated[bool, typer.Option("--groups", help="Show the groups of channels that pruning can remove.")] = False,
    shape: ShapeOption = None,
    batch: BatchOption = 1,
    json: JsonOption = False,
) -> None:
    """Show the layers of a model: shapes, multiply-accumulates, parameters, and what can be pruned."""
    subject = load_model(model, shape, batch)
    from ..report.inspection import inspection

    record = inspection(model.name, subject)
    if json:
        print(record.model_dump_json(indent=1))
        return
    from ..report.console import groups_table, layers_table, model_header

    console = output()
    console.print(model_header(record))
    console.print(layers_table(record))
    if groups:
        console.print(groups_table(record))
    else:
        prunable = sum(not group.frozen for group in record.groups)
        console.print(f"{prunable} groups of channels can be pruned; [bold]--groups[/bold] shows them.")
