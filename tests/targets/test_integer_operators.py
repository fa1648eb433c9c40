"""Integer operators of transformers and decoders: the same bytes on every target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tvmcompress.passes import LowerQDQ, Quantize, calibrate, get_remarks
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.integer.core import IntegerCore
from tvmcompress.passes.interpreter import run
from tvmcompress.targets import get_target

from ..passes.small_models import model, operators, samples, weights

op = relax.op
SHAPE = (1, 4, 4, 4)
PARAMS = weights(
    up__weight=(4, 6, 3, 3), slope=(6,), gamma=(6,), beta=(6,), c__gamma=(4,), c__beta=(4,), q__weight=(6, 6), k__weight=(6, 6)
)
OPERATORS = {"qconv2d", "qdivide", "qlogsoftmax", "qmaskedsoftmax", "qmatmul", "qnormalize", "qprelu"}


@pytest.fixture(scope="module")
def quantized() -> tvm.IRModule:
    """A network with every operator, in QDQ form."""
    kept = np.tril(np.ones((16, 16), bool))

    def build(x: relax.Expr, p: dict) -> relax.Expr:
        y = op.nn.group_norm(x, p["c.gamma"], p["c.beta"], 2, 1, [2, 3])
        y = op.nn.prelu(op.nn.conv2d_transpose(y, p["up.weight"], strides=2, padding=1, output_padding=1), p["slope"])
        y = op.nn.max_pool2d(y, 2, 2)
        tokens = op.permute_dims(op.reshape(y, (1, 6, 16)), [0, 2, 1])
        tokens = op.nn.layer_norm(tokens, p["gamma"], p["beta"], [-1])
        q, k = op.matmul(tokens, p["q.weight"]), op.matmul(tokens, p["k.weight"])
        scores = op.multiply(op.matmul(q, op.permute_dims(k, [0, 2, 1])), relax.const(0.4))
        scores = op.where(relax.const(kept), scores, relax.const(np.float32(-np.inf)))
        mixed = op.divide(op.matmul(op.nn.softmax(scores, -1), k), op.add(op.abs(q), relax.const(1.0)))
        return op.nn.log_softmax(op.maximum(mixed, q), -1)

    mod = model(build, SHAPE, params=PARAMS)
    return Quantize(calibrate(mod, [samples(SHAPE)]))(mod)


DOUBLE = [(name, "double") for name in ("x86", "cortex-a72", "cortex-m4", "cortex-m55", "cortex-m0plus")]
SINGLE = [(name, "single") for name in ("x86", "cortex-a72", "cortex-m4")]


@pytest.mark.parametrize(("name", "rounding"), DOUBLE + SINGLE)
def test_same_bytes(name: str, rounding: str, quantized: tvm.IRModule, tmp_path: Path) -> None:
    lowered = LowerQDQ(rounding)(quantized)
    assert get_remarks(lowered) == []
    assert set(operators(lowered)) >= OPERATORS
    target = get_target(name)
    if target.missing_tools():
        pytest.skip(f"needs the tools of {name}")
    artifact = target.build(lowered, tmp_path)
    x = artifact.inputs[0].quantize(samples(SHAPE, count=3, seed=9)[0])
    np.testing.assert_array_equal(artifact.run([x])[0], run(IntegerCore()(lowered), [x])[0])
