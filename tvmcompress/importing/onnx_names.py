"""Names for the weights that an exporter left without one.

Where PyTorch's exporter folds or transposes a weight its name is lost, and `onnx::Conv_123` says nothing to who reads a
report or excludes a layer from pruning. The node that reads the weight still carries the path of its module.
"""

from __future__ import annotations

import onnx

_ANONYMOUS = "onnx::"
_OPERANDS = {
    "Conv": {1: "weight", 2: "bias"},
    "ConvTranspose": {1: "weight", 2: "bias"},
    "Gemm": {1: "weight", 2: "bias"},
    "MatMul": {0: "weight", 1: "weight"},
}


def name_weights(graph: onnx.GraphProto) -> None:
    """Give nameless weights the path of the module whose node reads them."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | tensors.keys()
    new: dict[str, str] = {}
    for node in graph.node:
        for index, operand in _OPERANDS.get(node.op_type, {}).items():
            old = node.input[index] if index < len(node.input) else ""
            path = module_path(node.name)
            name = f"{path}.{operand}"
            if path and old.startswith(_ANONYMOUS) and old in tensors and old not in new and name not in taken:
                new[old] = name
                taken.add(name)
    for old, name in new.items():
        tensors[old].name = name
    for node in graph.node:
        for index, old in enumerate(node.input):
            if old in new:
                node.input[index] = new[old]


def module_path(name: str) -> str:
    """The path of the module that PyTorch's exporter writes into the name of a node.

    Containers repeat their own name in those of their children: `/layer1/layer1.0/conv1/Conv` is `layer1.0.conv1`.
    """
    scopes = name.strip("/").split("/")[:-1] if name.startswith("/") else []
    path: list[str] = []
    for scope in scopes:
        if path and scope.startswith(f"{path[-1]}."):
            path[-1] = scope
        else:
            path.append(scope)
    return ".".join(path)
