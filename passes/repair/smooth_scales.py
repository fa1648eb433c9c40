"""Smoothing: outliers of activations moved into the weights that read them (SmoothQuant).

In transformers some channels behind a normalization are larger than the others by orders of magnitude, and a scale for the
whole tensor has no room for the rest. Channel j is divided by s_j where the normalization multiplies it by a parameter anyway,
and the rows of the weights that read it are multiplied by s_j; nothing changes in the float model. With
s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) both share the burden (Xiao et al., "SmoothQuant: Accurate and Efficient
Post-Training Quantization for Large Language Models", 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .._tvm import relax, tvm
from ..errors import UserError
from ..graph.adopt_module import model_pass
from ..graph.channel_scales import ChannelScale, record_channel_scales
from ..graph.interpreter import Interpreter
from ..graph.module_params import attach_params, detach_params, static_shape
from ..graph.remarks import Remark, add_remarks
from ..graph.view import GraphView

Progress = Callable[[int, int, str], None]
_CHUNK = 32
_SMALLEST = 1e-5


@dataclass(frozen=True)
class _Place:
    """A tensor whose channels, its last axis, can be scaled.

    Attributes:
        tensor: Its name.
        makers: Names of the parameters that multiply and shift it by channel.
        weights: Names of the weights (C, O) that read it.
    """

    tensor: str
    makers: tuple[str, ...]
    weights: tuple[str, ...]


@model_pass("SmoothScales")
class SmoothScales:
    """Move scale from activations to weights behind normalizations; the float result stays.

    Places are results of layer normalizations, of RMS normalizations, and of multiplications and additions by channel, that
    only matrix products with weights of their own read.

    Args:
        inputs: Calibration samples, one array an input, axis 0 the samples.
        alpha: How much of the difference between channels goes to the weights, in [0, 1]: 0.5 shares it, more takes more
            from the activations.
        on_progress: Called with (samples done, samples in all, "").

    Raises:
        UserError: `alpha` is out of range, or there are no samples, or they do not fit.
    """

    def __init__(self, inputs: Sequence[np.ndarray], *, alpha: float = 0.5, on_progress: Progress | None = None) -> None:
        if not 0 <= alpha <= 1:
            raise UserError(f"alpha is a share between 0 and 1, not {alpha}")
        self.inputs = list(inputs)
        self.alpha = alpha
        self.on_progress = on_progress

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with other weights; parameters must be attached, `main` must be in canonical form."""
        places = _Finder(mod).places()
        if not places:
            message = "no normalization has its result read by matrix products alone"
            return add_remarks(mod, [Remark("SmoothScales", "main", message)])
        largest = _largest(mod, self.inputs, {place.tensor for place in places}, self.on_progress)
        bare, params = detach_params(mod)
        scales: dict[str, ChannelScale] = {}
        for place in places:
            weights = [params[name] for name in place.weights]
            scale = smoothing_scales(largest[place.tensor], np.max([np.abs(w).max(1) for w in weights], axis=0), self.alpha)
            scales[place.tensor] = ChannelScale(scale, -1)
            for name in place.makers:
                value = params[name]
                params[name] = (value / scale).astype(value.dtype)
            for name, weight in zip(place.weights, weights):
                params[name] = (weight * scale[:, None]).astype(weight.dtype)
        return record_channel_scales(attach_params(bare, params), scales)


def smoothing_scales(activations: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray:
    """What each channel is divided by.

    Args:
        activations: (C,): the largest value of each channel.
        weights: (C,): the largest weight that reads it.
        alpha: How much goes to the weights.

    Returns:
        float64 (C,), positive; 1 where a channel or its weights are zero.
    """
    x, w = activations.astype(np.float64), weights.astype(np.float64)
    usable = (x > _SMALLEST * x.max(initial=0)) & (w > _SMALLEST * w.max(initial=0))
    return np.where(usable, np.where(usable, x, 1.0) ** alpha / np.where(usable, w, 1.0) ** (1.0 - alpha), 1.0)


def _largest(
    mod: tvm.IRModule, inputs: Sequence[np.ndarray], names: set[str], on_progress: Progress | None
) -> dict[str, np.ndarray]:
    """(C,) by tensor: the largest magnitude of each channel on the samples, which are run in chunks."""
    if not inputs or len(inputs[0]) == 0:
        raise UserError("smoothing needs calibration samples, and none were given")
    found: dict[str, np.ndarray] = {}

    def tap(name: str, value: np.ndarray) -> None:
        if name in names:
            here = np.abs(value).reshape(-1, value.shape[-1]).max(0)
            found[name] = np.maximum(found.get(name, here), here)

    interpreter, count = Interpreter(mod), len(inputs[0])
    for start in range(0, count, _CHUNK):
        try:
            interpreter([array[start : start + _CHUNK] for array in inputs], tap)
        except ValueError as error:
            raise UserError(f"the calibration samples do not fit the model: {error}") from error
        if on_progress is not None:
            on_progress(min(start + _CHUNK, count), count, "")
    return found


class _Finder(GraphView):
    """Finds places."""

    def places(self) -> list[_Place]:
        """All places, in order."""
        found = []
        for var, value in self.values.items():
            makers = self._makers(value) if isinstance(value, relax.Call) else None
            weights = self._weights(var) if makers is not None else None
            if makers is not None and weights:
                found.append(_Place(var.name, makers, weights))
        return found

    def _own(self, expr: relax.Expr, channels: int) -> bool:
        """Whether an operand is a parameter along the last axis that nothing else reads."""
        value = self.params.get(expr) if self.is_alone(expr) else None
        return value is not None and value.shape[-1:] == (channels,) == (value.size,)

    def _makers(self, call: relax.Call) -> tuple[str, ...] | None:
        """The parameters that scale a result by channel of its last axis; None where it is not made so."""
        if not isinstance(call.ty, relax.TensorType) or not static_shape(call):
            return None
        rank, channels, name = len(static_shape(call)), static_shape(call)[-1], call.op.name
        if name in ("relax.nn.layer_norm", "relax.nn.rms_norm"):
            params = tuple(call.args[1:])
            last = [int(axis) % rank for axis in call.attrs.axes] == [rank - 1]
            scaled = name == "relax.nn.rms_norm" or (bool(call.attrs.scale) and bool(call.attrs.center))
            fits = last and scaled and all(self._own(param, channels) for param in params)
            return tuple(param.name for param in params) if fits else None
        if name == "relax.multiply" and self._own(call.args[1], channels):
            return (call.args[1].name,)
        if name == "relax.add" and self._own(call.args[1], channels):
            scaled = self.call(call.args[0]) if self.is_alone(call.args[0]) else None
            if scaled is not None and scaled.op.name == "relax.multiply":
                inner = self._makers(scaled)
                return (*inner, call.args[1].name) if inner is not None else None
        return None

    def _weights(self, var: relax.Var) -> tuple[str, ...] | None:
        """The weights of the matrix products that alone read a tensor; None where something else does."""
        found: list[str] = []
        for reader in self.readers.get(var, []):
            call = self.call(reader)
            if reader.same_as(var) or call is None:
                return None
            if call.op.name == "relax.matmul" and call.args[0].same_as(var):
                weight = call.args[1]
                value = self.params.get(weight) if self.is_alone(weight) else None
                if value is None or value.ndim != 2:
                    return None
                found.append(weight.name)
            elif call.op.name == "relax.reshape" and static_shape(call)[-1:] == static_shape(var)[-1:]:
                inner = self._weights(reader)
                if inner is None:
                    return None
                found.extend(inner)
            else:
                return None
        return tuple(found)
