"""Measurements in a file, one a line, so that a benchmark that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import UserError
from ..model import Model
from ..passes._tvm import TVM_VERSION, tvm
from ..targets.base import TargetDescription
from ..targets.emulators.tools import package_version
from .record import BuildRecord


class MeasuredLog:
    """What was measured, by all that it depends on.

    Args:
        path: The file; it need not be there.

    Raises:
        UserError: It cannot be read, or holds something else. A last line that an interruption has cut is left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, BuildRecord] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}") from error
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
                self._known[entry["key"]] = BuildRecord.model_validate(entry["record"])
            except (ValueError, KeyError, TypeError, ValidationError):
                if number < len(lines) - 1:
                    raise UserError(f"{path} holds no measurements (line {number + 1}); give another file with --log") from None
        if lines and not path.read_bytes().endswith(b"\n"):
            self._write(lines[:-1])

    def find(self, key: str, model: str) -> BuildRecord | None:
        """What was measured under a key, for a model of this name."""
        found = self._known.get(key)
        return None if found is None else found.model_copy(update={"model": model})

    def add(self, key: str, record: BuildRecord) -> None:
        """Keep a measurement; failures are tried again.

        Raises:
            UserError: The file cannot be written.
        """
        if record.measurement is None or key in self._known:
            return
        self._known[key] = record
        line = json.dumps({"key": key, "record": json.loads(record.model_dump_json())})
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror or error}") from error

    def _write(self, lines: list[str]) -> None:
        self._path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def measuring_key(model: Model, target: TargetDescription, options: Mapping[str, Any]) -> str:
    """All that a measurement depends on: the program, its weights, the target, options, versions."""
    digest = hashlib.sha256(tvm.ir.save_json(model.module).encode())
    for name, value in sorted(model.params.items()):
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    rest = {"target": target.model_dump(mode="json"), "options": dict(options), "versions": [package_version(), TVM_VERSION]}
    digest.update(json.dumps(rest, sort_keys=True, default=str).encode())
    return digest.hexdigest()
