"""An ONNX graph that is being rewritten: its constants as arrays, and new names that nobody has yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Rule = Callable[[onnx.NodeProto], "list[onnx.NodeProto] | None"]


class GraphEditor:
    """One graph.

    Attributes:
        nodes: Its nodes, in order of computation.
        constants: The values of its initializers, by name.
        source: What to call the model in messages.
        notes: What was done that changes results, one sentence each.
        shapes: The shapes of its tensors as they were at first, where they are known.
    """

    def __init__(self, graph: onnx.GraphProto, source: str) -> None:
        self._graph = graph
        self.source = source
        self.notes: list[str] = []
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self._names = {*self.inputs, *self.outputs, *self.constants}
        self._names.update(name for node in self.nodes for name in (*node.input, *node.output))
        # The shapes that inference has found.
        self.shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.value_info)
            if value.type.tensor_type.HasField("shape")
        }
        # Labels for messages; nodes without a name are known by what they compute.
        for node in self.nodes:
            if not node.name:
                node.name = next((name for name in node.output if name), node.op_type)

    def label(self, node: onnx.NodeProto) -> str:
        """How a message calls a node."""
        return f"node '{node.name}' ({node.op_type}) of {self.source}"

    def fresh(self, stem: str) -> str:
        """A name that is not taken: `stem`, or `stem` with a number."""
        name, count = stem, 1
        while name in self._names:
            name, count = f"{stem}.{count}", count + 1
        self._names.add(name)
        return name

    def constant(self, stem: str, value: np.ndarray) -> str:
        """A new initializer; its name."""
        name = self.fresh(stem)
        self.constants[name] = value
        return name

    def forget(self, name: str) -> None:
        """Drop a constant that nothing reads any more; its name is free."""
        del self.constants[name]
        self._names.discard(name)

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
        """A new node with one output, called like what it computes."""
        return helper.make_node(kind, list(inputs), [output], name=output, **attributes)

    def rewrite(self, rule: Rule) -> None:
        """Put what `rule` gives in the place of every node; None keeps a node."""
        kept: list[onnx.NodeProto] = []
        for node in self.nodes:
            new = rule(node)
            kept.extend([node] if new is None else new)
        self.nodes = kept

    def free(self, names: Collection[str]) -> None:
        """Give the tensors of these names, all computed, others, so that constants can be called so."""
        new = {name: self.fresh(f"{name}_value") for name in names if name not in self.outputs}
        for node in self.nodes:
            for place in (node.input, node.output):
                for index, name in enumerate(place):
                    place[index] = new.get(name, name)
        self._names.difference_update(new)

    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read each tensor, once for every operand."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def finish(self) -> None:
        """Write the nodes and constants that something reads back into the graph."""
        used, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if not used.isdisjoint(node.output):
                kept.append(node)
                used.update(node.input)
        del self._graph.node[:]
        self._graph.node.extend(kept[::-1])
        del self._graph.initializer[:]
        self._graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value) if value.ndim else value, name)
            for name, value in self.constants.items()
            if name in used
        )
        # Types of integer tensors are others now; they are inferred again.
        del self._graph.value_info[:]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node as plain values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def node_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs inside a node: branches, bodies of loops."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return graphs + [graph for attribute in node.attribute for graph in attribute.graphs]
