"""Executed instructions of whole models on Cortex-A, beside ONNX Runtime and LiteRT.

Usage: python benchmarks/cortex_a.py [--targets cortex-a72,cortex-a76] [--samples 4] > benchmarks/cortex_a.md

One thread, no pruning, TFLite's rounding. int8: the official MLPerf Tiny models, ResNet-20 and a keyword transformer (49
tokens, width 64, 3 blocks, 4 times as wide between, one head, random weights) quantized here; their outputs are the bytes
of the NumPy reference on `--samples` random inputs. fp32: the float models, within 1e-5 of their largest output. ResNet-18
and MobileNetV2 at 224x224 are int8 TFLite files of random weights that large_networks.py writes. The peers were measured
once, onnxruntime 1.32.0 and ai-edge-litert 2.3.0 (XNNPACK) under the same emulator, QEMU in user mode: for int8 the best of
both, for fp32 and the two large networks LiteRT. Instructions are not time. The transformer's multiply-accumulates are
those of its constant weights, 7.35 million; attention comes on top. Estimated cycles are llvm-mca's, by LLVM 14's
scheduling model of the core: data in L1, branches foretold, each block as if repeated.

fp16 (`--float16`) are the float models in float16 on the core that has arithmetic for it; their largest error against the
largest output is the last column.

Flash: code and constants together are our library. LiteRT's shared library for 64-bit Arm has 11.7 MB of code and constants
without any model. The columns behind ours set our code beside that library, and our code and constants beside that library
and the same constants, since weights are needed there, too.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import large_networks
import numpy as np
from trained import FILES, folder, load

import tvmcompress
from tvmcompress.measuring.benchmarking import HALF_TOLERANCE, random_samples
from tvmcompress.model import Model
from tvmcompress.passes.graph.analysis import count_macs
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets.emulators.artifact import EmulatedArtifact

BELOW = """
**Winograd.** 3x3 convolutions of stride 1 by F(2x2, 3x3) in exact integers (transformed inputs and weights of 16 bits, four
times the sum) take 16 products where the definition takes 36. On Cortex-A76 SDOT forms 16 products of bytes an instruction
and SMLAL four of 16 bits: at least 16 / 36 / 4 = 0.111 instructions a multiply-accumulate for the products alone, more than
all that the direct kernel executes. On cores without SDOT it is what the formula takes where it counts fewer instructions;
weights are transformed in a workspace, so they take no more flash; the arena grows by it. Instructions a multiply-accumulate
of single layers with requantization and padding:

| layer | Winograd, A72 | direct, A72 | direct, A76 |
|---|---|---|---|
| 32x32, 16 to 16 | 0.177 | 0.241 | 0.082 |
| 16x16, 32 to 32 | 0.159 | 0.234 | 0.079 |
| 8x8, 64 to 64 | 0.159 | 0.220 | 0.075 |

Where transformed weights take more than 256 KB, which the caches of such cores hardly hold beside everything else, the direct
kernel stays: instructions would say nothing about it (14x14, 128 to 128: 0.161 for 0.221).

**What kernels bring beside the products.** Instructions an element of the input on Cortex-A72, by the generic schedule and by
the kernel: averages over an image 0.45 to 0.47 and 0.22 to 0.24, averages of 3x3 with padding (32x32x64) 8.3 and 5.8, means
of 49 tokens 0.80 and 0.21, maxima with padding 1.28 and 0.25, changes of scale 3.66 and 0.81, sums with constants (49 x 64)
9.67 and 3.51, masked softmax (4 heads of 49 x 49) 24.5 and 11.0. Padding alone has no kernel: 0.2 by the generic schedule.
"""
OFFICIAL = {"ic": "ic_resnet8_int8.tflite", "kws": "kws_dscnn_int8.tflite", "vww": "vww_mobilenetv1_025_96_int8.tflite"}
# Million executed instructions: of the better of ONNX Runtime and LiteRT, and of LiteRT.
INTEGER = {
    "cortex-a72": {"ic": 4.322, "kws": 1.389, "vww": 3.616, "resnet20": 12.809},
    "cortex-a76": {"ic": 1.500, "kws": 0.713, "vww": 1.928, "resnet20": 4.450},
}
FLOAT = {
    "cortex-a72": {"ic": 4.885, "kws": 1.410, "vww": 3.627, "resnet20": 15.407},
    "cortex-a76": {"ic": 4.704, "kws": 1.350, "vww": 3.515, "resnet20": 14.823},
}
LARGE = {"cortex-a76": {"mobilenet_v2": 49.253, "resnet18": 172.544}}
"""LiteRT's, of the files of `large_networks`."""
LITERT_BYTES = 11_700_000
"""Code and constants of LiteRT's shared library."""
HALVES = "cortex-a76"
TRANSFORMER = "transformer"
CALIBRATION = 100


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", default=",".join(INTEGER))
    parser.add_argument("--samples", type=int, default=4)
    options = parser.parse_args()
    print("# Cortex-A beside ONNX Runtime and LiteRT", "", (__doc__ or "").split("\n\n", 2)[-1].strip(), "", sep="\n")
    heads = ["core", "model", "", "instructions", "of the peer's", "a multiply-accumulate", "of our fp32", "estimated cycles"]
    heads += ["code, bytes", "constants", "arena", "code, of LiteRT's library", "all, of LiteRT's", "error"]
    print("| " + " | ".join(heads) + " |", "|---" * len(heads) + "|", sep="\n")
    place = folder() / "models"
    models = {name: (tvmcompress.load(place / FILES[name]), integer_model(name)) for name in INTEGER["cortex-a72"]}
    models[TRANSFORMER] = transformer()
    for target in options.targets.split(","):
        for name, (float_model, model) in models.items():
            plain, line = row(target, name, "fp32", float_model, FLOAT, 1, None)
            print(line, flush=True)
            print(row(target, name, "int8", model, INTEGER, options.samples, plain)[1], flush=True)
            if target == HALVES:
                print(row(target, name, "fp16", float_model, {HALVES: {}}, 1, plain)[1], flush=True)
        for name in LARGE.get(target, {}):
            print(row(target, name, "int8", large(name), LARGE, 1, None)[1], flush=True)
    print(BELOW.rstrip())


