"""The study of a search: what Optuna knows of it, with what we keep there."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ..errors import MissingToolError, UserError
from .goal import front
from .record import SearchPoint
from .space import Space

_RECORD, _FINGERPRINT, _UNIT, _OWNER = "record", "fingerprint", "unit", "owner"
_SQLITE = "sqlite:///"
_NEIGHBOURS = 3
"""One of so many points is a neighbour of the front."""


class Study:
    """A study, with what we keep in it.

    Args:
        storage: An Optuna storage URL.
        name: Of the study, which is made if it is not there.
        seed: Of proposals.

    Attributes:
        study: Of Optuna.
        created: Whether it was not there before.

    Raises:
        UserError: The storage cannot be used.
        MissingToolError: Optuna is not installed.
    """

    def __init__(self, storage: str, name: str, seed: int) -> None:
        self._optuna = optuna = require_optuna()
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)
        self._known: dict[int, SearchPoint] = {}
        self._lock = Path(f"{storage.removeprefix(_SQLITE)}.lock") if storage.startswith(_SQLITE) else None
        with self.failures(), self._alone():
            kept = optuna.storages.RDBStorage(storage)
            directions = ["minimize", "minimize"]
            try:
                self.study = optuna.create_study(storage=kept, study_name=name, directions=directions, sampler=sampler)
                self.created = True
            except optuna.exceptions.DuplicatedStudyError:
                self.study, self.created = optuna.load_study(storage=kept, study_name=name, sampler=sampler), False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Where the storage is SQLite's, which gives the same trial to two processes, one at a time."""
        if self._lock is None:
            yield
            return
        try:
            file = self._lock.open("w")
        except OSError as error:
            raise UserError(f"the study cannot be kept in {self._lock.parent} ({error.strerror})") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def asked(self) -> Iterator[Any]:
        """The next trial; one that is broken off is proposed again."""
        with self._alone():
            trial = self.study.ask()
            trial.set_user_attr(_OWNER, _this_process())
        try:
            yield trial
        except BaseException:
            self._give_up(trial.number)
            raise

    def tell(self, trial: Any, record: SearchPoint, unit: str) -> None:
        """What came of a trial."""
        trial.set_user_attr(_RECORD, record.model_dump_json())
        trial.set_constraint("limits", 0.0 if record.feasible else 1.0 + max(0.0, record.lost or 0.0))
        if unit:
            self.study.set_user_attr(_UNIT, unit)
        self.study.tell(trial, _values(record, self.points()))

    def take_back(self) -> None:
        """Propose again what processes of this machine were at that are no more."""
        host = _this_process()[0]
        for trial in self.study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState.RUNNING,)):
            owner = trial.user_attrs.get(_OWNER)
            if owner is not None and owner[0] == host and not _alive(owner):
                self._give_up(trial.number)

    def _give_up(self, number: int) -> None:
        trial = next(trial for trial in self.study.get_trials(deepcopy=False) if trial.number == number)
        self.study.tell(number, state=self._optuna.trial.TrialState.FAIL)
        params = trial.system_attrs.get("fixed_params") or trial.params
        if params:
            self.study.enqueue_trial(params)

    @contextmanager
    def failures(self) -> Iterator[None]:
        """What a storage cannot do, in one sentence."""
        import sqlalchemy.exc

        try:
            yield
        except (sqlalchemy.exc.SQLAlchemyError, self._optuna.exceptions.StorageInternalError, ModuleNotFoundError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"the study cannot be read or written ({reason}); check --storage and the folder") from error

    def claim(self, fingerprint: str) -> None:
        """Make it the study of a search.

        Raises:
            UserError: It is another's.
        """
        known = self.study.user_attrs.get(_FINGERPRINT)
        if known not in (None, fingerprint):
            raise UserError(
                f"the study '{self.study.study_name}' is of another search (model, data, target, limits or epochs differ); "
                "give another folder with -o, or another --study"
            )
        self.study.set_user_attr(_FINGERPRINT, fingerprint)

    def unit(self) -> str:
        """Of costs, as far as any is known."""
        return str(self.study.user_attrs.get(_UNIT, ""))

    def points(self) -> list[SearchPoint]:
        """All that are known, in order."""
        trials = [trial for trial in self.study.get_trials(deepcopy=False) if _RECORD in trial.user_attrs]
        for trial in trials:
            if trial.number not in self._known:
                self._known[trial.number] = SearchPoint.model_validate_json(trial.user_attrs[_RECORD])
        return [self._known[trial.number] for trial in trials]

    def refine(self, space: Space, count: int, seed: int) -> None:
        """Propose a neighbour of the front, at its turn and where nothing else waits."""
        trials = self.study.get_trials(deepcopy=False)
        waiting = any(trial.state == self._optuna.trial.TrialState.WAITING for trial in trials)
        points = {point.number: point for point in self.points()}
        best = [number for number in front_of(list(points.values())) if points[number].removed]
        if waiting or count % _NEIGHBOURS or not best or not space.groups:
            return
        draw = np.random.default_rng((seed, len(trials)))
        number = int(draw.choice(best))
        params = next(trial.params for trial in trials if trial.number == number)
        self.study.enqueue_trial(space.near(params, points[number].removed, draw))


def _this_process() -> list[Any]:
    """Host, number and beginning of this process."""
    return [platform.node(), os.getpid(), psutil.Process().create_time()]


def _alive(owner: list[Any]) -> bool:
    try:
        return bool(psutil.Process(owner[1]).create_time() == owner[2])
    except psutil.Error:
        return False


def require_optuna() -> Any:
    """Optuna, silent.

    Raises:
        MissingToolError: It is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise MissingToolError("searching needs Optuna; install it with pip install 'tvmcompress[search]'") from None
    import warnings

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def _values(record: SearchPoint, known: list[SearchPoint]) -> tuple[float, float]:
    """Cost and loss of a point; one that was not measured has an estimate by its multiply-accumulates, which only steers."""
    lost = 100.0 if record.lost is None else record.lost
    if record.cost is not None:
        return record.cost, lost
    measured = [point for point in known if point.cost is not None and point.macs]
    if not measured or record.macs is None:
        return max((point.cost or 0.0 for point in measured), default=1e12), lost
    return record.macs * float(np.median([(point.cost or 0.0) / (point.macs or 1) for point in measured])), lost


def front_of(points: list[SearchPoint]) -> list[int]:
    """Numbers of the points that keep to all limits and that no other one beats, cheapest first."""
    good = [point for point in points if point.feasible and point.cost is not None and point.lost is not None]
    numbers = front([(point.cost or 0.0, point.lost or 0.0) for point in good])
    return [good[index].number for index in numbers]
