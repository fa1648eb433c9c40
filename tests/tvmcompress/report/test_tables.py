"""No terminal is too narrow for a table: names fold, rows become blocks, and nothing is cut away."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console, RenderableType
from rich.text import Text
from typer.testing import CliRunner

from tvmcompress import Model
from tvmcompress.cli.main import app
from tvmcompress.measuring.record import BuildRecord
from tvmcompress.report.console import builds_table, models_table
from tvmcompress.report.memory import memory_map
from tvmcompress.report.record import ModelRecord, Report
from tvmcompress.report.tables import open_table, plain_table
from tvmcompress.targets.measurement import Measurement

LONG = "model/" + "block_[bold]/" * 12 + "Conv2D:0"
WIDTHS = (1, 7, 20, 40, 60, 100)


def shown(what: RenderableType, width: int) -> Counter[str]:
    """The characters that reach a terminal, without spaces and lines."""
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    return Counter("".join(text.replace("─", "").split()))


@pytest.fixture(scope="module")
def report() -> Report:
    def build(name: str, target: str) -> BuildRecord:
        measured = Measurement(
            target=target, source="qemu", instructions=1_438_071, flash_bytes=44_517, ram_bytes=6_660, code_bytes=12_489,
            constant_bytes=32_028, arena_bytes=6_232, arena_lower_bound=6_232, stack_bytes=428,
        )  # fmt: skip
        return BuildRecord(model=name, target=target, measurement=measured)

    models = [ModelRecord.model_construct(name=name, macs=1_310_848, params=26_730, weight_bytes=106_920, evaluation=None)
              for name in (LONG, f"{LONG} pruned")]  # fmt: skip
    builds = [build(model.name, target) for model in models for target in ("cortex-m4", "cortex-m55")]
    return Report.model_construct(models=models, builds=builds, targets=["cortex-m4", "cortex-m55"])


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut(width: int, report: Report) -> None:
    wide = builds_table(report, with_models=True)
    for table in (wide, builds_table(report, with_models=False), models_table(report.models), memory_map(report.builds)):
        assert shown(table, width) >= shown(table, 2000)
    for made in (plain_table("a title"), open_table("heading", "another heading")):
        if not made.columns:
            made.add_column("heading")
            made.add_column("figure", no_wrap=True, justify="right")
        made.add_row(LONG, Text("1,438,071"))
        made.add_row("", "")
        assert shown(made, width) >= shown(made, 2000)


def test_figures_stay_whole_while_there_is_room(report: Report) -> None:
    console = Console(file=io.StringIO(), width=40, markup=False)
    console.print(builds_table(report, with_models=True))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    words = ["an", "inference", "1.44", "M", "instr"]
    assert [line.split() for line in lines if line.startswith("an inference")] == 4 * [words]


def test_commands_in_a_narrow_terminal(digits_model: Model, tmp_path: Path) -> None:
    place = tmp_path / ("ΩΨ" * 50 + "[bold].tvmc")
    digits_model.save(place)
    for arguments in (["inspect", str(place), "--groups"], ["targets"], ["presets"], ["operators"], ["targets", "cortex-m4"]):
        seen = []
        for columns in ("40", "1000"):
            ran = CliRunner().invoke(app, arguments, env={"COLUMNS": columns, "TERM": "dumb"})
            assert ran.exit_code == 0
            assert max(map(len, ran.stdout.splitlines())) <= int(columns)
            seen.append(Counter("".join(ran.stdout.replace("─", "").split())))
        assert seen[0] >= seen[1], arguments
        assert seen[0]["Ω"] == (50 if "inspect" in arguments else 0)
