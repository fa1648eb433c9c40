"""Pruning as recipes ask for it: budgets, limits of a target, blocks, sparse weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tvmcompress
from tvmcompress import Model, Recipe, UserError, compress
from tvmcompress.passes import get_params
from tvmcompress.passes.graph.analysis import count_macs, count_params
from tvmcompress.passes.graph.peak_memory import peak_activations
from tvmcompress.targets.registry import get_target

BARE = get_target("cortex-m4")
MISSING = BARE.missing_tools()


@pytest.fixture(scope="module")
def calibration(digits: Path) -> Path:
    return digits / "digits_calib.npz"


@pytest.mark.parametrize("fraction", [0.7, 0.4])
def test_targets_are_met(fraction: float, digits_model: Model, calibration: Path) -> None:
    result = compress(digits_model, calibration, prune={"target_macs": fraction, "reconstruct": False})
    left = count_macs(result.model.module) / count_macs(digits_model.module)
    assert fraction - 0.02 <= left <= fraction
    result = compress(digits_model, calibration, prune={"target_params": fraction, "reconstruct": False})
    left = count_params(result.model.module) / count_params(digits_model.module)
    assert fraction - 0.02 <= left <= fraction


def test_rounds(digits_model: Model, calibration: Path) -> None:
    recipe = {"target_macs": 0.4, "reconstruct": False}
    once, thrice = (compress(digits_model, calibration, prune={**recipe, "rounds": rounds}) for rounds in (1, 3))
    assert once.surgery is not None
    assert thrice.surgery is not None
    assert len(thrice.surgery.groups) > len(once.surgery.groups)
    assert 0.38 <= count_macs(thrice.model.module) / count_macs(digits_model.module) <= 0.4
    with pytest.raises(UserError, match="rounds"):
        compress(digits_model, calibration, prune={"ratio": 0.5, "rounds": 2})


def test_ram_counts_in_the_precision_of_the_result(digits_model: Model, calibration: Path) -> None:
    elements = peak_activations(digits_model.module)
    result = compress(digits_model, calibration, prune={"max_ram": elements // 2, "reconstruct": False}, quantize="int8")
    assert peak_activations(result.float_model.module) <= elements // 2
    assert peak_activations(result.float_model.module) > elements // 3


def test_the_default_importance_looks_at_activations(digits_model: Model, calibration: Path) -> None:
    with_data = compress(digits_model, calibration, prune={"ratio": 0.5, "reconstruct": False})
    named = compress(digits_model, calibration, prune={"ratio": 0.5, "reconstruct": False, "importance": "output_energy"})
    without = compress(digits_model, prune=0.5)
    weights = compress(digits_model, prune={"ratio": 0.5, "importance": "l2"})
    assert with_data.surgery is not None
    assert without.surgery is not None
    assert with_data.surgery == named.surgery
    assert without.surgery == weights.surgery
    assert with_data.surgery != without.surgery


def test_units_are_folded_where_that_is_wanted(digits_model: Model, calibration: Path) -> None:
    recipe = {"ratio": 0.5, "importance": "l2", "reconstruct": False}
    removed, folded = (compress(digits_model, calibration, prune=recipe | {"selection": s}) for s in ("remove", "fold"))
    assert removed.surgery is not None
    assert folded.surgery is not None
    assert removed.surgery.macs_after == folded.surgery.macs_after
    assert not any(group.merged for group in removed.surgery.groups)
    assert any(group.merged for group in folded.surgery.groups)
    with pytest.raises(UserError, match="--calib"):
        compress(digits_model, prune={"ratio": 0.5, "selection": "best"})


def test_blocks_are_solved_where_that_is_wanted(digits_model: Model, calibration: Path) -> None:
    layers, blocks = (
        compress(digits_model, calibration, prune={"ratio": 0.5, "solve_blocks": value}) for value in (False, True)
    )
    assert "block by block" in blocks.model.provenance[-1]
    assert "block by block" not in layers.model.provenance[-1]
    changed = [name for name, value in layers.model.params.items() if (blocks.model.params[name] != value).any()]
    assert changed
    # The step of a recipe's own takes the same option.
    steps = [{"step": "prune", "ratio": 0.5}, {"step": "repair", "options": {"blocks": True}}]
    again = compress(digits_model, calibration, recipe=Recipe.of({"steps": steps}))
    for name, value in blocks.model.params.items():
        assert (again.model.params[name] == value).all()


def test_blocks_leave_first_and_count_for_the_budget(digits_model: Model, calibration: Path) -> None:
    result = compress(digits_model, calibration, prune={"blocks": 1, "target_macs": 0.5, "reconstruct": False})
    assert result.surgery is not None
    assert len(result.surgery.blocks) == 1
    assert 0.48 <= count_macs(result.model.module) / count_macs(digits_model.module) <= 0.5
    alone = compress(digits_model, calibration, prune={"blocks": 1})
    assert alone.surgery is not None
    assert alone.surgery.groups == []


def test_blocks_need_data(digits_model: Model) -> None:
    with pytest.raises(UserError, match="--calib"):
        compress(digits_model, prune={"blocks": 1})


def test_sparse_weights(digits_model: Model) -> None:
    result = compress(digits_model, recipe=Recipe.of({"sparsify": {"sparsity": 0.6}}))
    for name, value in get_params(result.model.module).items():
        if name.endswith("weight"):
            assert np.mean(value == 0) == pytest.approx(0.6, abs=0.01)


def test_sparse_weights_are_repaired_and_stay_sparse(digits_model: Model, calibration: Path, digits: Path) -> None:
    plans = [{"threshold": 0.1}, {"threshold": 0.1, "reconstruct": False}]
    repaired, bare = (compress(digits_model, calibration, recipe=Recipe.of({"sparsify": plan})) for plan in plans)
    assert [step.name for step in repaired.steps] == ["sparsify", "repair"]
    assert "weights below 0.1: " in bare.steps[0].message
    for name, value in get_params(bare.model.module).items():
        assert name.endswith("bias") or (np.abs(value[value != 0]) >= 0.1).all()
        np.testing.assert_array_equal(get_params(repaired.model.module)[name] == 0, value == 0)
    errors = [
        tvmcompress.evaluate(result.model, digits / "digits_test.npz", reference=digits_model).relative_error
        for result in (repaired, bare)
    ]
    assert errors[0] < 0.7 * errors[1]


def test_a_model_within_its_budget(digits_model: Model, calibration: Path) -> None:
    with pytest.raises(UserError, match="within the budget already"):
        compress(digits_model, calibration, prune={"max_ram": 10**9})


@pytest.mark.skipif(bool(MISSING), reason=" ".join(MISSING))
def test_the_flash_of_a_target_is_met(digits_model: Model, calibration: Path, tmp_path: Path) -> None:
    def flash(model: Model, name: str) -> int:
        info = BARE.build(model.module, tmp_path / name).info
        return int(info.code_bytes + info.constant_bytes)

    whole = flash(compress(digits_model, calibration, quantize="int8").model, "whole")
    limit = int(whole * 0.6)
    recipe = {"max_flash": limit, "reconstruct": False}
    result = compress(digits_model, calibration, prune=recipe, quantize="int8", target="cortex-m4")
    # Kernels, and with them code, are chosen by shape: not every size can be had.
    assert 0.9 * limit <= flash(result.model, "small") <= limit
    with pytest.raises(UserError, match="--target cortex-m4"):
        compress(digits_model, calibration, prune=recipe, quantize="int8", target="x86")
    with pytest.raises(UserError, match=r"does not fit|cannot be met"):
        compress(digits_model, calibration, prune={"max_flash": 2000}, quantize="int8", target="cortex-m4")


def test_channels_suit_the_kernels_of_the_targets(digits_model: Model, calibration: Path) -> None:
    def widths(**options: Any) -> list[int]:
        result = compress(digits_model, calibration, prune={"ratio": 0.3, "reconstruct": False}, **options)
        assert result.surgery is not None
        return [len(group.kept) for group in result.surgery.groups]

    assert any(width % 4 for width in widths())
    assert all(width % 4 == 0 for width in widths(target="cortex-m4"))
    assert all(width % 8 == 0 for width in widths(target=["cortex-m4", "cortex-a72"]))


class TestMultiplesThatKeepMost:
    """A multiple that follows from the targets gives way where it would keep most of what was asked to go."""

    @pytest.mark.parametrize(("ratio", "said"), [(0.1, True), (0.3, False)])
    def test_a_ratio(self, digits_model: Model, ratio: float, said: bool) -> None:
        table = {"ratio": ratio, "reconstruct": False}
        result = compress(digits_model, prune=table, target="x86")
        macs = [count_macs(entry.module) for entry in (digits_model, result.model, compress(digits_model, prune=table).model)]
        assert macs[0] - macs[1] >= 0.5 * (macs[0] - macs[2])
        messages = [remark.message for remark in result.remarks if remark.subject == "channels"]
        assert [message.startswith("multiples of 4 are kept, not multiples of 8") for message in messages] == [True] * said

    def test_a_multiple_that_was_asked_for_stays(self, digits_model: Model) -> None:
        result = compress(digits_model, prune={"ratio": 0.1, "round_to": 8, "reconstruct": False}, target="x86")
        assert not [remark for remark in result.remarks if remark.subject == "channels"]
        assert result.surgery is not None
        assert all(len(group.kept) % 8 == 0 for group in result.surgery.groups)

    def test_a_budget(self, digits_model: Model) -> None:
        table = {"target_macs": 0.04, "reconstruct": False}
        with pytest.raises(UserError, match="cannot be met"):
            compress(digits_model, prune={**table, "round_to": 8}, target="x86")
        left = count_macs(compress(digits_model, prune=table, target="x86").model.module)
        assert left <= 0.04 * count_macs(digits_model.module)
