"""The targets there are, by name."""

from __future__ import annotations

import importlib
import tomllib
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from ..passes.errors import UserError
from .base import Target, TargetDescription

_DESCRIPTIONS = Path(__file__).parent / "descriptions"
_FAMILIES = {
    "x86": ("x86.target", "X86Target"),
    "cortex-a": ("arm.target", "CortexATarget"),
    "cortex-m": ("micro.target", "CortexMTarget"),
}


def list_targets() -> list[TargetDescription]:
    """The descriptions of all targets that come with the package, by name."""
    return sorted((read_description(path) for path in _DESCRIPTIONS.glob("*.toml")), key=lambda d: d.name)


def get_target(name: str | Path) -> Target:
    """A target by name, or by the path of a description of one's own (a .toml file).

    Raises:
        UserError: There is no such target, or the description is faulty.
    """
    if str(name).endswith(".toml"):
        description = read_description(Path(name))
    else:
        path = _DESCRIPTIONS / f"{name}.toml"
        if not path.exists():
            known = [description.name for description in list_targets()]
            close = get_close_matches(str(name), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
            raise UserError(f"there is no target '{name}'; {hint}")
        description = read_description(path)
    return target_of(description)


def target_of(description: TargetDescription) -> Target:
    """The target that a description describes."""
    module, cls = _FAMILIES[description.family]
    return getattr(importlib.import_module(f".{module}", __package__), cls)(description)


def read_description(path: Path) -> TargetDescription:
    """Read a description.

    Raises:
        UserError: The file cannot be read, or a field is missing, unknown or of the wrong type.
    """
    try:
        return TargetDescription(**tomllib.loads(path.read_text()))
    except OSError as error:
        raise UserError(f"the target description {path} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the target description {path} is not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"the target description {path} is faulty at '{field}': {first['msg']}") from error
