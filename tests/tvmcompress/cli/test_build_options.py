"""Every option of a build changes what is built, is refused, or is said to have changed nothing, on every kind of target."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import tvmcompress
from tests.passes import small_models
from tvmcompress import Model
from tvmcompress.cli.options.targets import BuildOptions
from tvmcompress.errors import UserError
from tvmcompress.measuring.building import executable
from tvmcompress.measuring.effects import without_effect
from tvmcompress.passes._tvm import relax
from tvmcompress.targets import get_target
from tvmcompress.targets.measurement import Measurement
from tvmcompress.targets.registry import list_targets

KINDS = ("x86", "cortex-a72", "cortex-m0plus", "cortex-m4", "cortex-m55")
GIVEN: dict[str, Any] = {
    "tune": 1,
    "threads": 2,
    "patch_wise": True,
    "emit": "c",
    "prefix": "other",
    "soft_float": False,
    "spend_flash": "64K",
    "sparse_weights": True,
    "float16": True,
}
# What comes of it on an int8 network that has a use for all of them, by kind of target:
# C changes what is built, S is said to have changed nothing, R is refused, K is a guarantee that is kept already.
EXPECTED = {
    "tune": "CCCCC",
    "threads": "CCRRR",
    "patch_wise": "RRCCC",
    "emit": "RCCCC",
    "prefix": "RCCCC",
    "soft_float": "RRKSS",
    "spend_flash": "RRSCS",
    "sparse_weights": "RRCCC",
    "float16": "RRRRR",
}


def test_no_option_is_forgotten() -> None:
    assert {field.name for field in fields(BuildOptions)} - {"target"} == set(GIVEN) == set(EXPECTED)
    families = {description.family for description in list_targets()}
    assert families == {get_target(kind).description.family for kind in KINDS}


@pytest.fixture(scope="module")
def network() -> Model:
    """An int8 network of two convolutions of pattern 2:4 and a product, whose first layers take most memory."""

    def build(x: relax.Expr, p: dict[str, relax.Expr]) -> relax.Expr:
        x = relax.op.nn.relu(relax.op.nn.conv2d(x, p["a.weight"], padding=1))
        x = relax.op.nn.relu(relax.op.nn.conv2d(x, p["b.weight"], padding=1, strides=2))
        return relax.op.matmul(relax.op.mean(x, [2, 3]), p["c.weight"])

    params = small_models.weights(a__weight=(8, 4, 3, 3), b__weight=(16, 8, 3, 3), c__weight=(16, 5))
    for weight in (params["a.weight"], params["b.weight"]):
        weight[:, 2::4] = weight[:, 3::4] = 0
    model = Model.from_module(small_models.model(build, (1, 4, 16, 16), params=params))
    (samples,) = small_models.samples((1, 4, 16, 16))
    return executable(tvmcompress.compress(model, samples, quantize="int8").model)


def outcome(model: Model, kind: str, folder: Path, **given: Any) -> tuple[str, dict[str, str]]:
    """R, S or "" with digests of the files that were built."""
    target = get_target(kind)
    try:
        options = BuildOptions(**given).by_family([kind], skip_missing=True)[target.description.family]
    except UserError:
        return "R", {}
    artifact = target.build(model.module, folder, **options)
    info = getattr(artifact, "info", None)
    measurement = Measurement(target=kind, source="qemu", patches=info.patches if info is not None else None)
    said = without_effect(model, target.description, options, measurement)
    assert all(sentence.startswith("--") and "changed nothing: " in sentence for sentence in said)
    built = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.[coha]") if path.is_file()}
    return "S" if said else "", built


@pytest.mark.parametrize("kind", KINDS)
def test_changes_is_said_or_refused(kind: str, network: Model, tmp_path: Path) -> None:
    if get_target(kind).missing_tools():
        pytest.skip(f"{kind} needs tools")
    usual = outcome(network, kind, tmp_path / "usual")[1]
    found = {}
    for option, value in GIVEN.items():
        tested_elsewhere = option == "tune" or (kind, option) == ("x86", "threads")
        same_as_on_m4 = kind in ("cortex-m0plus", "cortex-m55") and option in ("emit", "prefix")
        if tested_elsewhere or same_as_on_m4:
            BuildOptions(**{option: value}).by_family([kind])
            found[option] = "C"
            continue
        letter, built = outcome(network, kind, tmp_path / option, **{option: value})
        if letter == "S":
            assert built == usual, option
        found[option] = letter or ("C" if built != usual else "K")
    assert found == {option: letters[KINDS.index(kind)] for option, letters in EXPECTED.items()}


@pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")
def test_flash_that_is_spent_anyway_or_not_at_all(network: Model, digits_model: Model, tmp_path: Path) -> None:
    assert outcome(network, "cortex-m4", tmp_path / "a", spend_flash="0")[0] == "S"
    assert outcome(network, "cortex-m4", tmp_path / "b", spend_flash="64K", emit="c")[0] == "S"
    assert outcome(digits_model, "cortex-m4", tmp_path / "c", spend_flash="64K")[0] == "S"


@pytest.mark.skipif(bool(get_target("cortex-m0plus").missing_tools()), reason="needs the Cortex-M tool chain")
def test_floats_are_refused_without_soft_float(digits_model: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stem"):
        outcome(digits_model, "cortex-m0plus", tmp_path, soft_float=False)
