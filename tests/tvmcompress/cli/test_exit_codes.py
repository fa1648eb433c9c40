"""One table of exit codes: every error ends with one of them, and `--help` and the reference show them all."""

from __future__ import annotations

import tvmcompress.measuring.benchmarking  # noqa: F401  (errors of its own)
from tests.tvmcompress.cli.running import run
from tvmcompress.cli.exit_codes import ExitCode
from tvmcompress.errors import UserError
from tvmcompress.report.record import ACCURACY


def kinds(of: type[UserError]) -> set[type[UserError]]:
    """A class of errors and all below it."""
    return {of}.union(*(kinds(below) for below in of.__subclasses__()))


def test_every_error_has_one() -> None:
    assert {kind.exit_code for kind in kinds(UserError)} == {ExitCode.BUG, ExitCode.INPUT, ExitCode.BUDGET, ExitCode.TOOLS}
    assert ACCURACY == ExitCode.ACCURACY


def test_help_shows_them() -> None:
    shown = " ".join(run("--help").out.split())
    for code in ExitCode:
        assert f"{code.value} {code.meaning}" in shown


def test_errors_as_json() -> None:
    ran = run("targets", "nowhere", "--json")
    assert ran.json["verdict"] == {"exit_code": 2, "sentence": ran.err.strip().removeprefix("Error: ")}
    assert run("inspect", "--json").out == ""  # a command that was not understood
