"""Tuning logs: MetaSchedule databases on disk, one folder per target, in MetaSchedule's own format.

`database_workload.json` holds one workload a line, `[structural hash, serialized module]`;
`database_tuning_record.json` one measurement a line, `[workload number, [trace, seconds, target, arguments]]`.
MetaSchedule's own `JSONDatabase` reads these files too. This reader differs in three ways: it says which line is
damaged, it appends whole lines under a lock, so that several processes may share a log and a killed one loses nothing
it had committed, and it reads traces only when asked for them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..passes._tvm import tvm
from ..passes.errors import UserError

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"
LOGS_VARIABLE = "TVMCOMPRESS_TUNING_LOGS"

# Beside this package, in a checkout as in an installed wheel.
_PACKAGED = Path(__file__).resolve().parent.parent / "tuning_logs"

FAILED_SECONDS = 1e10
"""MetaSchedule's mark of a candidate that did not run: its time is this or more."""


@dataclass(frozen=True)
class _Line:
    """A record as read: its seconds at hand, the rest not parsed yet."""

    number: int
    workload: int
    content: Any

    @property
    def seconds(self) -> float:
        return cost_of(self.content)


def cost_of(content: Any) -> float:
    """The cost of a record as a log has it: the mean of its times."""
    times = content[1]
    return sum(times) / len(times) if times else FAILED_SECONDS


