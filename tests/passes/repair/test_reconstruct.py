"""Reconstruct: what can be repaired exactly is, and the rest gets better."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import PruneChannels, Sparsify, UserError, attach_params, get_params, get_remarks, get_surgery
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.rebuild import Rebuilder, bindings
from tvmcompress.passes.pruning.sparsify import get_masks
from tvmcompress.passes.repair.reconstruct import Reconstruct


@I.ir_module
class Residual:
    """conv1 -> relu -> conv2 (+ x) -> relu -> conv3 -> mean -> fc."""

    @R.function
    def main(
        x: R.Tensor((1, 4, 6, 6), "float32"),
        w1: R.Tensor((8, 4, 3, 3), "float32"),
        b1: R.Tensor((1, 8, 1, 1), "float32"),
        w2: R.Tensor((4, 8, 3, 3), "float32"),
        b2: R.Tensor((1, 4, 1, 1), "float32"),
        w3: R.Tensor((4, 1, 3, 3), "float32"),
        b3: R.Tensor((1, 4, 1, 1), "float32"),
        wf: R.Tensor((4, 3), "float32"),
        bf: R.Tensor((3,), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            c1 = R.nn.conv2d(x, w1, padding=[1, 1, 1, 1])
            a1 = R.add(c1, b1)
            r1 = R.nn.relu(a1)
            c2 = R.nn.conv2d(r1, w2, padding=[1, 1, 1, 1])
            a2 = R.add(c2, b2)
            s = R.add(a2, x)
            r2 = R.nn.relu(s)
            c3 = R.nn.conv2d(r2, w3, padding=[1, 1, 1, 1], groups=4)
            a3 = R.add(c3, b3)
            p = R.mean(a3, axis=[2, 3])
            f = R.matmul(p, wf)
            o = R.add(f, bf)
            R.output(o)
        return o


def original(seed: int = 0) -> tvm.IRModule:
    rng = np.random.default_rng(seed)
    main = Residual["main"]
    params = {
        var.name: rng.standard_normal([int(d) for d in var.ty.shape]).astype("float32") * 0.4
        for var in list(main.params)[1:]
    }
    return attach_params(Residual, params)


def without_channels(mod: tvm.IRModule, kept: np.ndarray) -> tvm.IRModule:
    """The module with only the channels `kept` between conv1 and conv2."""
    params = get_params(mod)
    cut = {"w1": params["w1"][kept], "b1": params["b1"][:, kept], "w2": params["w2"][:, kept]}
    build = Rebuilder(mod)
    for var in build.source.params:
        if var.name in cut:
            build.values[var] = build.param(var.name, cut[var.name])
    for var, value in bindings(build.source):
        new = build.get(value)
        build.values[var] = new if isinstance(new, relax.Var) else build.emit(new, var.name)
    return build.finish()


def samples(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4, 6, 6)).astype("float32")


def error(mod: tvm.IRModule, reference: tvm.IRModule, x: np.ndarray) -> float:
    expected = run(reference, [x])[0]
    return float(np.linalg.norm(run(mod, [x])[0] - expected) / np.linalg.norm(expected))


def test_duplicate_channels_are_repaired_exactly() -> None:
    """With channel 5 a copy of channel 2 nothing is lost that conv2 could not make good."""
    mod = original()
    params = get_params(mod)
    params["w1"][5], params["b1"][:, 5] = params["w1"][2], params["b1"][:, 2]
    mod = attach_params(mod.without_attr("tvmcompress.params"), params)
    kept = np.array([0, 1, 2, 3, 4, 6, 7])
    pruned = without_channels(mod, kept)
    repaired = Reconstruct(mod, [samples(64)], {"w1": kept}, ridge=0)(pruned)
    fresh = samples(32, seed=9)
    assert error(pruned, mod, fresh) > 0.02
    assert error(repaired, mod, fresh) < 1e-3


def test_repair_beats_no_repair_on_fresh_samples() -> None:
    mod = original()
    kept = np.array([0, 2, 3, 5, 6])
    pruned = without_channels(mod, kept)
    calls: list[tuple[int, int, str]] = []
    repair = Reconstruct(mod, [samples(64)], {"w1": kept}, on_progress=lambda *args: calls.append(args))
    repaired = repair(pruned)
    fresh = samples(64, seed=9)
    assert error(repaired, mod, fresh) < 0.6 * error(pruned, mod, fresh)
    assert [call[:2] for call in calls] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {name: value.shape for name, value in get_params(repaired).items()} == {
        name: value.shape for name, value in get_params(pruned).items()
    }


def test_unpruned_network_is_left_as_it_is() -> None:
    mod = original()
    again = Reconstruct(mod, [samples(32)], {})(mod)
    for name, value in get_params(mod).items():
        np.testing.assert_allclose(get_params(again)[name], value, atol=1e-3)


def test_unknown_outputs_are_remarked() -> None:
    mod = original()
    repaired = Reconstruct(mod, [samples(8)], {})(without_channels(mod, np.array([0, 1, 2])))
    assert any("which of its outputs were kept" in remark.message for remark in get_remarks(repaired))


def test_no_samples() -> None:
    mod = original()
    with pytest.raises(UserError, match="needs calibration samples"):
        Reconstruct(mod, [samples(0)], {}).transform_module(mod, None)


def test_statistics_of_a_normalization_follow_its_input(net):
    built = net((1, 3, 8, 8))
    x = built.relu(built.conv(built.x, 12, name="a"))
    hidden = built.relu(built.conv(x, 8, name="b"))
    normal = built.batch_norm(hidden)
    mod = built.finish(built.conv(built.relu(normal), 4, name="c"))
    images = np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype("float32")
    pruned = PruneChannels(0.5)(mod)
    repaired = Reconstruct(mod, [images])(pruned)

    def moments(module):
        seen = {}
        run(module, [images], lambda name, value: seen.setdefault(name, np.array(value)))
        return seen[hidden.name].mean((0, 2, 3)), seen[hidden.name].var((0, 2, 3))

    (mean, variance), (new_mean, new_variance) = moments(mod), moments(repaired)
    old, new = get_params(mod), get_params(repaired)
    (mean_name,) = (name for name in old if name.endswith(".mean"))
    (variance_name,) = (name for name in old if name.endswith(".var"))
    kept = get_surgery(pruned).kept_positions()[mean_name, 0]
    assert len(kept) == 4
    np.testing.assert_allclose(new[mean_name] - old[mean_name][kept], new_mean - mean[kept], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(new[variance_name] / old[variance_name][kept], new_variance / variance[kept], rtol=1e-3)
    assert np.abs(new[variance_name] / old[variance_name][kept] - 1).max() > 1e-2


def test_sparse_weights_stay_sparse_and_fit_better() -> None:
    mod = original()
    sparse = Sparsify(0.5)(mod)
    repaired = Reconstruct(mod, [samples(64)])(sparse)
    masks = get_masks(sparse)
    assert set(masks) == {"w1", "w2", "w3", "wf"}
    for name, mask in masks.items():
        np.testing.assert_array_equal(get_params(repaired)[name] != 0, mask)
    fresh = samples(64, seed=9)
    assert error(repaired, mod, fresh) < 0.8 * error(sparse, mod, fresh)
