"""The table of operators: every empty cell has its reason, and the table says what the code does."""

from __future__ import annotations

import pytest

from tests.tvmcompress.cli.running import run
from tvmcompress.passes.integer.registry import DEFINITIONS, PREFIX
from tvmcompress.report.operators import COLUMNS, GAPS, OperatorRecord, integer_operators, operators, tflite_names


@pytest.fixture(scope="module")
def records() -> dict[str, OperatorRecord]:
    """The table, PyTorch included."""
    pytest.importorskip("torch")
    return {record.name: record for record in operators()}


def test_every_empty_cell_has_its_reason(records: dict[str, OperatorRecord]) -> None:
    lacking = {
        f"{record.name}: {title}"
        for record in records.values()
        for column, title in COLUMNS.items()
        if not getattr(record, column) and column not in record.reasons
    }
    assert lacking == set(), "give each a rule, or a reason in GAPS"


def test_every_reason_is_of_an_empty_cell(records: dict[str, OperatorRecord]) -> None:
    given = {why for record in records.values() for why in record.reasons.values()}
    assert {gap.why for gap in GAPS} == given


def test_the_table_says_what_the_code_does(records: dict[str, OperatorRecord]) -> None:
    conv, relu, softmax = (records[f"relax.nn.{name}"] for name in ("conv2d", "relu", "softmax"))
    assert (conv.kind, conv.integer) == ("layer", "int8, int16")
    assert {"CONV_2D", "DEPTHWISE_CONV_2D"} <= set(conv.tflite)
    assert relu.integer == "part of a layer"
    assert softmax.kind == "fixed scale"
    assert records["relax.nn.gelu"].integer == "table"
    assert records["relax.argmax"].reasons["integer"] == "its result is an index"


def test_operators_of_tflite_are_imported_as_operators_of_the_table(records: dict[str, OperatorRecord]) -> None:
    names = tflite_names()
    assert {name for name in names.values() if name is not None} <= set(records)
    several = {kind for kind, name in names.items() if name is None}
    assert several == {
        *("ADD_N", "BATCH_TO_SPACE_ND", "DENSIFY", "DEPTH_TO_SPACE", "ELU", "HARD_SWISH", "L2_NORMALIZATION"),
        *("SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SQUARED_DIFFERENCE"),
    }


def test_integer_operators_have_a_reference_each() -> None:
    found = {record.name: record for record in integer_operators()}
    assert all(record.reference for record in found.values())
    listed = {*found, *(record.int16 for record in found.values())}
    assert {name for name in DEFINITIONS if not name.startswith(PREFIX + "x86_")} <= listed
    assert found["tvmcompress.qadd"].kernels == (
        "x86",
        "Cortex-A",
        "Cortex-M without DSP",
        "Cortex-M with DSP",
        "Cortex-M with Helium",
    )


def test_the_command() -> None:
    shown = run("operators", "nn.attention")
    assert shown.code == 0
    assert "integers: stays in float: no integer form yet" in shown.out
    table = run("operators", "--json").json
    assert {record["name"] for record in table["relax"]} >= {"relax.add", "relax.matmul"}
    assert [record["name"] for record in run("operators", "q*v2d", "--json").json["integer"]] == ["tvmcompress.qconv2d"]
    refused = run("operators", "nn.conv9d")
    assert refused.code == 2
    assert "no operator is called 'nn.conv9d'" in refused.err
