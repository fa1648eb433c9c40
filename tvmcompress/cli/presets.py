"""`tvmcompress presets`: named ways of quantizing, and what each stands for."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import JsonOption, output, print_json


def presets(
    name: Annotated[str | None, typer.Argument(help="Print this one as TOML, to be edited and given to --recipe.")] = None,
    json: JsonOption = False,
) -> None:
    """List the presets of quantization, or print one as a recipe."""
    from ..recipe.presets import PRESETS
    from ..recipe.recipe import Recipe
    from ..report.tables import open_table

    if name is not None:
        recipe = Recipe.of({"quantize": {"preset": name}})
        if json:
            print_json(recipe)
        else:
            print(recipe.to_toml(), end="")
        return
    if json:
        print_json([{"name": known, "purpose": preset.purpose, "values": preset.values} for known, preset in PRESETS.items()])
        return
    table = open_table("preset", "what it is")
    for known, preset in PRESETS.items():
        table.add_row(known, preset.purpose)
    output().print(table)
