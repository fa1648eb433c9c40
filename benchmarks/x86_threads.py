"""What a second thread brings on x86.

    python benchmarks/x86_threads.py [--rounds 6] [--threads 2]

One and several threads of TVM's pool take turns on the same build; milliseconds are the median over the rounds of the median
of ten calls, the ratio is the median of those within each round. The int8 networks are TFLite files of random weights that
large_networks.py writes; the float ResNet-18 is PyTorch's, without batch normalization, with random weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import large_networks
import numpy as np

import tvmcompress
from tvmcompress.model import Model
from tvmcompress.passes._tvm import tvm
from tvmcompress.targets import get_target
from tvmcompress.targets.base import TensorSpec
from tvmcompress.targets.x86.artifact import X86Artifact
from tvmcompress.targets.x86.measure import thread_limit

CALLS = 10


def float_resnet18(path: Path) -> Model:
    """ResNet-18 (arXiv:1512.03385), batch normalization folded away, through an ONNX file."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(inputs, outputs, 3, stride, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
            self.short = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.second(torch.relu(self.first(x))) + self.short(x))

    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)).eval()
    torch.onnx.export(network, (torch.randn(1, 3, 224, 224),), str(path), dynamo=False, opset_version=17)
    return tvmcompress.load(path)


def models(folder: Path) -> dict[str, Model]:
    """The networks."""
    found = {}
    for name, title in (("resnet18", "ResNet-18 int8"), ("mobilenet_v2", "MobileNetV2 int8")):
        path = folder / f"{name}.tflite"
        path.write_bytes(getattr(large_networks, name)())
        found[title] = tvmcompress.load(path)
    return {"ResNet-18 fp32": float_resnet18(folder / "resnet18.onnx"), **found}


def sample(spec: TensorSpec) -> Any:
    """A random input."""
    values = np.random.default_rng(0).uniform(-100, 100, spec.shape) if "int" in spec.dtype else np.random.random(spec.shape)
    return tvm.runtime.tensor(np.ascontiguousarray(values.astype(spec.dtype)))


def milliseconds(artifact: X86Artifact, inputs: list[Any], threads: int) -> float:
    """The median of some calls, behind one that warms up."""
    function, times = artifact.machine["main"], []
    with thread_limit(threads):
        function(*inputs)
        for _ in range(CALLS):
            start = time.perf_counter()
            function(*inputs)
            times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(f"| model, 224 x 224 | one thread, ms | {options.threads} threads, ms | ratio |", "|---|---|---|---|", sep="\n")
    with tempfile.TemporaryDirectory() as scratch:
        for name, model in models(Path(scratch)).items():
            artifact = get_target("x86").build(model.module, Path(scratch) / name, threads=options.threads)
            assert isinstance(artifact, X86Artifact)
            inputs = [sample(spec) for spec in artifact.inputs]
            rounds = [[milliseconds(artifact, inputs, count) for count in (1, options.threads)] for _ in range(options.rounds)]
            one, several = np.median(rounds, axis=0)
            ratio = np.median([row[0] / row[1] for row in rounds])
            print(f"| {name} | {one:.2f} | {several:.2f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
