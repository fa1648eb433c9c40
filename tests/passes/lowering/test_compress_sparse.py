"""CompressSparse: what is stored anew, what stays and why, and that results are the same."""

from __future__ import annotations

import numpy as np

from tvmcompress.passes import CompressSparse, IntegerCore, LowerQDQ, Quantize, Sparsify, calibrate, get_params, get_remarks
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.analysis import count_params
from tvmcompress.passes.graph.decode_weights import DecodeWeights
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops

from ..integer.running import module
from ..numbers.test_sparsity_2_4 import sparse
from ..small_models import model, operators, samples, weights

op = relax.op
SHAPE = (1, 3, 5, 6)
_PARAMS = weights(s__weight=(8, 3, 3, 3), c__weight=(12, 8, 3, 3), p__weight=(8, 12, 1, 1), f__weight=(8, 5))


def _net(x: relax.Expr, p: dict) -> relax.Expr:
    y = op.nn.relu(op.nn.conv2d(x, p["s.weight"], padding=1))
    y = op.nn.relu(op.nn.conv2d(y, p["c.weight"], padding=1))
    y = op.nn.conv2d(y, p["p.weight"])
    return op.matmul(op.reshape(op.mean(y, [2, 3], keepdims=True), (1, 8)), p["f.weight"])


def _lowered(passes: list[tvm.transform.Pass]) -> tvm.IRModule:
    mod = tvm.transform.Sequential(passes)(model(_net, SHAPE, params=_PARAMS))
    return LowerQDQ()(Quantize(calibrate(mod, [samples(SHAPE)]))(mod))


def test_a_network() -> None:
    lowered = _lowered([Sparsify(pattern=(2, 4))])
    compressed = CompressSparse()(lowered)
    assert operators(IntegerCore()(compressed)).count("unpack_2of4") == 3
    before, after = get_params(lowered), get_params(compressed)
    for name in ("c.weight", "p.weight", "f.weight"):
        size = before[name].size
        assert (after[name].nbytes, after[f"{name}.indices"].nbytes) == (size // 2, size // 8)
    # Three input channels have no fours.
    np.testing.assert_array_equal(after["s.weight"], before["s.weight"])
    reasons = [str(remark) for remark in get_remarks(compressed) if remark.pass_name == "CompressSparse"]
    assert len(reasons) == 1
    assert "two of every four" in reasons[0]
    assert count_params(compressed) == count_params(lowered)
    (x,) = samples(SHAPE)
    np.testing.assert_array_equal(run(compressed, [x])[0], run(lowered, [x])[0])
    decoded = DecodeWeights()(compressed)
    assert operators(decoded) == operators(lowered)
    np.testing.assert_array_equal(get_params(decoded)["c.weight"], before["c.weight"])


def test_dense_weights_stay() -> None:
    lowered = _lowered([])
    assert operators(CompressSparse()(lowered)) == operators(lowered)


def test_weights_that_others_read_stay() -> None:
    rng = np.random.default_rng(0)
    params = {
        "weight": sparse(rng, (4, 8)),
        "bias": np.zeros(4, np.int32),
        "multiplier": np.full(4, 1 << 30, np.int32),
        "shift": np.full(4, -6, np.int32),
    }

    def build(x: relax.Expr, weight: relax.Expr, *rest: relax.Expr) -> relax.Expr:
        product = ops.qdense(x, weight, *rest, input_zero_point=0, output_zero_point=0)
        return op.concat([op.reshape(product, (4,)), op.reshape(weight, (32,))], 0)

    mod = module(build, [np.zeros((1, 8), np.int8)], params)
    stays = CompressSparse()(mod)
    assert "unpack_2of4" not in operators(stays)
    assert "another operator" in str(get_remarks(stays)[-1])
