"""Recurrent layers, unrolled: the results of ONNX Runtime, for every variant of the operators that can be imported."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvmcompress.importing import from_onnx
from tvmcompress.passes import PruneChannels, UserError, get_surgery, groups, zero_channels
from tvmcompress.passes.interpreter import run

STEPS, BATCH, INPUTS, HIDDEN = 5, 2, 3, 4
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def network(
    kind: str, *, directions: int = 1, bias: bool = True, state: bool = False, opset: int = 17, **attributes: Any
) -> onnx.ModelProto:
    """One recurrent layer with all its outputs; with `state` its first states are inputs."""
    rng = np.random.default_rng(0)
    rows = GATES[kind] * HIDDEN
    shapes = {"w": (directions, rows, INPUTS), "r": (directions, rows, HIDDEN), "b": (directions, 2 * rows)}
    tensors = [numpy_helper.from_array(rng.normal(size=s).astype("float32") * 0.6, name) for name, s in shapes.items()]
    count = 2 if kind == "LSTM" else 1
    inputs = {"x": (STEPS, BATCH, INPUTS)}
    if state:
        inputs.update({f"s{place}": (directions, BATCH, HIDDEN) for place in range(count)})
    operands = ["x", "w", "r", "b" if bias else "", "", *list(inputs)[1:]]
    outputs = {"y": (STEPS, directions, BATCH, HIDDEN), "h": (directions, BATCH, HIDDEN), "c": (directions, BATCH, HIDDEN)}
    names = list(outputs)[: 1 + count]
    node = helper.make_node(kind, operands, names, name="/rnn/Layer", hidden_size=HIDDEN, **attributes)
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes_of[name]) for name in chosen]
        for shapes_of, chosen in ((inputs, list(inputs)), (outputs, names))
    ]
    graph = helper.make_graph([node], "net", *infos, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def values(proto: onnx.ModelProto) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in proto.graph.input]
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("RNN", {}),
    "rnn relu": ("RNN", {"activations": ["Relu"]}),
    "rnn both ways": (
        "RNN",
        {"directions": 2, "direction": "bidirectional", "activations": ["Tanh", "Relu"], "state": True},
    ),
    "gru": ("GRU", {}),
    "gru of pytorch": ("GRU", {"linear_before_reset": 1, "state": True}),
    "gru reversed": ("GRU", {"direction": "reverse", "bias": False}),
    "gru both ways": ("GRU", {"directions": 2, "direction": "bidirectional", "linear_before_reset": 1}),
    "lstm": ("LSTM", {}),
    "lstm with states": ("LSTM", {"state": True}),
    "lstm both ways": ("LSTM", {"directions": 2, "direction": "bidirectional", "state": True}),
    "lstm of opset 11": ("LSTM", {"opset": 11, "bias": False}),
    "lstm of opset 18": ("LSTM", {"opset": 18}),
}


@pytest.mark.parametrize("name", CASES)
def test_results_of_onnx_runtime(name: str) -> None:
    kind, options = CASES[name]
    proto = network(kind, **options)
    inputs = values(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, dict(zip([value.name for value in proto.graph.input], inputs)))
    for value, other in zip(run(from_onnx(proto).module, inputs), expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", GATES)
def test_steps_share_their_weights(kind: str) -> None:
    module = from_onnx(network(kind)).module
    weights = [var.name for var in module["main"].params if var.name.endswith(".weight")]
    expected = ["rnn.Layer.inputs.weight", "rnn.Layer.states.weight", "rnn.Layer.candidate.weight"]
    assert sorted(weights) == sorted(expected[: 3 if kind == "GRU" else 2])


@pytest.mark.parametrize("kind", GATES)
def test_hidden_units_of_a_layer_that_is_read_can_be_pruned(kind: str) -> None:
    proto = network(kind)
    weight = numpy_helper.from_array(np.random.default_rng(2).normal(size=(HIDDEN, 2)).astype("float32"), "fc.weight")
    proto.graph.initializer.append(weight)
    proto.graph.node.append(helper.make_node("MatMul", ["y", "fc.weight"], ["out"], name="fc"))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, (STEPS, 1, BATCH, 2)))
    module = from_onnx(proto).module
    assert [group.size for group in groups(module) if group.frozen is None] == [HIDDEN]
    pruned = PruneChannels(0.5)(module)
    report = get_surgery(pruned)
    assert report is not None
    inputs = values(proto)
    expected = run(zero_channels(module, report), inputs)[0]
    np.testing.assert_allclose(run(pruned, inputs)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"clip": 1.0}, "clips its gates"),
        ({"activations": ["Sigmoid", "Relu", "Tanh"]}, "has the activations"),
        ({"input_forget": 1}, "couples its gates"),
    ],
)
def test_what_cannot_be_unrolled_is_named(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=rf"node '/rnn/Layer' \(LSTM\) of onnx {reason}"):
        from_onnx(network("LSTM", **options))
