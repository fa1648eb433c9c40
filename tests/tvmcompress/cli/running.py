"""Running commands in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from tvmcompress.cli.main import app


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output, which must be JSON and nothing else."""
        return json.loads(self.out)


def run(*args: object) -> Ran:
    """Run `tvmcompress` with arguments in a terminal of 100 columns; an exception that it lets through is raised."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "100", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def refused(*args: object, code: int = 2) -> str:
    """Run a command that must be refused: its exit code, nothing on standard output but the verdict as JSON where
    that was asked for, one sentence of error."""
    ran = run(*args)
    assert ran.code == code, (ran.out, ran.err)
    if "--json" in args:
        assert ran.json["verdict"]["exit_code"] == code
    else:
        assert ran.out == ""
    assert "Traceback" not in ran.err
    lines = ran.err.strip().splitlines()
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("Error: ")
    return lines[0]
