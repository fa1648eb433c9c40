"""Our x86 builds against ONNX Runtime, in turns, on any ONNX models.

    python benchmarks/x86_vs_onnxruntime.py model.onnx [more.onnx ...] [--threads 1] [--rounds 100] [--tuning-log DIR]
    python benchmarks/x86_vs_onnxruntime.py model.onnx --int8 calibration.npz

Contenders take turns, so that a change of clock frequency or load meets all of them: every round times a few calls of
each. Reported are the median and the tenth percentile of the rounds, and the ratio to ONNX Runtime fp32 within each
round, as median and as tenth to ninetieth percentile. With `--int8`, integer models join: ours, and ONNX Runtime's own
static quantization (QDQ, uint8 activations, int8 weights per channel), both calibrated on the same samples, an array
`x` of the .npz file in the shape of the model's input. Inputs are random; latency of these models does not depend on
values.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import tvmcompress
from tvmcompress.passes._tvm import tvm
from tvmcompress.targets import get_target
from tvmcompress.targets.x86.artifact import X86Artifact
from tvmcompress.targets.x86.host import host_cpu
from tvmcompress.targets.x86.measure import thread_limit

Call = Callable[[], Any]
BASELINE = "onnxruntime fp32"


def onnxruntime_call(path: Path, threads: int, x: np.ndarray) -> Call:
    """A call of an ONNX Runtime session with its input and output bound, so that no array is copied."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait in a loop would take the CPU from whoever is next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, x)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding)


def our_call(artifact: X86Artifact, x: np.ndarray) -> Call:
    """A call of our build with its input on the device."""
    function = artifact.machine["main"]
    tensor = tvm.runtime.tensor(np.ascontiguousarray(artifact.inputs[0].quantize(x)))
    return lambda: function(tensor)


def quantized_by_onnxruntime(path: Path, samples: np.ndarray, folder: Path) -> Path:
    """ONNX Runtime's static quantization of a model."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    name = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._rest = iter([{name: samples[index : index + 1]} for index in range(len(samples))])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._rest, None)

    result = folder / f"{path.stem}_int8.onnx"
    quantize_static(
        str(path),
        str(result),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return result


def interleave(calls: dict[str, Call], rounds: int, inner: int) -> dict[str, np.ndarray]:
    """Microseconds of one call of each contender in each round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            for _ in range(inner):
                call()
            times[name].append((time.perf_counter() - start) / inner * 1e6)
    return {name: np.asarray(values) for name, values in times.items()}


def compare(path: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All contenders on one model."""
    model = tvmcompress.load(path)
    shape = model.inputs[0].shape
    x = np.random.default_rng(0).random(shape).astype("float32")
    target = get_target("x86")
    log = options.tuning_log if options.tuning_log is not None else None
    built = target.build(model.module, folder / f"{path.stem}-fp32", tuning_log=log)
    calls = {
        BASELINE: onnxruntime_call(path, options.threads, x),
        "tvmcompress fp32": our_call(built, x),  # type: ignore[arg-type]
    }
    if options.int8 is not None:
        with np.load(options.int8) as data:
            samples = data["x"].astype("float32")[:100]
        calls["onnxruntime int8"] = onnxruntime_call(quantized_by_onnxruntime(path, samples, folder), options.threads, x)
        from tvmcompress.passes import LowerQDQ, Quantize, calibrate

        ranges = calibrate(model.module, [[samples]])
        quantized = model.apply(Quantize(ranges), LowerQDQ())
        integer = target.build(quantized.module, folder / f"{path.stem}-int8", tuning_log=log)
        calls["tvmcompress int8"] = our_call(integer, x)  # type: ignore[arg-type]
    inner = max(1, options.inner)
    with thread_limit(options.threads):
        interleave(calls, 5, inner)
        times = interleave(calls, options.rounds, inner)
    rows = {}
    for name, values in times.items():
        ratio = times[BASELINE] / values
        rows[name] = {
            "median_us": float(np.median(values)),
            "p10_us": float(np.percentile(values, 10)),
            "speed": float(np.median(ratio)),
            "speed_p10": float(np.percentile(ratio, 10)),
            "speed_p90": float(np.percentile(ratio, 90)),
        }
    return {"model": path.stem, "tuned": len(built.tuned), "untuned": len(built.untuned), "contenders": rows}


def show(result: dict[str, Any]) -> None:
    """One table."""
    print(f"\n{result['model']}: {result['tuned']} functions tuned, {result['untuned']} by default schedule")
    print(f"{'':22}{'median us':>11}{'p10 us':>10}{'speed':>8}   p10 to p90")
    for name, row in result["contenders"].items():
        spread = f"{row['speed_p10']:.2f} to {row['speed_p90']:.2f}"
        print(f"{name:22}{row['median_us']:11.1f}{row['p10_us']:10.1f}{row['speed']:8.2f}   {spread}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--inner", type=int, default=5, help="calls of a contender in a round")
    parser.add_argument("--int8", type=Path, help="calibration data: .npz with an array x")
    parser.add_argument("--tuning-log", type=Path)
    parser.add_argument("--json", type=Path, help="write the results here too")
    options = parser.parse_args(arguments)
    print(f"{host_cpu()}, {options.threads} thread(s), ONNX Runtime {ort.__version__}, TVM {tvm.__version__}")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for path in options.models:
            results.append(compare(path, options, Path(folder)))
            show(results[-1])
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
