"""Samples on their way to an emulated program and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...passes.errors import UserError
from ..base import TensorSpec


def check_inputs(specs: Sequence[TensorSpec], inputs: Sequence[np.ndarray]) -> int:
    """How many samples `inputs` hold.

    Raises:
        UserError: Number, shape or dtype do not fit.
    """
    if len(inputs) != len(specs):
        raise UserError(f"the model takes {len(specs)} inputs, {len(inputs)} were given")
    counts = set()
    for spec, value in zip(specs, inputs):
        batch = spec.shape[0] if spec.shape else 1
        if value.ndim != len(spec.shape) or value.shape[1:] != spec.shape[1:] or not len(value) or len(value) % batch:
            raise UserError(f"input '{spec.name}' has shape {spec.shape}, the array given {value.shape}")
        if value.dtype.name != spec.dtype:
            raise UserError(f"input '{spec.name}' is {spec.dtype}, the array given {value.dtype}")
        counts.add(len(value) // batch)
    if len(counts) != 1:
        raise UserError("the inputs hold different numbers of samples")
    return counts.pop()


def pack_inputs(specs: Sequence[TensorSpec], inputs: Sequence[np.ndarray]) -> bytes:
    """The file that the runners read: the number of samples as a little-endian word, then every sample's inputs in order."""
    samples = check_inputs(specs, inputs)
    parts = [samples.to_bytes(4, "little")]
    split = [np.split(np.ascontiguousarray(value), samples) for value in inputs]
    parts += [piece.tobytes() for sample in zip(*split) for piece in sample]
    return b"".join(parts)


def unpack_outputs(specs: Sequence[TensorSpec], data: bytes, samples: int) -> tuple[list[np.ndarray], bytes]:
    """The outputs that a runner wrote, samples stacked on axis 0, and what follows them.

    Raises:
        UserError: The data is too short: the program stopped early.
    """
    size = sum(spec.nbytes for spec in specs)
    if len(data) < size * samples:
        raise UserError(f"the program wrote {len(data)} bytes of output instead of {size * samples}: it stopped early")
    columns: list[list[np.ndarray]] = [[] for _ in specs]
    position = 0
    for _ in range(samples):
        for column, spec in zip(columns, specs):
            count = int(np.prod(spec.shape, dtype=np.int64))
            column.append(np.frombuffer(data, spec.dtype, count, position).reshape(spec.shape))
            position += spec.nbytes
    return [np.concatenate(column) for column in columns], data[position:]


def random_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> list[np.ndarray]:
    """One sample of random inputs: the whole range of integers, standard normal floats."""
    rng = np.random.default_rng(seed)
    made = []
    for spec in specs:
        if np.issubdtype(np.dtype(spec.dtype), np.integer):
            info = np.iinfo(spec.dtype)
            made.append(rng.integers(info.min, int(info.max) + 1, spec.shape).astype(spec.dtype))
        else:
            made.append(rng.standard_normal(spec.shape).astype(spec.dtype))
    return made
