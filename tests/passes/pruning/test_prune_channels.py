"""PruneChannels: what it does to a module, its options, and whole architectures."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import PruneChannels, UserError, attach_params, get_params, get_remarks, get_surgery
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.analysis import count_params


@I.ir_module
class Before:
    @R.function
    def main(
        x: R.Tensor((1, 2, 4, 4), "float32"),
        w1: R.Tensor((4, 2, 1, 1), "float32"),
        b1: R.Tensor((1, 4, 1, 1), "float32"),
        w2: R.Tensor((4, 1, 3, 3), "float32"),
        w3: R.Tensor((64, 3), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            conv1 = R.nn.conv2d(x, w1)
            bias1 = R.add(conv1, b1)
            conv2 = R.nn.conv2d(bias1, w2, padding=[1, 1, 1, 1], groups=4)
            flat = R.reshape(conv2, R.shape([1, 64]))
            fc = R.matmul(flat, w3)
            R.output(fc)
        return fc


@I.ir_module
class After:
    @R.function
    def main(
        x: R.Tensor((1, 2, 4, 4), "float32"),
        w1: R.Tensor((3, 2, 1, 1), "float32"),
        b1: R.Tensor((1, 3, 1, 1), "float32"),
        w2: R.Tensor((3, 1, 3, 3), "float32"),
        w3: R.Tensor((48, 3), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            conv1 = R.nn.conv2d(x, w1)
            bias1 = R.add(conv1, b1)
            conv2 = R.nn.conv2d(bias1, w2, padding=[1, 1, 1, 1], groups=3)
            flat = R.reshape(conv2, R.shape([1, 48]))
            fc = R.matmul(flat, w3)
            R.output(fc)
        return fc


def _params(scale):
    """Parameters whose channel k has the magnitude scale[k]."""
    rng = np.random.default_rng(0)
    scale = np.asarray(scale, "float32")

    def sign(*shape):
        return rng.choice([-1.0, 1.0], shape).astype("float32")

    return {
        "w1": sign(4, 2, 1, 1) * scale[:, None, None, None],
        "b1": sign(1, 4, 1, 1) * scale[None, :, None, None],
        "w2": sign(4, 1, 3, 3) * scale[:, None, None, None],
        "w3": sign(64, 3) * np.repeat(scale, 16)[:, None],
    }


def test_the_least_important_channel_leaves_every_tensor():
    params = _params([3, 1, 2, 4])
    pruned = PruneChannels(0.25)(attach_params(Before, params))
    assert_same_structure(pruned, After)
    values = get_params(pruned)
    np.testing.assert_array_equal(values["w1"], params["w1"][[0, 2, 3]])
    np.testing.assert_array_equal(values["b1"], params["b1"][:, [0, 2, 3]])
    np.testing.assert_array_equal(values["w2"], params["w2"][[0, 2, 3]])
    np.testing.assert_array_equal(values["w3"], params["w3"].reshape(4, 16, 3)[[0, 2, 3]].reshape(48, 3))


def assert_same_structure(mod, expected):
    """Equal functions but for the name of the returned variable."""
    canonical = relax.transform.CanonicalizeBindings()
    tvm.ir.assert_structural_equal(
        canonical(mod)["main"].without_attr("global_symbol"),
        canonical(expected)["main"].without_attr("global_symbol"),
        map_free_vars=True,
    )


def test_the_record_says_what_went():
    pruned = PruneChannels(0.5)(attach_params(Before, _params([3, 1, 2, 4])))
    report = get_surgery(pruned)
    (group,) = report.groups
    assert (group.name, group.size, group.removed, group.kept) == ("conv1", 4, [1, 2], [0, 3])
    assert group.members["w1:0"] == [1, 2]
    assert group.members["b1:1"] == [1, 2]
    assert group.members["w3:0"] == list(range(16, 48))
    assert (report.params_before, report.params_after) == (8 + 4 + 36 + 192, 4 + 2 + 18 + 96)
    assert (report.macs_before, report.macs_after) == (128 + 576 + 192, 64 + 288 + 96)


def test_groups_that_stay_are_remarked():
    remarks = get_remarks(PruneChannels(0.5)(attach_params(Before, _params([3, 1, 2, 4]))))
    assert [(r.subject, r.message) for r in remarks] == [
        ("x", "its 2 channels stay: an input of the model"),
        ("fc", "its 3 channels stay: the model returns it"),
    ]


def test_pruning_twice_is_told_in_terms_of_the_unpruned_model():
    mod = attach_params(Before, _params([3, 1, 2, 4]))
    twice = PruneChannels(0.5)(PruneChannels(0.25)(mod))
    report = get_surgery(twice)
    assert report.removed_positions()["w1", 0].tolist() == [1, 2]
    assert report.kept_positions()["w1", 0].tolist() == [0, 3]
    assert report.params_before == count_params(mod)
    assert report.params_after == count_params(twice)


def test_it_runs_in_a_sequential_and_in_a_pipeline():
    mod = attach_params(Before, _params([3, 1, 2, 4]))
    pruned = tvm.transform.Sequential([PruneChannels(0.5), relax.transform.FoldConstant()])(mod)
    assert get_params(pruned)["w1"].shape == (2, 2, 1, 1)


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 1.5, float("nan")])
def test_a_ratio_outside_0_to_1_is_refused(ratio):
    with pytest.raises(UserError, match="between 0 and 1"):
        PruneChannels(ratio)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importance": "magic"}, "no importance criterion 'magic'; choose one of"),
        ({"scope": "galactic"}, "no pruning scope"),
        ({"round_to": 0}, "round_to must be a whole number"),
        ({"min_channels": 1.5}, "min_channels must be a whole number"),
        ({"ratios": {"conv1": 1.0}}, "the pruning ratio of 'conv1'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        PruneChannels(0.5, **options)


def test_a_pattern_that_matches_nothing_is_refused():
    mod = attach_params(Before, _params([3, 1, 2, 4]))
    with pytest.raises(UserError, match="'conv7' matches no prunable group; there are conv1"):
        PruneChannels(0.5, exclude=["conv7"])(mod)


def test_not_a_number_in_a_weight_is_refused():
    with pytest.raises(UserError, match="conv1 is not finite"):
        PruneChannels(0.5)(attach_params(Before, _params([3, np.nan, 2, 4])))


def test_a_criterion_of_ones_own():
    params = _params([3, 1, 2, 4])
    seen = []

    def ascending(group, values):
        seen.append((group.name, sorted(values)))
        return np.arange(group.size)

    pruned = PruneChannels(0.5, importance=ascending)(attach_params(Before, params))
    np.testing.assert_array_equal(get_params(pruned)["w1"], params["w1"][2:])
    assert seen == [("conv1", ["b1", "w1", "w2", "w3"])]


def test_a_criterion_of_the_wrong_shape_is_refused():
    with pytest.raises(UserError, match="must be 4 numbers"):
        PruneChannels(0.5, importance=lambda group, params: np.zeros(3))(attach_params(Before, _params([3, 1, 2, 4])))
