"""JSON Schemas of what people and other programs read and write: reports, recipes, results of tuning."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from ..recipe.recipe import Recipe
from ..tuning.progress import TuningResult
from .record import Report

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def report_schema() -> dict[str, Any]:
    """Of report.json, and of what `compress --json` and `benchmark --json` print."""
    schema = Report.model_json_schema(mode="serialization")
    recipe = Recipe.model_json_schema()
    # A recipe is written by a function of its own, of whose result pydantic knows nothing.
    definitions = {**schema["$defs"], **recipe.pop("$defs")}
    definitions["Recipe"] = recipe
    return _published({**schema, "$defs": definitions}, "A report of tvmcompress")


def recipe_schema() -> dict[str, Any]:
    """Of recipe.toml, in the values that TOML stands for."""
    return _published(Recipe.model_json_schema(), "A recipe of tvmcompress")


def tuning_schema() -> dict[str, Any]:
    """Of what `tune --json` prints: a result for each target."""
    schema = TypeAdapter(dict[str, TuningResult]).json_schema(mode="serialization")
    return _published(schema, "Results of tvmcompress tune, by target")


SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {
    "report": report_schema,
    "recipe": recipe_schema,
    "tuning": tuning_schema,
}
"""All of them by name; `docs/schemas` holds a copy of each."""


def _published(schema: dict[str, Any], title: str) -> dict[str, Any]:
    return {"$schema": _DRAFT, **_described(schema), "title": title}


def _described(value: Any) -> Any:
    """With what docstrings say of attributes beside these, where editors show it."""
    if isinstance(value, list):
        return [_described(part) for part in value]
    if not isinstance(value, dict):
        return value
    made = {name: _described(part) for name, part in value.items()}
    text = made.get("description")
    if isinstance(text, str):
        summary, _, attributes = text.partition("\n\nAttributes:\n")
        made["description"] = " ".join(summary.split())
        for names, sentence in _ATTRIBUTE.findall(attributes):
            for name in names.split(", "):
                if isinstance(entry := made.get("properties", {}).get(name), dict):
                    made["properties"][name] = {**entry, "description": " ".join(sentence.split())}
    return made


_ATTRIBUTE = re.compile(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", re.MULTILINE)
