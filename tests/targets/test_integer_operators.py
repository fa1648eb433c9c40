"""Integer operators of transformers and decoders: the same bytes on every target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tvmcompress.passes import LowerQDQ, get_remarks
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets import get_target

from ..passes.small_models import operators, samples

OPERATORS = {"qconv2d", "qdivide", "qlogsoftmax", "qmaskedsoftmax", "qmatmul", "qnormalize", "qprelu"}
DOUBLE = [(name, "double") for name in ("x86", "cortex-a72", "cortex-m4", "cortex-m55", "cortex-m0plus")]
SINGLE = [(name, "single") for name in ("x86", "cortex-a72", "cortex-m4")]


@pytest.mark.parametrize(("name", "rounding"), DOUBLE + SINGLE)
def test_same_bytes(name: str, rounding: str, attention_qdq: tvm.IRModule, tmp_path: Path) -> None:
    lowered = LowerQDQ(rounding)(attention_qdq)
    assert get_remarks(lowered) == []
    assert set(operators(lowered)) >= OPERATORS
    target = get_target(name)
    if target.missing_tools():
        pytest.skip(f"needs the tools of {name}")
    artifact = target.build(lowered, tmp_path)
    x = artifact.inputs[0].quantize(samples((1, 4, 4, 4), count=3, seed=9)[0])
    np.testing.assert_array_equal(artifact.run([x])[0], run(IntegerCore()(lowered), [x])[0])
