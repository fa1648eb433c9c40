"""Units: every operator that becomes an integer one belongs to exactly one, and a unit can be left in float alone."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import LowerQDQ, Quantize, calibrate
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.analysis import count_macs, layers
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.quantization.plan import plan_quantization
from tvmcompress.passes.quantization.units import quantization_units

from ..small_models import model, samples, weights

op = relax.op
SHAPE = (1, 4, 6, 6)
_PARAMS = weights(
    c__weight=(4, 4, 3, 3), c__bias=(1, 4, 1, 1), e__weight=(4, 4, 1, 1), e__bias=(1, 4, 1, 1), f__weight=(4, 3), f__bias=(3,)
)


def _network(x: relax.Expr, p: dict) -> relax.Expr:
    first = op.nn.relu(op.add(op.nn.conv2d(x, p["c.weight"], padding=1), p["c.bias"]))
    # A hard swish: a chain on one tensor.
    three = relax.const(np.float32(3))
    swish = op.multiply(first, op.divide(op.clip(op.add(first, three), 0, 6), relax.const(np.float32(6))))
    second = op.add(op.nn.conv2d(swish, p["e.weight"]), p["e.bias"])
    joined = op.nn.relu(op.add(second, first))
    pooled = op.reshape(op.mean(op.nn.max_pool2d(joined, (2, 2), (2, 2)), [2, 3]), (1, 4))
    return op.nn.softmax(op.add(op.matmul(pooled, p["f.weight"]), p["f.bias"]))


@pytest.fixture(scope="module")
def network() -> tvm.IRModule:
    return model(_network, SHAPE, params=_PARAMS)


def test_what_belongs_together(network: tvm.IRModule) -> None:
    units = quantization_units(network)
    ops = [unit.op.removeprefix("nn.") for unit in units]
    assert ops == ["conv2d", "add", "conv2d", "add", "max_pool2d", "mean", "matmul", "softmax"]
    assert [len(unit.members) for unit in units] == [3, 4, 2, 2, 1, 1, 2, 1]
    assert [unit.params for unit in units] == [148, 0, 20, 0, 0, 0, 15, 0]
    assert sum(unit.macs for unit in units) == count_macs(network)
    members = [member for unit in units for member in unit.members]
    assert len(members) == len(set(members))
    assert members == [info.name for info in layers(network) if info.name in members]


def test_layers_with_weights_can_stay_in_float_alone(network: tvm.IRModule) -> None:
    data = samples(SHAPE, count=8)
    ranges = calibrate(network, [data], tensors={var.name for var in plan_quantization(network).points})
    wanted = run(network, data)[0]
    # What has no weights is an integer operator between integers in any case.
    for unit in (unit for unit in quantization_units(network) if unit.params):
        lowered = LowerQDQ()(Quantize(ranges, exclude=unit.patterns)(network))
        ops = {info.name: info.op for info in layers(lowered)}
        floats = [name for name in unit.members if name in ops]
        assert floats, unit.name
        assert not any(ops[name].startswith("tvmcompress.q") for name in floats), unit.name
        for other in (other for other in quantization_units(network) if other != unit):
            assert ops[other.members[-1]].startswith("tvmcompress.q"), (unit.name, other.name)
        np.testing.assert_allclose(run(lowered, data)[0], wanted, atol=0.05)


def test_each_can_be_quantized_alone(network: tvm.IRModule) -> None:
    data = samples(SHAPE, count=8)
    units = quantization_units(network)
    ranges = calibrate(network, [data], tensors={var.name for var in plan_quantization(network).points})
    for unit in units:
        others = [pattern for other in units if other is not unit for pattern in other.patterns]
        lowered = LowerQDQ()(Quantize(ranges, exclude=others)(network))
        integers = [info.name for info in layers(lowered) if info.op.startswith("tvmcompress.q")]
        assert integers == [unit.members[-1]]


def test_names_with_the_signs_of_patterns() -> None:
    """A pattern fits its layer and no other, whatever letters the name has."""
    params = weights(**{"c[0]__weight": (4, 4, 1, 1), "c0__weight": (4, 4, 1, 1)})
    mod = model(lambda x, p: op.nn.conv2d(op.nn.conv2d(x, p["c[0].weight"]), p["c0.weight"]), SHAPE, params=params)
    first, second = quantization_units(mod)
    plan = plan_quantization(mod, first.patterns)
    assert [var.name for var in plan.layers] == [second.name]
