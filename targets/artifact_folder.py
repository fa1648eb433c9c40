"""What every artifact folder has: a file that says which target it was built for and what the model takes and gives."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..passes._tvm import TVM_VERSION
from ..passes.errors import UserError
from .base import Artifact, TargetDescription, TensorSpec
from .registry import target_of

FILE = "artifact.json"
_FORMAT = 1


def make_folder(folder: Path) -> None:
    """Make the folder of an artifact.

    Raises:
        UserError: It cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the output folder {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"the output folder {folder} cannot be written; give another one")


def write_artifact(
    folder: Path,
    target: TargetDescription,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    **details: Any,
) -> None:
    """Write the file; do it last, so that a folder with the file is complete.

    Args:
        folder: The artifact's folder.
        target: What it was built for.
        inputs: What the model takes.
        outputs: What it gives.
        details: What the family needs besides, as JSON.
    """
    content = {
        "format": _FORMAT,
        "tvm": TVM_VERSION,
        "target": target.model_dump(),
        "inputs": [spec.model_dump() for spec in inputs],
        "outputs": [spec.model_dump() for spec in outputs],
        **details,
    }
    partial = folder / f"{FILE}.partial"
    try:
        partial.write_text(json.dumps(content, indent=1))
        partial.replace(folder / FILE)
    except OSError as error:
        raise UserError(f"{folder / FILE} cannot be written: {error.strerror}") from error


def read_artifact(folder: Path) -> dict[str, Any]:
    """Read the file, with `target`, `inputs` and `outputs` as objects.

    Raises:
        UserError: It is missing, damaged or of another version.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text())
        if content["format"] != _FORMAT or content["tvm"] != TVM_VERSION:
            raise UserError(
                f"{folder} was built by another version (format {content['format']}, TVM {content['tvm']}); build it again"
            )
        content["target"] = TargetDescription(**content["target"])
        for key in ("inputs", "outputs"):
            content[key] = tuple(TensorSpec(**spec) for spec in content[key])
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"there is no built model in {folder}: {FILE} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{path} is damaged; build the model again") from error
    return content


def load_artifact(folder: str | os.PathLike[str]) -> Artifact:
    """A built model from the folder that `build` left, for whatever target, without the model it came from.

    Raises:
        UserError: There is none, it is damaged, or this machine cannot run it.
    """
    place = Path(folder)
    return target_of(read_artifact(place)["target"]).load(place)
