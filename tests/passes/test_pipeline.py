"""Pipelines: registered by name, equal to their passes one by one, at home in a Sequential, compiled by TVM alone."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvmcompress.passes as tc
from tvmcompress.importing import from_onnx
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.module_params import PARAMS_ATTR


@pytest.fixture(scope="module")
def mod() -> tvm.IRModule:
    """conv, relu, depthwise, residual, pool, dense."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> object:
        return numpy_helper.from_array((rng.standard_normal(shape) * 0.3).astype(np.float32), name)

    weights = [weight("a.weight", 8, 3, 3, 3), weight("a.bias", 8), weight("b.weight", 8, 1, 3, 3),
               weight("b.bias", 8), weight("c.weight", 8, 5), weight("c.bias", 5)]  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "a.weight", "a.bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["ar"]),
        helper.make_node("Conv", ["ar", "b.weight", "b.bias"], ["b"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Add", ["b", "ar"], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "c.weight", "c.bias"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)).module


@pytest.fixture(scope="module")
def samples() -> list[np.ndarray]:
    return [np.random.default_rng(1).standard_normal((24, 3, 8, 8)).astype(np.float32)]


def same(one: tvm.IRModule, other: tvm.IRModule) -> None:
    tvm.ir.assert_structural_equal(one.without_attr(PARAMS_ATTR), other.without_attr(PARAMS_ATTR), map_free_vars=True)
    first, second = tc.get_params(one), tc.get_params(other)
    assert list(first) == list(second)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_pipelines_are_the_passes_one_by_one(mod: tvm.IRModule, samples: list[np.ndarray]) -> None:
    got = relax.get_pipeline("tvmcompress.compress", samples=samples, ratio=0.5)(mod)
    canonical = tc.Canonicalize()(tc.FoldBatchNorm()(tc.Canonicalize()(mod)))
    pruned = tc.PruneChannels(0.5)(canonical)
    repaired = tc.Reconstruct(canonical, samples)(pruned)
    quantized = tc.Quantize(tc.calibrate(repaired, [samples]))(repaired)
    same(got, tc.LowerQDQ()(quantized))


def test_repairs_come_before_and_behind_quantization(mod: tvm.IRModule, samples: list[np.ndarray]) -> None:
    got = relax.get_pipeline("tvmcompress.int8", samples=samples, repair=("bias", "equalize"))(mod)
    equal = tc.EqualizeLayers()(mod)
    quantized = tc.Quantize(tc.calibrate(equal, [samples]))(equal)
    same(got, tc.LowerQDQ()(tc.CorrectBias(equal, samples)(quantized)))
    with pytest.raises(tc.UserError, match="no repair 'prayer'; choose one of equalize"):
        relax.get_pipeline("tvmcompress.int8", samples=samples, repair=["prayer"])


def test_single_passes_in_a_sequential_with_tvms_own(mod: tvm.IRModule) -> None:
    sequence = tvm.transform.Sequential(
        [tc.PruneChannels(0.25), relax.transform.CanonicalizeBindings(), tc.PruneChannels(0.5, scope="global")]
    )
    pruned = sequence(mod)
    report = tc.get_surgery(pruned)
    assert report is not None
    x = np.random.default_rng(2).standard_normal((3, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(pruned, [x])[0], run(tc.zero_channels(mod, report), [x])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rounding", ["double", "single"])
def test_tvm_compiles_the_result_by_itself(rounding: str, mod: tvm.IRModule, samples: list[np.ndarray]) -> None:
    """Our integer operators legalize in TVM's default pipeline; the bytes are the interpreter's."""
    integer = relax.get_pipeline("tvmcompress.int8", samples=samples, rounding=rounding)(mod)
    bare, params = tc.detach_params(integer)
    bound = relax.transform.BindParams("main", params)(bare)
    machine = relax.VirtualMachine(tvm.compile(bound, "llvm"), tvm.cpu())
    for sample in samples[0][:4]:
        got = machine["main"](tvm.runtime.tensor(sample[None])).numpy()
        np.testing.assert_array_equal(got, run(integer, [sample[None]])[0])


def test_int8_is_close_to_float(mod: tvm.IRModule, samples: list[np.ndarray]) -> None:
    wanted = run(mod, samples)[0]
    got = run(relax.get_pipeline("tvmcompress.int8", samples=samples)(mod), samples)[0]
    assert np.linalg.norm(got - wanted) < 0.03 * np.linalg.norm(wanted)


def test_options_reach_the_passes(mod: tvm.IRModule, samples: list[np.ndarray]) -> None:
    with pytest.raises(tc.UserError, match="average"):
        relax.get_pipeline("tvmcompress.int8", samples=samples, observer="average")(mod)
    with pytest.raises(tc.UserError, match="ratio"):
        relax.get_pipeline("tvmcompress.prune", ratio=2.0)(mod)
    with pytest.raises(ValueError, match=r"tvmcompress\.none"):
        relax.get_pipeline("tvmcompress.none")
