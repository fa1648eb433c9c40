"""Finding what `compress` and `build` have left in folders."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..model import Model
from ..targets.artifact_folder import FILE, read_artifact
from ..targets.registry import get_target

MODEL_FILE = "model" + Model.SUFFIX


def find_build(folder: Path, target: str | None = None) -> Path:
    """The folder of one build.

    Args:
        folder: What `build` wrote, or what `compress` did, which holds a folder for each target.
        target: Name of a target, or the path of its description; needed where there are several.

    Raises:
        UserError: There is no such build, or there are several to choose from.
    """
    wanted = get_target(target).description.name if target is not None and target.endswith(".toml") else target
    if (folder / FILE).exists():
        found = read_artifact(folder)["target"].name
        if wanted not in (None, found, folder.name):
            raise UserError(f"{folder} was built for {found}, not for {wanted}")
        return folder
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}; give a folder that tvmcompress compress or build has written")
    builds = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{FILE}"))}
    if not builds:
        raise UserError(f"there is no built model in {folder}; compress writes one with --target")
    listed = ", ".join(builds)
    if wanted is None:
        if len(builds) > 1:
            raise UserError(f"{folder} holds builds for {listed}; choose one with --target")
        return next(iter(builds.values()))
    if wanted not in builds:
        raise UserError(f"{folder} holds no build for {wanted}, only for {listed}")
    return builds[wanted]


def model_beside(build: Path) -> Model | None:
    """The model that a build was made from, where `compress` has left it beside or in the folder."""
    for folder in (build, build.resolve().parent):
        if (folder / MODEL_FILE).exists():
            return Model.load(folder / MODEL_FILE)
    return None
