"""Samples on their way to an emulated program and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...passes.errors import UserError
from ..base import TensorSpec
from ..inputs import check_inputs


def pack_inputs(specs: Sequence[TensorSpec], inputs: Sequence[np.ndarray]) -> bytes:
    """The file that the runners read: the number of samples as a little-endian word, then every sample's inputs in order."""
    samples = check_inputs(specs, inputs)
    parts = [samples.to_bytes(4, "little")]
    split = [np.split(np.ascontiguousarray(value), samples) if value.ndim else [value] * samples for value in inputs]
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
    return [joined(column) for column in columns], data[position:]


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Results of samples on axis 0; numbers without an axis get one where there are several."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts[0].ndim else np.stack(parts)
