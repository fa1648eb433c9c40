"""Data for calibration and evaluation: where it comes from, whether it fits, and how it becomes a model's input.

What can be given: an .npz or .npy file, a folder of .npy files, arrays, or any Python iterable of samples or batches (a
PyTorch DataLoader, for instance). Everything is checked before a model sees it; what does not fit is refused with one
sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..model import InputSpec, Preprocessing
from .files import Arrays, read_path

DataLike = str | PathLike[str] | np.ndarray | Mapping[str, Any] | Iterable[Any]

DATA_KEYS = ("x", "x_float", "x_uint8", "data", "input", "inputs", "images")
"""Names under which an .npz may hold the data of a model with one input, besides the input's own; the first counts."""

LABEL_KEYS = ("y", "label", "labels", "target", "targets")
"""Names under which an .npz file may hold the labels; first found counts."""

_CHANNELS_LAST = {"NHWC": (0, 3, 1, 2), "NWC": (0, 2, 1), "NDHWC": (0, 4, 1, 2, 3)}
_CHECKED_AT_ONCE = 1 << 22
"""Elements converted at a time while looking for NaN, so that a large file is not copied whole."""


@dataclass(frozen=True)
class Dataset:
    """Samples in the order of the model's inputs, converted batch by batch.

    Attributes:
        specs: The model's inputs.
        arrays: The raw data of each input, samples first; may be memory-mapped.
        labels: The class of each sample, int64 (samples,); None where not given.
        preprocessing: How the raw data of each input becomes the input; None where it is the input.
        permutations: How the axes of each input's raw data become the model's; None where they are.
        source: Where the data is from, for messages.
    """

    specs: tuple[InputSpec, ...]
    arrays: tuple[Any, ...]
    labels: np.ndarray | None
    preprocessing: tuple[Preprocessing | None, ...]
    permutations: tuple[tuple[int, ...] | None, ...]
    source: str

    def __len__(self) -> int:
        return len(self.arrays[0]) // self.specs[0].shape[0] * self.specs[0].shape[0]

    def batches(self, size: int = 64) -> Iterator[list[np.ndarray]]:
        """The model's inputs, `size` samples at a time (a multiple of the model's own batch), the last batch shorter.

        Raises:
            UserError: A batch holds NaN or infinity; only for sources that are read file by file.
        """
        step = max(1, size // self.specs[0].shape[0]) * self.specs[0].shape[0]
        for start in range(0, len(self), step):
            yield self.read(start, min(start + step, len(self)))

    def labelled_batches(self, size: int = 64) -> Iterator[tuple[list[np.ndarray], np.ndarray | None]]:
        """The same with the labels of each batch."""
        start = 0
        for inputs in self.batches(size):
            stop = start + len(inputs[0])
            yield inputs, None if self.labels is None else self.labels[start:stop]
            start = stop

    def read(self, start: int, stop: int) -> list[np.ndarray]:
        """Samples `start` to `stop` as the model takes them, one array an input, axis 0 the samples."""
        return [self._convert(index, array[start:stop]) for index, array in enumerate(self.arrays)]

    def pick(self, indices: np.ndarray) -> list[np.ndarray]:
        """The samples of these numbers as the model takes them, in this order."""
        return [self._convert(index, _picked(array, indices)) for index, array in enumerate(self.arrays)]

    def inputs(self) -> list[np.ndarray]:
        """All samples as the model takes them."""
        return self.read(0, len(self))

    def first(self, count: int | None) -> Dataset:
        """The first `count` samples, or all."""
        return self if count is None else self.between(0, count)

    def between(self, start: int, stop: int | None) -> Dataset:
        """The samples from `start` to `stop`."""
        labels = None if self.labels is None else self.labels[start:stop]
        return replace(self, arrays=tuple(array[start:stop] for array in self.arrays), labels=labels)

    def _convert(self, index: int, raw: np.ndarray) -> np.ndarray:
        spec, permutation = self.specs[index], self.permutations[index]
        value = np.asarray(raw)
        if permutation is not None:
            value = value.transpose(permutation)
        value = value.reshape(len(value), *spec.shape[1:])
        preprocessing = self.preprocessing[index]
        if preprocessing is not None:
            value = preprocessing(value)
        value = np.ascontiguousarray(value.astype(spec.dtype, copy=False))
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise UserError(f"{self.source} contains NaN or infinity among its values; remove those samples")
        return value


def _picked(array: Any, indices: np.ndarray) -> np.ndarray:
    """Rows of an array; one that is read file by file gives slices only."""
    if isinstance(array, np.ndarray):
        return np.asarray(array[indices])
    return np.concatenate([np.asarray(array[index : index + 1]) for index in indices.tolist()])


def load_data(
    source: DataLike | Dataset,
    inputs: Sequence[InputSpec],
    *,
    key: str | None = None,
    label_key: str | None = None,
    preprocessing: Preprocessing | None = None,
    layout: str | None = None,
    limit: int | None = None,
    need_labels: bool = False,
) -> Dataset:
    """Read data for a model and check that it fits.

    Args:
        source: A path to an .npz, .npy or folder of .npy; an array; a mapping from names to arrays; a tuple (data,
            labels); or an iterable of samples or batches, each an array or a tuple (data, label), up to `limit`.
        inputs: The inputs of the model.
        key: The array of the model's only input in an .npz; by default the input's name or one of `DATA_KEYS`.
        label_key: The array of the labels; by default one of `LABEL_KEYS`.
        preprocessing: How the raw data becomes the first input; by default what the model's description says.
        layout: The layout of the raw data of a model that takes NCHW: "NCHW" or "NHWC"; by default seen from the shape.
        limit: Use at most so many samples.
        need_labels: Refuse data without labels.

    Raises:
        UserError: The source cannot be read, holds no samples, lacks an array, holds NaN or infinity, or has a shape,
            dtype or number of labels that does not fit.
    """
    if isinstance(source, Dataset):
        return source.first(limit)
    if limit is not None and limit < 1:
        raise UserError(f"{limit} samples were asked for; ask for at least 1")
    given = _arrays(source, tuple(inputs), limit)
    raw = [_choose(given, spec, len(inputs), key) for spec in inputs]
    name = given.source
    steps = [preprocessing or inputs[0].preprocessing, *(spec.preprocessing for spec in inputs[1:])]
    permutations = []
    for spec, array, step in zip(inputs, raw, steps, strict=True):
        _check_dtype(array, spec, step, name)
        permutations.append(_fit(array, spec, layout, name))
    counts = {len(array) for array in raw}
    if len(counts) > 1:
        raise UserError(f"{name} has {_listing(counts)} samples for the different inputs; give the same number for each")
    if counts == {0}:
        raise UserError(f"{name} is empty; give at least one sample")
    if counts.pop() < inputs[0].shape[0]:
        raise UserError(f"{name} has fewer samples than the model's batch of {inputs[0].shape[0]}; give at least one batch")
    labels = _labels(given, label_key, len(raw[0]), need_labels)
    data = Dataset(tuple(inputs), tuple(raw), labels, tuple(steps), tuple(permutations), name).first(limit)
    for array in data.arrays:
        if isinstance(array, np.ndarray):
            _check_finite(array, name)
    if not len(data):
        raise UserError(f"{limit} samples are less than the model's batch of {inputs[0].shape[0]}; use at least one batch")
    return data


def _arrays(source: DataLike, inputs: tuple[InputSpec, ...], limit: int | None) -> Arrays:
    if isinstance(source, (str, PathLike)):
        return read_path(Path(source), len(inputs[0].shape))
    if isinstance(source, np.ndarray):
        return Arrays({"x": source}, "the data")
    if isinstance(source, Mapping):
        return Arrays({str(name): np.asarray(value) for name, value in source.items()}, "the data")
    if isinstance(source, tuple) and len(source) == 2 and np.ndim(source[1]) <= 1 < np.ndim(source[0]):
        return Arrays({"x": np.asarray(source[0]), "y": np.asarray(source[1])}, "the data")
    if isinstance(source, Iterable):
        return _gather(source, inputs, limit)
    raise UserError(f"data must be a path, arrays or an iterable of samples, not {type(source).__name__}")


def _gather(source: Iterable[Any], inputs: tuple[InputSpec, ...], limit: int | None) -> Arrays:
    """All samples of an iterable: each item is a sample or a batch, alone or as (data, label)."""
    collected: dict[str, list[np.ndarray]] = {}
    count = 0
    rank = len(inputs[0].shape)
    for item in source:
        if isinstance(item, Mapping):
            named = {str(name): np.asarray(value) for name, value in item.items()}
        elif isinstance(item, (tuple, list)) and len(item) == len(inputs) + 1:
            named = {spec.name: np.asarray(value) for spec, value in zip(inputs, item)}
            named["y"] = np.asarray(item[-1])
        elif isinstance(item, (tuple, list)) and len(item) == len(inputs):
            named = {spec.name: np.asarray(value) for spec, value in zip(inputs, item)}
        else:
            named = {inputs[0].name: np.asarray(item)}
        batched = named.get(inputs[0].name, np.zeros(0)).ndim >= rank
        for name, value in named.items():
            collected.setdefault(name, []).append(value if batched else value[None])
        count += len(next(iter(named.values()))) if batched else 1
        if limit is not None and count >= limit:
            break
    if not collected:
        raise UserError("the data is empty; give at least one sample")
    try:
        return Arrays({name: np.concatenate(values) for name, values in collected.items()}, "the data")
    except ValueError as error:
        raise UserError(f"the samples of the data have different shapes: {error}") from error


def _choose(given: Arrays, spec: InputSpec, inputs: int, key: str | None) -> Any:
    """The array of one input."""
    if key is not None and inputs == 1:
        candidates: tuple[str, ...] = (key,)
    elif inputs == 1:
        candidates = (spec.name, *DATA_KEYS)
    else:
        candidates = (spec.name,)
    for name in candidates:
        if name in given.arrays:
            return given.arrays[name]
    others = [name for name in given.arrays if name not in LABEL_KEYS]
    if inputs == 1 and key is None and len(others) == 1:
        return given.arrays[others[0]]
    wanted = f"'{candidates[0]}'" if len(candidates) == 1 else f"any of {', '.join(candidates)}"
    raise UserError(
        f"{given.source} has no array {wanted} for the model's input; it holds {', '.join(given.arrays) or 'nothing'}"
        + ("; name one with --data-key" if inputs == 1 and given.arrays else "")
    )


def _labels(given: Arrays, label_key: str | None, samples: int, needed: bool) -> np.ndarray | None:
    names = LABEL_KEYS if label_key is None else (label_key,)
    name = next((name for name in names if name in given.arrays), None)
    if name is None:
        if needed or label_key is not None:
            raise UserError(
                f"{given.source} has no labels ({' or '.join(names)}); it holds {', '.join(given.arrays)}; "
                "name the array of the labels with --label-key"
            )
        return None
    labels = np.asarray(given.arrays[name])
    wrong = f"the labels '{name}' of {given.source} must be one class number a sample"
    if labels.dtype.kind not in "iufb" or labels.ndim not in (1, 2):
        raise UserError(f"{wrong}; they are {labels.dtype}, shape {_shape(labels.shape)}")
    if labels.ndim == 2 and labels.shape[1] > 1:
        if not (((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()):
            raise UserError(f"{wrong}, or one-hot; they have {labels.shape[1]} columns of other values")
        labels = labels.argmax(1)
    labels = labels.reshape(-1)
    if labels.dtype.kind == "b" or not np.array_equal(labels, np.rint(labels)) or not (np.abs(labels) < 2**31).all():
        raise UserError(wrong)
    if (labels < 0).any():
        raise UserError(f"{wrong}; that of sample {int(np.argmax(labels < 0))} is negative")
    if len(labels) != samples:
        raise UserError(f"{given.source} has {samples} samples but {len(labels)} labels in '{name}'; give one label a sample")
    return labels.astype(np.int64)


def _check_dtype(array: Any, spec: InputSpec, preprocessing: Preprocessing | None, source: str) -> None:
    kind = np.dtype(array.dtype).kind
    wanted = np.dtype(spec.dtype)
    if kind not in "fiub":
        raise UserError(f"{source} has dtype {array.dtype} for input '{spec.name}'; give numbers ({wanted.name})")
    if wanted.kind == "f" and np.dtype(array.dtype) == np.int8 and preprocessing is None:
        raise UserError(
            f"{source} has dtype int8 for input '{spec.name}', which looks quantized already; "
            f"the model takes {wanted.name}: give raw data (float or uint8; tvmcompress run takes integers with --integers)"
        )
    if wanted.kind in "iu" and kind == "f":
        raise UserError(f"{source} has dtype {array.dtype} for input '{spec.name}', which takes {wanted.name}")


def _fit(array: Any, spec: InputSpec, layout: str | None, source: str) -> tuple[int, ...] | None:
    """How the axes of `array` must be permuted for `spec`; axes of size one may be missing or superfluous."""
    wanted, shape = tuple(spec.shape[1:]), tuple(array.shape)
    if len(shape) == 0:
        raise UserError(f"{source} is a single number for input '{spec.name}', which takes {_shape(wanted)} a sample")
    permutation = _channels_last(shape, layout)
    if layout is not None and layout.upper() in _CHANNELS_LAST and permutation is None:
        raise UserError(f"{source} has shape {_shape(shape)}, which cannot have layout {layout.upper()}")
    if permutation is not None and layout is not None:
        # Leaving out axes of size one would take any order of the others for the right one.
        if tuple(shape[axis] for axis in permutation)[1:] == wanted:
            return permutation
    elif _same(shape[1:], wanted):
        return None
    elif permutation is not None and tuple(shape[axis] for axis in permutation)[1:] == wanted:
        return permutation
    if _same(shape, wanted) and shape[0] != 0 and layout is None:
        raise UserError(
            f"{source} has shape {_shape(shape)}, which is a single sample of input '{spec.name}'; "
            "put the samples on the first axis"
        )
    raise UserError(
        f"{source} has samples of shape {_shape(shape[1:])}, but input '{spec.name}' takes {_shape(wanted)}"
        + (f" (layout {spec.layout})" if spec.layout else "")
    )


def _channels_last(shape: tuple[int, ...], layout: str | None) -> tuple[int, ...] | None:
    if layout is not None:
        permutation = _CHANNELS_LAST.get(layout.upper())
        if permutation is None and layout.upper() not in ("NCHW", "NCW"):
            raise UserError(f"there is no layout {layout!r}; choose NCHW or NHWC")
        return permutation if permutation is not None and len(permutation) == len(shape) else None
    return next((entry for entry in _CHANNELS_LAST.values() if len(entry) == len(shape)), None)


def _same(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether two shapes are equal but for axes of size one."""
    return [dim for dim in shape if dim != 1] == [dim for dim in wanted if dim != 1]


def _check_finite(array: np.ndarray, source: str) -> None:
    if array.dtype.kind != "f":
        return
    rows = max(1, _CHECKED_AT_ONCE // max(1, array[:1].size))
    for start in range(0, len(array), rows):
        good = np.isfinite(array[start : start + rows]).reshape(len(array[start : start + rows]), -1).all(1)
        if not good.all():
            raise UserError(
                f"{source} contains NaN or infinity (first in sample {start + int(np.argmin(good))}); remove those samples"
            )


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _listing(values: Iterable[int]) -> str:
    return " and ".join(str(value) for value in sorted(values))
