"""Model files as they are found: are they imported and built right, or refused with a reason?

    python benchmarks/model_files.py FOLDER_OR_FILE... [--target x86] [--no-build]

Every ONNX and TFLite file below is imported, run on random inputs (integers over the range that the graph allows) and built,
and compared with ONNX Runtime, or LiteRT's reference kernels. Right is a file whose integer outputs are equal and whose float
outputs are within 1e-3 of the largest value, or 1e-6 (5 % where a file quantizes dynamically, which is imported as float);
refused, what ends in one sentence; a crash, any other exception, a signal, or ten minutes. Wrong ones and crashes make the exit
code 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

OUTCOMES = ("right", "refused", "wrong", "crash")
_TIMEOUT = 600


def judge(path: Path, target: str) -> tuple[str, str]:
    """What becomes of a file, and why."""
    import tvmcompress
    from tvmcompress.measuring.benchmarking import WrongBuildError, check, random_samples
    from tvmcompress.measuring.building import CompilerError, executable

    try:
        model = tvmcompress.load(path)
        inputs = random_samples(model, 1)
        expected, dynamic = (_litert if path.suffix == ".tflite" else _onnxruntime)(path, inputs)
        for index, (found, wanted) in enumerate(zip(model.run(*inputs), expected, strict=True)):
            if found.shape != wanted.shape:
                return "wrong", f"output {index} has shape {found.shape}, not {wanted.shape}"
            error = np.abs(found.astype(np.float64) - wanted).max(initial=0)
            largest = float(np.abs(wanted).max(initial=0))
            limit = max((0.05 if dynamic else 1e-3) * largest, 1e-6) if wanted.dtype.kind == "f" else 0
            if not error <= limit:
                return "wrong", f"output {index} is off by {error:.3g}"
        if target:
            with tempfile.TemporaryDirectory() as folder:
                options: dict[str, Any] = {"tuning_log": False} if target == "x86" else {"check_memory": False}
                built = tvmcompress.build(model, target, Path(folder) / "build", **options)
                check(executable(model), built, inputs, "the build")
    except tvmcompress.UserError as error:
        kinds = {WrongBuildError: "wrong", CompilerError: "crash"}
        return kinds.get(type(error), "refused"), str(error)
    except Exception as error:
        return "crash", f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1]}"
    return "right", ""


def _onnxruntime(path: Path, inputs: list[np.ndarray]) -> tuple[list[np.ndarray], bool]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    kinds = {"tensor(float16)": "float16", "tensor(double)": "float64"}
    feeds = {value.name: x.astype(kinds.get(value.type, x.dtype)) for value, x in zip(session.get_inputs(), inputs)}
    return session.run(None, feeds), b"DynamicQuantizeLinear" in path.read_bytes()


def _litert(path: Path, inputs: list[np.ndarray]) -> tuple[list[np.ndarray], bool]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    runner = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    runner.allocate_tensors()
    for detail, x in zip(runner.get_input_details(), inputs, strict=True):
        runner.set_tensor(detail["index"], x)
    runner.invoke()
    kinds = {str(np.dtype(detail["dtype"])) for detail in runner.get_tensor_details()}
    outputs = [runner.get_tensor(detail["index"]).copy() for detail in runner.get_output_details()]
    return outputs, outputs[0].dtype.kind == "f" and "int8" in kinds


def main() -> int:
    """Judge each file in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--target", default="x86")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    target = "" if options.no_build else options.target
    if options.worker:
        found = judge(options.paths[0], target)
        print("\n" + json.dumps(found))
        return 0
    files = [file for path in options.paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    counts = {suffix: Counter[str]() for suffix in (".onnx", ".tflite")}
    problems = []
    for file in (file for file in files if file.suffix in counts):
        command = [sys.executable, __file__, str(file), "--worker", *(["--target", target] if target else ["--no-build"])]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
            lines = done.stdout.strip().splitlines()
            outcome, reason = json.loads(lines[-1]) if done.returncode == 0 else ("crash", f"exit code {done.returncode}")
        except subprocess.TimeoutExpired:
            outcome, reason = "crash", f"no answer in {_TIMEOUT} s"
        counts[file.suffix][outcome] += 1
        if outcome != "right":
            problems.append(f"{file.name}: {outcome}, {reason}")
    print("| files | " + " | ".join(OUTCOMES) + " |", "|---" * (len(OUTCOMES) + 1) + "|", sep="\n")
    for suffix, count in counts.items():
        print(f"| {suffix} | " + " | ".join(str(count[outcome]) for outcome in OUTCOMES) + " |")
    print("", *problems, sep="\n")
    return 1 if any(count["wrong"] + count["crash"] for count in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
