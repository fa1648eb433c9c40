"""Kernels of a core, under its emulator or on a board, as tasks of the tuner.

Costs are executed instructions, or cycles of a microcontroller, on which nothing else runs: nothing has to be measured twice.
On boards with Linux they are seconds. Every candidate is compared with the operator's NumPy meaning, beside its own memory
too, before its cost is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..passes._tvm import tvm
from ..targets.arm.trial_boards import CortexABoards
from ..targets.kernels.compiler_options import without_options
from ..targets.kernels.decisions import Decisions, point_key
from ..targets.kernels.records import SIZES, core_of_board
from ..targets.kernels.use_kernels import Site
from ..targets.micro.trial_board import CortexMBoard
from ..targets.remote.boards import Boards
from ..targets.trials.builders import Builders
from ..targets.trials.compile import compile_trials
from ..targets.trials.image import Compile, Emulator, measure
from ..targets.trials.site import SiteTrials
from ..targets.trials.trial import Outcome
from ..targets.trials.tunable import TunableTarget
from ..targets.tuning_log import TuningLog
from .search import LOST, Bench, Measured, Task
from .timed import FINAL_ROUNDS, TimedBench


class _Kernels(Bench):
    """Makes candidates of kernels, here or on machines that compile."""

    _builders: Builders | None

    def group(self, point: Decisions) -> str:
        """Points that differ in LLVM's options alone share all work but its code generator's."""
        return point_key(without_options(point))

    def _outcomes(self, task: Task, points: Sequence[Decisions], place: Emulator) -> list[Outcome]:
        trials: SiteTrials = task.subject
        compiled: Compile = compile_trials if self._builders is None else self._builders.trials
        return measure([partial(trials.trial, point) for point in points], place, compiled)


class KernelBench(_Kernels):
    """Counts executed instructions, or cycles, many candidates in one program.

    Args:
        target: Of the kernels.
        board: Where cycles are counted; without one instructions are, under the target's emulator.
        builders: Which machines compile; this one where not given.
    """

    batch = 48
    least_gain = 0.002

    def __init__(self, target: TunableTarget, board: CortexMBoard | None = None, builders: Builders | None = None) -> None:
        self._builders = builders
        self._place: Emulator = target.emulator() if board is None else board
        self.unit = "instructions" if board is None else "cycles"
        self.core = target.log_key if board is None else core_of_board(target.log_key, board.description.name)
        self.log_target = tvm.target.Target(self._place.tvm)

    def measure(self, task: Task, points: Sequence[Decisions]) -> list[Measured]:
        """Measure points of a task."""
        return [_measured(outcome) for outcome in self._outcomes(task, points, self._place)]


class TimedKernelBench(_Kernels, TimedBench):
    """Times kernels on boards, many candidates in one library.

    Args:
        target: Of the kernels: a board.
        boards: The boards.
        log: Where to write.
        builders: Which machines compile; this one where not given.
    """

    batch = 32

    def __init__(self, target: TunableTarget, boards: Boards, log: TuningLog, builders: Builders | None = None) -> None:
        super().__init__(log)
        self._target, self._boards, self._builders = target, boards, builders
        self.core = core_of_board(target.log_key, target.description.name)
        self.log_target = tvm.target.Target(target.description.tvm)

    def measure(self, task: Task, points: Sequence[Decisions]) -> list[Measured]:
        """Measure points of a task, on as many boards as there are."""
        self.begin(task)
        outcomes = self._outcomes(task, points, CortexABoards(self._target.description, self._boards))
        self.lost = next((outcome.reason for outcome in outcomes if outcome.status == LOST), None)
        return [_measured(outcome) for outcome in outcomes]

    def rounds(self, task: Task, points: Sequence[Decisions]) -> dict[str, list[float]]:
        """Times of points in turns, all on the same board."""
        if self.lost is not None:
            return {}
        outcomes = self._outcomes(task, points, CortexABoards(self._target.description, self._boards, FINAL_ROUNDS))
        # A program that did not come to its end has fewer.
        complete = {point_key(point): list(outcome.turns) for point, outcome in zip(points, outcomes)}
        return {key: turns for key, turns in complete.items() if len(turns) == FINAL_ROUNDS}


def kernel_tasks(mod: tvm.IRModule, target: TunableTarget, seed: int) -> list[Task]:
    """The kernels of an integer module, each workload once.

    Args:
        mod: Parameters attached.
        target: A Cortex-M or Cortex-A target with kernels of its own.
        seed: Of the inputs that candidates are tried on.
    """
    grouped: dict[str, list[Site]] = {}
    for site in target.survey(mod):
        grouped.setdefault(site.choice.workload.key, []).append(site)
    tasks = []
    for sites in grouped.values():
        # The same layer may have more memory to spare at one place than at another.
        site = max(sites, key=lambda site: len(site.choice.space))
        tasks.append(Task(site.choice, sum(site.count for site in sites), SiteTrials(site, seed)))
    return tasks


def _measured(outcome: Outcome) -> Measured:
    sizes = {name: getattr(outcome, name) for name in SIZES}
    return Measured(outcome.status, float(outcome.cost) if outcome.status == "ok" else None, outcome.reason, sizes)
