"""Builds that fail make the command fail, with its exit code, and what succeeded is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tvmcompress.cli.running import run
from tvmcompress.errors import LimitError, MissingToolError, ToolError, UserError
from tvmcompress.targets.base import Target
from tvmcompress.targets.x86.target import X86Target


def failing(monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    """Building for Cortex-M4 writes half a build and raises."""

    def build(self: Target, mod: Any, output: Path, **options: Any) -> Any:
        (output / "half.c").write_text("half")
        made = error(output) if callable(error) else error
        raise made

    monkeypatch.setattr(Target, "require_tools", lambda self: None)
    monkeypatch.setattr("tvmcompress.targets.micro.target.CortexMTarget.build", build)


def failed_compiler(output: Path) -> ToolError:
    (output / "compiler.log").write_text("all that it said")
    return ToolError("compiling model.c failed: gcc: error: no", output / "compiler.log")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("operator foo cannot be compiled"), 2),
        (LimitError("the model needs 9 bytes of flash and cortex-m4 has 8: 1 too many"), 3),
        (failed_compiler, 5),
        (TypeError("bad operand\nTVM says much"), 1),
    ],
    ids=["input", "board", "compiler", "bug"],
)
def test_what_succeeded_is_kept(
    error: Any, code: int, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, error)
    out = tmp_path / "out"
    ran = run("compress", digits / "digits.onnx", "--prune", 0.5, "--no-repair", "-t", "cortex-m4", "-t", "x86", "-o", out)
    assert ran.code == code
    assert "Every build with figures was run and compared" in " ".join(ran.out.split())
    (line,) = ran.err.strip().splitlines()
    assert line.startswith("Error: 1 of 2 builds failed: compressed on cortex-m4: ")
    assert f"what succeeded is in {out}" in line
    assert ".partial" not in ran.out + ran.err
    report = json.loads((out / "report.json").read_text())
    micro, x86 = report["builds"]
    assert (micro["measurement"], micro["exit_code"], report["verdict"]["exit_code"]) == (None, code, code)
    assert x86["measurement"]["latency"]["median_ms"] > 0
    assert (out / "x86").is_dir()
    assert {path.name for path in (out / "cortex-m4").glob("*")} == ({"compiler.log"} if code == 5 else set())
    if code == 5:
        assert "all of its output is in cortex-m4/compiler.log" in line


def test_json_and_nothing_else(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, failed_compiler)
    ran = run("benchmark", digits / "digits.onnx", "-t", "cortex-m4", "--json")
    assert ran.code == 5
    assert ran.json["verdict"] == {
        "exit_code": 5,
        "sentence": "digits on cortex-m4: compiling model.c failed: gcc: error: no",
    }
    assert "what succeeded" not in ran.err


def test_a_build_that_computes_something_else(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = X86Target.build

    def build(self: X86Target, mod: Any, output: Path, **options: Any) -> Any:
        artifact = built(self, mod, output, **options)
        run_float = type(artifact).run_float
        monkeypatch.setattr(type(artifact), "run_float", lambda self, inputs: [v + 1 for v in run_float(self, inputs)])
        return artifact

    monkeypatch.setattr(X86Target, "build", build)
    ran = run("benchmark", digits / "digits.onnx", "-t", "x86")
    assert ran.code == 1
    assert "computes something else than the model" in ran.err
    assert "compared with its model first" not in ran.out


def test_a_target_that_was_to_be_left_out_is_no_failure(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmcompress.targets.micro.target.CortexMTarget.missing_tools", lambda self: ["gcc is missing."])
    ran = run("benchmark", digits / "digits.onnx", "-t", "cortex-m4", "--skip-missing", "--json")
    assert ran.code == 0
    assert ran.json["builds"][0]["problem"] == "gcc is missing."
    assert ran.json["verdict"] == {"exit_code": 0, "sentence": ""}
    assert run("benchmark", digits / "digits.onnx", "-t", "cortex-m4").code == MissingToolError.exit_code == 5


def test_every_build_was_compared(digits: Path) -> None:
    verdict = run("benchmark", digits / "digits.onnx", "-t", "x86", "--runs", 2, "--json").json["verdict"]
    assert verdict == {"exit_code": 0, "sentence": "every build was run and compared with its model"}


def test_bugs_have_a_code_of_their_own(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("tvmcompress.report.inspection.inspection", broken)
    ran = run("inspect", digits / "digits.onnx")
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert ran.err.splitlines()[-1].startswith("Error: this is a bug (ZeroDivisionError")
