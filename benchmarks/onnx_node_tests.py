"""ONNX's own node tests: is each operator computed right, or refused with a reason, at every stage that a model goes through?

    python benchmarks/onnx_node_tests.py [--every 1] [--only resize] [--jobs 2] [--log cases.jsonl] [--target x86] [--write]

Every node test of the package `onnx` is imported twice: with the operands as the test gives them, and with all but the first
as initializers (`/constants`), as exporters write weights, shapes and axes. What it computes is compared with the test's own
results in NumPy (`Model.run`), built in float for x86 or another target, and after export to ONNX: by ONNX Runtime, and
imported again. A case is `right` on all of them, `refused` with one sentence, `wrong`, or a `crash` (any other exception, a
signal, a minute). `onnx_node_tests_refused.tsv` lists what is refused and why; anything else makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

REFUSED = Path(__file__).with_name("onnx_node_tests_refused.tsv")
OUTCOMES = ("right", "refused", "wrong", "crash")
_TIMEOUT = 60
_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass
class Case:
    """One model with what it takes and what it gives."""

    name: str
    proto: onnx.ModelProto
    inputs: list[Any]
    expected: list[Any]
    rtol: float
    atol: float


def cases() -> Iterator[Case]:
    """Every node test, with operands as given and as initializers."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        tests = load_model_tests(kind="node")
    for test in tests:
        inputs, expected = (list(map(_plain, values)) for values in test.data_sets[0])
        name = test.name.removeprefix("test_")
        yield Case(name, test.model, inputs, expected, test.rtol, test.atol)
        if len(inputs) < 2 or not all(isinstance(value, np.ndarray | np.generic) for value in inputs):
            continue
        proto = onnx.ModelProto()
        proto.CopyFrom(test.model)
        for info, value in zip(list(proto.graph.input)[1:], inputs[1:]):
            proto.graph.initializer.append(_tensor(np.asarray(value), info))
        del proto.graph.input[1:]
        yield Case(f"{name}/constants", proto, inputs[:1], expected, test.rtol, test.atol)


