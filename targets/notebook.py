"""Results in notebooks: a small table of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

_LONGEST = 200
_LEFT = "text-align:left"


def html_table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """A table of two columns; what is long is cut, since notebooks show results to be glanced at.

    Args:
        title: Above it.
        rows: Names and values; those that are None or empty are left out.
    """
    lines = []
    for name, value in rows:
        if value is None or (isinstance(value, (str, tuple, list, Mapping)) and not value):
            continue
        words = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        shown = words if len(words) <= _LONGEST else words[:_LONGEST] + " …"
        lines.append(f'<tr><th style="{_LEFT}">{escape(name)}</th><td style="{_LEFT}">{escape(shown)}</td></tr>')
    return f"<table><caption>{escape(title)}</caption>{''.join(lines)}</table>"
