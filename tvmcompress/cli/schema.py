"""`tvmcompress schema`: the JSON Schemas of reports, recipes and results of tuning."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .common import output as terminal


class Kind(StrEnum):
    """What there is a schema of."""

    report = "report"
    recipe = "recipe"
    tuning = "tuning"


def schema(
    kind: Annotated[Kind, typer.Argument(help="Of report.json, of recipe.toml, or of what `tune --json` prints.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write it to this file (recipe.schema.json).")] = None,
) -> None:
    """Print the JSON Schema of reports, recipes or results of tuning; editors complete and check recipes by it.

    In a recipe its first line names the file: `#:schema ./recipe.schema.json`.
    """
    import json

    from ..files.whole_file import whole_file
    from ..report.schemas import SCHEMAS

    text = json.dumps(SCHEMAS[kind.value](), indent=1) + "\n"
    if output is None:
        print(text, end="")
        return
    with whole_file(output) as partial:
        partial.write_text(text, encoding="utf-8")
    terminal().print(f"Written to {output}.", highlight=False)
