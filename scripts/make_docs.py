"""Write the pages of docs/ that are made from the code: operators.md, reference.md, command-line.md, python.md, and the
schemas of docs/schemas.

Usage: python scripts/make_docs.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from command_line_page import command_line_page
from python_page import python_page

import tvmcompress
from tvmcompress.cli.exit_codes import ExitCode
from tvmcompress.passes.pipeline import PASSES
from tvmcompress.passes.plugins.registry import Registry, first_sentence
from tvmcompress.passes.pruning.importance import CRITERIA
from tvmcompress.passes.quantization.observers import OBSERVERS
from tvmcompress.passes.repair.repairs import REPAIRS
from tvmcompress.recipe.presets import PRESETS
from tvmcompress.report.operators import COLUMNS, GAPS, INTEGER_COLUMNS, integer_operators, operators, row, tflite_names
from tvmcompress.report.schemas import SCHEMAS
from tvmcompress.targets.registry import FAMILIES

DOCS = Path(__file__).parents[1] / "docs"
NOTE = "<!-- Made by scripts/make_docs.py from the code; do not edit. -->"


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    titles = list(titles)
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def operators_page() -> str:
    """What is known of each operator."""
    relax = [[f"`{record.name.removeprefix('relax.')}`", *row(record, COLUMNS)] for record in operators()]
    integer = [[f"`{record.name}`", *row(record, INTEGER_COLUMNS)] for record in integer_operators()]
    gaps = [
        [", ".join(COLUMNS[column] for column in gap.columns.split()), ", ".join(gap.operators.split()), gap.why]
        for gap in GAPS
    ]
    several = ", ".join(kind for kind, name in tflite_names().items() if name is None)
    return f"""{NOTE}

# Operators

What can be done with each operator of a model. `tvmcompress operators` prints the same, `--json` as data.

- **NumPy**: it has a reference implementation, on which ranges are found and models are evaluated; without one it runs
  compiled by TVM.
- **channels**: pruning knows how its channels hang together; without a rule they stay.
- **channels-last**: it is computed channels-last; without a rule it keeps its layout.
- **quantized as**: what it is to the quantizer; what has no kind stays in float.
- **integers**: the integers it is lowered to; a *table* of 256 entries, for functions of one value.
- **PyTorch**: it can be trained through.
- **ONNX**: it can be written as ONNX.
- **from TFLite**: the operators of TFLite that are imported as it, or as its integer form. Imported as several operators:
  {several}.

## Operators of Relax

{table(["operator", *COLUMNS.values()], relax)}

## Integer operators

Each has a definition that every target compiles; *kernels* names the targets that have more than that.

{table(["operator", *INTEGER_COLUMNS.values()], integer)}

## Why cells are empty

Of several that fit, the first counts.

{table(["columns", "operators", "reason"], gaps)}
"""


def reference_page() -> str:
    """The public names, and everything that is chosen by name."""
    public = [[f"`{name}`", summary_of(name)] for name in tvmcompress.__all__ if not name.startswith("__")]
    tables: tuple[tuple[str, str, Registry, dict[str, str]], ...] = (
        ("Importance criteria", "`importance`, `--importance`", CRITERIA, CRITERIA.summaries()),
        ("Observers", "`observer`, `--observer`", OBSERVERS, OBSERVERS.summaries()),
        ("Repairs of quantized models", "`repair`, `--quant-repair`", REPAIRS, {name: r.note for name, r in REPAIRS.items()}),
        ("Presets", "`preset`, `--preset`", PRESETS, {name: preset.purpose for name, preset in PRESETS.items()}),
        ("Families of targets", "`family` in the description of a target", FAMILIES, FAMILIES.summaries()),
        ("Passes", "`tvmcompress.passes`, the step `pass` of a recipe", PASSES, PASSES.summaries()),
    )
    sections = []
    for title, where, registry, summaries in tables:
        more = f" Packages add theirs as entry points of `{registry.group}`." if registry.group else ""
        rows = [[f"`{name}`", summary] for name, summary in summaries.items()]
        sections.append(f"## {title}\n\nChosen in {where}.{more}\n\n{table(['name', 'what it is'], rows)}\n")
    return f"""{NOTE}

# Reference

`import tvmcompress` gives these names. The page on [Python](python.md) has all of what is said of each: arguments with shapes,
dtypes and units, what it returns, and the errors it raises; so has `help(tvmcompress.compress)`.

{table(["name", "what it is"], public)}

{chr(10).join(sections)}
## Exit codes

The same number stands in `verdict.exit_code` of report.json and of what `--json` prints, with a sentence.

{table(["code", "what it says"], [[str(code.value), code.meaning] for code in ExitCode])}

## Files

[schemas/report.schema.json](schemas/report.schema.json) is the JSON Schema of report.json and of what `compress --json` and
`benchmark --json` print, [schemas/recipe.schema.json](schemas/recipe.schema.json) that of recipes,
[schemas/tuning.schema.json](schemas/tuning.schema.json) that of what `tune --json` prints; `tvmcompress schema` prints them,
too. Many editors complete and check a recipe whose first line is `#:schema ./recipe.schema.json`. Attributes may come to be in
reports, which readers should pass over; a change that would break a reader gives `version` another number.
"""


def summary_of(name: str) -> str:
    """The first sentence on a public name."""
    return first_sentence(getattr(tvmcompress, name))


def schema_page(name: str) -> str:
    """A schema, as it is published."""
    return json.dumps(SCHEMAS[name](), indent=1) + "\n"


PAGES = {
    "operators.md": operators_page,
    "reference.md": reference_page,
    "command-line.md": partial(command_line_page, NOTE),
    "python.md": partial(python_page, NOTE),
    **{f"schemas/{name}.schema.json": partial(schema_page, name) for name in SCHEMAS},
}


def main() -> None:
    """Write the pages."""
    (DOCS / "schemas").mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    main()
