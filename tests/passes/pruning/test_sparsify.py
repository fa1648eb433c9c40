"""Sparsify: which weights become zero."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import PruneChannels, UserError, get_params, get_remarks
from tvmcompress.passes.pruning.sparsify import Sparsify, apply_masks, get_masks, pattern_mask


@pytest.fixture
def mod(net):
    network = net((1, 3, 4, 4))
    x = network.depthwise(network.relu(network.conv(network.x, 8, name="conv")), name="dw")
    return network.finish(network.head(network.conv(x, 12, kernel=1, name="pw")))


def test_the_smallest_weights_of_every_layer_go(mod):
    before, after = get_params(mod), get_params(Sparsify(0.25)(mod))
    for name in ("conv.weight", "dw.weight", "pw.weight", "classifier.weight"):
        magnitudes = np.abs(before[name]).ravel()
        expected = np.where(magnitudes >= np.sort(magnitudes)[round(0.25 * magnitudes.size)], before[name].ravel(), 0)
        np.testing.assert_array_equal(after[name].ravel(), expected)
    for name in ("conv.bias", "classifier.bias"):
        np.testing.assert_array_equal(after[name], before[name])


def test_global_compares_all_layers(mod):
    masks = get_masks(Sparsify(0.5, scope="global")(mod))
    params = get_params(mod)
    kept = np.concatenate([np.abs(params[name])[mask] for name, mask in masks.items()])
    gone = np.concatenate([np.abs(params[name])[~mask] for name, mask in masks.items()])
    assert gone.max() < kept.min()
    assert abs(len(gone) - len(kept)) <= 2


def test_a_threshold_cuts_by_magnitude(mod):
    for name, mask in get_masks(Sparsify(threshold=0.1)(mod)).items():
        np.testing.assert_array_equal(mask, np.abs(get_params(mod)[name]) >= 0.1)


def test_2_4_along_the_input_channels(mod):
    sparse = Sparsify(pattern=(2, 4))(mod)
    masks = get_masks(sparse)
    assert sorted(masks) == ["classifier.weight", "pw.weight"]
    assert (masks["pw.weight"].reshape(12, 2, 4).sum(2) == 2).all()
    assert (masks["classifier.weight"].reshape(3, 4, 5).sum(1) == 2).all()
    assert [remark.subject for remark in get_remarks(sparse)] == ["main", "conv", "dw"]


def test_a_pattern_keeps_the_largest():
    scores = np.array([[4.0, 3, 2, 1, 1, 1, 9, 8]])
    assert pattern_mask(scores, 1, 2, 4).astype(int).tolist() == [[1, 1, 0, 0, 0, 0, 1, 1]]
    assert pattern_mask(scores.T, 0, 1, 4).astype(int).ravel().tolist() == [1, 0, 0, 0, 0, 0, 1, 0]


def test_random_masks_repeat_with_the_seed(mod):
    one, two, other = (get_masks(Sparsify(method="random", seed=seed)(mod)) for seed in (1, 1, 2))
    assert all((one[name] == two[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)
    assert all(mask.mean() == pytest.approx(0.5, abs=0.05) for mask in one.values())


def test_masks_are_kept_through_an_update(mod):
    sparse = Sparsify(0.5)(mod)
    masks = get_masks(sparse)
    updated = apply_masks({name: value + 1 for name, value in get_params(sparse).items()}, masks)
    assert all(((updated[name] != 0) == mask).all() for name, mask in masks.items())


def test_masks_follow_channels_that_are_pruned(mod):
    pruned = PruneChannels(0.5)(Sparsify(0.5)(mod))
    masks = get_masks(pruned)
    assert {name: mask.shape for name, mask in masks.items()} == {
        name: get_params(pruned)[name].shape for name in masks
    }


def test_exclusions_and_the_remark(mod):
    sparse = Sparsify(0.5, exclude=["conv", "cl*"])(mod)
    assert sorted(get_masks(sparse)) == ["dw.weight", "pw.weight"]
    assert "no faster" in get_remarks(sparse)[0].message


@pytest.mark.parametrize(
    "options", [{"sparsity": 1.0}, {"method": "magic"}, {"scope": "layer"}, {"pattern": (4, 4)}, {"pattern": (0, 4)}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError):
        Sparsify(**options)
