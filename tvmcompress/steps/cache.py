"""Results of steps in a folder, found by what they were made from.

A result counts for the same model, the same steps with the same options up to it, the same data, and the same code: that of
this package, and of a step of another package the file that it stands in, without what that imports. Every result is a folder
that is renamed into place when it is complete, so that a run that is stopped leaves nothing half-written; one that cannot be
read is made anew.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import secrets
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

import tvmcompress.passes
import tvmcompress.targets

from ..errors import UserError
from ..evaluation.output_comparison import fingerprint
from ..files.staging import staging_folder
from ..model import Model
from ..passes import Range, detach_params
from ..passes._tvm import TVM_VERSION, tvm
from ..recipe.quantize import QuantizeRecipe
from .base import Context, State, Step
from .progress import FinishedStep

LIMIT = 4 << 30
"""Bytes that a cache may take; what was not used for longest is removed beyond them."""

_MODELS = ("model", "float_model", "qdq_model")
_STATE = "state.json"
_KEY_DIGITS = 32


class StepCache:
    """The results of the steps of one run.

    Args:
        folder: Where they are kept, and those of other runs.
        original: The model that goes in.
        steps: What is done with it.
        context: With what.

    Raises:
        UserError: The folder cannot be made.
    """

    def __init__(self, folder: str | PathLike[str], original: Model, steps: Sequence[Step[Any]], context: Context) -> None:
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the cache {folder} cannot be made: {error.strerror or error}") from error
        self._places = [self._folder / key for key in _keys(original, steps, context)]

    def load(self, state: State) -> tuple[int, State, list[FinishedStep]]:
        """The latest result there is.

        Args:
            state: The one before the first step.

        Returns:
            The number of steps done, the state behind them, and what they reported.
        """
        for count, place in reversed(list(enumerate(self._places, start=1))):
            if place.is_dir():
                with suppress(OSError, UserError, ValueError, KeyError, TypeError):
                    found = _read(place, state.original)
                    os.utime(place)
                    return count, *found
                shutil.rmtree(place, ignore_errors=True)
        return 0, state, []

    def store(self, count: int, state: State, finished: Sequence[FinishedStep]) -> None:
        """Keep the state behind so many steps; a warning says where that cannot be done."""
        place = self._places[count - 1]
        try:
            with staging_folder(self._folder, ".partial-") as scratch:
                made = scratch / "result"
                made.mkdir()
                _write(made, state, finished)
                with suppress(OSError):  # another run was faster
                    made.rename(place)
            self._shrink()
        except (OSError, UserError) as error:
            warnings.warn(f"a result cannot be kept in the cache: {error}", stacklevel=2)

    def _shrink(self) -> None:
        sizes = {}
        for place in self._folder.glob("[0-9a-f]" * _KEY_DIGITS):
            with suppress(OSError):
                size = sum(file.stat().st_size for file in place.iterdir())
                sizes[place] = (place.stat().st_mtime_ns, size)
        total = sum(size for _, size in sizes.values())
        for place, (_, size) in sorted(sizes.items(), key=lambda item: item[1]):
            if total > LIMIT:
                shutil.rmtree(place, ignore_errors=True)
                total -= size


def _keys(original: Model, steps: Sequence[Step[Any]], context: Context) -> Iterator[str]:
    """For each step a digest of all that the state behind it depends on."""
    bare, _ = detach_params(original.module)
    described = [original.inputs, original.outputs, original.provenance]
    key = _digest(_code(), tvm.ir.save_json(bare), fingerprint(original), repr(described))
    data = {
        name: "" if given is None else fingerprint(original, given)
        for name in ("calibration", "training", "search")
        if any(name in step.reads for step in steps)
        for given in [getattr(context, name)]
    }
    for number, step in enumerate(steps):
        options = json.dumps(step.key(replace(context, ahead=steps[number + 1 :])), sort_keys=True)
        key = _digest(key, step.name, options, source_of(type(step)), *(data[name] for name in sorted(step.reads)))
        yield key


def source_of(made: Any) -> str:
    """The text of the file of a class or function; something that never comes again where that cannot be read."""
    try:
        return inspect.getsource(sys.modules[made.__module__])
    except (AttributeError, KeyError, OSError, TypeError):
        return secrets.token_hex()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_KEY_DIGITS]


@cache
def _code() -> str:
    """Of the versions and sources that results depend on."""
    digest = hashlib.sha256(f"{TVM_VERSION} {np.__version__}".encode())
    for package in (tvmcompress, tvmcompress.passes, tvmcompress.targets):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _write(folder: Path, state: State, finished: Sequence[FinishedStep]) -> None:
    kept: dict[int, str] = {id(state.original): "original"}
    names: dict[str, str | None] = {}
    for name in _MODELS:
        model = getattr(state, name)
        if model is not None and id(model) not in kept:
            kept[id(model)] = name
            model.save(folder / f"{name}{Model.SUFFIX}")
        names[name] = None if model is None else kept[id(model)]
    content = {
        "models": names,
        "ranges": {name: asdict(found) for name, found in state.ranges.items()},
        "chosen": None if state.chosen is None else state.chosen.model_dump(mode="json"),
        "records": state.records,
        "finished": [asdict(step) for step in finished],
    }
    (folder / _STATE).write_text(json.dumps(content), encoding="utf-8")


def _read(folder: Path, original: Model) -> tuple[State, list[FinishedStep]]:
    content = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    models: dict[str | None, Any] = {None: None, "original": original}
    for name in set(content["models"].values()) - set(models):
        models[name] = Model.load(folder / f"{name}{Model.SUFFIX}")
    state = State(
        **{name: models[place] for name, place in content["models"].items()},
        original=original,
        ranges={name: Range(f["low"], f["high"], f["seen"] and tuple(f["seen"])) for name, f in content["ranges"].items()},
        chosen=None if content["chosen"] is None else QuantizeRecipe(**content["chosen"]),
        records=content["records"],
    )
    return state, [FinishedStep(**{**step, "seconds": 0.0}) for step in content["finished"]]
