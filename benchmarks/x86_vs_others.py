"""Our x86 builds against ONNX Runtime and OpenVINO, in turns.

    python benchmarks/x86_vs_others.py ic kws vww ad [--tuning-log DIR] [--rounds 60] [--threads 1]
    python benchmarks/x86_vs_others.py model.onnx [more.onnx ...]
    python benchmarks/x86_vs_others.py ic kws vww resnet20 --cpu x86-64-v3 --hold AVX2

Contenders take turns, so that a change of clock frequency or load meets all of them: every round times a few calls of
each, with one thread in CPU time. Reported are the tenth percentile of the rounds, and the ratio of the baseline's time
to a contender's within each round, as median and as tenth to ninetieth percentile. Ours come by the formulas ("default")
and as tuning logs decide ("tuned"), where they know something; `--baseline` names who is divided by. Integer models are
ours (int8, per channel), and ONNX Runtime's static quantization (QDQ, uint8 activations, int8 weights per channel), which
OpenVINO runs, too, where it is installed (with ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI it does without AMX); both are
calibrated on the same samples: of the trained models those that come with them, otherwise random ones. Inputs are
random; latency of these models does not depend on values. With `--pruned 0.5` ours comes pruned to that share of its
multiply-accumulates and quantized, too; channels are chosen by the samples, nothing is trained.

`--cpu` builds ours for fewer instruction sets than this machine has, and `--hold` keeps OpenVINO's oneDNN from others.
ONNX Runtime has no such switch and uses what it finds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import trained

import tvmcompress
from tvmcompress.model import Model
from tvmcompress.passes import LowerQDQ, PruneToBudget, Quantize, calibrate
from tvmcompress.passes._tvm import tvm
from tvmcompress.targets import get_target
from tvmcompress.targets.x86.artifact import X86Artifact
from tvmcompress.targets.x86.host import host_cpu
from tvmcompress.targets.x86.measure import thread_limit

Call = Callable[[], Any]


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


def openvino_call(path: Path, threads: int, x: np.ndarray) -> Call:
    """A call of an OpenVINO request with its input bound."""
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    model = core.read_model(str(path))
    model.reshape(list(x.shape))
    request = core.compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
    return request.infer


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


def quantized_by_us(model: Model, samples: np.ndarray) -> Model:
    """Our integer model, by defaults."""
    return model.apply(Quantize(calibrate(model.module, [[samples]])), LowerQDQ())


def interleave(calls: dict[str, Call], rounds: int, inner: int, threads: int) -> dict[str, np.ndarray]:
    """Microseconds of one call of each contender in each round.

    With one thread of CPU time, which does not run while other processes have the core.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            start = clock()
            for _ in range(inner):
                call()
            times[name].append((clock() - start) / inner * 1e6)
    return {name: np.asarray(values) for name, values in times.items()}


def sources(model: str) -> tuple[Path, np.ndarray | None]:
    """The file of a trained model, by name, with its calibration samples; a path as it is."""
    if model not in trained.FILES:
        return Path(model), None
    return trained.folder() / "models" / trained.FILES[model], trained.load(model, 50).calibration


