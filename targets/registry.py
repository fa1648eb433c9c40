"""The targets there are, by name."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from ..passes.errors import UserError
from ..passes.plugins.registry import Registry, no_such
from .base import Target, TargetDescription

FAMILIES: Registry[type[Target]] = Registry(
    "family of targets",
    "tvmcompress.targets",
    of=Target,
    lazy={
        "x86": "tvmcompress.targets.x86.target:X86Target",
        "cortex-a": "tvmcompress.targets.arm.target:CortexATarget",
        "cortex-m": "tvmcompress.targets.micro.target:CortexMTarget",
    },
)
"""The class behind each family."""


def list_targets() -> list[TargetDescription]:
    """The descriptions of all targets, by name: ours, and those of families that other packages bring."""
    return sorted(map(read_description, _files().values()), key=lambda d: d.name)


def get_target(name: str | Path) -> Target:
    """A target by name, or by the path of a description of one's own (a .toml file).

    Args:
        name: As `tvmcompress targets` lists it, or the path.

    Raises:
        UserError: There is no such target, or the description is faulty.
    """
    if str(name).endswith(".toml"):
        return target_of(read_description(Path(name)))
    known = _files(Target.descriptions)
    if name not in known:
        known = _files()
    if name not in known:
        raise no_such("target", str(name), sorted(known))
    return target_of(read_description(known[str(name)]))


def target_of(description: TargetDescription) -> Target:
    """The target that a description describes.

    Raises:
        UserError: There is no family of its name, or there can be no such board.
    """
    family = FAMILIES[description.family]
    why = family.problem(description)
    if why is not None:
        raise UserError(f"the description of target {description.name} is faulty at {why}")
    return family(description)


def _files(*folders: Path) -> dict[str, Path]:
    """The files of the descriptions in folders, by default all, by the names of their targets; ours come first."""
    if not folders:
        folders = tuple(dict.fromkeys((Target.descriptions, *(family.descriptions for family in FAMILIES.values()))))
    return {path.stem: path for folder in reversed(folders) for path in folder.glob("*.toml")}


def read_description(path: Path) -> TargetDescription:
    """Read a description.

    Raises:
        UserError: The file cannot be read, or a field is missing, unknown or of the wrong type.
    """
    try:
        description = TargetDescription(**tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"the target description {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = f" at '{'.'.join(str(part) for part in first['loc'])}'" if first["loc"] else ""
        raise UserError(f"the target description {path} is faulty{field}: {first['msg']}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"the target description {path} is not valid TOML: {error}") from error
    if description.family not in FAMILIES:
        why = no_such(FAMILIES.kind, description.family, FAMILIES)
        raise UserError(f"the target description {path} is faulty at 'family': {why}")
    return description
