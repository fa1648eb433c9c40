"""Which entries integer inputs may look up."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvmcompress
from tvmcompress.errors import UserError
from tvmcompress.importing import from_onnx
from tvmcompress.measuring.benchmarking import check, random_samples
from tvmcompress.passes.graph.index_limits import index_limits, integer_range


def embedding() -> tvmcompress.Model:
    """Ids into a table of 30 rows, a mask, and a product behind."""
    rng = np.random.default_rng(0)
    initial = [
        numpy_helper.from_array(rng.standard_normal((30, 16)).astype("float32"), "table"),
        numpy_helper.from_array(rng.standard_normal((16, 4)).astype("float32"), "w"),
        numpy_helper.from_array(np.asarray([2], np.int64), "axis"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "axis"], ["mm"]),
        helper.make_node("Mul", ["e", "mm"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [1, 6]) for name in ("ids", "mask")]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], initial)
    return from_onnx(onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_ids_are_below_the_size_of_their_table() -> None:
    model = embedding()
    assert index_limits(model.module) == {"ids": 30}
    ids, mask = random_samples(model, 64)
    assert ids.min() >= 0
    assert 20 < ids.max() < 30
    assert set(np.unique(mask)) == {0, 1}


def test_ids_that_the_network_masks_are_not_limited() -> None:
    """As a loss does with the class that it ignores."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    loss (float[1,5,3] x, int64[1,1,3] ids) => (float[1,1,3] y)
    <int64 ignored = {10}, int64 none = {0}>
    { masked = Equal (ids, ignored)  kept = Where (masked, none, ids)  y = GatherElements <axis = 1> (x, kept) }
    """
    assert index_limits(from_onnx(onnx.parser.parse_model(text)).module) == {}


def test_ranges_of_integers() -> None:
    assert integer_range(np.dtype("int64"), 30) == (0, 29)
    assert integer_range(np.dtype("uint8"), None) == (0, 255)
    assert integer_range(np.dtype("int8"), 1000) == (0, 127)


def test_ids_that_there_are_not_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = embedding()
    ids, mask = random_samples(model, 1)
    artifact = tvmcompress.build(model, "x86", tmp_path, tuning_log=False)
    assert artifact.inputs[0].limit == 30
    check(model, artifact, [ids, mask], "it")
    for run in (lambda *given: model.run(*given), lambda *given: artifact.run(given)):
        with pytest.raises(UserError, match="entry 30 .*30"):
            run(np.full_like(ids, 30), mask)


def test_quantized_models_with_integer_inputs_are_those_of_their_builds(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = embedding()
    ids, mask = random_samples(model, 32)
    result = tvmcompress.compress(model, {"ids": ids, "mask": mask}, quantize="int8")
    assert check(result.model, tvmcompress.build(result.model, "x86", tmp_path), [ids[:4], mask[:4]], "it") == 0
