"""Jobs in processes: all results, in this process; one that fails ends the others; nothing is left of an interrupt."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

import tvmcompress
from tvmcompress import Model, UserError
from tvmcompress.measuring import benchmarking
from tvmcompress.measuring import side_by_side as module
from tvmcompress.measuring.side_by_side import LostJobError, side_by_side


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once on any machine."""
    monkeypatch.setattr(module, "available_cpus", lambda: 2)
    monkeypatch.setattr(benchmarking, "available_cpus", lambda: 2)


def test_every_result_comes_from_a_process_of_its_own() -> None:
    found: dict[int, tuple[int, int]] = {}
    jobs = [partial(lambda number: (number, os.getpid()), number) for number in range(5)]
    side_by_side(jobs, lambda number, result: found.update({number: result}))
    assert [found[number][0] for number in range(5)] == list(range(5))
    assert len({pid for _, pid in found.values()} | {os.getpid()}) == 6


def sleep(folder: Path, number: int) -> None:
    (folder / str(number)).write_text(str(os.getpid()))
    time.sleep(60)


def fail(error: BaseException) -> None:
    raise error


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Odd(Exception):
    """Cannot be pickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    ("job", "kind", "sentence"),
    [
        (partial(fail, UserError("no such thing")), UserError, "no such thing"),
        (partial(fail, OSError(28, "No space left")), OSError, "No space left"),
        (partial(fail, Odd(1, 2)), RuntimeError, "1 and 2"),
        (die, LostJobError, "ended with -9"),
    ],
)
def test_the_first_failure_ends_all(job: Any, kind: type[Exception], sentence: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(kind, match=sentence):
        side_by_side([partial(sleep, tmp_path, 0), job], lambda number, result: None)
    assert time.monotonic() - begun < 50
    assert not [child for child in psutil.Process().children() if child.pid == int((tmp_path / "0").read_text() or 0)]


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupt() -> None:
        while not all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "01"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start what runs behind without it
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            side_by_side([partial(sleep, tmp_path, number) for number in range(3)], lambda number, result: None)
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
    # Who is killed ends when the system comes to it.
    killed = [int((tmp_path / name).read_text()) for name in "01"]
    until = time.monotonic() + 20
    while any(map(psutil.pid_exists, killed)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, killed))
    assert not (tmp_path / "2").exists()


def test_targets_at_once_give_what_they_give_alone(digits_model: Model, tmp_path: Path) -> None:
    targets = [name for name in ("cortex-m0plus", "cortex-m3") if not tvmcompress.get_target(name).missing_tools()]
    if len(targets) < 2:
        pytest.skip("needs the Cortex-M tool chain")
    told: list[tuple[str, str, str]] = []
    both = tvmcompress.benchmark(
        {"digits": digits_model}, targets, output=tmp_path / "both", on_build=lambda *what: told.append(what)
    )
    assert sorted(told) == [("digits", name, "build") for name in targets]
    for name, record in zip(targets, both, strict=True):
        (alone,) = tvmcompress.benchmark({"digits": digits_model}, [name])
        assert record.target == name
        assert record.measurement is not None
        assert alone.measurement is not None
        assert record.measurement.instructions == alone.measurement.instructions
        assert (tmp_path / "both" / name / "build.json").exists() or any((tmp_path / "both" / name).iterdir())
