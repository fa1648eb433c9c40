"""Control flow that can be decided before the model runs: branches on constants, loops of a known number of rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .onnx_editing import attributes, node_graphs

# A loop that unrolls into more nodes than this stays; what remains is refused by name.
_UNROLLED_LIMIT = 20_000


def decide_control_flow(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Put branches and rounds in the place of `If`, `Loop` and `Scan` where constants and shapes decide; whether one was.

    Args:
        graph: Changed in place.
        shapes: The static shapes of its tensors.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept: list[onnx.NodeProto] = []
    changed = False
    for node in graph.node:
        unfolder = _Unfolder(graph, node, constants, shapes)
        made = unfolder.run() if node.op_type in ("If", "Loop", "Scan") else None
        kept.extend([node] if made is None else made)
        changed |= made is not None
    if changed:
        del graph.node[:]
        graph.node.extend(kept)
    return changed


class _Unfolder:
    """One node and what takes its place."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        node: onnx.NodeProto,
        constants: Mapping[str, onnx.TensorProto],
        shapes: Mapping[str, Sequence[int]],
    ) -> None:
        self._graph, self._node, self._constants, self._shapes = graph, node, constants, shapes
        self._made: list[onnx.NodeProto] = []
        self._stem = next(name for name in node.output if name)

    def run(self) -> list[onnx.NodeProto] | None:
        """The nodes in its place; None where it cannot be decided."""
        kind = {"If": self._branch, "Loop": self._loop, "Scan": self._scan}[self._node.op_type]
        return self._made if kind() else None

    def _value(self, name: str) -> np.ndarray | None:
        return numpy_helper.to_array(self._constants[name]) if name in self._constants else None

    def _branch(self) -> bool:
        condition = self._value(self._node.input[0])
        if condition is None:
            return False
        wanted = "then_branch" if condition.reshape(-1)[0] else "else_branch"
        branch = next(attribute.g for attribute in self._node.attribute if attribute.name == wanted)
        self._finish(self._copy(branch, wanted, {}))
        return True

    def _loop(self) -> bool:
        body = node_graphs(self._node)[0]
        limit, going = (
            self._value(name) if name else np.asarray(default)
            for name, default in zip([*self._node.input, "", ""][:2], (np.iinfo(np.int64).max, True))
        )
        always = _is_passed_on(body) or self._is_true(body)
        if limit is None or going is None or not always:
            return False
        rounds = int(limit.reshape(-1)[0]) if going.reshape(-1)[0] else 0
        carried = list(self._node.input[2:])
        if rounds * len(body.node) > _UNROLLED_LIMIT or (rounds == 0 and len(body.output) - 1 > len(carried)):
            return False
        stacked: list[list[str]] = [[] for _ in body.output[1 + len(carried) :]]
        for index in range(rounds):
            count = self._constant(f"{self._stem}.round{index}", np.asarray(index, np.int64))
            true = self._constant(f"{self._stem}.going{index}", np.asarray(True))
            given = dict(zip((value.name for value in body.input), (count, true, *carried)))
            results = self._copy(body, f"round{index}", given)[1:]
            for place, name in zip(stacked, results[len(carried) :]):
                place.append(name)
            carried = results[: len(carried)]
        self._finish([*carried, *(self._stack(names, axis=0) for names in stacked)])
        return True

    def _scan(self) -> bool:
        body, options = node_graphs(self._node)[0], attributes(self._node)
        count = int(options["num_scan_inputs"])
        split = len(self._node.input) - count
        carried, scanned = list(self._node.input[:split]), list(self._node.input[split:])
        made = len(body.output) - split
        axes = [int(axis) for axis in options.get("scan_input_axes", [0] * count)]
        backward = options.get("scan_input_directions", [0] * count)
        out_axes = [int(axis) for axis in options.get("scan_output_axes", [0] * made)]
        out_backward = options.get("scan_output_directions", [0] * made)
        if any(name not in self._shapes for name in scanned):
            return False
        rounds = self._shapes[scanned[0]][axes[0]]
        if rounds * len(body.node) > _UNROLLED_LIMIT or rounds == 0:
            return False
        stacked: list[list[str]] = [[] for _ in range(made)]
        for index in range(rounds):
            slices = []
            for place, (name, axis, reverse) in enumerate(zip(scanned, axes, backward)):
                where = self._constant(f"{self._stem}.at{index}.{place}", np.asarray(rounds - 1 - index if reverse else index))
                slices.append(self._emit("Gather", [name, where], f"slice{index}.{place}", axis=axis))
            given = dict(zip((value.name for value in body.input), (*carried, *slices)))
            results = self._copy(body, f"round{index}", given)
            carried = results[:split]
            for names, name in zip(stacked, results[split:]):
                names.append(name)
        ordered = [names[::-1] if reverse else names for names, reverse in zip(stacked, out_backward)]
        self._finish([*carried, *(self._stack(names, axis) for names, axis in zip(ordered, out_axes))])
        return True

    def _is_true(self, body: onnx.GraphProto) -> bool:
        """Whether the body's own condition is a constant that lets it go on."""
        name = body.output[0].name
        tensors = {tensor.name: tensor for tensor in body.initializer}
        for node in body.node:
            if node.op_type == "Constant" and node.output[0] == name:
                tensors[name] = node.attribute[0].t
        while name not in tensors:
            maker = next((node for node in body.node if name in node.output), None)
            if maker is None or maker.op_type not in ("Identity", "Cast"):
                return False
            name = maker.input[0]
            for node in body.node:
                if node.op_type == "Constant" and node.output[0] == name:
                    tensors[name] = node.attribute[0].t
        return bool(numpy_helper.to_array(tensors[name]).reshape(-1)[0])

    def _copy(self, body: onnx.GraphProto, mark: str, given: Mapping[str, str]) -> list[str]:
        """One copy of an inner graph: its names made unique, its inputs those given; the names of its results."""
        names = dict(given)
        own = [tensor.name for tensor in body.initializer] + [name for node in body.node for name in node.output if name]
        names.update((name, f"{self._stem}.{mark}.{name}") for name in own)
        for tensor in body.initializer:
            copy = self._graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = names[tensor.name]
        for node in body.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            _rename(copy, names)
            if copy.op_type == "Constant" and copy.attribute[0].HasField("t"):
                self._constant(copy.output[0], numpy_helper.to_array(copy.attribute[0].t))
            else:
                self._made.append(copy)
        return [names.get(value.name, value.name) for value in body.output]

    def _constant(self, name: str, value: np.ndarray) -> str:
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _emit(self, kind: str, inputs: Sequence[str], name: str, **options: Any) -> str:
        output = f"{self._stem}.{name}"
        self._made.append(helper.make_node(kind, list(inputs), [output], name=output, **options))
        return output

    def _stack(self, names: list[str], axis: int) -> str:
        place = self._constant(f"{names[0]}.axis", np.asarray([axis], np.int64))
        rows = []
        for name in names:
            rows.append(f"{name}.row")
            self._made.append(helper.make_node("Unsqueeze", [name, place], [rows[-1]], name=rows[-1]))
        self._made.append(helper.make_node("Concat", rows, [f"{names[0]}.stack"], name=f"{names[0]}.stack", axis=axis))
        return f"{names[0]}.stack"

    def _finish(self, results: Sequence[str]) -> None:
        for name, made in zip(self._node.output, results):
            if name:
                self._made.append(helper.make_node("Identity", [made], [name], name=name))


def _is_passed_on(body: onnx.GraphProto) -> bool:
    """Whether the condition that a loop's body gives is the one that it was given."""
    name, made = body.output[0].name, {node.output[0]: node for node in body.node if node.op_type == "Identity"}
    while name in made:
        name = made[name].input[0]
    return len(body.input) > 1 and name == body.input[1].name


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    for place in (node.input, node.output):
        place[:] = [names.get(name, name) for name in place]
    for graph in node_graphs(node):
        for inner in graph.node:
            _rename(inner, names)
        for value in graph.output:
            value.name = names.get(value.name, value.name)
