"""`tvmcompress search`: which of all combinations are worth shipping."""

from __future__ import annotations

import functools
import json as plain_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from . import common
from .exit_codes import ExitCode
from .options.data import ReadOptions
from .options.groups import with_groups
from .options.model import ModelArgument, ModelOptions
from .options.rpc import RpcOptions
from .process import command_line
from .progress import Bars, bars

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..evaluation.accuracy import Evaluation
    from ..exploration.attempt import Attempts, Samples
    from ..exploration.goal import Objective
    from ..exploration.record import SearchPoint, SearchResult
    from ..model import Model

_DEFAULT_OUTPUT = Path("search")
_RESULT, _PICTURE, _POINTS, _STARTS = "search.json", "front.png", "points", "starts"


@with_groups
def search(
    model: ModelArgument,
    *,
    target: Annotated[str, typer.Option("--target", "-t", help="Measure on this target.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the search; one that is there goes on.")
    ] = _DEFAULT_OUTPUT,
    calib: Annotated[Path, typer.Option("--calib", help="Samples of what the model will see.", rich_help_panel="Data")],
    eval_data: Annotated[Path, typer.Option("--eval", help="Samples to compare on, best with labels.", rich_help_panel="Data")],
    search_split: Annotated[
        float,
        typer.Option(
            metavar="FRACTION", help="Points compete on this part of --eval; the rest judges.", rich_help_panel="Data"
        ),
    ] = 0.5,
    train_data: Annotated[
        Path | None, typer.Option(help="What fine-tuning learns from; without it nothing is trained.", rich_help_panel="Data")
    ] = None,
    calib_samples: Annotated[
        int | None, typer.Option(min=1, help="Samples of --calib to use at most.", show_default="512", rich_help_panel="Data")
    ] = None,
    minimize: Annotated[
        str,
        typer.Option(
            metavar="latency|flash|ram|energy",
            help="What to make small (under an emulator instructions are the latency; energy where hardware reports it).",
        ),
    ] = "latency",
    max_drop: Annotated[
        float, typer.Option(min=0, max=100, help="Points of accuracy that may be lost; without labels, % of answers changed.")
    ] = 1.0,
    max_ram: Annotated[str | None, typer.Option(metavar="SIZE", help="RAM that the model may take (64K).")] = None,
    max_flash: Annotated[str | None, typer.Option(metavar="SIZE", help="Flash that the model may take (256K).")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Minutes after which no more is begun.", show_default="30 without --trials")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Combinations to try at most.")] = None,
    epochs: Annotated[
        str, typer.Option(metavar="N,N,...", help="Lengths of fine-tuning to choose among, with --train-data.")
    ] = "2,6",
    points: Annotated[int, typer.Option(min=1, help="Points of the front to build and keep, at most.")] = 5,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An Optuna storage, so that several machines search together.", show_default="SQLite"),
    ] = None,
    study: Annotated[str, typer.Option(help="Name of the study in the storage.")] = "tvmcompress",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the recipes that the search would begin with, and stop.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn at random.")] = 0,
    where: RpcOptions,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw the front (needs matplotlib).")] = True,
    reading: ModelOptions,
    read: ReadOptions,
    json: common.JsonOption = False,
) -> None:
    """Search over pruning, criteria, precisions, repairs, fine-tuning and builds for the best under limits.

    Each combination is made, compared with the original, built and measured; hopeless ones are left early. A search that was
    interrupted goes on with the same command. The folder gets search.json, front.png, and for chosen points of the front a
    folder with model.tvmc, model.onnx, recipe.toml, report.json, report.html and the build.
    """
    from ..errors import UserError
    from ..exploration.attempt import Attempts, require_energy
    from ..exploration.explore import explore, require_front, starting_points
    from ..exploration.goal import Goal
    from ..files.whole_file import whole_file
    from ..report.exploration import cost_text, plot_search, search_table
    from ..targets.registry import get_target
    from .options.recipe_values import size_of

    ram, flash = (
        None if text is None else size_of(name, text) for name, text in (("max_ram", max_ram), ("max_flash", max_flash))
    )
    goal = Goal(target, cast("Objective", minimize), max_drop, ram, flash)
    get_target(target).require_tools()
    boards = where.pool([target])
    require_energy(goal, boards)
    lengths = _lengths(epochs) if train_data is not None else ()
    if plot and not dry_run:
        common.need_matplotlib()
    loaded = reading.load(model)
    steps = read.preprocessing(loaded.inputs)
    if steps is not None:
        loaded = loaded.with_preprocessing(steps)
    samples, unseen = _samples(loaded, calib, calib_samples, eval_data, search_split, train_data, read)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {output} cannot be made ({error.strerror}); give another one with -o") from error

    if dry_run:
        recipes = starting_points(loaded, samples, goal, lengths)
        for number, point in enumerate(recipes):
            (output / _STARTS).mkdir(exist_ok=True)
            point.recipe.save(output / _STARTS / f"{number}.toml")
            common.output().print(f"{number}: {point.words()}")
        common.output().print(f"Written to {output / _STARTS}; without --dry-run the search begins with these.")
        return

    def shown(point: SearchPoint, now: SearchResult) -> None:
        best = now.point(now.front[0]) if now.front else None
        said = "nothing keeps to the limits yet" if best is None else f"best {cost_text(now, best.cost)}, {best.words}"
        bar(
            "search",
            len(now.points),
            0,
            f"{len(now.points)} points, {len(now.front)} on the front; {said}",
        )

    with bars() as bar:
        attempts = Attempts(loaded, samples, goal, output, boards=boards, on_progress=bar)
        result = explore(
            attempts,
            trials=trials,
            minutes=30.0 if minutes is None and trials is None else minutes,
            epochs=lengths,
            storage=storage,
            study=study,
            seed=seed,
            on_point=shown,
        )
        with whole_file(output / _RESULT) as partial:
            partial.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
        if result.stopped != "interrupt":
            require_front(result)
        if plot and result.front:
            plot_search(result, output / _PICTURE)
        chosen = [] if result.stopped == "interrupt" else result.chosen(points)
        judged = {}
        for best in chosen:
            found = _ship(attempts, best, model.name, output / _POINTS / str(best.number), unseen, bar)
            if found is not None:
                judged[best.number] = found
    if json:
        common.print_json(result)
    else:
        common.output().print(search_table(result, judged))
    if result.stopped == "interrupt":
        common.print_line("Interrupted", f"the same command goes on from here; what is known is in {output / _RESULT}")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if json:
        return
    made = ", ".join(str(point.number) for point in chosen)
    picture = f", {_PICTURE}" if plot else ""
    common.output().print(f"Written to {output}: {_RESULT}{picture}, and in {_POINTS}/ a folder each for the points {made}.")


