"""NNCF's post-training quantization with OpenVINO, in the interpreter of an environment that has them.

    python nncf_worker.py model.onnx samples.npz answers.npz

`quantization_vs_others.py` runs it. samples.npz holds calibration0, images0, calibration1, ..., float32, batch first;
answers.npz gets logits and seconds for each number. NNCF's defaults: int8, biases corrected.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import numpy as np


def main(model: str, samples: str, output: str) -> None:
    """Quantize for each calibration set, and answer its images."""
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    core = openvino.Core()
    data = np.load(samples)
    found: dict[str, Any] = {"versions": np.array(f"NNCF {nncf.__version__}, OpenVINO {openvino.__version__.split('-')[0]}")}
    for number in range(sum(name.startswith("calibration") for name in data.files)):
        calibration, images = data[f"calibration{number}"], data[f"images{number}"]
        start = time.perf_counter()
        dataset = nncf.Dataset([sample[None] for sample in calibration])
        quantized = nncf.quantize(core.read_model(model), dataset, subset_size=len(calibration))
        found[f"seconds{number}"] = np.array(time.perf_counter() - start)
        compiled = core.compile_model(quantized, "CPU", {"INFERENCE_NUM_THREADS": 1})
        found[f"logits{number}"] = np.concatenate([compiled(image[None])[0] for image in images])
    np.savez(output, **found)


if __name__ == "__main__":
    main(*sys.argv[1:4])
