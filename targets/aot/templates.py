"""Files that are written from templates: a name that a template lacks is an error, and comments cannot be left early."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..escaping import comment, string


class Templates:
    """The templates of a folder.

    Args:
        folder: With files `*.j2`.
    """

    def __init__(self, folder: Path) -> None:
        self._environment = Environment(loader=FileSystemLoader(folder), undefined=StrictUndefined, keep_trailing_newline=True)
        self._environment.filters.update(comment=comment, string=string)

    def write(self, template: str, path: Path, context: Mapping[str, object]) -> Path:
        """Write a file from a template; the file."""
        path.write_text(self._environment.get_template(template).render(context))
        return path
