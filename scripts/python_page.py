"""The page on Python's public names, made from their docstrings."""

from __future__ import annotations

import inspect
import re

import tvmcompress
from tvmcompress.passes.pipeline import PASSES

_SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Yields")


def python_page(note: str) -> str:
    """Every public name of `tvmcompress`, and every pass."""
    names = [name for name in tvmcompress.__all__ if not name.startswith("__")]
    functions = [name for name in names if inspect.isfunction(getattr(tvmcompress, name))]
    errors = [name for name in names if name not in functions and issubclass(getattr(tvmcompress, name), Exception)]
    classes = [name for name in names if name not in functions and name not in errors]
    parts = [
        f"{note}\n\n# Python\n",
        "What `import tvmcompress` gives, and the passes of `tvmcompress.passes`. Names that are not here may change.\n",
    ]
    for title, chosen in (("Functions", functions), ("Classes", classes), ("Errors", errors)):
        parts.append(f"## {title}\n")
        parts += [_entry(name, getattr(tvmcompress, name)) for name in chosen]
    parts.append("## Passes\n\nEach is a `tvm.transform.Pass`.\n")
    parts += [_entry(name, PASSES[name]) for name in PASSES]
    return "\n".join(parts)


def _entry(name: str, thing: object) -> str:
    return f"### {name}\n\n{_signature(name, thing)}{as_markdown(inspect.getdoc(thing) or '')}\n"


def _signature(name: str, thing: object) -> str:
    """How it is called; of classes that hold data the attributes below say it."""
    if isinstance(thing, type) and "Attributes:" in (inspect.getdoc(thing) or ""):
        return ""
    if isinstance(thing, type) and issubclass(thing, Exception):
        return ""
    shown = []
    for parameter in inspect.signature(thing).parameters.values():  # type: ignore[arg-type]
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown and not any(word[0] == "*" for word in shown):
            shown.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={_default(parameter.default)}"
        shown.append(f"{stars}{parameter.name}{default}")
    line = f"{name}({', '.join(shown)})"
    if len(line) > 100:
        line = f"{name}(\n    " + ",\n    ".join(shown) + ",\n)"
    return f"```python\n{line}\n```\n\n"


def _default(value: object) -> str:
    return repr(value) if isinstance(value, (str, int, float, bool, tuple, type(None))) else "..."


def as_markdown(text: str) -> str:
    """A docstring in Google's style as Markdown: its sections become lists."""
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        heading = re.fullmatch(r"(\w+):", line)
        if heading and heading[1] in _SECTIONS:
            section = heading[1]
            lines += [f"**{section}**", ""]
            continue
        if line and not line.startswith(" "):
            section = ""
        entry = re.match(r"    (\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)", line)
        if section and entry:
            lines.append(f"- `{entry[1]}`: {_plain(entry[2])}")
        elif section and line.startswith("    "):
            lines.append(("  " if section not in ("Returns", "Yields") else "") + _plain(line.strip()))
        else:
            lines.append(_plain(line) if not line.startswith("    ") else line)
    return "\n".join(lines).strip() + "\n"


def _plain(text: str) -> str:
    """Stars and angles that Markdown would read, escaped outside of code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*<])", r"\\\1", part) for part in parts)
