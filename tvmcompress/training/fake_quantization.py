"""A quantized network in PyTorch, as it computes, with gradients through the rounding.

The forward pass is that of the module in QDQ form. Backwards, rounding counts as the identity inside its limits (Bengio et al.,
"Estimating or Propagating Gradients Through Stochastic Neurons", 2013; straight-through), and the steps of activations are
learned with it (Esser et al., "Learned Step Size Quantization", 2020). Weights keep real values, which are rounded to their
grid in every pass, and stand in the module as integers at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np

from ..data.dataset import DataLike, Dataset, load_data
from ..errors import UserError
from ..model import Model
from ..passes._tvm import relax
from ..passes.graph.rebuild import Rebuilder, rebuild
from ..passes.graph.view import GraphView
from ..passes.quantization.few_bits import clipped_quantizers, clipped_to
from ..passes.quantization.kinds import op_name
from ..passes.quantization.quantized_layers import quantized_layers
from ..passes.quantization.weight_grid import WeightGrid
from ..recipe.recipe import as_finetune_recipe
from .activation_steps import Key, Steps, key_of, number_of, of_parameter, read_key, shared_steps
from .backend import Tensor, load_torch
from .bridge import TorchModel
from .checkpoint import Checkpoint
from .finetuning import Progress, Training
from .operators import Value

_OWN = ("relax.quantize", "relax.dequantize", "tvmcompress.int4_weight")
_INSIDE = 0.499


class FakeQuantizedModel(TorchModel):
    """The `main` of a module in QDQ form in PyTorch.

    Args:
        model: In QDQ form.
        weights: Float weights by the names of the parameters, as they were before quantization; where there are none, or of
            another shape, training begins with the rounded ones.

    Raises:
        MissingToolError: PyTorch is not installed.
        UnsupportedOperatorError: There are no gradients for an operator.
    """

    def __init__(self, model: Model, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__(model.module)
        self._model, self._graph = model, GraphView(model.module)
        self._layers = list(quantized_layers(model.module)[0].values())
        self._grids: dict[relax.Var, WeightGrid] = {}
        self._inside: set[relax.Var] = set()
        for layer in self._layers:
            for grid in (layer.weight, *((layer.bias,) if layer.bias is not None else ())):
                self._grids[grid.source] = grid
                self._inside.update(grid.path[1:-1])
                self._latent(grid, weights)
        self._steps = {steps.key: steps for steps in shared_steps(self._graph)}
        reads = {layer.bias: read_key(self._graph, layer) for layer in self._layers if layer.bias is not None}
        self._read = {grid.source: self._steps[key] for grid, key in reads.items() if key in self._steps}
        self._bits: dict[relax.Var, int | None] = {}
        self._clips: dict[relax.Var, relax.Expr] = {}
        for var, _, clip, affine in clipped_quantizers(self._graph):
            # The clip goes with the step, and is made where the tensor is rounded.
            self._bits[var], self._clips[clip] = affine.bits, self._graph.values[clip].args[0]
        for steps in self._steps.values():
            tensor = self._torch.tensor([steps.key[0]], dtype=self._torch.float32)
            self.tensors[steps.name] = tensor.requires_grad_(steps.learned)

    def _latent(self, grid: WeightGrid, weights: Mapping[str, np.ndarray]) -> None:
        """The real values of a quantized constant, in the place of its integers and in their order."""
        name = grid.parameter.name
        real, given = grid.real(), weights.get(name)
        if given is not None and given.shape == tuple(real.transpose(np.argsort(grid.order)).shape):
            places = given.transpose(grid.order) / grid.steps
            inside = np.clip(places, grid.integers - _INSIDE, grid.integers + _INSIDE)
            # Repairs have chosen integers whose cells the float weights lie outside of. At their edges the first steps would
            # bring the nearest integers back, all at once, and undo the repair.
            real = np.where(np.abs(places - grid.integers) <= 0.5, inside, grid.integers) * grid.steps
        stored = np.array(real.transpose(np.argsort(grid.order)), np.float32, order="C")
        self.tensors[name] = self._torch.from_numpy(stored).requires_grad_(True)

    def supports(self, name: str) -> bool:
        """Whether calls of an operator can be evaluated here."""
        return name in _OWN or super().supports(name)

    def _value(self, var: relax.Var, expr: relax.Expr, values: Mapping[relax.Var, Value], batch: int) -> Value:
        if var in self._grids:
            return self._rounded(self._grids[var])
        if var in self._inside:
            return None
        if var in self._clips:
            return values[self._clips[var]]
        name = getattr(expr.op, "name", "") if isinstance(expr, relax.Call) else ""
        if name == "relax.quantize":
            return self._quantized(values[expr.args[0]], self._steps[key_of(self._graph, expr)], self._bits.get(var))
        if name == "relax.dequantize":
            value = values[expr.args[0]]
            return value if value.is_floating_point() else self._constant(expr, value)
        return super()._value(var, expr, values, batch)

    def steps_at(self, quantize: relax.Call) -> Steps:
        """The step of a quantizer."""
        return self._steps[key_of(self._graph, quantize)]

    def _rounded(self, grid: WeightGrid) -> Tensor:
        """What a layer reads of its weights or its bias."""
        latent = self.tensors[grid.parameter.name].permute(grid.order)
        steps, low, high = (self._torch.from_numpy(a.astype(np.float32)) for a in (grid.steps, grid.lowest, grid.highest))
        read = self._read.get(grid.source)
        if read is not None:
            # A bias is rounded to products of the steps of the weight and of what the layer reads, as they are learned.
            steps = steps * (self.tensors[read.name].detach().abs() / read.key[0])
        scaled = (latent / steps).clamp(low, high)
        return (scaled + (scaled.round() - scaled).detach()) * steps

    def _quantized(self, value: Tensor, steps: Steps, bits: int | None = None) -> Tensor:
        """An activation rounded to its grid, in real values."""
        low, high = steps.limits(bits)
        size = self.tensors[steps.name]
        if steps.learned:
            # Gradients of the step are as large as those of the values, whatever their number.
            share = 1.0 / math.sqrt(value.numel() * max(high, 1))
            size = size * share + (size * (1.0 - share)).detach()
        scaled = (value / size).clamp(low, high)
        return (scaled + (scaled.round() - scaled).detach()) * size

    def _constant(self, call: relax.Call, integers: Tensor) -> Tensor:
        scale, zero = (self._torch.from_numpy(np.atleast_1d(number_of(self._graph, arg))) for arg in call.args[1:3])
        shape = [1] * integers.ndim
        if scale.numel() > 1:
            shape[int(call.attrs.axis) % integers.ndim] = -1
        return (integers - zero.reshape(shape).to(self._torch.int64)) * scale.reshape(shape)

    def params(self) -> dict[str, np.ndarray]:
        """The values of the parameters now, by name: quantized ones as integers."""
        found = super().params()
        for steps in self._steps.values():
            del found[steps.name]
        scales = self._new_scales()
        for layer in self._layers:
            found[layer.weight.parameter.name] = self._stored(layer.weight)
            if layer.bias is not None:
                found[layer.bias.parameter.name] = self._stored(layer.bias, scales.get(read_key(self._graph, layer), 1.0))
        return found

    def _stored(self, grid: WeightGrid, factor: float = 1.0) -> np.ndarray:
        real = self.tensors[grid.parameter.name].detach().numpy().astype(np.float64).transpose(grid.order)
        return grid.stored(grid.nearest(real / factor))

    def _new_scales(self) -> dict[Key | None, float]:
        """By key, by what its scale is to be multiplied."""
        return {
            key: float(np.float32(abs(self.tensors[steps.name].item()))) / key[0]
            for key, steps in self._steps.items()
            if steps.learned
        }

    def trained(self, model: Model) -> Model:
        """The model with what was learned: integers of weights and biases, and scales of activations."""
        scales = self._new_scales()
        factors = {
            layer.bias.source.name: scales.get(read_key(self._graph, layer), 1.0)
            for layer in self._layers
            if layer.bias is not None
        }
        weights = {var.name for var in self._grids}
        changed = model.with_params(self.params())
        graph = GraphView(changed.module)
        clips = {}
        for _, call, clip, affine in clipped_quantizers(graph):
            # The scale as it is stored below.
            clips[clip] = replace(affine, scale=float(np.float32(affine.scale * scales.get(key_of(graph, call), 1.0))))

        def rewrite(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
            name = op_name(value)
            if var in clips:
                return clipped_to(build.get(value.args[0]), clips[var])
            if name not in ("relax.quantize", "relax.dequantize"):
                return None
            factor = factors.get(var.name, 1.0)
            if var.name not in weights and not of_parameter(graph, value):
                factor = scales.get(key_of(graph, value), 1.0)
            if factor == 1.0:
                return None
            scale = relax.const((number_of(graph, value.args[1]) * factor).astype(np.float32))
            return relax.Call(value.op, [build.get(value.args[0]), scale, value.args[2]], value.attrs, value.ty_args)

        return replace(changed, module=rebuild(changed.module, rewrite))


def train_quantized(
    model: Model,
    data: DataLike | Dataset,
    *,
    original: Model | None = None,
    teacher: Model | None = None,
    checkpoint: str | PathLike[str] | None = None,
    on_progress: Progress | None = None,
    **options: Any,
) -> Model:
    """Train a quantized model under its own quantization; weights that are zero by `Sparsify` stay zero.

    The weights of the epoch that does best on samples held back are kept, those that the model came with among them.

    Args:
        model: In QDQ form: `CompressionResult.qdq_model`, or what `Quantize` gives.
        data: What it learns from; see `finetune`. What was repaired has best not seen what is held back of it: see
            `held_back.unjudged`, which `compress` heeds where its recipe trains.
        original: The float model that was quantized, whose weights training begins with; else with the rounded ones.
        teacher: As of `finetune`.
        checkpoint: As of `finetune`.
        on_progress: Told batches done, out of how many.
        options: Fields of `FinetuneRecipe`.

    Returns:
        The model in QDQ form with other integers, and other scales of activations.

    Raises:
        MissingToolError: PyTorch is not installed.
        UnsupportedOperatorError: There are no gradients for an operator.
        UserError: The model is not in QDQ form, an option is out of range, the data does not fit or is too little, or the loss
            becomes infinite.
    """
    load_torch()
    recipe = as_finetune_recipe(options)
    assert recipe is not None
    if not any(op_name(value) == "relax.quantize" for value in GraphView(model.module).values.values()):
        raise UserError("training under quantization needs a model in QDQ form; quantize it first")
    samples = data if isinstance(data, Dataset) else load_data(data, model.inputs)
    network = FakeQuantizedModel(model, {} if original is None else original.params)
    training = Training(model, network, samples, teacher, recipe)
    return training.run(None if checkpoint is None else Checkpoint(checkpoint, training.fingerprint()), on_progress)
