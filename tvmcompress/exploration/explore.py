"""The search: Optuna proposes, attempts answer.

The proposals are those of multivariate tree-structured Parzen estimators for several values under constraints (Ozaki et al.,
"Multiobjective Tree-Structured Parzen Estimator", 2022), after points that a person would try first; every third is a point of
the front with the channels of its layers shared out a little otherwise. All that is known stands in the study, in SQLite by
default, so that a search goes on where it was, and several machines can search together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..errors import LimitError, UserError
from ..evaluation.output_comparison import fingerprint
from ..model import Model
from ..targets.registry import get_target
from .attempt import Attempts, Samples
from .goal import Goal
from .record import SearchPoint, SearchResult
from .space import Point, Space
from .study import Study, front_of, require_optuna

STUDY = "study.db"
"""The file of the study in the folder of a search."""

OnPoint = Callable[[SearchPoint, SearchResult], None]


def explore(
    attempts: Attempts,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    epochs: tuple[int, ...] = (),
    storage: str | None = None,
    study: str = "tvmcompress",
    seed: int = 0,
    on_point: OnPoint | None = None,
) -> SearchResult:
    """Search for the models of least cost that keep to limits.

    Args:
        attempts: Tries points of a model, for a goal; its folder holds the study where `storage` is not given.
        trials: Points that are tried in this run; None for as many as there is time.
        minutes: After which no further point is begun; None for no limit.
        epochs: Of fine-tuning, to choose among; needs training data.
        storage: An Optuna storage URL, so that several machines work on one search.
        study: Its name there.
        seed: Of what is drawn at random.
        on_point: Told of every point when it is known, with all that is known so far.

    Returns:
        All points, those of earlier runs included.

    Raises:
        UserError: The study belongs to another search, or cannot be read.
        MissingToolError: Optuna, a compiler or an emulator is missing.
    """
    if trials is None and minutes is None:
        raise UserError("a search needs an end: a number of trials or of minutes")
    begun = time.monotonic()
    space = _space(attempts.model, attempts.samples, attempts.goal, epochs)
    found = Study(storage or f"sqlite:///{(attempts.folder / STUDY).resolve()}", study, seed)
    found.claim(_fingerprint(attempts.model, attempts.samples, attempts.goal, epochs))
    found.take_back()
    if found.created:  # of several machines that begin at once, one proposes what to begin with
        for start in space.starts():
            found.study.enqueue_trial(start)

    def result(stopped: str = "trials") -> SearchResult:
        unit, seconds = found.unit() or attempts.unit, time.monotonic() - begun
        return _result(attempts, found.points(), unit, stopped, seconds)

    def tried(trial: Any) -> None:
        point = space.point(trial)
        known = next((other for other in found.points() if (other.recipe, other.build) == (point.recipe, point.build)), None)
        record = known.model_copy(update={"number": trial.number}) if known else attempts.try_point(trial.number, point)
        found.tell(trial, record, attempts.unit)

    stopped, count = "trials", 0
    try:
        with found.failures():
            while trials is None or count < trials:
                if minutes is not None and time.monotonic() - begun >= 60 * minutes:
                    stopped = "minutes"
                    break
                found.refine(space, count, seed)
                with found.asked() as trial:
                    tried(trial)
                count += 1
                if on_point is not None:
                    now = result()
                    on_point(now.points[-1], now)
    except KeyboardInterrupt:
        stopped = "interrupt"
    return result(stopped)


def starting_points(model: Model, samples: Samples, goal: Goal, epochs: tuple[int, ...] = ()) -> list[Point]:
    """The points that a search begins with; arguments as of `explore`.

    Raises:
        MissingToolError: Optuna is missing.
    """
    fixed, space = require_optuna().trial.FixedTrial, _space(model, samples, goal, epochs)
    return [space.point(fixed(start)) for start in space.starts()]


def _space(model: Model, samples: Samples, goal: Goal, epochs: tuple[int, ...]) -> Space:
    return Space(
        model,
        get_target(goal.target).description,
        goal,
        calibration=samples.calibration is not None,
        epochs=epochs if samples.training is not None else (),
        labelled=samples.training is None or samples.training.labels is not None,
    )


def _fingerprint(model: Model, samples: Samples, goal: Goal, epochs: tuple[int, ...]) -> str:
    data = [given for given in (samples.search, samples.calibration, samples.training) if given is not None]
    return fingerprint(model, *data, options=f"{goal} {epochs}")


def _result(attempts: Attempts, points: list[SearchPoint], unit: str, stopped: str, seconds: float) -> SearchResult:
    goal, samples = attempts.goal, attempts.samples
    return SearchResult(
        target=goal.target,
        minimize=goal.minimize,
        max_drop=goal.max_drop,
        max_ram=goal.max_ram,
        max_flash=goal.max_flash,
        unit=unit,
        samples=len(samples.search),
        original=attempts.original,
        points=tuple(points),
        front=tuple(front_of(points)),
        stopped=stopped,
        seconds=round(seconds, 1),
    )


def require_front(result: SearchResult) -> None:
    """Refuse a search that has found nothing.

    Raises:
        LimitError: No point keeps to all limits; the sentence says which came nearest.
    """
    if result.front:
        return
    tried = [point for point in result.points if point.reason is not None and point.lost is not None]
    nearest = min(tried, key=lambda point: point.lost or 0.0, default=None)
    said = "" if nearest is None else f"; nearest came '{nearest.words}': {nearest.reason}"
    raise LimitError(f"none of {len(result.points)} points keeps to the limits{said}; allow more, or search longer")
