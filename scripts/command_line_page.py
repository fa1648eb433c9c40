"""The page on the command line, made from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import typer

from tvmcompress.cli.main import app

_KINDS = {"Path": "PATH", "int": "N", "float": "NUMBER", "str": "TEXT"}


def commands() -> Iterator[tuple[str, Any]]:
    """Each command with its full name ("logs merge"), in the order of `--help`."""

    def walk(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if getattr(command, "hidden", False):
                continue
            if hasattr(command, "commands"):
                yield from walk(command, f"{prefix}{name} ")
            else:
                yield f"{prefix}{name}", command

    return walk(typer.main.get_command(app), "")


def command_line_page(note: str) -> str:
    """Every command: what it is for, its arguments and its options, by group."""
    listing = "\n".join(
        f"- [`{name}`](#{name.replace(' ', '-')}): {_paragraphs(command)[0]}" for name, command in commands()
    )
    return f"""{note}

# Command line

{listing}

`tvmcompress --install-completion` completes commands and options in your shell. What commands end with, and what they print to
standard error, is on the page on [errors](errors.md). A `|` between values means one of them; what is repeatable may stand
several times.

{chr(10).join(_section(name, command) for name, command in commands())}"""


def _section(name: str, command: Any) -> str:
    arguments = [param for param in command.params if not param.opts[0].startswith("-")]
    groups: dict[str, list[Any]] = {}
    for param in command.params:
        if param.opts[0].startswith("-") and not getattr(param, "hidden", False):
            groups.setdefault(getattr(param, "rich_help_panel", None) or "Options", []).append(param)
    usage = " ".join(["tvmcompress", name, *(_argument(param) for param in arguments), "[OPTIONS]"])
    parts = [f"## {name}\n", *(f"{paragraph}\n" for paragraph in _paragraphs(command)), f"```\n{usage}\n```\n"]
    if arguments:
        parts.append("\n".join(f"- `{param.name}`: {_text(param)}" for param in arguments) + "\n")
    for title, params in groups.items():
        parts.append(f"**{title}**\n\n" + "\n".join(f"- `{_flags(param)}`: {_text(param)}" for param in params) + "\n")
    return "\n".join(parts)


def _paragraphs(command: Any) -> list[str]:
    return [" ".join(part.split()) for part in (command.help or "").split("\n\n")]


def _argument(param: Any) -> str:
    shown = param.name.upper() + ("..." if param.nargs == -1 else "")
    return shown if param.required else f"[{shown}]"


def _flags(param: Any) -> str:
    names = ", ".join(sorted(param.opts, key=len, reverse=True))
    if param.secondary_opts:
        return f"{names} / {', '.join(param.secondary_opts)}"
    return names if getattr(param, "is_flag", False) else f"{names} {param.metavar or _kind(param)}"


def _kind(param: Any) -> str:
    kind = param.type_descriptor.annotation
    if get_origin(kind) is list:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if hasattr(kind, "__members__"):
        return "|".join(str(entry.value) for entry in kind)
    return _KINDS.get(getattr(kind, "__name__", ""), "VALUE")


def _text(param: Any) -> str:
    """The help of a parameter, and its default."""
    text = re.sub(r"([*_<])", r"\\\1", " ".join((param.help or "").split()))
    shown = param.show_default if isinstance(param.show_default, str) else param.default
    if isinstance(shown, (bool, list, tuple)) or shown is None or param.show_default is False:
        return text
    return f"{text} By default `{shown}`."