class TuningLog:
    """A tuning log folder.

    Args:
        directory: The folder; a missing one is an empty log and is made when something is written.

    Raises:
        UserError: A line of the log is damaged; the sentence says which and what to do.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self._workloads: list[tuple[str, Any]] = []
        self._records: dict[int, list[_Line]] = {}
        self._parsed: dict[int, Any] = {}
        self._read()

    @property
    def workload_path(self) -> Path:
        """The file of the workloads."""
        return self.directory / WORKLOADS

    @property
    def record_path(self) -> Path:
        """The file of the measurements."""
        return self.directory / RECORDS

    def __len__(self) -> int:
        return sum(len(lines) for lines in self._records.values())

    def records(self, mod: tvm.IRModule) -> list[Any]:
        """All `TuningRecord`s of a workload that ran, fastest first."""
        number = self._find(mod)
        if number is None:
            return []
        lines = sorted(self._records.get(number, ()), key=lambda line: line.seconds)
        return [self._record(line) for line in lines if line.seconds < FAILED_SECONDS]

    def best(self, mod: tvm.IRModule) -> Any | None:
        """The record of the best schedule of a workload, None when the log has none.

        A search ends by measuring its best candidates again, in turns, since single timings mislead. So among schedules
        that were measured more than once the fastest by its latest time is the best; where there are none, the fastest.
        """
        number = self._find(mod)
        if number is None:
            return None
        latest: dict[str, _Line] = {}
        finalists: dict[str, _Line] = {}
        for line in self._records.get(number, ()):
            if line.seconds < FAILED_SECONDS:
                trace = json.dumps(line.content[0])
                if trace in latest:
                    finalists[trace] = line
                latest[trace] = line
        lines = (finalists or latest).values()
        return self._record(min(lines, key=lambda line: line.seconds)) if lines else None

    def measured(self, mod: tvm.IRModule) -> dict[str, float]:
        """Seconds of every schedule of a workload that was tried, by `trace_key`; failed ones are `FAILED_SECONDS`."""
        number = self._find(mod)
        lines = [] if number is None else self._records.get(number, [])
        return {json.dumps(line.content[0]): line.seconds for line in lines}

    def lines(self, mod: tvm.IRModule) -> list[Any]:
        """The records of a workload as the log has them: [trace, costs, target, arguments]."""
        number = self._find(mod)
        return [] if number is None else [line.content for line in self._records.get(number, ())]

    def extend(self, mod: tvm.IRModule, lines: Sequence[Any]) -> None:
        """Write records of a workload as another log has them, those that are not there yet, to the end of the log.

        Raises:
            UserError: The log cannot be written.
        """
        with self._writing(mod) as number:
            known = [line.content for line in self._records.get(number, ())]
            _append_lines(self.record_path, [[number, line] for line in lines if line not in known])

    def modules(self) -> Iterator[tvm.IRModule]:
        """The workloads."""
        for number in range(len(self._workloads)):
            yield self._parsed_workload(number).mod

    def append(
        self,
        mod: tvm.IRModule,
        trace: Any,
        seconds: Sequence[float],
        target: tvm.target.Target,
        args_info: Sequence[Any],
    ) -> None:
        """Write a measurement to the end of the log and force it to disk.

        Args:
            mod: The workload.
            trace: The schedule's trace.
            seconds: Measured times; an empty list marks a candidate that failed.
            target: The target as logs record it, without what is particular to this machine.
            args_info: MetaSchedule's description of the arguments.

        Raises:
            UserError: The log cannot be written.
        """
        self.append_all(mod, [(trace, seconds)], target, args_info)

    def append_all(
        self,
        mod: tvm.IRModule,
        measured: Sequence[tuple[Any, Sequence[float]]],
        target: tvm.target.Target,
        args_info: Sequence[Any] = (),
    ) -> None:
        """Write measurements of a workload to the end of the log and force them to disk.

        Args:
            mod, target, args_info: As of `append`.
            measured: Traces with their times.

        Raises:
            UserError: The log cannot be written.
        """
        from tvm.s_tir.meta_schedule.database import TuningRecord

        workload = _workload(mod)
        with self._writing(mod) as number:
            records = [
                TuningRecord(trace, workload, list(seconds) or [FAILED_SECONDS], target, list(args_info))
                for trace, seconds in measured
            ]
            _append_lines(self.record_path, [[number, record.as_json()] for record in records])

    @contextlib.contextmanager
    def _writing(self, mod: tvm.IRModule) -> Iterator[int]:
        """The number of a workload, for appending to the log, which nobody else writes meanwhile."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._read()
                number = self._find(mod)
                if number is None:
                    number = len(self._workloads)
                    _append_lines(self.workload_path, [_as_json(mod)])
                yield number
                self._read()
        except OSError as error:
            raise UserError(
                f"the tuning log {self.directory} cannot be written ({error.strerror}); "
                f"give a folder that can be, or set {LOGS_VARIABLE}"
            ) from error

    def _record(self, line: _Line) -> Any:
        from tvm.s_tir.meta_schedule.database import TuningRecord

        if line.number not in self._parsed:
            workload = self._parsed_workload(line.workload)
            try:
                self._parsed[line.number] = TuningRecord.from_json(line.content, workload)
            except Exception as error:
                raise _damaged(self.record_path, line.number, "is no tuning record of this version of TVM") from error
        return self._parsed[line.number]

    def _parsed_workload(self, number: int) -> Any:
        from tvm.s_tir.meta_schedule.database import Workload

        key = -1 - number
        if key not in self._parsed:
            try:
                self._parsed[key] = Workload.from_json(list(self._workloads[number]))
            except Exception as error:
                raise _damaged(self.workload_path, number + 1, "is no workload of this version of TVM") from error
        return self._parsed[key]

    def _find(self, mod: tvm.IRModule) -> int | None:
        import tvm_ffi

        wanted = str(_unsigned(tvm_ffi.structural_hash(mod)))
        for number, (digest, _) in enumerate(self._workloads):
            if digest == wanted and tvm_ffi.structural_equal(self._parsed_workload(number).mod, mod):
                return number
        return None

    def _read(self) -> None:
        """Read what was appended since the last time, by this process or another."""
        for number, line in _lines(self.workload_path, len(self._workloads)):
            if not (isinstance(line, list) and len(line) == 2 and isinstance(line[0], str)):
                raise _damaged(self.workload_path, number, "is not [hash, module]")
            self._workloads.append((line[0], line[1]))
        for number, line in _lines(self.record_path, len(self)):
            if not (
                isinstance(line, list)
                and len(line) == 2
                and isinstance(line[0], int)
                and isinstance(line[1], list)
                and len(line[1]) >= 2
            ):
                raise _damaged(self.record_path, number, "is not [workload, record]")
            if not 0 <= line[0] < len(self._workloads):
                raise _damaged(self.record_path, number, f"names workload {line[0]}, which {WORKLOADS} does not have")
            self._records.setdefault(line[0], []).append(_Line(number, line[0], line[1]))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.directory / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def trace_key(mod: tvm.IRModule, trace: Any) -> str:
    """The trace of a schedule of `mod` as text: equal for equal schedules."""
    from tvm.s_tir.meta_schedule.database import TuningRecord

    return json.dumps(TuningRecord(trace, _workload(mod), [], None, []).as_json()[0])


