"""Reading arrays from files: .npz, .npy, and folders of .npy."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError


@dataclass(frozen=True)
class Arrays:
    """Arrays by name, and where they are from.

    Attributes:
        arrays: Each an array, or something that has shape, dtype and slices like one.
        source: The file or folder, for messages.
    """

    arrays: dict[str, Any]
    source: str


def read_path(path: Path, rank: int) -> Arrays:
    """The arrays of a file or folder. One .npy becomes the array `x`; a folder of them too, with labels from `y.npy`.

    Args:
        path: The file or folder.
        rank: Dimensions of a batch of samples; in a folder, an array with fewer is one sample.

    Raises:
        UserError: There is no such path, or it cannot be read.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give an .npz file, an .npy file or a folder of .npy files")
    if path.is_dir():
        return _read_folder(path, rank)
    if path.suffix == ".npy":
        return Arrays({"x": _read_npy(path)}, str(path))
    if path.suffix == ".npz":
        return Arrays(_read_npz(path), str(path))
    raise UserError(f"{path} is of unknown kind '{path.suffix}'; give an .npz file, an .npy file or a folder of .npy files")


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zip, zlib, and the parser of NumPy's headers each have errors of their own
        raise UserError(
            f"{path} is not a whole .npz file of plain arrays (truncated, or made of Python objects); write it again"
        ) from error


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # the header is read by Python's own parser, with all of its errors
        raise UserError(f"{path} is not a whole .npy file of a plain array (truncated?); write it again") from error


def _read_folder(path: Path, rank: int) -> Arrays:
    files = sorted(path.glob("*.npy"))
    labels = {file.stem: file for file in files if file.stem in ("y", "labels")}
    samples = [file for file in files if file.stem not in labels]
    if not samples:
        raise UserError(f"{path} is empty: it holds no .npy file with samples")
    arrays: dict[str, Any] = {"x": FolderArray(samples, rank)}
    arrays.update({name: np.asarray(_read_npy(file)) for name, file in labels.items()})
    return Arrays(arrays, str(path))


class FolderArray:
    """The .npy files of a folder as one array, read when sliced.

    Args:
        files: The files in the order of the samples.
        rank: Files of so many dimensions are batches, files of fewer one sample each.

    Raises:
        UserError: The files differ in shape or dtype.
    """

    def __init__(self, files: list[Path], rank: int) -> None:
        arrays = [_read_npy(file) for file in files]
        first = arrays[0]
        self._batched = first.ndim >= rank
        sample = first.shape[1:] if self._batched else first.shape
        for file, array in zip(files, arrays):
            if (array.shape[1:] if self._batched else array.shape) != sample or array.dtype != first.dtype:
                raise UserError(
                    f"{file} has shape {array.shape} {array.dtype}, but {files[0]} has {first.shape} {first.dtype}; "
                    "give files of the same kind"
                )
        self._arrays = arrays
        counts = [len(array) if self._batched else 1 for array in arrays]
        self._ends = list(itertools.accumulate(counts))
        self.shape = (self._ends[-1], *sample)
        self.dtype = first.dtype
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice) -> Any:
        start, stop, _ = index.indices(len(self))
        return _View(self, start, stop)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples `start` to `stop`."""
        parts = []
        position = start
        while position < stop:
            number = bisect.bisect_right(self._ends, position)
            begin = self._ends[number - 1] if number else 0
            array = self._arrays[number]
            if self._batched:
                end = min(stop - begin, len(array))
                parts.append(np.asarray(array[position - begin : end]))
                position = begin + end
            else:
                parts.append(np.asarray(array)[None])
                position += 1
        return np.concatenate(parts) if parts else np.zeros((0, *self.shape[1:]), self.dtype)


class _View:
    """A slice of a folder, still unread."""

    def __init__(self, whole: FolderArray, start: int, stop: int) -> None:
        self._whole, self._start, self._stop = whole, start, max(start, stop)
        self.shape = (self._stop - start, *whole.shape[1:])
        self.dtype = whole.dtype
        self.ndim = whole.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice) -> _View:
        start, stop, _ = index.indices(len(self))
        return _View(self._whole, self._start + start, self._start + stop)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self._whole.read(self._start, self._stop)
        return value if dtype is None else value.astype(dtype)