def _lengths(text: str) -> tuple[int, ...]:
    """Numbers of epochs from a list with commas."""
    from ..errors import UserError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= 10000 for part in parts):
        raise UserError(f"--epochs {text} is no list of whole numbers above 0, such as 2,6")
    return tuple(sorted({int(part) for part in parts}))


def _samples(
    model: Model, calib: Path, limit: int | None, evaluation: Path, fraction: float, training: Path | None, read: ReadOptions
) -> tuple[Samples, Dataset]:
    """What is searched on, and what judges at the end."""
    from ..compression import DEFAULT_SAMPLES
    from ..data.splits import split
    from ..exploration.attempt import Samples
    from ..search.mixed_precision import search_samples

    calibration = read.load(calib, model.inputs, limit=limit or DEFAULT_SAMPLES)
    compared, unseen = split(read.load(evaluation, model.inputs), fraction)
    trained = None if training is None else read.load(training, model.inputs)
    return Samples(calibration, trained, search_samples(compared, calibration)), unseen


def _ship(attempts: Attempts, point: SearchPoint, source: str, folder: Path, unseen: Dataset, bar: Bars) -> Evaluation | None:
    """Make a point again, mostly from what is kept, and write all of it; its quality on unseen samples."""
    from ..exploration.space import Point
    from ..files.output_folder import output_folder
    from ..report.result_folder import result_records, result_report, write_result

    combination = Point(point.recipe, point.build)
    with output_folder(folder) as place:
        result = attempts.compressed(combination)
        builds = attempts.built({"compressed": result.model}, combination, place)
        models = result_records(result, unseen, unseen, functools.partial(bar, "evaluate"))
        found = models[-1].evaluation
        record = {
            "target": attempts.goal.target,
            **point.model_dump(mode="json"),
            "unseen": None if found is None else found.model_dump(mode="json"),
        }
        (place / "point.json").write_text(plain_json.dumps(record, indent=1) + "\n", encoding="utf-8")
        write_result(place, result_report(source, result, models, builds, command=command_line()), result)
    return found
