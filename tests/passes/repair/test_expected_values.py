"""Moments without data, against integration and sampling."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.normalization_statistics import Moments, record_statistics
from tvmcompress.passes.repair.expected_values import clipped, expected_values

from ..small_models import model, weights

op = relax.op


@given(
    mean=st.floats(-5, 5),
    deviation=st.floats(0.05, 4),
    low=st.sampled_from([-np.inf, 0.0, -1.0]),
    high=st.sampled_from([np.inf, 6.0, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_clipped_normal_against_quadrature(mean: float, deviation: float, low: float, high: float) -> None:
    found = clipped(Moments(np.array([mean]), np.array([deviation])), low, high)
    z = np.linspace(-9, 9, 40001)
    density = stats.norm.pdf(z)
    value = np.clip(mean + deviation * z, low, high)
    first = integrate.trapezoid(value * density, z)
    spread = np.sqrt(integrate.trapezoid(np.square(value - first) * density, z))
    np.testing.assert_allclose(found.mean, first, atol=1e-5)
    np.testing.assert_allclose(found.deviation, spread, atol=1e-4)


def test_through_a_residual_network() -> None:
    shape = (1, 4, 3, 3)
    params = weights(a__weight=(4, 4, 1, 1), a__bias=(1, 4, 1, 1), b__weight=(4, 4, 1, 1), b__bias=(1, 4, 1, 1))

    def conv(x: relax.Expr, p: dict, name: str) -> relax.Expr:
        return op.add(op.nn.conv2d(x, p[f"{name}.weight"]), p[f"{name}.bias"])

    def build(x: relax.Expr, p: dict) -> relax.Expr:
        y = op.nn.relu(conv(x, p, "a"))
        return op.reshape(op.nn.relu(op.add(conv(y, p, "b"), y)), (1, 36))

    rng = np.random.default_rng(0)
    moments = {name: Moments(rng.normal(0, 1, 4), rng.uniform(0.5, 2, 4)) for name in ("a.weight", "b.weight")}
    found = expected_values(record_statistics(model(build, shape, params=params), moments))
    first = np.maximum(rng.normal(moments["a.weight"].mean, moments["a.weight"].deviation, (200_000, 4)), 0)
    total = first + rng.normal(moments["b.weight"].mean, moments["b.weight"].deviation, first.shape)
    np.testing.assert_allclose(found["a.relu"].mean, first.mean(0), atol=0.02)
    np.testing.assert_allclose(found["b.add"].deviation, total.std(0), rtol=0.02)
    # The sum is taken for normal, which it is not quite.
    np.testing.assert_allclose(found["b.relu"].mean, np.maximum(total, 0).mean(0), atol=0.1)
    np.testing.assert_allclose(found["b.reshape"].mean, np.repeat(found["b.relu"].mean, 9))
    assert "a" not in found
