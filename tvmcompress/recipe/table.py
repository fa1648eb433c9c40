"""What all tables of a recipe have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """A table of a recipe: immutable, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
