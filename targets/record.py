"""Records of what is known: checked when they are made, and not changed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from .notebook import html_table


class Record(BaseModel):
    """A record that is not changed."""

    model_config = ConfigDict(frozen=True)

    def _repr_html_(self) -> str:
        """As notebooks show it."""
        return html_table(type(self).__name__, ((name, getattr(self, name)) for name in type(self).model_fields))
