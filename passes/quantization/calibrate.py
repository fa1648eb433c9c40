"""Calibration: which values the tensors of a float model take on samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from .._tvm import relax, tvm
from ..errors import UserError
from ..graph.interpreter import Interpreter
from ..graph.module_params import input_vars
from ..graph.rebuild import bindings
from ..numbers.affine import Range
from ..numbers.histogram import Histogram
from .observers import OBSERVERS, Observer, make_observer

Batch = Sequence[np.ndarray]
Progress = Callable[[int], None]
Statistics = Callable[[Batch], Mapping[str, Histogram | None]]
"""What values tensors take on a batch, by name; None where some are not finite."""
MakeStatistics = Callable[[tvm.IRModule, Mapping[str, bool]], Statistics | None]
"""Compiles a model for that: given the float32 tensors to look at, and whether the histogram of each is wanted besides its
extremes; None where it cannot."""

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
    levels: Mapping[str, int] | None = None,
    on_progress: Progress | None = None,
    statistics: MakeStatistics | None = None,
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
        levels: How many integers tensors have, by name, where it is not 256: for observers with an option `levels` that are
            not given one.
        on_progress: Called with the number of samples done so far.
        statistics: Runs the model compiled, which pays where samples times operations are many; without it, and where an
            observer asks for values themselves, it runs in NumPy. Ranges are the same up to the rounding of sums.

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
        if levels is not None and name in levels and "levels" in inspect.signature(OBSERVERS[kind]).parameters:
            its_options = {"levels": levels[name], **its_options}
        observers[name] = make_observer(kind, **its_options)

    see = _compiled(mod, observers, statistics) or _interpreted(mod, observers)
    done = 0
    for batch in batches:
        arrays = _arrays(batch)
        for position, array in enumerate(arrays):
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                raise UserError(f"calibration input {position} contains values that are not finite")
        samples = len(arrays[0]) if arrays and arrays[0].ndim else 0
        for start in range(0, samples, _CHUNK):
            try:
                see([array[start : start + _CHUNK] for array in arrays])
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


def _interpreted(mod: tvm.IRModule, observers: Mapping[str, Observer]) -> Callable[[Batch], None]:
    """Runs a batch in NumPy and shows it to the observers."""
    interpreter = Interpreter(mod)
    extremes: dict[str, tuple[float, float]] = {}

    def tap(name: str, value: np.ndarray) -> None:
        if name not in observers or value.size == 0 or not np.issubdtype(value.dtype, np.floating):
            return
        low, high = float(value.min()), float(value.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise _not_finite(name)
        if observers[name].reads == "extremes":
            # A network may run its samples one by one; the batch is seen as a whole.
            known = extremes.get(name, (low, high))
            extremes[name] = min(low, known[0]), max(high, known[1])
        else:
            observers[name].update(value)

    def see(batch: Batch) -> None:
        extremes.clear()
        interpreter(batch, tap)
        for name, ends in extremes.items():
            observers[name].see(Histogram.of_extremes(*ends))

    return see


def _compiled(
    mod: tvm.IRModule, observers: Mapping[str, Observer], make: MakeStatistics | None
) -> Callable[[Batch], None] | None:
    """Runs a batch compiled and shows the observers what was counted; None where they ask for more."""
    if make is None or any(observer.reads == "values" for observer in observers.values()):
        return None
    tensors = {}
    for var in [*input_vars(mod["main"]), *(var for var, _ in bindings(mod["main"]))]:
        if var.name in observers and isinstance(var.ty, relax.TensorType) and "float" in str(var.ty.dtype):
            if str(var.ty.dtype) != "float32":
                return None
            tensors[var.name] = observers[var.name].reads == "histogram"
    statistics = make(mod, tensors) if tensors else None
    if statistics is None:
        return None

    def see(batch: Batch) -> None:
        for name, found in statistics(batch).items():
            if found is None:
                raise _not_finite(name)
            if found.count:
                observers[name].see(found)

    return see


def _not_finite(name: str) -> UserError:
    return UserError(f"tensor {name} takes values that are not finite; check the model's weights and the samples")


def _arrays(batch: Batch) -> list[np.ndarray]:
    if isinstance(batch, np.ndarray):
        return [batch]
    arrays = list(batch)
    if any(not isinstance(array, np.ndarray) for array in arrays):
        raise UserError("a calibration batch must be a sequence of NumPy arrays, one for each input of the model")
    return arrays
