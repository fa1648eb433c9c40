"""The tuning run: what there is to tune in a model for a target, and where it is measured."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..model import Model
from ..passes._tvm import tvm
from ..passes.errors import UserError
from ..targets.base import Target
from ..targets.integer_io import is_integer
from ..targets.micro.trial_board import CortexMBoard
from ..targets.registry import get_target
from ..targets.remote.boards import Boards
from ..targets.remote.errors import BoardsLostError, RemoteFailure
from ..targets.trials.builders import Builders
from ..targets.trials.tunable import TunableTarget
from ..targets.tuning_log import TuningLog, default_logs, user_log_directory
from ..targets.x86.remote import cpu_of
from ..targets.x86.tuning import X86Tuning
from .boards import BoardBench
from .kernels import KernelBench, TimedKernelBench, kernel_tasks
from .logs import find_logs
from .process import WorkerPool
from .progress import OnProgress, TuningResult
from .search import Bench, search
from .seconds import TimingBench
from .tasks import extract_tasks
from .whole_model import cycles_of_model, executable, instructions_of_model, seconds_of_model


def tune(
    model: Model | tvm.IRModule,
    target: str | X86Tuning = "x86",
    trials: int = 200,
    database_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    time_limit: float | None = None,
    retune: bool = False,
    workers: int | None = None,
    tolerance: float = 1e-4,
    candidate_limit: float = 10.0,
    boards: Boards | None = None,
    board: CortexMBoard | None = None,
    builders: Builders | None = None,
) -> TuningResult:
    """Search for fast schedules of a model's functions and keep them in a tuning log, which every later build reads.

    Every candidate is compiled and run in a process of its own, compared with the unscheduled function on the same
    inputs, and only then timed. The next candidates are chosen by a gradient-boosted cost model (XGBoost), trained on what
    was measured so far and on what logs know. Functions that a log knows are not tried again. A run that is interrupted
    keeps what it has measured; the next one goes on there.

    Args:
        model: A model, or its module with the parameter values attached: float, or integer.
        target: The name of a target, or how to tune for x86. On x86 schedules are tried and timed; on Cortex-M and Cortex-A an
            integer model's kernels, whose instructions an emulator counts.
        trials: Candidates to measure in total; where most is to be expected they are tried first.
        database_dir: The log's folder; see `tvmcompress.targets.tuning_log.user_log_directory` for the default.
        seed: Of the inputs and of the candidates that are drawn at random. Timings differ from run to run all the same.
        on_progress: Called after every batch.
        time_limit: Seconds after which no new batch is started.
        retune: Try functions again that the log knows.
        workers: Processes that compile; by default one for every CPU.
        tolerance: Allowed error of floats, relative to the largest magnitude of the reference; integers must be equal.
        candidate_limit: Seconds that running one candidate may take; slower ones do not count.
        boards: Where schedules of x86 are timed, several at once, for the CPU of one of them; this machine where not given. Or
            where kernels of Cortex-A are timed, for the board that is the target; the emulator's instructions where not given.
            What was measured before all are lost stays in the log.
        board: The microcontroller that counts the cycles of its kernels; the emulator's instructions where not given.
        builders: Other machines that compile the candidates; this one where not given, or none is left.

    Returns:
        What was tried and found, function by function.

    Raises:
        UserError: No such target, not a positive number of trials, a damaged log, or one that cannot be written.
        KeyboardInterrupt: Passed on; everything measured before it is in the log.
    """
    if trials < 1:
        raise UserError(f"{trials} tuning trials were asked for; give at least 1")
    start = time.monotonic()
    described = get_target(target) if isinstance(target, str) else None
    mod = model.module if isinstance(model, Model) else model
    name = _log_name(described, board, boards)
    directory = Path(database_dir) if database_dir is not None else user_log_directory(name)
    log, known = TuningLog(directory), default_logs(name, directory)
    deadline = None if time_limit is None else start + time_limit
    options = partial(search, trials=trials, log=log, known=[] if retune else known, seed=seed, on_progress=on_progress)
    if isinstance(described, TunableTarget):
        if boards is not None:
            check_timed(described)
        described.require_tools()
        mod = _integer(mod, described)
        tasks = kernel_tasks(mod, described, seed)
        hints = [] if retune else [TuningLog(path) for key, path in find_logs() if key not in ("x86", name)]
        bench: Bench = KernelBench(described, board, builders)
        if boards is not None:
            bench = TimedKernelBench(described, boards, log, builders)
        result = options(tasks, bench, deadline=deadline, hints=hints)
        if tasks and bench.lost is None:
            _measure_model(result, mod, described, [log, *known], board, boards)
    else:
        tuning = target if isinstance(target, X86Tuning) else X86Tuning() if boards is None else _tuning_of(boards)
        if described is not None:
            described.require_tools()
            mod = executable(mod)
        tasks = extract_tasks(mod, tuning)
        size = workers or max(1, len(os.sched_getaffinity(0)))
        with tempfile.TemporaryDirectory(prefix="tvmcompress-tuning-") as folder, WorkerPool(size, tuning.threads) as pool:
            places = (tuning, pool, Path(folder), log, seed, tolerance, candidate_limit)
            timing = TimingBench(*places) if boards is None else BoardBench(boards, *places)
            timing.builders = builders
            result = options(tasks, timing, deadline=deadline)
        if described is not None and tasks and timing.lost is None:
            whole = seconds_of_model(mod, described, directory, tuning.threads, boards)
            result.model_default, result.model_best = whole
    result.seconds = time.monotonic() - start
    return result


def check_timed(target: TunableTarget) -> None:
    """Refuse to time kernels on boards of a target that is none.

    Raises:
        UserError: Boards of a tracker do not run its code, or the target is a core, and not a board.
    """
    name = target.description.name
    if not target.remote or not target.kernel_passes():
        raise UserError(f"boards of a tracker time schedules of x86 and kernels of 64-bit Cortex-A, not those of {name}")
    if target.board_key is None:
        raise UserError(f"times are those of a board; give the board as target, as in raspberry-pi-4, not {name}")


def _log_name(target: Target | None, board: CortexMBoard | None, boards: Boards | None) -> str:
    """What the log is called: by the core, or by the board whose cycles or times it holds."""
    if isinstance(target, TunableTarget) and boards is not None:
        return target.description.name
    if board is None:
        return target.log_key if isinstance(target, TunableTarget) else "x86"
    name = None if target is None else target.description.name
    if not isinstance(target, TunableTarget) or target.board_key is None or name != board.description.name:
        raise UserError(f"cycles are those of a board; give the board as target, as in nucleo-f446re, not {name}")
    return board.description.name


def _measure_model(
    result: TuningResult,
    mod: tvm.IRModule,
    target: TunableTarget,
    logs: Sequence[TuningLog],
    board: CortexMBoard | None,
    boards: Boards | None,
) -> None:
    """Measure the whole model; a board that has measured all its layers may have no room for it, or no uart_getc."""
    if boards is not None:
        try:
            result.model_default, result.model_best = seconds_of_model(mod, target, list(logs), 1, boards)
        except (RemoteFailure, BoardsLostError) as error:
            result.model_problem = str(error)
        return
    if board is None:
        result.model_default, result.model_best = instructions_of_model(mod, target, logs)
        return
    try:
        result.model_default, result.model_best = cycles_of_model(mod, target, logs, board)
    except UserError as error:
        result.model_problem = str(error)


def _tuning_of(boards: Boards) -> X86Tuning:
    """How to tune for the machines of a tracker."""
    return X86Tuning(boards.do(cpu_of, "asking a board for its CPU"))


def _integer(mod: tvm.IRModule, target: TunableTarget) -> tvm.IRModule:
    """The model in integer operators, which are what kernels compute."""
    if not target.kernel_passes():
        raise UserError(f"{target.description.name} has no kernels of its own that could be tuned")
    mod = executable(mod)
    if not is_integer(mod):
        raise UserError(f"{target.description.name} has kernels to tune for integer models only; quantize it first")
    return mod
