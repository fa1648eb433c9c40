"""Networks whose int8 builds for x86 once failed or did not end, as small as they still show it: the bytes are right."""

# mypy: ignore-errors

from __future__ import annotations

import json

import numpy as np
import pytest

from tvmcompress.passes import LowerQDQ, Quantize, calibrate
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets import get_target

from ..passes.conftest import Net

pytestmark = pytest.mark.skipif(bool(get_target("x86").missing_tools()), reason="needs a C++ compiler")


def _prelu(net, x):
    return net.emit(relax.op.nn.prelu(x, net.param(net.name("slope"), (net.shape(x)[1],), 0.1)))


def _flattened(activation):
    def build(net, x):
        x = activation(net, net.conv(x, 6))
        return net.dense(net.reshape(x, 1, 6 * 11 * 11), 7)

    return build


def _shuffled_behind_prelu(net, x):
    x = net.shuffle(_prelu(net, net.conv(x, 8)), 4)
    return net.head(net.conv(x, 4))


def _harmonics_of_a_normalized_spectrum(net, x):
    """Basic Pitch's front end: a logarithmic spectrum between its extremes, stacked with shifted copies of itself."""
    op = relax.op
    power = net.emit(op.log(net.emit(op.add(net.mul(x, x), relax.const(np.float32(0.1))))))
    low = net.emit(op.min(power, [1, 2, 3], True))
    lifted = net.emit(op.subtract(power, low))
    high = net.emit(op.max(lifted, [1, 2, 3], True))
    scaled = net.emit(op.divide(lifted, high))
    zero = net.emit(op.equal(high, relax.const(np.float32(0))))
    chosen = net.emit(op.where(zero, relax.const(np.float32(0)), scaled))
    scale, shift = net.param("bn.scale", (1, 1, 1, 1), 0.5), net.param("bn.shift", (1, 1, 1, 1))
    chosen = net.add(net.mul(chosen, scale), shift)
    width = net.shape(chosen)[3]
    shifted = [
        net.emit(op.nn.pad(net.emit(op.strided_slice(chosen, [3], [by], [width])), [0, 0, 0, 0, 0, 0, 0, by]))
        for by in (1, 2, 4)
    ]
    return net.conv(net.concat(chosen, *shifted), 4)


NETWORKS = {
    "PReLU, flatten, dense on 6x11x11": ((3, 11, 11), _flattened(_prelu)),
    "ReLU, flatten, dense on 6x11x11": ((3, 11, 11), _flattened(lambda net, x: net.relu(x))),
    "a channel shuffle behind PReLU": ((3, 8, 8), _shuffled_behind_prelu),
    "Basic Pitch's harmonics": ((1, 12, 20), _harmonics_of_a_normalized_spectrum),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_builds_for_x86(name, tmp_path) -> None:
    shape, build = NETWORKS[name]
    net = Net((1, *shape))
    mod = net.finish(build(net, net.x))
    samples = np.random.default_rng(1).normal(size=(6, *shape)).astype("float32")
    lowered = LowerQDQ()(Quantize(calibrate(mod, [[samples]]))(mod))
    artifact = get_target("x86").build(lowered, tmp_path)
    x = artifact.inputs[0].quantize(samples[:1])
    for found, wanted in zip(artifact.run([x]), run(IntegerCore()(lowered), [x])):
        np.testing.assert_array_equal(found, wanted)
    # Each function has a schedule of ours that compiles; none fell back.
    assert json.loads((tmp_path / "artifact.json").read_text())["generic"] in ({}, [])
