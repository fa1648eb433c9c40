"""Random networks from the operator set: pruning any of them equals zeroing the same channels."""

# mypy: ignore-errors

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvmcompress.passes import SplitProjections, groups

from ..random_networks import random_network


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_pruned_equals_zeroed_on_random_networks(data, net, assert_exact):
    network = net((1, 3, 4, 4), seed=data.draw(st.integers(0, 99)))
    x, pool = random_network(data.draw, network)
    if data.draw(st.booleans()):
        out = network.dense(network.reshape(x, 1, network.shape(x)[1] * 16), 3)
    else:
        out = network.head(x)
    mod = SplitProjections()(network.finish(out, *([network.conv(pool[0], 2)] if data.draw(st.booleans()) else [])))
    if all(group.frozen is not None for group in groups(mod)):
        return
    assert_exact(mod, data.draw(st.sampled_from([0.3, 0.7])), tolerance=1e-4, must_change=False)
