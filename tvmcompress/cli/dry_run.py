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
DryPlanOption = Annotated[bool, typer.Option("--dry-run", help="Read and check everything, print the plan, and stop.")]


def write_recipe(plan: Recipe, targets: Sequence[str], output: Path | None, json: bool) -> None:
    """Print a recipe, and write it into a folder where there is nothing yet.

    Args:
        plan: The recipe.
        targets: What would be built for.
        output: The folder; None for none. One that holds something is left as it is.
        json: Whether JSON is printed, with the steps that the recipe stands for, in the place of TOML.
    """
    from ..files.output_folder import output_folder
    from ..steps.plan import planned

    if output is not None and not (output.is_dir() and any(output.iterdir())):
        with output_folder(output) as folder:
            plan.save(folder / "recipe.toml")
    elif output is not None:
        common.print_line("Warning", f"{output} holds something and was left as it is; the recipe is printed alone")
    if json:
        steps = [step.name for step in planned(plan)]
        common.print_json({"recipe": plan.model_dump(mode="json"), "steps": steps, "targets": list(targets)})
    else:
        print(plan.to_toml(), end="")


def print_plan(name: str, values: Mapping[str, Any], json: bool) -> None:
    """Print what a command without a recipe would do, as a table of TOML or as JSON."""
    import tomli_w

    known = {key: value for key, value in values.items() if value is not None}
    if json:
        common.print_json({name: known})
    else:
        print(tomli_w.dumps({name: known}), end="")
