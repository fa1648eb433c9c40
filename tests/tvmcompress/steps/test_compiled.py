"""When calibration compiles the model."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.quantization.plan import plan_quantization
from tvmcompress.steps import compiled
from tvmcompress.targets import get_target

from ...passes.small_models import model, samples, weights


def _net(size: int) -> tvm.IRModule:
    params = weights(c__weight=(16, 16, 3, 3))
    return model(lambda x, p: relax.op.nn.conv2d(x, p["c.weight"], padding=1), (1, 16, size, size), params=params)


@pytest.mark.skipif(bool(get_target("x86").missing_tools()), reason="needs an x86 machine and a C++ compiler")
def test_many_operations_are_compiled_and_few_are_not() -> None:
    mod = _net(64)
    tensors = plan_quantization(mod).observed
    assert compiled.compiled_statistics(mod, tensors, 1) is None
    make = compiled.compiled_statistics(mod, tensors, 1000)
    assert make is not None
    statistics = make(mod, dict.fromkeys(tensors, True))
    assert statistics is not None
    [x] = samples((1, 16, 64, 64), count=2)
    found = statistics([x])["x0"]
    assert found is not None
    assert found.ends == (x.min(), x.max())
    assert found.count == x.size


def test_what_cannot_be_compiled_runs_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise tvm.error.InternalError("no schedule")

    monkeypatch.setattr(compiled, "TensorStatistics", fails)
    monkeypatch.setattr(type(get_target("x86")), "missing_tools", lambda self: [])
    mod = _net(64)
    make = compiled.compiled_statistics(mod, plan_quantization(mod).observed, 10_000)
    assert make is not None
    assert make(mod, {"x0": True}) is None


def test_other_machines_stay_with_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(get_target("x86")), "missing_tools", lambda self: ["This machine is aarch64, not x86-64."])
    assert compiled.compiled_statistics(_net(64), ["x0"], np.iinfo(np.int32).max) is None
