"""Recurrent layers of ONNX (RNN, GRU, LSTM) unrolled into matrix products, so that passes see ordinary operators.

The inputs of all steps are multiplied at once; each step adds its state's product. All steps read the same weights, which
stay one parameter. Equations: the ONNX specification of the operators, which has no bias between the states of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..errors import UserError
from .onnx_editing import GraphEditor

RECURRENT = ("RNN", "GRU", "LSTM")
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
# Steps beyond which an unrolled layer is no longer a reasonable program.
_MOST_STEPS = 512


def expand_recurrent(editor: GraphEditor, opset: int) -> None:
    """Unroll every recurrent layer of a graph of known shapes.

    Raises:
        UserError: A layer has peepholes, a clip, sequences of different lengths, a batch in front, activations other than
            the usual ones, computed weights, or more than 512 steps.
    """
    editor.rewrite(lambda node: _Unrolled(editor, node, opset).run() if node.op_type in RECURRENT else None)


@dataclass
class _Weights:
    """The constants of one direction: what inputs and states are multiplied with, and the two biases."""

    inputs: str
    states: list[str]
    bias: str
    state_biases: list[str]


class _Unrolled:
    """One layer while it is unrolled."""

    def __init__(self, editor: GraphEditor, node: onnx.NodeProto, opset: int) -> None:
        self.editor, self.node, self.opset = editor, node, opset
        self.kind, self.gates = node.op_type, _GATES[node.op_type]
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.made: list[onnx.NodeProto] = []
        self.stem = node.name.strip("/").replace("/", ".")
        shape = editor.shapes.get(node.input[0])
        if shape is None or len(shape) != 3:
            raise UserError(f"{editor.label(node)} has an input of unknown shape; give the shapes of the model's inputs")
        self.steps, self.batch = shape[0], shape[1]
        self.hidden = int(self.attributes["hidden_size"])
        self.linear_before_reset = bool(self.attributes.get("linear_before_reset", 0))
        direction = self.attributes.get("direction", b"forward").decode()
        self.reversed = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
        self._refuse()

    def _refuse(self) -> None:
        node, inputs = self.node, [*self.node.input, *[""] * 8]
        names = [name.decode() for name in self.attributes.get("activations", [])]
        usual = _ACTIVATIONS[self.kind] * len(self.reversed)
        rectified = self.kind == "RNN" and set(names) <= {"Tanh", "Relu"}
        reasons = {
            "has peepholes": bool(inputs[7]),
            "clips its gates": "clip" in self.attributes,
            "couples its gates": bool(self.attributes.get("input_forget", 0)),
            "has the batch in front": bool(self.attributes.get("layout", 0)),
            f"has the activations {', '.join(names)}": bool(names) and names != usual and not rectified,
            "has computed weights": any(name and name not in self.editor.constants for name in inputs[1:4]),
            "has sequences of different lengths": bool(inputs[4]) and not self._whole(inputs[4]),
            f"has {self.steps} steps, more than {_MOST_STEPS}": self.steps > _MOST_STEPS,
        }
        for reason, applies in reasons.items():
            if applies:
                raise UserError(f"{self.editor.label(node)} {reason}, which cannot be unrolled; change the layer")
        self.activations = names or usual

    def _whole(self, lengths: str) -> bool:
        value = self.editor.constants.get(lengths)
        return value is not None and bool((value == self.steps).all())

    def run(self) -> list[onnx.NodeProto]:
        """The nodes in the layer's place."""
        outputs = [*self.node.output, *[""] * 3][:3]
        rows: list[list[str]] = []
        last: list[list[str]] = []
        for index, backwards in enumerate(self.reversed):
            states, final = self._direction(index, backwards)
            rows.append(states)
            last.append(final)
        if outputs[0]:
            whole = [self.reshape(name, [1, 1, self.batch, self.hidden]) for states in zip(*rows) for name in states]
            pairs = [whole[start : start + len(rows)] for start in range(0, len(whole), len(rows))]
            joined = [pair[0] if len(pair) == 1 else self.emit("Concat", pair, axis=1) for pair in pairs]
            self.emit("Concat", joined, outputs[0], axis=0)
        for place, output in enumerate(outputs[1:]):
            if output:
                parts = [self.reshape(final[place], [1, self.batch, self.hidden]) for final in last]
                self.emit("Concat", parts, output, axis=0)
        return self.made

    def emit(self, kind: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        """A new node; the name of its result."""
        name = output or self.editor.fresh(f"{self.stem}.{kind.lower()}")
        self.made.append(self.editor.node(kind, inputs, name, **attributes))
        return name

    def reshape(self, name: str, shape: list[int]) -> str:
        """A tensor in another shape."""
        return self.emit("Reshape", [name, self.editor.constant(f"{self.stem}.shape", np.array(shape))])

    def _split(self, name: str, count: int) -> list[str]:
        if count == 1:
            return [name]
        names = [self.editor.fresh(f"{self.stem}.gate") for _ in range(count)]
        options: dict[str, Any] = {"num_outputs": count} if self.opset >= 18 else {}
        self.made.append(helper.make_node("Split", [name], names, name=names[0], axis=1, **options))
        return names

    def _weights(self, index: int) -> _Weights:
        constants, inputs = self.editor.constants, [*self.node.input, ""]
        kernel, recurrent = constants[inputs[1]][index], constants[inputs[2]][index]
        size = self.gates * self.hidden
        both = constants[inputs[3]][index] if inputs[3] else np.zeros(2 * size, kernel.dtype)
        bias, state_bias = both[:size].copy(), both[size:]
        stem = f"{self.stem}.backward" if self.reversed[index] and len(self.reversed) > 1 else self.stem
        # A reset gate works on a part of the state's product, which then needs a product and a bias of its own.
        cut = 2 * self.hidden if self.kind == "GRU" else size
        bias[:cut] += state_bias[:cut]
        if self.kind == "GRU" and not self.linear_before_reset:
            bias[cut:] += state_bias[cut:]
        parts = [recurrent[:cut], recurrent[cut:]] if self.kind == "GRU" else [recurrent]
        names = ["states", "candidate"]
        states = [self.editor.constant(f"{stem}.{name}.weight", part.T.copy()) for name, part in zip(names, parts)]
        biases = [self.editor.constant(f"{stem}.candidate.bias", state_bias[cut:].copy())] if self.kind == "GRU" else []
        inputs_name = self.editor.constant(f"{stem}.inputs.weight", kernel.T.copy())
        return _Weights(inputs_name, states, self.editor.constant(f"{stem}.inputs.bias", bias), biases)

    def _direction(self, index: int, backwards: bool) -> tuple[list[str], list[str]]:
        """The states of all steps in the order of time, and the last state and cell."""
        weights = self._weights(index)
        product = self.emit("MatMul", [self.node.input[0], weights.inputs])
        projected = self.emit("Add", [product, weights.bias])
        count = 2 if self.kind == "LSTM" else 1
        state = [self._initial(index, place) for place in range(count)]
        names = self.activations[index * len(_ACTIVATIONS[self.kind]) :]
        step: Callable[..., list[str]] = {"RNN": self._rnn, "GRU": self._gru, "LSTM": self._lstm}[self.kind]
        rows = [""] * self.steps
        for time in reversed(range(self.steps)) if backwards else range(self.steps):
            position = self.editor.constant(f"{self.stem}.step", np.array(time))
            x = self.emit("Gather", [projected, position], axis=0)
            state = step(x, state, weights, names)
            rows[time] = state[0]
        return rows, state

    def _initial(self, index: int, place: int) -> str:
        given = [*self.node.input, *[""] * 8][5 + place]
        if not given:
            zeros = np.zeros((self.batch, self.hidden), np.float32)
            return self.editor.constant(f"{self.stem}.initial", zeros)
        chosen = self.editor.constant(f"{self.stem}.direction", np.array(index))
        return self.emit("Gather", [given, chosen], axis=0)

    def _rnn(self, x: str, state: list[str], weights: _Weights, names: list[str]) -> list[str]:
        return [self.emit(names[0], [self._plus_state(x, state[0], weights.states[0])])]

    def _plus_state(self, x: str, state: str, weight: str) -> str:
        return self.emit("Add", [x, self.emit("MatMul", [state, weight])])

    def _lstm(self, x: str, state: list[str], weights: _Weights, names: list[str]) -> list[str]:
        h, c = state
        i, o, f, g = self._split(self._plus_state(x, h, weights.states[0]), 4)
        i, o, f = (self.emit("Sigmoid", [gate]) for gate in (i, o, f))
        kept = self.emit("Mul", [f, c])
        c = self.emit("Add", [kept, self.emit("Mul", [i, self.emit("Tanh", [g])])])
        return [self.emit("Mul", [o, self.emit("Tanh", [c])]), c]

    def _gru(self, x: str, state: list[str], weights: _Weights, names: list[str]) -> list[str]:
        h = state[0]
        xz, xr, xn = self._split(x, 3)
        hz, hr = self._split(self.emit("MatMul", [h, weights.states[0]]), 2)
        z, r = (self.emit("Sigmoid", [self.emit("Add", pair)]) for pair in ([xz, hz], [xr, hr]))
        if self.linear_before_reset:
            product = self.emit("MatMul", [h, weights.states[1]])
            inner = self.emit("Mul", [r, self.emit("Add", [product, weights.state_biases[0]])])
        else:
            inner = self.emit("MatMul", [self.emit("Mul", [r, h]), weights.states[1]])
        n = self.emit("Tanh", [self.emit("Add", [xn, inner])])
        # (1 - z) * n + z * h, with one product less.
        difference = self.emit("Mul", [z, self.emit("Sub", [h, n])])
        return [self.emit("Add", [n, difference])]
