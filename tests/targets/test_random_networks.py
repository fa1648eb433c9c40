"""Random networks, quantized: every build gives the bytes of the integer program, and pruned equals zeroed on x86.

TVMCOMPRESS_RANDOM_NETWORKS sets how many are tried.
"""

# mypy: ignore-errors

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from tvmcompress.errors import UserError
from tvmcompress.passes import LowerQDQ, PruneChannels, Quantize, calibrate, get_surgery, groups, zero_channels
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets import get_target

from ..passes.conftest import Net
from ..passes.random_networks import ANY_SIZE, STEPS, random_network

COUNT = int(os.environ.get("TVMCOMPRESS_RANDOM_NETWORKS", "5"))
# Every example is several builds: shrinking one that fails would take hours.
TRIED = settings(
    max_examples=COUNT,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=COUNT < 10,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
TARGETS = [name for name in ("x86", "cortex-m4", "cortex-m55") if not get_target(name).missing_tools()]


def _draw(data) -> tuple:
    size = data.draw(st.sampled_from([(4, 4), (4, 4), (6, 11), (11, 11), (7, 5)]))
    shape = (1, 3, *size)
    network = Net(shape, seed=data.draw(st.integers(0, 99)))
    x, _ = random_network(data.draw, network, STEPS if size == (4, 4) else ANY_SIZE, most=5)
    if data.draw(st.booleans()):
        _, c, h, w = network.shape(x)
        return network.finish(network.dense(network.reshape(x, 1, c * h * w), 3)), shape
    return network.finish(network.head(x)), shape


@TRIED
@given(data=st.data())
def test_the_same_bytes_everywhere(data) -> None:
    mod, shape = _draw(data)
    samples = np.random.default_rng(1).normal(size=(6, *shape[1:])).astype("float32")
    lowered = LowerQDQ()(Quantize(calibrate(mod, [[samples]]))(mod))
    expected = None
    for name in TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                artifact = get_target(name).build(lowered, Path(folder))
            except UserError as error:
                # Running sums and the like have no plain C function.
                if "cannot be compiled ahead of time" in str(error):
                    continue
                raise
            (spec,) = artifact.inputs
            x = samples[:2] if spec.dtype == "float32" else spec.quantize(samples[:2])
            if expected is None:
                parts = [run(IntegerCore()(lowered), [x[index : index + 1]]) for index in range(len(x))]
                expected = [np.concatenate(outputs) for outputs in zip(*parts)]
            for found, wanted in zip(artifact.run([x]), expected):
                if wanted.dtype.kind == "f":
                    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(wanted).max()))
                else:
                    np.testing.assert_array_equal(found, wanted, err_msg=name)


@pytest.mark.skipif("x86" not in TARGETS, reason="needs a C++ compiler")
@TRIED
@given(data=st.data())
def test_pruned_equals_zeroed_as_built(data) -> None:
    mod, shape = _draw(data)
    assume(any(group.frozen is None for group in groups(mod)))
    rng = np.random.default_rng(0)
    pruned = PruneChannels(0.4, importance=lambda group, params: rng.random(group.size))(mod)
    report = get_surgery(pruned)
    assume(report is not None)
    x = rng.normal(size=shape).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        found = get_target("x86").build(pruned, Path(folder)).run([x])
    for value, wanted in zip(found, run(zero_channels(mod, report), [x])):
        np.testing.assert_allclose(value, wanted, rtol=1e-3, atol=1e-4 * max(1.0, np.abs(wanted).max()))
