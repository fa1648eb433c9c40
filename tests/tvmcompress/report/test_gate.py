"""A result that is worse than its gate allows makes the command end with 4, with the verdict in the JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tvmcompress.cli.running import run
from tvmcompress.evaluation.accuracy import Evaluation
from tvmcompress.recipe.gate import GateRecipe
from tvmcompress.recipe.recipe import Recipe
from tvmcompress.report.gate import gate_failure

LABELLED = Evaluation(samples=200, accuracy=0.9, agreement=0.95)
ORIGINAL = Evaluation(samples=200, accuracy=0.95, agreement=1.0)


@pytest.mark.parametrize(
    ("gate", "evaluation", "words"),
    [
        ({"max_drop": 5.0}, LABELLED, None),
        ({"max_drop": 4.9}, LABELLED, "loses 5.00 points of accuracy (95.00 % to 90.00 %), and the gate allows 4.9"),
        ({"min_accuracy": 90.0}, LABELLED, None),
        ({"min_accuracy": 90.1}, LABELLED, "has 90.00 % right, and the gate wants 90.1 %"),
        ({"max_drop": 5.0}, Evaluation(samples=9, agreement=0.95), None),
        ({"max_drop": 4.0}, Evaluation(samples=9, agreement=0.95), "5.00 % of the answers otherwise"),
        ({"max_drop": 4.0}, Evaluation(samples=9, relative_error=0.1), "is not known"),
        ({"min_accuracy": 4.0}, Evaluation(samples=9, agreement=1.0), "have no labels"),
        ({"max_drop": 4.0}, None, "was not evaluated"),
    ],
)
def test_what_passes(gate: dict[str, float], evaluation: Evaluation | None, words: str | None) -> None:
    found = gate_failure(GateRecipe(**gate), "small", evaluation, ORIGINAL)
    assert found is None if words is None else found is not None and words in found


@pytest.fixture(scope="module")
def data(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred of the samples for tests."""
    place = tmp_path_factory.mktemp("gate") / "test.npz"
    with np.load(digits / "digits_test.npz") as arrays:
        np.savez(place, **{name: value[:100] for name, value in arrays.items()})
    return place


def test_a_command_that_fails(digits: Path, data: Path, tmp_path: Path) -> None:
    """Everything is written, and the recipe that is written fails in the same way."""
    out = tmp_path / "out"
    given = ("compress", digits / "digits.onnx", "--eval", data)
    ran = run(*given, "--prune", 0.8, "--no-repair", "--gate-drop", 1, "-o", out)
    assert ran.code == 4
    assert "points of accuracy" in ran.err
    report = json.loads((out / "report.json").read_text())
    assert (report["version"], report["verdict"]["exit_code"], report["gate"]["max_drop"]) == (1, 4, 1.0)
    assert Recipe.load(out / "recipe.toml").gate == GateRecipe(max_drop=1)
    again = run(*given, "--recipe", out / "recipe.toml", "--json", "-o", tmp_path / "again")
    assert (again.code, again.json["verdict"]) == (4, report["verdict"])
    assert run(*given, "--recipe", out / "recipe.toml", "--gate-drop", 95, "-o", tmp_path / "passes").code == 0


def test_of_several_versions_the_last_counts(digits: Path, data: Path) -> None:
    given = ("benchmark", digits / "digits.onnx", digits / "digits.onnx", "--eval", data, "-t", "x86", "--runs", 1)
    assert run(*given, "--gate-accuracy", 90).code == 0
    assert run(*given, "--gate-accuracy", 100).code in (0, 4)
    ran = run(*given[:2], *given[3:], "--prune", 0.9, "--no-repair", "--gate-accuracy", 99, "--json")
    assert (ran.code, ran.json["verdict"]["exit_code"]) == (4, 4)


def test_a_recipe_without_a_gate_has_none() -> None:
    """Versions that do not know gates read what is written."""
    assert "gate" not in Recipe().model_dump()
    with pytest.raises(ValueError, match="max_drop or min_accuracy"):
        GateRecipe()
