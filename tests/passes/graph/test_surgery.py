"""The record of what was removed."""

# mypy: ignore-errors

from __future__ import annotations

import json

import numpy as np

from tvmcompress.passes import PruneChannels, SurgeryReport, get_params, get_surgery, zero_channels
from tvmcompress.passes.graph.surgery import GroupSurgery, add_surgery


def _network(net):
    network = net((1, 3, 4, 4))
    return network.finish(network.head(network.relu(network.conv(network.x, 8, name="conv"))))


def test_nothing_is_recorded_before_pruning(net):
    assert get_surgery(_network(net)) is None


def test_the_report_survives_json(net):
    report = get_surgery(PruneChannels(0.5)(_network(net)))
    assert SurgeryReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_kept_and_removed_are_the_whole(net):
    mod = _network(net)
    report = get_surgery(PruneChannels(0.4)(mod))
    removed, kept = report.removed_positions(), report.kept_positions()
    assert removed.keys() == kept.keys()
    for (name, axis), positions in removed.items():
        whole = np.sort(np.concatenate([positions, kept[name, axis]]))
        assert whole.tolist() == list(range(get_params(mod)[name].shape[axis]))


def test_kept_positions_cut_the_original_to_the_pruned_parameters(net):
    mod = _network(net)
    pruned = PruneChannels(0.4)(mod)
    values = get_params(mod)
    for (name, axis), positions in get_surgery(pruned).kept_positions().items():
        values[name] = values[name].take(positions, axis)
    for name, value in get_params(pruned).items():
        np.testing.assert_array_equal(values[name], value)


def test_zeroing_touches_what_was_removed_and_nothing_else(net):
    mod = _network(net)
    report = get_surgery(PruneChannels(0.5)(mod))
    before, after = get_params(mod), get_params(zero_channels(mod, report))
    gone = report.groups[0].removed
    assert not after["conv.weight"][gone].any()
    assert not after["conv.bias"][:, gone].any()
    assert not after["classifier.weight"][gone].any()
    kept = report.groups[0].kept
    np.testing.assert_array_equal(after["conv.weight"][kept], before["conv.weight"][kept])
    np.testing.assert_array_equal(after["classifier.bias"], before["classifier.bias"])


def test_a_later_report_is_translated_to_the_unpruned_model(net):
    first = SurgeryReport([GroupSurgery("a", 4, [1], [0, 2, 3], {"w:0": [1]})], {"w": [4]}, 100, 75, 10, 8)
    second = SurgeryReport(
        [GroupSurgery("a", 3, [1], [0, 2], {"w:0": [1], "v:1": [0]})], {"w": [3], "v": [2, 2]}, 75, 50, 8, 5
    )
    both = get_surgery(add_surgery(add_surgery(_network(net), first), second))
    assert both.groups[1].members == {"w:0": [2], "v:1": [0]}
    assert both.shapes == {"w": [4], "v": [2, 2]}
    assert (both.macs_before, both.macs_after, both.params_before, both.params_after) == (100, 50, 10, 5)
    assert both.kept_positions()["w", 0].tolist() == [0, 3]
