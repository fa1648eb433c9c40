"""Other runtimes on this machine, timed in turns with a build of ours: what the same model takes there."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingToolError, UserError
from ..passes._tvm import tvm
from ..targets.measurement import Latency
from ..targets.x86.artifact import X86Artifact
from ..targets.x86.measure import thread_limit
from .record import RuntimeResult

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""Inputs as the model's file takes them to its outputs."""

_ROUND = 10
"""Runs of one runtime before it is the next one's turn: long enough for its caches, short enough for the clock's whims."""


def check_runtimes(names: Sequence[str]) -> None:
    """Refuse runtimes that are unknown or not installed.

    Raises:
        UserError: There is no such runtime.
        MissingToolError: Its package is missing.
    """
    for name in names:
        if name not in _RUNTIMES:
            raise UserError(f"there is no runtime '{name}' to compare with; there are {', '.join(_RUNTIMES)}")
        package, module, _, _ = _RUNTIMES[name]
        if find_spec(module) is None:
            raise MissingToolError(f"comparing with {name} needs {package}; install it with pip install {package}")


def timed_in_turns(
    artifact: X86Artifact,
    inputs: Sequence[np.ndarray],
    expected: np.ndarray,
    given: Sequence[np.ndarray],
    file: Path | None,
    names: Sequence[str],
    *,
    runs: int = 200,
    warm_up: int = 20,
    threads: int | None = 1,
    duration: float | None = None,
) -> tuple[Latency, list[RuntimeResult]]:
    """Time a build and other runtimes in turns, all by this process's clock around a call.

    Args:
        artifact: The build.
        inputs: One sample as the build takes it.
        expected: The model's first output for it.
        given: The same sample as the file takes it.
        file: The model as ONNX or TFLite; None where it has no such form.
        names: Of runtimes, see `check_runtimes`.
        runs: How many are timed of each.
        warm_up: How many of each run before.
        threads: Threads of each.
        duration: Seconds for which to go on, in rounds of `runs`.

    Returns:
        Of the build, and of each runtime.
    """
    found: dict[str, RuntimeResult] = {}
    callers: dict[str, Callable[[], Any]] = {}
    tensors = [tvm.runtime.tensor(np.asarray(array, order="C")) for array in inputs]
    with thread_limit(threads) as used:
        function = artifact.machine["main"]
        callers[""] = lambda: function(*tensors)
        for name in names:
            package, _, suffix, make = _RUNTIMES[name]
            result = RuntimeResult(runtime=name, version=metadata.version(package))
            if file is None or file.suffix != suffix:
                found[name] = result.model_copy(update={"problem": f"it takes {suffix} files, and this model is none"})
                continue
            try:
                run = make(file, used)
                outputs = run(given)
            except Exception as error:  # each raises errors of its own
                words = str(error).strip().splitlines() or [type(error).__name__]
                found[name] = result.model_copy(update={"problem": words[0][:200]})
                continue
            error_ = float(np.abs(outputs[0].reshape(expected.shape).astype(np.float64) - expected).max(initial=0))
            found[name] = result.model_copy(update={"largest_error": error_})
            callers[name] = lambda run=run: run(given)  # type: ignore[misc]
        times = _in_turns(callers, runs, warm_up, duration)
    results = [
        result.model_copy(update={"latency": Latency.of(times[name], used)}) if name in times else result
        for name, result in found.items()
    ]
    return Latency.of(times[""], used), results


def _in_turns(
    callers: dict[str, Callable[[], Any]], runs: int, warm_up: int, duration: float | None
) -> dict[str, list[float]]:
    """Milliseconds of the runs of each."""
    for call in callers.values():
        for _ in range(warm_up):
            call()
    times: dict[str, list[float]] = {name: [] for name in callers}
    end = time.monotonic() + (duration or 0.0)
    for turn in itertools.count():
        # Whoever comes first meets the caches that the last has left; so each is first in its turn.
        names = list(callers)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            call = callers[name]
            for _ in range(min(_ROUND, runs)):
                start = time.perf_counter()
                call()
                times[name].append(1e3 * (time.perf_counter() - start))
        if len(times[""]) >= runs and time.monotonic() >= end:
            return times
    return times


def _onnxruntime(file: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        found: list[np.ndarray] = session.run(None, dict(zip(names, inputs)))
        return found

    return run


def _openvino(file: Path, threads: int) -> Run:
    import openvino

    # By itself it computes float32 models in bfloat16 where the processor has it, which is another precision than asked for.
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", **precise}
    compiled = openvino.Core().compile_model(str(file), "CPU", config)
    request = compiled.create_infer_request()
    bound: list[Sequence[np.ndarray]] = []

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not bound or bound[0] is not inputs:  # the same sample again costs no copy
            bound[:] = [inputs]
            for index, value in enumerate(inputs):
                request.set_input_tensor(index, openvino.Tensor(np.ascontiguousarray(value), shared_memory=True))
        request.infer()
        return [output.data for output in request.output_tensors]

    return run


def _litert(file: Path, threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=threads)
    interpreter.allocate_tensors()
    inputs_, outputs_ = interpreter.get_input_details(), interpreter.get_output_details()

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        for entry, value in zip(inputs_, inputs):
            interpreter.set_tensor(entry["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(entry["index"]) for entry in outputs_]

    return run


_RUNTIMES: dict[str, tuple[str, str, str, Callable[[Path, int], Run]]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime", ".onnx", _onnxruntime),
    "openvino": ("openvino", "openvino", ".onnx", _openvino),
    "litert": ("ai-edge-litert", "ai_edge_litert", ".tflite", _litert),
}
"""By name: package, module, the files it takes, and how a model is loaded."""
