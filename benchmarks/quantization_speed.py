"""How long quantization takes: each model in a fresh process, on 200 samples, with and without repairs.

    python benchmarks/quantization_speed.py [ic resnet20 vww kws] [--samples 200] [--repair equalize bias]
    python benchmarks/quantization_speed.py --calibration resnet50 [--samples 512] [--threads 2]

The second form calibrates a large network of float_networks.py, with random weights, on random samples (observer mse), once
with the object code of earlier builds thrown away and once with it, and has ONNX Runtime run the same file forwards on the same
samples with as many threads, one sample a call and eight.

Steps are in seconds of wall time and of processor time (all threads); what the process takes in all includes starting
Python, importing TVM, and reading the model and its data. On a busy machine only processor time says something.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import float_networks
    import numpy as np
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
            start = time.perf_counter()
            find_ranges(model, data, QuantizeRecipe())
            ours[case] = time.perf_counter() - start
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        theirs = {}
        for batch in (1, 8):
            session.run(None, {"x": x[:batch]})
            start = time.perf_counter()
            for first in range(0, samples, batch):
                session.run(None, {"x": x[first : first + batch]})
            theirs[batch] = time.perf_counter() - start
    print(f"{name}, {samples} samples, {threads} threads: seconds of wall time")
    for batch, seconds in theirs.items():
        ratios = ", ".join(f"{case} {took:.1f} ({took / seconds:.2f})" for case, took in ours.items())
        print(f"ONNX Runtime, {batch} a call: {seconds:.1f}; calibration: {ratios}", flush=True)


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
