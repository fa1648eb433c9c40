"""TVM prints nothing while a model is built, and what it would have warned of is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.passes import small_models
from tvmcompress.passes._tvm import relax
from tvmcompress.targets import get_target


@pytest.mark.parametrize("target", ["x86", "cortex-m4"])
@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, 7.0, 9.0, 3.5, -2.0])
def test_powers(exponent: float, target: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if get_target(target).missing_tools():
        pytest.skip(f"needs the tools of {target}")
    power = relax.const(np.float32(exponent))
    mod = small_models.model(lambda x, p: relax.op.power(x, power), (1, 3, 4, 5))
    artifact = get_target(target).build(mod, tmp_path)
    if target == "x86":
        x = np.random.default_rng(0).uniform(0.1, 3, (1, 3, 4, 5)).astype(np.float32)
        x[0, 0] *= 1 if exponent % 1 else -1
        np.testing.assert_allclose(artifact.run([x])[0], x.astype(float) ** exponent, rtol=2e-6)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("shape", "axis"), [((2, 3), 1), ((2, 3), -3), ((4,), 3), ((), 2)])
def test_lookups(shape: tuple[int, ...], axis: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if get_target("x86").missing_tools():
        pytest.skip("needs a C++ compiler")
    index = np.random.default_rng(0).integers(0, 3, shape)
    mod = small_models.model(lambda x, p: relax.op.take(x, relax.const(index), axis), (1, 3, 4, 5))
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(get_target("x86").build(mod, tmp_path).run([x])[0], x.take(index, axis))
    assert capfd.readouterr() == ("", "")
