"""Calibration: which values the tensors of a float model take on samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from .._tvm import tvm
from ..errors import UserError
from ..graph.interpreter import Interpreter
from ..numbers.affine import Range
from .observers import Observer, make_observer

Batch = Sequence[np.ndarray]
Progress = Callable[[int], None]

# Samples that are run at a time.
_CHUNK = 32


def calibrate(
    mod: tvm.IRModule,
    batches: Iterable[Batch],
    observer: str = "minmax",
    *,
    options: Mapping[str, float] | None = None,
    overrides: Mapping[str, tuple[str, Mapping[str, float]]] | None = None,
    tensors: Collection[str] | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Range]:
    """Run samples through a model and choose a range for each tensor.

    Memory does not grow with the number of samples: batches are consumed one after the other.

    Args:
        mod: A float module, parameters attached.
        batches: Each a sequence of arrays, one an input of `main`, axis 0 the samples.
        observer: Name of the observer, see `observers.list_observers`.
        options: Options of the observer.
        overrides: Observers and their options for some tensors, by patterns (as of `fnmatch`) of their names; the first
            that fits counts.
        tensors: Names of the tensors to watch; by default those that `Quantize` quantizes.
        on_progress: Called with the number of samples done so far.

    Returns:
        The range of every tensor watched, by the name of its variable.

    Raises:
        UserError: There are no samples, they do not fit the inputs, or values are not finite.
    """
    # The plan lives with the quantizer, which imports this module's types.
    from .plan import plan_quantization

    watched = set(tensors) if tensors is not None else plan_quantization(mod).observed
    choices = [*(overrides or {}).items(), ("*", (observer, options or {}))]
    for _, (kind, its_options) in choices:
        make_observer(kind, **its_options)  # refuse a wrong name even when nothing is watched
    observers: dict[str, Observer] = {}
    for name in sorted(watched):
        kind, its_options = next(choice for pattern, choice in choices if fnmatchcase(name, pattern))
        observers[name] = make_observer(kind, **its_options)

    def tap(name: str, value: np.ndarray) -> None:
        if name not in observers or value.size == 0 or not np.issubdtype(value.dtype, np.floating):
            return
        # A sum is finite only if all values are, or nearly so; the exact test is made only when it is not.
        if not np.isfinite(value.sum(dtype=np.float64)) and not np.isfinite(value).all():
            raise UserError(f"tensor {name} takes values that are not finite; check the model's weights and the samples")
        observers[name].update(value)

    interpreter = Interpreter(mod)
    done = 0
    for batch in batches:
        arrays = _arrays(batch)
        for position, array in enumerate(arrays):
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                raise UserError(f"calibration input {position} contains values that are not finite")
        samples = len(arrays[0]) if arrays and arrays[0].ndim else 0
        for start in range(0, samples, _CHUNK):
            try:
                interpreter([array[start : start + _CHUNK] for array in arrays], tap)
            except UserError:
                raise
            except ValueError as error:
                raise UserError(f"the calibration samples do not fit the model: {error}") from error
            done += min(_CHUNK, samples - start)
            if on_progress is not None:
                on_progress(done)
    if done == 0:
        raise UserError("calibration needs at least one sample, and none were given")
    return {name: found.range() for name, found in observers.items()}


def _arrays(batch: Batch) -> list[np.ndarray]:
    if isinstance(batch, np.ndarray):
        return [batch]
    arrays = list(batch)
    if any(not isinstance(array, np.ndarray) for array in arrays):
        raise UserError("a calibration batch must be a sequence of NumPy arrays, one for each input of the model")
    return arrays