def user_log_directory(target: str) -> Path:
    """Where tuning writes by default.

    `$TVMCOMPRESS_TUNING_LOGS/<target>`; without the variable `tuning_logs/<target>` of a source checkout, or, for an
    installed package, a folder in the user's cache.
    """
    base = os.environ.get(LOGS_VARIABLE)
    if base:
        return Path(base) / target
    if (_PACKAGED.parent / "pyproject.toml").exists() and os.access(_PACKAGED.parent, os.W_OK):
        return _PACKAGED / target
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tvmcompress" / "tuning_logs" / target


def packaged_log_directory(target: str) -> Path | None:
    """The log that comes with tvmcompress for a target, None where there is none."""
    path = _PACKAGED / target
    return path if path.is_dir() else None


def packaged_targets() -> list[str]:
    """The targets whose logs come with tvmcompress."""
    return sorted(path.name for path in _PACKAGED.iterdir() if (path / RECORDS).exists())


def default_logs(target: str, directory: str | os.PathLike[str] | None = None) -> list[TuningLog]:
    """The logs that a build for `target` consults, in this order: the given one or the user's, then the packaged one.

    Raises:
        UserError: One of them is damaged.
    """
    folders = [Path(directory) if directory is not None else user_log_directory(target)]
    packaged = packaged_log_directory(target)
    if packaged is not None and packaged.resolve() != folders[0].resolve():
        folders.append(packaged)
    return [TuningLog(folder) for folder in folders if folder.is_dir()]


LogChoice = str | os.PathLike[str] | bool | Sequence[TuningLog] | None
"""Logs that a build consults: a folder before the packaged one, by default the user's; False for none; or these."""


def chosen_logs(target: str, choice: LogChoice) -> list[TuningLog]:
    """The logs of a choice, the first to ask first.

    Raises:
        UserError: One of them is damaged.
    """
    if choice is False:
        return []
    if choice is None or choice is True:
        return default_logs(target)
    return default_logs(target, choice) if isinstance(choice, (str, os.PathLike)) else list(choice)


def _lines(path: Path, skip: int) -> Iterator[tuple[int, Any]]:
    """The lines of a file behind the first `skip`, numbered from one.

    A line without its end was being written when the power went: it was never committed and is left out.
    """
    if not path.exists():
        return
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"the tuning log {path} cannot be read ({error.strerror}); give another log folder") from error
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        if number <= skip:
            continue
        try:
            yield number, json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise _damaged(path, number, "is not JSON") from None


def _append_lines(path: Path, lines: Sequence[Any]) -> None:
    """Append whole lines, in place of one that a crash cut off."""
    content = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    with open(path, "ab+") as file:
        file.seek(0)
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)
        file.write(content.encode())
        file.flush()
        os.fsync(file.fileno())


def _damaged(path: Path, number: int, what: str) -> UserError:
    return UserError(f"line {number} of the tuning log {path} {what}; delete that line, or give another log folder")


def _workload(mod: tvm.IRModule) -> Any:
    from tvm.s_tir.meta_schedule.database import Workload

    return Workload(mod)


def _as_json(mod: tvm.IRModule) -> Any:
    digest, module = _workload(mod).as_json()
    return [str(digest), str(module)]


def _unsigned(value: int) -> int:
    return value % (1 << 64)
