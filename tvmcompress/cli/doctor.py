"""`tvmcompress doctor`: what works here, what is missing, and the command that mends it."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from .common import JsonOption, output, print_json, print_line
from .completion import targets as complete_targets
from .exit_codes import ExitCode

_APT = re.compile(r"apt-get install ([a-z0-9.+ -]*[a-z0-9+])")
_EXTRAS = (
    ("torch", "train", "fine-tuning, criteria by gradients, .pt2 files"),
    ("matplotlib", "report", "pictures of sensitivity"),
    ("tflite", "tflite", "TFLite files"),
    ("serial", "serial", "boards at a serial port"),
)
"""Module, extra, and what it is for."""


def doctor(
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", help="End with exit code 5 if this target's tools are missing (repeatable).",
            autocompletion=complete_targets,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say which targets work on this machine and what is missing, with the command that brings it."""
    from importlib.util import find_spec

    from ..passes._tvm import TVM_VERSION
    from ..targets.registry import get_target, list_targets

    names = [description.name for description in list_targets()]
    asked = {name: get_target(name) for name in target or []}
    states: dict[str, list[str]] = {name: get_target(name).missing_tools() for name in names}
    states |= {name: found.missing_tools() for name, found in asked.items()}
    extras = {module: find_spec(module) is not None for module, _, _ in _EXTRAS}
    commands = mending(sorted({sentence for missing in states.values() for sentence in missing}))
    commands += [f"pip install 'tvmcompress[{extra}]'" for module, extra, _ in _EXTRAS if not extras[module]]
    lacking = [name for name in asked if states[name]]
    code = ExitCode.TOOLS if lacking else ExitCode.DONE
    if json:
        targets = {name: {"works": not missing, "missing": missing} for name, missing in states.items()}
        verdict = {"exit_code": code.value, "sentence": f"tools are missing for {', '.join(lacking)}" if lacking else ""}
        print_json({"tvm": TVM_VERSION, "targets": targets, "extras": extras, "commands": commands, "verdict": verdict})
    else:
        _show(states, extras, commands, TVM_VERSION)
        if lacking:
            print_line("Error", f"tools are missing for {', '.join(lacking)}; see above for what brings them")
    if code:
        raise typer.Exit(code.value)


def mending(sentences: list[str]) -> list[str]:
    """The commands that bring what sentences say is missing: one for all Debian packages."""
    packages = sorted({name for sentence in sentences for found in _APT.findall(sentence) for name in found.split()})
    return [f"sudo apt-get install {' '.join(packages)}"] if packages else []


def _show(states: dict[str, list[str]], extras: dict[str, bool], commands: list[str], tvm: str) -> None:
    from rich.text import Text

    from ..report.tables import open_table

    def sign(works: bool) -> Text:
        return Text("works", style="green") if works else Text("missing", style="yellow")

    console = output()
    table = open_table("target", "", "what is missing")
    for name, missing in states.items():
        table.add_row(name, sign(not missing), " ".join(missing))
    console.print(table)
    console.print()
    more: Any = open_table("package", "", "for")
    more.add_row(f"tvm {tvm}", sign(True), "everything")
    for module, _, purpose in _EXTRAS:
        more.add_row(module, sign(extras[module]), purpose)
    console.print(more)
    if commands:
        console.print()
        console.print(Text("What brings what is missing:", style="bold"))
        for command in commands:
            console.print(f"  {command}", soft_wrap=True)
