"""What an analysis has measured so far, in a file that it goes on with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Self

from pydantic import ValidationError

from ..errors import UserError
from ..files.whole_file import whole_file
from ..targets.record import Record


class AnalysisRecord(Record):
    """Measurements, and what they were made with.

    Attributes:
        KIND: What such a file holds, and how to come by one, for messages.
        fingerprint: Of the model, the samples and the options: a file of another fingerprint is not gone on with.
    """

    KIND: ClassVar[str] = "analysis"

    fingerprint: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, whole or not at all.

        Raises:
            UserError: The file cannot be written.
        """
        with whole_file(path) as partial:
            partial.write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` has written.

        Raises:
            UserError: The file cannot be read or is none of ours.
        """
        try:
            return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValidationError, UnicodeDecodeError):
            raise UserError(f"{path} holds no {cls.KIND}") from None

    @classmethod
    def earlier(cls, path: str | os.PathLike[str] | None, fingerprint: str) -> Self | None:
        """What is at `path`, if it was made with the same; None otherwise.

        Raises:
            UserError: The file cannot be read or is none of ours.
        """
        if path is None or not Path(path).exists():
            return None
        found = cls.load(path)
        return found if found.fingerprint == fingerprint else None
