"""Bias correction: the mean error that quantization leaves in every output channel, added to the bias.

Empirical, from samples: layer by layer, the quantized network's own inputs, the mean of the float model's result less the
quantized one's (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, appendix D;
Finkelstein et al., "Fighting Quantization Bias With Bias", 2019). Analytic, without data: the weights' rounding errors times
the input's expected value, which follows from the normalization in front (Nagel et al., 2019, section 4.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from .._tvm import relax, tvm
from ..graph.adopt_module import model_pass
from ..graph.float_reference import FloatReference, start
from ..graph.module_params import attach_params, detach_params, get_params
from ..graph.rebuild import bindings
from ..graph.remarks import Remark, add_remarks
from ..graph.surgery import get_surgery
from ..quantization.quantized_layers import QuantizedLayer, quantized_layers
from .expected_values import expected_values

Progress = Callable[[int, int, str], None]


@model_pass("CorrectBias")
class CorrectBias:
    """Correct the int32 biases of a module in QDQ form.

    Args:
        reference: The float module that was quantized, parameters attached.
        inputs: Calibration samples, one array an input, axis 0 the samples; without them the correction is analytic, and
            needs the statistics that `FoldBatchNorm` keeps in the float module.
        on_progress: Called with (layers done, layers in all, name of the layer).

    Raises:
        UserError: There are no samples in `inputs`, or they do not fit.
    """

    def __init__(
        self,
        reference: tvm.IRModule,
        inputs: Sequence[np.ndarray] | None = None,
        *,
        on_progress: Progress | None = None,
    ) -> None:
        self.reference = reference
        self.inputs = None if inputs is None else list(inputs)
        self.on_progress = on_progress

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with other biases; layers without a bias keep none."""
        found, declined = quantized_layers(mod)
        remarks = [Remark("CorrectBias", name, reason) for name, reason in declined.items()]
        layers = []
        for layer in found.values():
            if layer.bias is None:
                remarks.append(Remark("CorrectBias", layer.var.name, "it has no quantized bias of its own"))
            else:
                layers.append(layer)
        if self.inputs is None:
            biases = _analytic(self.reference, layers, remarks)
        else:
            biases = _empirical(mod, self.reference, self.inputs, layers, remarks, self.on_progress)
        bare, params = detach_params(mod)
        return add_remarks(attach_params(bare, {**params, **biases}), remarks)


def _empirical(
    mod: tvm.IRModule,
    reference: tvm.IRModule,
    inputs: Sequence[np.ndarray],
    layers: Sequence[QuantizedLayer],
    remarks: list[Remark],
    on_progress: Progress | None,
) -> dict[str, np.ndarray]:
    by_sum = {layer.added: layer for layer in layers}
    original = FloatReference(reference, inputs, Counter(var.name for var in by_sum), "corrected")
    execution = start(mod, inputs, "corrected")
    biases: dict[str, np.ndarray] = {}
    done = 0
    while execution.upcoming() is not None:
        var, value = execution.step()
        layer = by_sum.get(var)
        if layer is None:
            continue
        done += 1
        wanted = original.value(var.name)
        if wanted is None or wanted.shape != value.shape:
            remarks.append(Remark("CorrectBias", layer.var.name, "the float model has no tensor of this name and shape"))
            continue
        axis = layer.channel_axis % value.ndim
        others = tuple(other for other in range(value.ndim) if other != axis)
        change = _shifted(layer, wanted.mean(others, np.float64) - value.mean(others, np.float64), biases)
        # What follows sees the corrected sum.
        execution.values[var] = value + change.reshape([-1 if a == axis else 1 for a in range(value.ndim)])
        if on_progress is not None:
            on_progress(done, len(layers), layer.var.name)
    return biases


def _shifted(layer: QuantizedLayer, shift: np.ndarray, biases: dict[str, np.ndarray]) -> np.ndarray:
    """Shift a bias by real values (O,) as far as its integers can; float32 (O,): by how much it was."""
    bias = layer.bias
    assert bias is not None
    integers = bias.nearest(bias.integers * bias.steps + shift.reshape(bias.integers.shape))
    biases[bias.parameter.name] = bias.stored(integers)
    return (bias.real(integers) - bias.real()).reshape(-1)


def _analytic(reference: tvm.IRModule, layers: Sequence[QuantizedLayer], remarks: list[Remark]) -> dict[str, np.ndarray]:
    if get_surgery(reference) is not None:
        message = "the recorded normalizations no longer hold in a pruned network; correct it from samples"
        remarks.append(Remark("CorrectBias", "main", message))
        return {}
    expected = expected_values(reference)
    params = get_params(reference)
    calls = {var.name: value for var, value in bindings(reference["main"]) if isinstance(value, relax.Call)}
    biases: dict[str, np.ndarray] = {}
    for layer in layers:
        call = calls.get(layer.var.name)
        weight = params.get(getattr(call.args[1], "name", "")) if call is not None else None
        moments = expected.get(getattr(call.args[0], "name", "")) if call is not None else None
        if weight is None or weight.shape != layer.weight.integers.shape:
            remarks.append(Remark("CorrectBias", layer.var.name, "the float model has no weights of this layer"))
        elif moments is None:
            message = "what it reads has no expected value: no normalization in front of it was recorded"
            remarks.append(Remark("CorrectBias", layer.var.name, message))
        else:
            _shifted(layer, -_expected_error(layer, weight, moments.mean), biases)
    return biases


def _expected_error(layer: QuantizedLayer, weight: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """float64 (O,): what rounding the weights adds to the result in the mean, padding left aside."""
    error = layer.weight.real().astype(np.float64) - weight
    if layer.call.op.name == "relax.matmul":
        return mean @ error
    summed = error.sum(axis=tuple(range(2, error.ndim)))
    outputs, per_group = summed.shape
    groups = mean.size // per_group
    blocks = summed.reshape(groups, outputs // groups, per_group) @ mean.reshape(groups, per_group, 1)
    return blocks.reshape(-1)