def large(name: str) -> Model:
    """A network of `large_networks`, from its file."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"{name}.tflite"
        path.write_bytes(getattr(large_networks, name)())
        return tvmcompress.load(path)


def integer_model(name: str) -> Model:
    """The official model, or our own."""
    if name in OFFICIAL:
        return tvmcompress.load(folder() / "models" / OFFICIAL[name])
    trained = load(name, CALIBRATION)
    return tvmcompress.compress(trained.model, trained.calibration, quantize="int8").model


def transformer() -> tuple[Model, Model]:
    """A keyword transformer (KWT-1 of arXiv:2104.00769 without class token), float and int8."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
            self.projections, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.projections(self.before(x)).chunk(3, -1)
            weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
            x = x + self.out(weights @ v)
            return x + self.mlp(self.between(x))

    class Transformer(nn.Module):
        def __init__(self, tokens: int, features: int, width: int, blocks: int, classes: int) -> None:
            super().__init__()
            self.embedding, self.places = nn.Linear(features, width), nn.Parameter(torch.randn(1, tokens, width) * 0.1)
            self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
            self.last, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.last(self.blocks(self.embedding(x) + self.places)).mean(1))

    torch.manual_seed(0)
    network = Transformer(49, 40, 64, 3, 12).eval()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "transformer.onnx"
        names = {"input_names": ["input"], "output_names": ["output"]}
        torch.onnx.export(network, (torch.randn(1, 49, 40),), str(path), dynamo=False, opset_version=17, **names)
        model = tvmcompress.load(path)
    samples = np.random.default_rng(0).standard_normal((CALIBRATION, 49, 40)).astype(np.float32)
    return model, tvmcompress.compress(model, samples, quantize="int8").model


def row(
    target: str, name: str, kind: str, model: Model, peers: dict[str, dict[str, float]], samples: int, plain: int | None
) -> tuple[int, str]:
    """Executed instructions, and a line of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        halves = {"float16": True} if kind == "fp16" else {}
        artifact = tvmcompress.build(model, target, Path(scratch) / "build", **halves)
        assert isinstance(artifact, EmulatedArtifact)
        inputs = random_samples(model, samples)
        if kind == "int8":
            rng = np.random.default_rng(0)
            inputs = [rng.integers(-128, 128, (samples, *spec.shape[1:])).astype(spec.dtype) for spec in artifact.inputs]
            core = IntegerCore()(model.module)
            expected = np.concatenate([run(core, [x[i : i + 1] for x in inputs])[0] for i in range(samples)])
            assert np.array_equal(artifact.run(inputs)[0], expected), f"{name} for {target} gives other bytes"
            measured, error = artifact.measure([x[:1] for x in inputs], cycles=True), 0.0
        else:
            expected = model.run(*inputs)[0]
            error = float(np.abs(artifact.run_float(inputs)[0] - expected).max() / np.abs(expected).max())
            assert error < (HALF_TOLERANCE if halves else 1e-5), f"{name} for {target} is off by {error}"
            measured = artifact.measure(cycles=True)
    executed = measured.instructions or 0
    peer = peers[target].get(name)
    code, constants = measured.code_bytes or 0, measured.constant_bytes or 0
    cells = [
        *(target, name, kind, f"{executed:,}"),
        f"{executed / peer / 1e6:.3f}" if peer else "",
        f"{executed / count_macs(model.module):.3f}",
        f"{executed / plain:.3f}" if plain else "",
        f"{measured.cycle_estimate.cycles:,}" if measured.cycle_estimate is not None else "",
        *(f"{code:,}", f"{constants:,}", f"{measured.arena_bytes:,}"),
        *(f"{code / LITERT_BYTES:.4f}", f"{(code + constants) / (LITERT_BYTES + constants):.3f}"),
        f"{error:.1e}" if halves else "",
    ]
    return executed, "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
