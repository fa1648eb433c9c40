"""Branches and loops that constants decide, old opsets, functions, and what is refused, against ONNX Runtime."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvmcompress.errors import UnsupportedOperatorError, UserError
from tvmcompress.importing import from_onnx

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name: str, kind: int = FLOAT, shape: list[int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def tensor(name: str, array: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def model(nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto], opset: int = 17) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", [value("x", FLOAT, [1, 4])], [value("y")], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def agrees(proto: onnx.ModelProto) -> None:
    x = np.random.default_rng(0).standard_normal((1, 4)).astype("float32")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(from_onnx(proto).run(x)[0], session.run(None, {"x": x})[0], rtol=1e-5, atol=1e-6)


def loop(condition: list[onnx.NodeProto]) -> onnx.NodeProto:
    body = helper.make_graph(
        [
            helper.make_node("Cast", ["i"], ["f"], to=FLOAT),
            helper.make_node("Add", ["v", "f"], ["s"]),
            helper.make_node("Mul", ["s", "w"], ["v_out"]),
            helper.make_node("Identity", ["v_out"], ["row"]),
            *condition,
        ],
        "body",
        [value("i", INT64, []), value("go", BOOL, []), value("v", FLOAT, [1, 4])],
        [value("go_out", BOOL, []), value("v_out", FLOAT, [1, 4]), value("row", FLOAT, [1, 4])],
    )
    return helper.make_node("Loop", ["count", "true", "x"], ["last", "y"], body=body)


def test_loop_of_a_constant_count() -> None:
    start = [tensor("count", np.int64(3)), tensor("true", True), tensor("w", np.float32(0.5))]
    agrees(model([loop([helper.make_node("Identity", ["go"], ["go_out"])])], start))


def test_loop_that_the_data_ends_is_refused() -> None:
    start = [tensor("count", np.int64(3)), tensor("true", True), tensor("w", np.float32(0.5)), tensor("lim", np.float32(0))]
    condition = [
        helper.make_node("ReduceMax", ["s"], ["top"], keepdims=0),
        helper.make_node("Less", ["top", "lim"], ["go_out"]),
    ]
    with pytest.raises(UnsupportedOperatorError, match=r"\(Loop\) .* depends on values that are computed at run time"):
        from_onnx(model([loop(condition)], start))


@pytest.mark.parametrize("size", [4, 5])
def test_branch_on_a_shape(size: int) -> None:
    branches = [
        helper.make_graph([helper.make_node(kind, ["x"], [kind])], kind, [], [value(kind, FLOAT, [1, 4])])
        for kind in ("Relu", "Neg")
    ]
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["width"]),
        helper.make_node("Equal", ["width", "wanted"], ["same"]),
        helper.make_node("If", ["same"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    agrees(model(nodes, [tensor("one", np.int64(1)), tensor("wanted", np.int64(size))]))


def test_old_opsets_are_raised() -> None:
    nodes = [helper.make_node("Slice", ["x"], ["s"], axes=[1], starts=[1], ends=[9]), helper.make_node("Relu", ["s"], ["y"])]
    agrees(model(nodes, [], opset=8))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_floats_become_float32(dtype: type) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(dtype)
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=kind),
        helper.make_node("MatMul", ["h", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=FLOAT),
    ]
    imported = from_onnx(model(nodes, [tensor("w", weight)]))
    assert "float16 and bfloat16 became float32" in imported.provenance
    x = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(imported.run(x)[0], x @ weight.astype(np.float32), rtol=1e-6)


def test_functions_of_the_model_are_inlined() -> None:
    body = [helper.make_node("Add", ["a", "a"], ["b"]), helper.make_node("Relu", ["b"], ["c"])]
    function = helper.make_function("own", "Twice", ["a"], ["c"], body, [helper.make_opsetid("", 17)])
    proto = model([helper.make_node("Twice", ["x"], ["y"], domain="own")], [])
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.functions.append(function)
    agrees(proto)


def test_sentences() -> None:
    twice = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])]
    with pytest.raises(UserError, match="computes tensor 'y' twice"):
        from_onnx(model(twice, []))
    with pytest.raises(UnsupportedOperatorError, match="classical machine learning"):
        from_onnx(model([helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml")], []))
    with pytest.raises(UnsupportedOperatorError, match="the size of its result depends on its input"):
        from_onnx(model([helper.make_node("NonZero", ["x"], ["y"])], []))