def _plain(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _tensor(value: np.ndarray, info: onnx.ValueInfoProto) -> onnx.TensorProto:
    kind = info.type.tensor_type.elem_type
    if value.dtype.kind in "OSU":
        return onnx.helper.make_tensor(
            info.name, onnx.TensorProto.STRING, value.shape, [str(v).encode() for v in value.reshape(-1)]
        )
    tensor = numpy_helper.from_array(value, info.name)
    tensor.data_type = kind
    return tensor


def judge(case: Case, target: str = "x86") -> dict[str, Any]:
    """What becomes of a case: outcome, the stage at which it was decided, and the reason; `target` may be empty."""
    import onnxruntime

    import tvmcompress
    from tvmcompress.exporting.onnx import to_onnx
    from tvmcompress.importing import from_onnx

    stage = "import"
    try:
        model = from_onnx(case.proto, source="the model")
        inputs = [_as(value, spec.dtype) for value, spec in zip(case.inputs, model.inputs, strict=True)]
        stage = "numpy"
        _compare(model.run(*inputs), case)
        if target:
            stage = target
            options: dict[str, Any] = {"tuning_log": False} if target == "x86" else {}
            with tempfile.TemporaryDirectory() as folder:
                _compare(tvmcompress.build(model, target, folder, **options).run(inputs), case)
        stage = "export"
        proto = to_onnx(model)
        stage = "onnxruntime"
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        feeds = {value.name: array for value, array in zip(session.get_inputs(), inputs)}
        _compare(session.run(None, feeds), case)
        stage = "again"
        _compare(from_onnx(proto, source="the export").run(*inputs), case)
    except AssertionError as error:
        return {"outcome": "wrong", "stage": stage, "reason": str(error)}
    except tvmcompress.UserError as error:
        outcome = "crash" if error.exit_code == 1 else "refused"  # TVM's compiler gave up
        return {"outcome": outcome, "stage": stage, "reason": str(error)}
    except Exception as error:
        if stage == "onnxruntime" and "NOT_IMPLEMENTED" in str(error):
            return {"outcome": "right", "stage": stage, "reason": "ONNX Runtime has no kernel"}
        text = (str(error).strip().splitlines() or [""])[-1]
        return {"outcome": "crash", "stage": stage, "reason": f"{type(error).__name__}: {text}"}
    return {"outcome": "right", "stage": stage, "reason": ""}


def _as(value: Any, dtype: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.name != dtype and array.dtype.name in _FLOATS and dtype in _FLOATS:
        return array.astype(dtype)
    return array


def _compare(found: list[np.ndarray], case: Case) -> None:
    assert len(found) == len(case.expected), f"{len(found)} results instead of {len(case.expected)}"
    for index, (value, given) in enumerate(zip(found, case.expected)):
        want = np.asarray(given)
        assert value.shape == want.shape, f"result {index} has shape {value.shape} instead of {want.shape}"
        narrow = want.dtype.name in ("float16", "bfloat16")
        if want.dtype.name in _FLOATS:
            assert value.dtype.name in _FLOATS, f"result {index} is {value.dtype} instead of {want.dtype}"
            want = want.astype(np.float64)
            finite = np.abs(want[np.isfinite(want)])
            atol = max(case.atol, (1e-2 if narrow else 2e-6) * float(finite.max(initial=0)))
            close = np.isclose(value.astype(np.float64), want, rtol=case.rtol, atol=atol, equal_nan=True)
            assert close.all(), f"result {index}: {(~close).sum()} of {close.size} values differ"
        else:
            assert value.dtype == want.dtype, f"result {index} is {value.dtype} instead of {want.dtype}"
            assert np.array_equal(value, want), f"result {index}: {(value != want).sum()} of {want.size} values differ"


# Cases may end the process: they run in others.


def work(target: str) -> None:
    """Judge the cases named on standard input; what native code writes goes nowhere."""
    answers = os.fdopen(os.dup(1), "w")
    written = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
    os.dup2(written.fileno(), 1)
    os.dup2(written.fileno(), 2)
    known = {case.name: case for case in cases()}
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        written.seek(0)
        written.truncate()
        with np.errstate(all="ignore"):
            found = judge(known[line.strip()], target)
        written.seek(0)
        found["output"] = written.read().strip()[:200]
        answers.write(json.dumps(found) + "\n")
        answers.flush()


class Worker:
    """A process that judges cases, started again when one ends it."""

    def __init__(self, target: str) -> None:
        self._command = [sys.executable, __file__, "--worker", "--target", target]
        self._process: subprocess.Popen[str] | None = None

    def judge(self, name: str) -> dict[str, Any]:
        """As the function; a process that ends or takes too long is a crash."""
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(name + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], _TIMEOUT)
        line = process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        if ready:
            code = process.wait()
            reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        else:
            process.kill()
            process.wait()
            reason = f"no answer in {_TIMEOUT} s"
        self._process = None
        return {"outcome": "crash", "stage": "?", "reason": reason, "output": ""}

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()


def judge_all(names: list[str], jobs: int, target: str, log: Path | None) -> dict[str, dict[str, Any]]:
    """Each case by name, over several processes; what is in the log already is taken from there."""
    found: dict[str, dict[str, Any]] = {}
    if log and log.exists():
        found = dict(json.loads(line) for line in log.read_text().splitlines())
    left = [name for name in names if name not in found]

    def part(start: int) -> None:
        worker = Worker(target)
        for count, name in enumerate(left[start::jobs]):
            found[name] = worker.judge(name)
            if log:
                with log.open("a") as file:
                    file.write(json.dumps([name, found[name]]) + "\n")
            if start == 0 and sys.stderr.isatty():
                print(f"\r{count * jobs}/{len(left)}", end="", file=sys.stderr)
        worker.close()

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(part, range(jobs)))
    return {name: found[name] for name in names}


def table(found: dict[str, dict[str, Any]]) -> str:
    """Counts as Markdown."""
    lines = ["| operands | " + " | ".join(OUTCOMES) + " |", "|---" * (len(OUTCOMES) + 1) + "|"]
    for title, constants in (("as given", False), ("all but the first as initializers", True)):
        counts = Counter(r["outcome"] for n, r in found.items() if n.endswith("/constants") == constants)
        lines.append(f"| {title} | " + " | ".join(f"{counts[outcome]:,}" for outcome in OUTCOMES) + " |")
    return "\n".join(lines)


def refused() -> dict[str, str]:
    """The list of what is refused, with reasons."""
    if not REFUSED.exists():
        return {}
    return dict(line.split("\t", 1) for line in REFUSED.read_text().splitlines() if line)


def main() -> int:
    """Judge, print, compare with the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="a sample: every so manieth case")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--target", default="x86", help="what it is built for, in float")
    parser.add_argument("--no-build", action="store_true", help="leave that out; it takes most of the time")
    parser.add_argument("--write", action="store_true", help="write the list of what is refused anew")
    parser.add_argument("--log", type=Path, help="JSON lines of every outcome; a run that was stopped goes on from there")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.target)
        return 0
    names = [case.name for case in cases() if options.only in case.name][:: options.every]
    found = judge_all(names, options.jobs, "" if options.no_build else options.target, options.log)
    print(table(found))
    if options.write:
        REFUSED.write_text("".join(f"{n}\t{r['reason']}\n" for n, r in sorted(found.items()) if r["outcome"] == "refused"))
    known, unexpected = refused(), 0
    for name, result in found.items():
        if result["outcome"] in ("wrong", "crash") or (result["outcome"] == "refused") != (name in known):
            unexpected += 1
            print(f"{name}: {result['outcome']} ({result['stage']}) {result['reason']}")
        if result.get("output"):
            print(f"{name}: wrote {result['output']}")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
