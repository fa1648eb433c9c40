"""A model module run in PyTorch, so that gradients of its parameters can be had."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

import numpy as np

from ..errors import UnsupportedOperatorError, UserError
from ..model import Model
from ..passes import get_params
from ..passes._tvm import Constant, relax, tvm
from ..passes.graph.interpreter import plain_value
from ..passes.graph.module_params import input_vars, param_vars, static_shape
from ..passes.graph.rebuild import bindings
from ..passes.graph.view import GraphView
from ..passes.plugins.registry import Registry
from .backend import Tensor, load_torch
from .operators import OPERATORS, Call, Operator, Value, find_operator

_CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
_TABLE = ("torch_elementwise", "torch_layers", "torch_normalization", "torch_shapes")


def load_operators() -> Registry[Operator]:
    """The table of operators, filled.

    Raises:
        MissingToolError: PyTorch is not installed.
    """
    for name in _TABLE:
        importlib.import_module(f".{name}", __package__)
    return OPERATORS


class TorchModel:
    """The `main` of a float model module in PyTorch.

    Batch normalizations use the statistics they were given, as in inference.

    Args:
        mod: A module whose `main` is straight-line, parameters attached.

    Attributes:
        tensors: The parameters by name, in the order of `main`'s; those of float dtypes are leaves that require
            gradients.

    Raises:
        MissingToolError: PyTorch is not installed.
        UnsupportedOperatorError: The table of operators lacks one.
        ValueError: `main` is not straight-line, or has no parameter values attached.
    """

    def __init__(self, mod: tvm.IRModule) -> None:
        self._torch = load_torch()
        load_operators()
        self._main: relax.Function = mod["main"]
        self._program = list(bindings(self._main))
        self._constants: dict[Constant, Tensor] = {}
        self._batchable: bool | None = None
        self._biases = _biases(mod)
        self._taps: list[str] = []
        self._tapped: list[dict[str, Tensor]] = []
        for var, call in self._program:
            if isinstance(call, relax.Call) and not self.supports(name := getattr(call.op, "name", "")):
                find_operator(name, var.name)
        self.tensors: dict[str, Tensor] = {}
        for name, value in get_params(mod).items():
            tensor = self._torch.tensor(value)
            self.tensors[str(name)] = tensor.requires_grad_(tensor.is_floating_point())

    @property
    def runs_together(self) -> bool:
        """Whether the samples of a batch run together, which is known once two have been run: some graphs mix them."""
        return bool(self._batchable)

    def params(self) -> dict[str, np.ndarray]:
        """The values of the parameters now, by name."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.tensors.items()}

    def supports(self, name: str) -> bool:
        """Whether calls of an operator can be evaluated here."""
        return name in OPERATORS

    def tap(self, names: Sequence[str], whose: str = "the model") -> None:
        """Keep the values of variables in every run from now on, see `tapped`.

        Raises:
            UserError: There is no such variable; the sentence begins with `whose`.
        """
        known = {var.name for var, _ in self._program}
        missing = [name for name in names if name not in known]
        if missing:
            near = get_close_matches(missing[0], known, n=3, cutoff=0.3)
            hint = f"; did you mean {' or '.join(near)}?" if near else "; `tvmcompress inspect` lists layers"
            raise UserError(f"{whose} has no layer '{missing[0]}'{hint}")
        self._taps = list(names)

    def tapped(self) -> list[Tensor]:
        """The values of the last run, in the order in which they were asked for; axis 0 stacked as in the inputs.

        Where samples ran together they are the very tensors that the outputs were computed from, so that there are gradients.
        """
        return [
            self._tapped[0][name] if len(self._tapped) == 1 else self._torch.cat([run[name] for run in self._tapped])
            for name in self._taps
        ]

    def trained(self, model: Model) -> Model:
        """The model that this was made of, with the parameters as they are now."""
        return model.with_params(self.params())

    def __call__(self, *inputs: Tensor | np.ndarray) -> list[Tensor]:
        """Run on a batch.

        Args:
            inputs: One tensor or array an input of `main`, in order; axis 0 may be any multiple of the graph's.

        Returns:
            The outputs, axis 0 stacked as in the inputs.

        Raises:
            UserError: Number, shape or dtype of the inputs do not fit.
            UnsupportedOperatorError: An operator is used in a way that the table lacks.
        """
        tensors = [self._torch.as_tensor(value) for value in inputs]
        batch = self.samples(tensors)
        if batch > 1 and self._batchable is None:
            with self._torch.no_grad():
                self._batchable = self._try_batch(tensors, batch)
        self._tapped = []
        if batch == 1:
            return self._run(tensors, 1)
        if self._batchable:
            return self._run(tensors, batch)
        samples = [self._run(sample, 1) for sample in split_samples(tensors, batch)]
        return [self._torch.cat([sample[index] for sample in samples]) for index in range(len(samples[0]))]

    def samples(self, inputs: Sequence[Tensor | np.ndarray]) -> int:
        """How many samples a batch holds, for one in the graph.

        Raises:
            UserError: Number, shape or dtype of the inputs do not fit.
        """
        variables = input_vars(self._main)
        if len(inputs) != len(variables):
            raise UserError(f"the model has {len(variables)} inputs, {len(inputs)} were given")
        batches = set()
        for var, value in zip(variables, inputs):
            shape = static_shape(var)
            if value.ndim != len(shape) or tuple(value.shape[1:]) != shape[1:] or (shape and len(value) % shape[0]):
                raise UserError(f"input {var.name} has shape {shape}, what was given {tuple(value.shape)}")
            dtype = str(value.dtype).removeprefix("torch.")
            if dtype != str(var.ty.dtype):
                raise UserError(f"input {var.name} is {var.ty.dtype}, what was given {dtype}")
            batches.add(len(value) // shape[0] if shape else 1)
        if len(batches) > 1 or batches == {0}:
            raise UserError("the inputs have different batch sizes, or no samples")
        return batches.pop() if batches else 1

    def _try_batch(self, inputs: Sequence[Tensor], batch: int) -> bool:
        """Whether stacking samples on axis 0 gives what single samples give; some graphs move or mix that axis."""
        two = [value[: 2 * (len(value) // batch)] for value in inputs]
        single = [self._run(sample, 1) for sample in split_samples(two, 2)]
        try:
            stacked = self._run(two, 2)
        except UnsupportedOperatorError:
            raise
        except (RuntimeError, IndexError, ValueError):
            return False
        for index, value in enumerate(stacked):
            expected = self._torch.cat([outputs[index] for outputs in single])
            if value.shape != expected.shape:
                return False
            largest = float(expected.abs().max()) if expected.numel() else 0.0
            if expected.numel() and float((value - expected).abs().max()) > 0.02 * largest + 1e-6:
                return False
        return True

    def _run(self, inputs: Sequence[Tensor], batch: int) -> list[Tensor]:
        values: dict[relax.Var, Value] = dict(zip(param_vars(self._main), self.tensors.values()))
        values.update(zip(input_vars(self._main), inputs))
        behind = {layer: (added, bias) for layer, (added, bias) in self._biases.items() if layer.name not in self._taps}
        biases = {added: layer for layer, (added, _) in behind.items()}
        for var, expr in self._program:
            if var in biases:
                values[var] = values[biases[var]]
                continue
            if var in behind and isinstance(expr, relax.Call):
                args = [self._evaluate(arg, values, var.name, batch) for arg in (*expr.args, behind[var][1])]
                values[var] = find_operator(expr.op.name, var.name)(args, Call(expr, var.name, batch))
                continue
            values[var] = self._value(var, expr, values, batch)
        if self._taps:
            self._tapped.append({var.name: value for var, value in values.items() if var.name in self._taps})
        result = self._evaluate(self._main.body.body, values, "output", batch)
        return list(result) if isinstance(result, tuple) else [result]

    def _value(self, var: relax.Var, expr: relax.Expr, values: Mapping[relax.Var, Value], batch: int) -> Value:
        """What a variable is bound to, evaluated."""
        return self._evaluate(expr, values, var.name, batch)

    def _evaluate(self, expr: relax.Expr, values: Mapping[relax.Var, Value], layer: str, batch: int) -> Value:
        if isinstance(expr, relax.Var):
            return values[expr]
        if isinstance(expr, relax.Tuple):
            return tuple(self._evaluate(field, values, layer, batch) for field in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self._evaluate(expr.tuple_value, values, layer, batch)[int(expr.index)]
        if isinstance(expr, relax.Call):
            args = [self._evaluate(arg, values, layer, batch) for arg in expr.args]
            return find_operator(getattr(expr.op, "name", ""), layer)(args, Call(expr, layer, batch))
        if isinstance(expr, Constant):
            if expr not in self._constants:
                self._constants[expr] = self._torch.tensor(expr.value.numpy())
            return self._constants[expr]
        return plain_value(expr)


def _biases(mod: tvm.IRModule) -> dict[relax.Var, tuple[relax.Var, relax.Var]]:
    """The convolutions that PyTorch computes together with the addition of their bias, which saves a pass over the result:
    for each the sum, and the parameter that is added."""
    graph, found = GraphView(mod), {}
    for var, value in graph.values.items():
        if getattr(getattr(value, "op", None), "name", "") not in _CONVOLUTIONS or value.args[1] not in graph.params:
            continue
        behind = graph.sole_reader(var)
        if behind is None or behind[1].op.name != "relax.add" or not behind[1].args[0].same_as(var):
            continue
        bias, layout = behind[1].args[1], str(value.attrs.out_layout or value.attrs.data_layout)
        if bias not in graph.params:
            continue
        shape, channels = static_shape(bias), static_shape(var)[layout.index("C")]
        wide = (1,) * (len(layout) - len(shape)) + shape
        if math.prod(shape) == channels == wide[layout.index("C")]:
            found[var] = (behind[0], bias)
    return found


def split_samples(inputs: Sequence[Tensor], batch: int) -> Iterator[list[Tensor]]:
    """The inputs of each of `batch` runs of the graph."""
    for index in range(batch):
        steps = [len(value) // batch for value in inputs]
        yield [value[index * step : (index + 1) * step] for value, step in zip(inputs, steps)]
