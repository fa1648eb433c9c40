"""Where a training was when it was stopped."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files.whole_file import whole_file
from .backend import load_torch

_FILE = "finetune.pt"


class Checkpoint:
    """A file in a folder, written whole or not at all after every epoch.

    Args:
        folder: Made where it is missing.
        fingerprint: Of the model, the data and the options: a checkpoint of another fingerprint is not gone on with.

    Raises:
        UserError: The folder cannot be made.
    """

    def __init__(self, folder: str | PathLike[str], fingerprint: str) -> None:
        self._place = Path(folder) / _FILE
        self._fingerprint = fingerprint
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be made: {error.strerror or error}") from error

    def save(self, state: dict[str, Any]) -> None:
        """Write a state: tensors, numbers, strings, and lists and dicts of them.

        Raises:
            UserError: The file cannot be written.
        """
        with whole_file(self._place) as partial:
            try:
                load_torch().save({**state, "fingerprint": self._fingerprint}, partial)
            except RuntimeError as error:
                raise UserError(f"{self._place} cannot be written: {error}") from error

    def load(self) -> dict[str, Any] | None:
        """The state last written for this fingerprint; None where there is none."""
        if not self._place.exists():
            return None
        try:
            state = load_torch().load(self._place, weights_only=True)
        except Exception as error:  # zip and pickle each have errors of their own for damaged files
            raise UserError(f"{self._place} is damaged; remove it to start over") from error
        return dict(state) if state.get("fingerprint") == self._fingerprint else None
