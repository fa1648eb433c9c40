"""What is given to a built model: checked, or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..passes.errors import UserError
from ..passes.graph.index_limits import integer_range
from .base import TensorSpec


def check_inputs(specs: Sequence[TensorSpec], inputs: Sequence[np.ndarray]) -> int:
    """How many samples `inputs` hold.

    Raises:
        UserError: Number, shape or dtype do not fit, or an id looks up an entry that there is not.
    """
    if len(inputs) != len(specs):
        raise UserError(f"the model takes {len(specs)} inputs, {len(inputs)} were given")
    counts = set()
    for spec, value in zip(specs, inputs):
        batch = spec.shape[0] if spec.shape else 1
        held = len(value) if value.ndim else 1
        if value.ndim != len(spec.shape) or value.shape[1:] != spec.shape[1:] or not held or held % batch:
            raise UserError(f"input '{spec.name}' has shape {spec.shape}, the array given {value.shape}")
        if value.dtype.name != spec.dtype:
            raise UserError(f"input '{spec.name}' is {spec.dtype}, the array given {value.dtype}")
        if spec.limit is not None and (value.min() < -spec.limit or value.max() >= spec.limit):
            raise UserError(
                f"input '{spec.name}' looks up entry {int(value.max() if value.max() >= spec.limit else value.min())} where "
                f"there are {spec.limit}; the ids in the data do not fit the model"
            )
        counts.add(held // batch)
    if len(counts) > 1:
        raise UserError("the inputs hold different numbers of samples")
    return counts.pop() if counts else 1


def random_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> list[np.ndarray]:
    """One sample of random inputs: standard normal floats, ids that there are, see `integer_range`."""
    rng = np.random.default_rng(seed)
    made = []
    for spec in specs:
        dtype = np.dtype(spec.dtype)
        if dtype.kind in "iu":
            low, high = integer_range(dtype, spec.limit)
            made.append(rng.integers(low, high, spec.shape, dtype, endpoint=True))
        else:
            values = rng.standard_normal(spec.shape) if dtype.kind == "f" else rng.integers(0, 2, spec.shape)
            made.append(np.asarray(values, dtype))
    return made
