"""Modules of one integer operator, with values that reach every corner, and a check of the kernel that computes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.targets import get_target
from tvmcompress.targets.base import Artifact

Build = Callable[..., relax.Call]

# Height, width, channels, outputs, kernel, strides, padding (top, left, bottom, right).
CONVOLUTIONS = {
    "3x3": (9, 10, 16, 12, (3, 3), (1, 1), (1, 1, 1, 1)),
    "long runs": (5, 4, 64, 8, (3, 3), (1, 1), (1, 1, 1, 1)),
    "longer runs": (3, 5, 100, 5, (3, 3), (2, 1), (1, 0, 1, 1)),
    "strided": (12, 17, 4, 6, (3, 3), (2, 2), (0, 1, 1, 0)),
    "odd channels": (10, 11, 5, 7, (3, 3), (1, 1), (1, 1, 1, 1)),
    "columns": (12, 13, 3, 16, (3, 3), (2, 2), (0, 0, 1, 1)),
    "columns of words": (20, 5, 4, 32, (5, 2), (1, 1), (2, 0, 2, 1)),
    "one channel": (13, 6, 1, 33, (10, 4), (2, 2), (4, 1, 5, 2)),
    "bands": (40, 33, 12, 4, (3, 3), (1, 1), (1, 1, 1, 1)),
    "valid": (7, 9, 8, 4, (5, 5), (1, 1), (0, 0, 0, 0)),
    "row": (1, 20, 2, 4, (1, 5), (1, 1), (0, 2, 0, 2)),
    "column": (20, 1, 2, 4, (5, 1), (2, 1), (2, 0, 2, 0)),
    "one pixel": (3, 4, 16, 9, (3, 3), (4, 4), (1, 0, 1, 0)),
    "pointwise": (5, 5, 16, 12, (1, 1), (1, 1), (0, 0, 0, 0)),
    "pointwise rest": (3, 5, 41, 3, (1, 1), (1, 1), (0, 0, 0, 0)),
    "pointwise of eight": (6, 6, 8, 10, (1, 1), (1, 1), (0, 0, 0, 0)),
    "pointwise of eight, odd": (5, 3, 8, 4, (1, 1), (1, 1), (0, 0, 0, 0)),
    "pointwise small": (4, 9, 6, 3, (1, 1), (1, 1), (0, 0, 0, 0)),
    "pointwise strided": (7, 9, 32, 4, (1, 1), (2, 2), (0, 0, 0, 0)),
    "pointwise strided down": (7, 4, 8, 4, (1, 1), (2, 1), (0, 0, 0, 0)),
    "pointwise deep": (2, 3, 320, 4, (1, 1), (1, 1), (0, 0, 0, 0)),
    "pointwise nine vectors": (3, 3, 144, 4, (1, 1), (1, 1), (0, 0, 0, 0)),
    "pointwise ten vectors and a rest": (3, 3, 150, 4, (1, 1), (1, 1), (0, 0, 0, 0)),
    "pointwise thirteen vectors": (2, 3, 208, 4, (1, 1), (1, 1), (0, 0, 0, 0)),
    "pointwise thirteen vectors and a rest": (2, 3, 210, 4, (1, 1), (1, 1), (0, 0, 0, 0)),
    "pointwise padded": (3, 4, 16, 4, (1, 1), (1, 1), (1, 1, 0, 0)),
}

# Height, width, channels, kernel, strides, padding.
DEPTHWISE = {
    "3x3": (9, 7, 32, (3, 3), (1, 1), (1, 1, 1, 1)),
    "strided": (9, 8, 16, (3, 3), (2, 2), (0, 0, 1, 1)),
    "overlapping channels": (5, 4, 20, (3, 3), (1, 1), (1, 1, 1, 1)),
    "two pixels": (8, 5, 8, (3, 3), (1, 1), (1, 1, 1, 1)),
    "four pixels": (6, 7, 4, (3, 3), (2, 1), (1, 1, 1, 1)),
    "valid": (6, 9, 16, (3, 3), (1, 1), (0, 0, 0, 0)),
    "5x5": (7, 6, 16, (5, 5), (1, 1), (2, 2, 2, 2)),
    "1x3": (1, 12, 48, (1, 3), (1, 2), (0, 1, 0, 1)),
    "bands": (40, 24, 16, (3, 3), (1, 1), (1, 1, 1, 1)),
}


def module(build: Build, shapes: list[tuple[int, ...]], params: dict[str, np.ndarray]) -> tvm.IRModule:
    """A module of one operator on int8 inputs."""
    inputs = [relax.Var(f"x{i}", relax.TensorType(shape, "int8")) for i, shape in enumerate(shapes)]
    variables = [relax.Var(name, relax.TensorType(v.shape, v.dtype.name)) for name, v in params.items()]
    builder = relax.BlockBuilder()
    with builder.function("main", [*inputs, *variables], attrs={"num_input": len(inputs)}):
        with builder.dataflow():
            out = builder.emit_output(build(*inputs, *variables))
        builder.emit_func_output(out)
    return relax.transform.Normalize()(attach_params(builder.get(), params))


def channels(rng: np.random.Generator, count: int, taps: int) -> dict[str, np.ndarray]:
    """Bias, multiplier and shift that spread the sums of `taps` products over the range of a byte."""
    least = max(1, round(np.log2(60 * np.sqrt(taps))))
    return {
        "bias": rng.integers(-4000, 4000, count).astype("int32"),
        "multiplier": rng.integers(1 << 30, (1 << 31) - 1, count).astype("int32"),
        "shift": -rng.integers(least, least + 3, count).astype("int32"),
    }


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights with both extremes among them."""
    values = rng.integers(-127, 128, shape)
    values.flat[: values.size // 8] = rng.choice([-127, 127], values.size // 8)
    return values.astype("int8")


def assert_kernel(mod: tvm.IRModule, name: str, folder: Path, rng: np.random.Generator, target: str) -> Artifact:
    """The build, in which the kernel `name` is used, gives the bytes of the reference, and not always the same ones."""
    inputs = [
        rng.integers(-128, 128, (3, *[int(dim) for dim in var.ty.shape][1:])).astype("int8")
        for var in list(mod["main"].params)[: int(mod["main"].attrs["num_input"])]
    ]
    # The greatest sums.
    for x in inputs:
        x[2] = rng.choice([-128, 127], x[2].shape)
    expected = np.concatenate([run(mod, [x[i : i + 1] for x in inputs])[0] for i in range(3)])
    assert len(np.unique(expected)) > min(8, expected.size // 8)
    artifact = get_target(target).build(mod, folder)
    assert any(f"model_{name}" in function for function in artifact.info.layers), artifact.info.layers
    np.testing.assert_array_equal(artifact.run(inputs)[0], expected)
    return artifact


def zero_points(rng: np.random.Generator, clipped: bool) -> dict[str, int]:
    """Those of the input and the output, and limits: of a rectifier, of another clipping, or none."""
    given_input = {"input_zero_point": int(rng.integers(-128, 128))}
    if rng.integers(3) == 0:
        return {**given_input, "output_zero_point": -128}
    output = int(rng.integers(-60, 60))
    limits = {"qmin": output, "qmax": min(127, output + 90)} if clipped else {}
    return {**given_input, "output_zero_point": output, **limits}
