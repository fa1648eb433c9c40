"""`tvmcompress tune`: search for a faster build of a model, and keep what is found."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common
from .completion import targets as complete_targets
from .dry_run import save_command_recipe, write_command_recipe
from .options.command_recipe import CommandRecipeOptions, command_recipe
from .options.groups import with_groups
from .options.microcontroller import MicrocontrollerOptions
from .options.model import ModelArgument, ModelOptions
from .options.rpc import RpcOptions
from .progress import Bars, bars

if TYPE_CHECKING:
    from ..tuning.progress import OnProgress, TuningProgress


@with_groups
def tune(
    ctx: typer.Context,
    model: ModelArgument,
    *,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", help="Tune for this target (repeatable).", show_default="x86", autocompletion=complete_targets
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Candidates to measure at most, for each target.")] = 1000,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.01, help="Minutes after which no more candidates are measured.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option("--log", help="Folder of the log.", show_default="that which builds consult")
    ] = None,
    retune: Annotated[bool, typer.Option("--retune", help="Try again what logs know.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn at random.")] = 0,
    builders: Annotated[
        str | None,
        typer.Option(
            "--builders",
            metavar="HOST:PORT",
            help="Compile on the builders of the TVM RPC tracker at this address.",
            rich_help_panel="Boards",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for tuning.json, what --json prints, and recipe.toml.")
    ] = None,
    where: RpcOptions,
    chip: MicrocontrollerOptions,
    reading: ModelOptions,
    asked: CommandRecipeOptions,
    json: common.JsonOption = False,
) -> None:
    """Search for a faster build of a model: schedules on x86, timed; kernels on Cortex, counted by an emulator or
    measured on a board.

    Every candidate's output is checked. What is found goes into a tuning log, which all later builds consult; a search that
    was interrupted goes on where it was.
    """
    from ..errors import ToolError, UserError
    from ..files.output_folder import output_folder
    from ..recipe.recipe import Recipe
    from ..report.tuning import tuning_table
    from ..targets.registry import get_target
    from ..targets.trials.builders import Builders
    from ..targets.trials.tunable import TunableTarget
    from ..tuning.tune import check_timed
    from ..tuning.tune import tune as search

    targets = target or ["x86"]
    if log is not None and len(targets) > 1:
        raise UserError("--log is the folder of one target's log; tune for one target at a time, or leave it out")
    for name in targets:
        described = get_target(name)
        described.require_tools()
        if where.rpc is not None and isinstance(described, TunableTarget):
            check_timed(described)
    pool = where.pool(targets)
    compilers = None if builders is None else Builders.at(builders)
    board = chip.board([get_target(name) for name in targets])
    loaded = reading.load(model, Recipe())
    recipe = command_recipe(ctx, target=targets)
    if asked.dry_run:
        write_command_recipe(recipe, output, json)
        return
    results = {}
    with nullcontext() if output is None else output_folder(output) as folder:
        for name in targets:
            with bars() as bar:
                limit = None if minutes is None else 60 * minutes
                results[name] = search(
                    loaded,
                    name,
                    trials,
                    log,
                    seed=seed,
                    on_progress=reporter(bar, name),
                    time_limit=limit,
                    retune=retune,
                    boards=None if pool is None else pool.of(get_target(name).description),
                    board=board,
                    builders=compilers,
                )
            if not json:
                if len(targets) > 1:
                    common.output().print(f"{name}:")
                common.output().print(tuning_table(results[name]))
        found = {name: asdict(result) for name, result in results.items()}
        if folder is not None:
            (folder / "tuning.json").write_text(dumps(found, indent=1), encoding="utf-8")
            save_command_recipe(recipe, folder)
    if json:
        common.print_json(found)
    for result in results.values():
        if result.lost is not None:
            common.print_line("Error", f"all boards are lost: {result.lost}; what was measured is in {result.directory}")
            raise typer.Exit(ToolError.exit_code)


def reporter(bar: Bars, name: str) -> OnProgress:
    """What shows the progress of tuning for a target."""

    def report(progress: TuningProgress) -> None:
        best = (
            ""
            if progress.default_cost is None or progress.best_cost is None
            else (f", {100 * (progress.best_cost / progress.default_cost - 1):+.1f} %")
        )
        whole = f"; all {-100 * progress.gain:+.1f} %" if progress.gain else ""
        left = "" if progress.seconds_left is None else f"; {progress.seconds_left / 60:.0f} min left"
        text = f"{name}: {progress.task} ({progress.task_number} of {progress.tasks}){best}{whole}{left}"
        bar(f"tune {name}", progress.total_trial, progress.total_trials, text)

    return report