def compare(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All contenders on one model."""
    path, samples = sources(name)
    model = tvmcompress.load(path)
    random = np.random.default_rng(0)
    x = random.random(model.inputs[0].shape).astype("float32")
    samples = random.random((8, *x.shape[1:])).astype("float32") if samples is None else samples
    calls: dict[str, Call] = {}
    if not options.ours_only:
        quantized = quantized_by_onnxruntime(path, samples, folder)
        makers = {"onnxruntime": onnxruntime_call}
        if importlib.util.find_spec("openvino") is not None:
            makers["openvino"] = openvino_call
        for who, make in makers.items():
            for kind, file in (("fp32", path), ("int8", quantized)):
                try:
                    calls[f"{who} {kind}"] = make(file, options.threads, x)
                except RuntimeError as error:
                    print(f"{who} does not compile {file.name}: {str(error).strip().splitlines()[-1]}")
    ours = {"fp32": model, "int8": quantized_by_us(model, samples)}
    if options.pruned is not None:
        budget = PruneToBudget(macs=options.pruned, importance="output_energy", samples=[samples], round_to=8)
        ours["pruned int8"] = quantized_by_us(model.apply(budget), samples)
    tuned = {}
    for kind, candidate in ours.items():
        for log in (False, options.tuning_log):
            place = folder / f"{path.stem}-{kind}-{log is False}"
            built = get_target("x86").build(candidate.module, place, tuning_log=log, cpu=options.cpu)
            assert isinstance(built, X86Artifact)
            who = f"tvmcompress {kind} {'default' if log is False else 'tuned'}"
            tuned[who] = len(built.tuned)
            if log is False or built.tuned:
                calls[who] = our_call(built, x)
    baseline = options.baseline if options.baseline in calls else "tvmcompress fp32 default"
    with thread_limit(options.threads):
        interleave(calls, 5, options.inner, options.threads)
        times = interleave(calls, options.rounds, options.inner, options.threads)
    rows = {who: row(times[baseline], values) for who, values in times.items()}
    for kind in ours:
        default, with_log = (f"tvmcompress {kind} {end}" for end in ("default", "tuned"))
        if with_log in times:
            rows[with_log]["of_default"] = row(times[with_log], times[default])
    return {"model": name, "baseline": baseline, "tuned_functions": tuned, "contenders": rows}


def row(baseline: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Times and ratios of one contender."""
    ratio = baseline / values
    low, middle, high = (float(np.percentile(ratio, share)) for share in (10, 50, 90))
    least = float(baseline.min() / values.min())
    p10 = float(np.percentile(values, 10))
    return {"p10_us": p10, "speed": middle, "speed_p10": low, "speed_p90": high, "speed_of_least": least}


def show(result: dict[str, Any]) -> None:
    """One table."""
    print(f"\n{result['model']}, speed against {result['baseline']}")
    print(f"{'':26}{'p10 us':>10}{'speed':>8}   p10 to p90{'':5}least")
    for name, found in result["contenders"].items():
        spread = f"{found['speed_p10']:.2f} to {found['speed_p90']:.2f}"
        line = f"{name:26}{found['p10_us']:10.1f}{found['speed']:8.2f}   {spread:14}{found['speed_of_least']:6.2f}"
        if "of_default" in found:
            ratio = found["of_default"]
            spread = f"{ratio['speed_p10']:.3f} to {ratio['speed_p90']:.3f}"
            line += f"   {ratio['speed']:.3f} of the default's time ({spread}, of the least {ratio['speed_of_least']:.3f})"
        print(line, flush=True)


_COLUMNS = ("onnxruntime fp32", "openvino fp32", "tvmcompress fp32", "onnxruntime int8", "openvino int8", "tvmcompress int8")


def table_row(result: dict[str, Any]) -> str:
    """A row of the page: speeds and times as there, and ours beside the fastest of the others."""
    found = {name.removesuffix(" default"): values for name, values in result["contenders"].items()}
    cells = [result["model"]]
    for column in _COLUMNS:
        if column not in found:
            cells.append("refused")
            continue
        us = found[column]["p10_us"]
        time_of_call = f"{us:.0f} us" if us < 2000 else f"{us / 1e3:.1f} ms"
        cells.append(time_of_call if column == result["baseline"] else f"{found[column]['speed']:.2f} ({time_of_call})")
    peers = [name for name in found if not name.startswith("tvmcompress")]

    def beside(ours: str, others: list[str]) -> str:
        return f"{found[ours]['speed'] / max(found[name]['speed'] for name in others):.2f}" if ours in found and others else "-"

    cells.append(beside("tvmcompress fp32", [name for name in peers if name.endswith("fp32")]))
    cells.append(beside("tvmcompress int8", peers))
    if "tvmcompress pruned int8" in found:
        cells.append(beside("tvmcompress pruned int8", peers))
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", help=f"ONNX files, or of the trained models {', '.join(trained.FILES)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--inner", type=int, default=5, help="calls of a contender in a round")
    parser.add_argument("--baseline", default="onnxruntime fp32")
    parser.add_argument("--ours-only", action="store_true", help="default and tuned builds alone")
    parser.add_argument("--tuning-log", type=Path, help="by default those that every build consults")
    parser.add_argument("--cpu", help="what ours are built for, where not for this machine, such as x86-64-v3 (AVX2)")
    parser.add_argument("--hold", metavar="ISA", help="ONEDNN_MAX_CPU_ISA of OpenVINO, such as AVX2")
    parser.add_argument("--pruned", type=float, metavar="SHARE", help="ours in int8 with this share of the products, too")
    parser.add_argument("--json", type=Path, help="write the results here too")
    options = parser.parse_args(arguments)
    if options.hold is not None:
        os.environ["ONEDNN_MAX_CPU_ISA"] = options.hold  # read when OpenVINO is imported
    ort.set_default_logger_severity(3)
    print(f"{options.cpu or host_cpu()}, {options.threads} thread(s), ONNX Runtime {ort.__version__}, TVM {tvm.__version__}")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            results.append(compare(name, options, Path(folder)))
            show(results[-1])
    print("", *map(table_row, results), sep="\n")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
