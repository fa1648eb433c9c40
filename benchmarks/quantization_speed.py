"""How long quantization takes: each model in a fresh process, on 200 samples, with and without repairs.

    python benchmarks/quantization_speed.py [ic resnet20 vww kws] [--samples 200] [--repair equalize bias]
    python benchmarks/quantization_speed.py --calibration resnet50 [--samples 512] [--threads 2]    (or audio)

The second form calibrates a large network of float_networks.py, with random weights, on random samples (observer mse), once
with nothing compiled before and once with the object code kept of that, and has ONNX Runtime run the same file forwards on the
same samples with as many threads, one sample a call and eight.

Steps are in seconds of wall time and of processor time (all threads); what the process takes in all includes starting
Python, importing TVM, and reading the model and its data. On a busy machine only processor time says something.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import trained

MODELS = ("ic", "resnet20", "vww", "kws")


def measure(name: str, samples: int, repair: list[str]) -> None:
    """In the fresh process: quantize and print the times as JSON."""
    subject = trained.load(name, samples)
    import tvmcompress
    from tvmcompress.steps.progress import Progress

    started: dict[str, float] = {}
    cpu: dict[str, float] = {}

    def follow(step: str, done: int, total: int) -> None:
        started.setdefault(step, time.process_time())
        cpu[step] = time.process_time() - started[step]

    progress: Progress = follow
    result = tvmcompress.compress(
        subject.model,
        subject.calibration,
        quantize={"precision": "int8", "repair": repair},
        on_progress=progress,
    )
    steps = {step.name: {"wall": step.seconds, "cpu": cpu[step.name]} for step in result.steps}
    print(json.dumps({"samples": len(subject.calibration), "steps": steps, "cpu": time.process_time()}))


def calibration(name: str, samples: int, threads: int) -> None:
    """Print how long calibration takes beside ONNX Runtime's forward passes."""
    import float_networks
    import onnxruntime

    import tvmcompress
    from tvmcompress.data.dataset import load_data
    from tvmcompress.recipe.quantize import QuantizeRecipe
    from tvmcompress.steps.calibrate import find_ranges

    shape = float_networks.SHAPES[name]
    x = np.random.default_rng(0).standard_normal((samples, *shape[1:]), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TVMCOMPRESS_CACHE"] = str(Path(folder) / "cache")
        path = float_networks.NETWORKS[name](Path(folder) / f"{name}.onnx")
        model = tvmcompress.load(path)
        data = load_data(x, model.inputs)
        ours = {}
        for case in ("nothing compiled before", "compiled before"):
            start = _clock()
            find_ranges(model, data, QuantizeRecipe())
            ours[case] = _clock() - start
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait in a loop would count as work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        theirs = {}
        for batch in (1, 8):
            session.run(None, {"x": x[:batch]})
            start = _clock()
            for first in range(0, samples, batch):
                session.run(None, {"x": x[first : first + batch]})
            theirs[batch] = _clock() - start
    print(f"{name}, {samples} samples, {threads} threads: seconds of wall time (of processor time)")
    for batch, took in theirs.items():
        cells = [f"{case} {_seconds(found)}, ratio {_seconds(found / took, 2)}" for case, found in ours.items()]
        print(f"ONNX Runtime, {batch} a call: {_seconds(took)}; calibration: {'; '.join(cells)}", flush=True)


def _clock() -> np.ndarray:
    """Wall time, and processor time of this process and the compilers that it has started, in seconds."""
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return np.array([time.perf_counter(), sum(used.ru_utime + used.ru_stime for used in (own, others))])


def _seconds(times: np.ndarray, digits: int = 1) -> str:
    return f"{times[0]:.{digits}f} ({times[1]:.{digits}f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--repair", nargs="*", default=[])
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--calibration", action="store_true", help="calibration alone, beside ONNX Runtime's forward passes")
    parser.add_argument("--threads", type=int, default=2, help="of --calibration")
    options = parser.parse_args()
    if options.calibration:
        if os.environ.get("OMP_NUM_THREADS") != str(options.threads):  # which NumPy reads when it is imported
            os.environ["OMP_NUM_THREADS"] = str(options.threads)
            os.execv(sys.executable, [sys.executable, *sys.argv])
        for name in options.models:
            calibration(name, options.samples, options.threads)
        return
    if options.inside:
        measure(options.models[0], options.samples, options.repair)
        return
    print("| model | samples | steps: wall (processor) seconds | all steps | the whole process |")
    print("|---|---|---|---|---|")
    for name in options.models:
        command = [sys.executable, __file__, name, "--inside", "--samples", str(options.samples), "--repair", *options.repair]
        start = time.perf_counter()
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        whole = time.perf_counter() - start
        found = json.loads(ran.stdout.splitlines()[-1])
        steps = found["steps"]
        cells = ", ".join(f"{step} {t['wall']:.1f} ({t['cpu']:.1f})" for step, t in steps.items())
        total, cpu = (sum(t[kind] for t in steps.values()) for kind in ("wall", "cpu"))
        sums = f"{total:.1f} ({cpu:.1f}) | {whole:.1f} ({found['cpu']:.1f})"
        print(f"| {name} | {found['samples']} | {cells} | {sums} |", flush=True)


if __name__ == "__main__":
    main()
