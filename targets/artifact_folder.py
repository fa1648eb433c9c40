"""What every artifact folder has: a file that says which target it was built for and what the model takes and gives."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ..files.manifest import Manifest, WrittenFile, describe
from ..files.whole_file import whole_file
from ..passes._tvm import TVM_VERSION
from ..passes.errors import UserError
from .base import Artifact, TargetDescription, TensorSpec
from .registry import target_of

FILE = "artifact.json"
_FORMAT = 2
_SUM = "sha256"


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
    """Write the file, with the sizes and checksums of all others; do it last, so that a folder with it is complete.

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
        "target": target.model_dump(mode="json"),
        "inputs": [spec.model_dump(mode="json") for spec in inputs],
        "outputs": [spec.model_dump(mode="json") for spec in outputs],
        **details,
        "files": {name: file.model_dump() for name, file in describe(folder).items()},
    }
    with whole_file(folder / FILE) as partial:
        partial.write_text(json.dumps({**content, _SUM: _checksum(content)}, indent=1))


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_artifact(folder: Path) -> dict[str, Any]:
    """Read the file, with `target`, `inputs` and `outputs` as objects.

    Raises:
        UserError: It is missing, damaged or of another version.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_bytes())
        if (content["format"], content["tvm"]) != (_FORMAT, TVM_VERSION):
            raise UserError(
                f"{folder} was built by another version (format {content['format']}, TVM {content['tvm']}); build it again"
            )
        if content.pop(_SUM) != _checksum(content):
            raise ValueError("another checksum")
        content["target"] = TargetDescription(**content["target"])
        for key in ("inputs", "outputs"):
            content[key] = tuple(TensorSpec(**spec) for spec in content[key])
        content["files"] = {name: WrittenFile(**file) for name, file in content["files"].items()}
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"there is no built model in {folder}: {FILE} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged; build the model again") from error
    return content


def files_of(folder: Path) -> Manifest:
    """The files that a build has left in a folder, but for the description itself; none where there is no build."""
    try:
        files: Manifest = read_artifact(folder)["files"]
    except UserError:
        return {}
    return files


def whole(folder: Path, name: str) -> Path:
    """The path of a file of a build.

    Raises:
        UserError: It, or the description of the build, is missing or not as it was written.
    """
    path, files = folder / name, read_artifact(folder)["files"]
    if name not in files or not files[name].is_at(path):
        reason = "has been changed or cut short since it was built" if path.exists() else "is missing"
        raise UserError(f"{path} {reason}; build the model again")
    return path


def load_artifact(folder: str | os.PathLike[str]) -> Artifact:
    """A built model from the folder that `build` left, for whatever target, without the model it came from.

    Args:
        folder: The folder.

    Raises:
        UserError: There is none, it is damaged, or this machine cannot run it.
    """
    place = Path(folder)
    return target_of(read_artifact(place)["target"]).load(place)
