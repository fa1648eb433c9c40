"""`--dry-run`: everything is read and checked, what would be done is written, and nothing is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common

if TYPE_CHECKING:
    from ..recipe.recipe import Recipe

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Read and check everything, write the recipe, and stop.")]

RECIPE = "recipe.toml"
"""Its name in a folder."""


def write_recipe(plan: Recipe, targets: Sequence[str], output: Path | None, json: bool) -> None:
    """Print a recipe, and write it into a folder where there is nothing yet.

    Args:
        plan: The recipe.
        targets: What would be built for.
        output: The folder; None for none. One that holds something is left as it is.
        json: Whether JSON is printed, with the steps that the recipe stands for, in the place of TOML.
    """
    from ..steps.plan import planned

    _write(plan.to_toml(), output)
    if json:
        steps = [step.name for step in planned(plan)]
        common.print_json({"recipe": plan.model_dump(mode="json"), "steps": steps, "targets": list(targets)})
    else:
        print(plan.to_toml(), end="")


def write_command_recipe(recipe: Mapping[str, Any], output: Path | None, json: bool) -> None:
    """The same of a command whose recipe is the table of its options.

    Args:
        recipe: See `options.command_recipe`.
        output: As of `write_recipe`.
        json: Whether JSON is printed in the place of TOML.
    """
    import tomli_w

    _write(tomli_w.dumps(recipe), output)
    if json:
        common.print_json(recipe)
    else:
        print(tomli_w.dumps(recipe), end="")


def save_command_recipe(recipe: Mapping[str, Any], folder: Path) -> None:
    """Write the recipe of a command beside what came out of it."""
    import tomli_w

    from ..files.whole_file import whole_file

    with whole_file(folder / RECIPE) as partial:
        partial.write_text(tomli_w.dumps(recipe), encoding="utf-8")


def _write(text: str, output: Path | None) -> None:
    from ..files.output_folder import output_folder

    if output is None:
        return
    if output.is_dir() and any(output.iterdir()):
        common.print_line("Warning", f"{output} holds something and was left as it is; the recipe is printed alone")
        return
    with output_folder(output) as folder:
        (folder / RECIPE).write_text(text, encoding="utf-8")
