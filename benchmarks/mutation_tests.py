"""Which tests execute which lines, and running some of them in a child process that has the heavy packages already."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("passes/integer", "passes/channels", "targets/aot", "targets/micro/kernels")
_FOLDER = ROOT / "build" / "mutation"
_OUT_OF_TIME = "no test notices it within the limit"
_OPTIONS = ["-n", "0", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--hypothesis-seed=0"]


class _Recorder:
    """Names the test to coverage, and keeps times and failures."""

    def __init__(self, place: Path) -> None:
        import coverage

        include = [f"{ROOT}/{room}/*" for room in ROOMS]
        self.coverage = coverage.Coverage(data_file=str(place), include=include, config_file=False)
        self.coverage.set_option("run:relative_files", True)
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):  # type: ignore[no-untyped-def]
        self.coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self.coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.outcome != "passed":
            self.failed.append(report.nodeid)


def record(tests: list[str]) -> None:
    """Run tests and write down what each executes."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    name = "-".join(test.replace("/", "_") for test in tests)[:80]
    recorder = _Recorder(_FOLDER / f"{name}.coverage")
    recorder.coverage.start()
    pytest.main([*_OPTIONS, *tests], plugins=[recorder])
    recorder.coverage.stop()
    recorder.coverage.save()
    (_FOLDER / f"{name}.json").write_text(json.dumps({"seconds": recorder.seconds, "failed": recorder.failed}))


@dataclass(frozen=True)
class Executed:
    """What was recorded.

    Attributes:
        seconds: How long each test took, without those that failed or were skipped.
        lines: By file and line the tests that execute it.
    """

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]]

    @classmethod
    def read(cls) -> Executed:
        """Everything that was recorded."""
        import coverage

        seconds: dict[str, float] = {}
        lines: dict[str, dict[int, list[str]]] = {}
        for place in sorted(_FOLDER.glob("*.json")):
            noted = json.loads(place.read_text())
            seconds |= {name: value for name, value in noted["seconds"].items() if name not in noted["failed"]}
            data = coverage.CoverageData(str(place.with_suffix(".coverage")))
            data.read()
            for file in data.measured_files():
                known = lines.setdefault(file, {})
                for line, contexts in data.contexts_by_lineno(file).items():
                    known.setdefault(line, []).extend(contexts)
        return cls(seconds, lines)

    def tests_of(self, module: Path, lines: Iterable[int] | None) -> set[str]:
        """The tests that execute one of the lines, or with None anything in the functions of the module, and its own file."""
        known = self.lines.get(str(module.relative_to(ROOT)), {})
        own = f"tests/{module.parent.relative_to(ROOT)}/test_{module.stem}.py::" if lines is None else "-"
        found = {test for test in self.seconds if test.startswith(own)}
        for line in known if lines is None else lines:
            found.update(test for test in known.get(line, []) if test in self.seconds)
        return found

    def cost(self, module: Path, test: str) -> float:
        """Seconds, less for tests that mirror the module or its folder, which come first."""
        file = ROOT / test.partition("::")[0]
        near = file.stem == f"test_{module.stem}", file.parent == ROOT / "tests" / module.parent.relative_to(ROOT)
        return (self.seconds[test] + 0.02) / (1 + 4 * near[0] + 4 * near[1])


def preload() -> None:
    """Import what takes long and is not ours."""
    for family in ("cuda", "rocm", "metal", "hexagon", "riscv_cpu", "arm_cpu"):
        sys.modules.setdefault(f"tvm.s_tir.tensor_intrin.{family}", type(sys)(f"tvm.s_tir.tensor_intrin.{family}"))
    hidden = sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    for name in ("tvm", "tvm.relax", "tvm.topi", "numpy", "scipy.optimize", "hypothesis", "onnx", "onnxruntime", "pydantic"):
        importlib.import_module(name)
    if hidden is None:
        del sys.modules["torch"]
    assert not any(name.startswith("tvmcompress") for name in sys.modules)


class _InOrder:
    """Runs the chosen tests in their order, each for a limited time, and says which one runs."""

    def __init__(self, tests: list[str], executed: Executed, said: Path) -> None:
        self.place = {test: index for index, test in enumerate(tests)}
        self.executed = executed
        self.said = said

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.place), key=lambda item: self.place[item.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):  # type: ignore[no-untyped-def]
        self.said.write_text(item.nodeid)
        signal.alarm(int(30 + 10 * self.executed.seconds[item.nodeid]))
        try:
            return (yield)
        finally:
            signal.alarm(0)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef):  # type: ignore[no-untyped-def]
        result = yield
        if fixturedef.argname == "_own_compiled_functions":
            # Objects are kept under a digest of what was compiled, so all mutants may share them.
            os.environ["TVMCOMPRESS_CACHE"] = str(_FOLDER / "cache")
        return result


def try_tests(executed: Executed, module: Path, tests: set[str], limit: float) -> dict[str, object]:
    """Run tests until one fails or the limit (CPU seconds) ends; whether they noticed the mutant, how, and in what time."""
    ordered = sorted(tests, key=lambda test: (executed.cost(module, test), test))
    near = [test for test in ordered if test.startswith(f"tests/{module.parent.relative_to(ROOT)}/")]
    used = 0.0
    killed, how = False, "no test notices it"
    for group in (near, [test for test in ordered if test not in set(near)]):
        left = limit - used
        chosen, total = [], 0.0
        for test in group:
            total += executed.seconds[test]
            if total < 2 * limit:
                chosen.append(test)
        if not chosen:
            continue
        killed, how, seconds = _in_a_child(executed, chosen, left) if left > 0 else (False, _OUT_OF_TIME, 0.0)
        used += seconds
        if killed or how == _OUT_OF_TIME:
            break
    return {"killed": killed, "how": how, "seconds": round(used, 1)}


def _in_a_child(executed: Executed, tests: list[str], limit: float) -> tuple[bool, str, float]:
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "test"
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        child = os.fork()
        if child == 0:
            os.setsid()
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            log = os.open(_FOLDER / "last.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code: int = 3
            try:
                from hypothesis import Phase, settings

                settings.register_profile("mutants", database=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
                settings.load_profile("mutants")
                plugin = _InOrder(tests, executed, said)
                arguments = [*_OPTIONS, "-x", "--basetemp", f"{folder}/base", "--tb=short", *files]
                code = int(pytest.main(arguments, plugins=[plugin]))
            finally:
                sys.stdout.flush()
                os._exit(code)
        status, seconds = _wait(child, limit)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        test = said.read_text() if said.exists() else "collection"
    if status is None:
        return False, _OUT_OF_TIME, seconds
    if os.WIFSIGNALED(status):
        ended = os.WTERMSIG(status)
        return True, f"does not end: {test}" if ended == signal.SIGALRM else f"signal {ended}: {test}", seconds
    code = os.WEXITSTATUS(status)
    noticed = code not in (0, 5)
    return noticed, f"fails ({code}): {test}" if noticed else "no test notices it", seconds


def _wait(child: int, limit: float) -> tuple[int | None, float]:
    """The status of a child, None where it does not end in time, and its CPU seconds and those of its children."""
    times, end = psutil.Process(child), time.monotonic() + 10 * limit
    used = 0.0
    while used < limit and time.monotonic() < end:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage.ru_utime + usage.ru_stime
        time.sleep(0.05)
        with contextlib.suppress(psutil.Error):
            used = sum(times.cpu_times()[:4])
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, used
