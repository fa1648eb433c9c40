"""Smoothing: outliers of activations moved into the weights that read them (SmoothQuant).

In transformers some channels behind a normalization are larger than the others by orders of magnitude, and a scale for the
whole tensor has no room for the rest. Channel j is divided by s_j where the normalization multiplies it by a parameter anyway,
and the rows of the weights that read it are multiplied by s_j; nothing changes in the float model. With
s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) both share the burden (Xiao et al., "SmoothQuant: Accurate and Efficient
Post-Training Quantization for Large Language Models", 2023). In convolutional networks the same is done behind instance and
group normalizations, and batch normalizations that no layer could take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from .weight_inputs import HOMOGENEOUS, along_inputs, input_ranges

Progress = Callable[[int, int, str], None]
_CHUNK = 32
_SMALLEST = 1e-5
FAR_APART = 8.0
"""How many times larger the largest gain of a normalization is than the smallest where int8 has lost 3 of its bits to it."""

_NORMALIZATIONS = ("relax.nn.layer_norm", "relax.nn.rms_norm", "relax.nn.instance_norm", "relax.nn.group_norm")
_CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")


@dataclass(frozen=True)
class _Place:
    """A tensor whose channels can be scaled.

    Attributes:
        tensor: Its name.
        axis: Of the channels: 1, or -1 for the last.
        makers: Names of the parameters that multiply and shift it by channel.
        readers: The weights that read it: their names, and the groups of the convolution, None for a matrix product.
        scaled: Names of all tensors whose channels are scaled with it.
    """

    tensor: str
    axis: int
    makers: tuple[str, ...]
    readers: tuple[tuple[str, int | None], ...]
    scaled: tuple[str, ...]


@model_pass("SmoothScales")
class SmoothScales:
    """Move scale from activations to weights behind normalizations; the float result stays.

    Places are results of layer, RMS, instance and group normalizations, and of multiplications and additions by channel, that
    only matrix products and convolutions with weights of their own read, at once or behind a ReLU or a pooling.

    Args:
        inputs: Calibration samples, one array an input, axis 0 the samples.
        alpha: How much of the difference between channels goes to the weights, in [0, 1]: 0.5 shares it, more takes more
            from the activations.
        apart: Places where the largest gain of a channel is at most so many times the smallest are left.
        on_progress: Called with (samples done, samples in all, "").

    Raises:
        UserError: `alpha` is out of range, or there are no samples, or they do not fit.
    """

    def __init__(
        self, inputs: Sequence[np.ndarray], *, alpha: float = 0.5, apart: float = 1.0, on_progress: Progress | None = None
    ) -> None:
        if not 0 <= alpha <= 1:
            raise UserError(f"alpha is a share between 0 and 1, not {alpha}")
        if apart < 1:
            raise UserError(f"apart is how many times larger a gain is than another, at least 1, not {apart}")
        self.inputs = list(inputs)
        self.alpha = alpha
        self.apart = apart
        self.on_progress = on_progress

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module with other weights; parameters must be attached, `main` must be in canonical form."""
        places = _Finder(mod).places(self.apart)
        if not places:
            message = "no normalization has its result read by matrix products and convolutions alone"
            return add_remarks(mod, [Remark("SmoothScales", "main", message)])
        axes = {place.tensor: place.axis for place in places}
        largest = _largest(mod, self.inputs, axes, self.on_progress)
        bare, params = detach_params(mod)
        scales: dict[str, ChannelScale] = {}
        for place in places:
            met = np.max([input_ranges(params[name], groups) for name, groups in place.readers], axis=0)
            scale = smoothing_scales(largest[place.tensor], met, self.alpha)
            scales |= dict.fromkeys(place.scaled, ChannelScale(scale, place.axis))
            for name in place.makers:
                value = params[name]
                params[name] = (value / scale.reshape(value.shape)).astype(value.dtype)
            for name, groups in place.readers:
                params[name] = (params[name] * along_inputs(scale, params[name], groups)).astype(params[name].dtype)
        return record_channel_scales(attach_params(bare, params), scales)


def gains_far_apart(mod: tvm.IRModule) -> bool:
    """Whether there are places for `SmoothScales` where gains of channels lie further apart than `FAR_APART`."""
    return bool(_Finder(mod).places(FAR_APART))


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
    mod: tvm.IRModule, inputs: Sequence[np.ndarray], axes: Mapping[str, int], on_progress: Progress | None
) -> dict[str, np.ndarray]:
    """(C,) by tensor: the largest magnitude of each channel on the samples, which are run in chunks.

    `axes` has the channels' axis of each tensor that is wanted.
    """
    if not inputs or len(inputs[0]) == 0:
        raise UserError("smoothing needs calibration samples, and none were given")
    found: dict[str, np.ndarray] = {}

    def tap(name: str, value: np.ndarray) -> None:
        if name in axes:
            here = np.moveaxis(np.abs(value), axes[name], -1).reshape(-1, value.shape[axes[name]]).max(0)
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

    def places(self, apart: float) -> list[_Place]:
        """All places whose gains lie further apart, in order."""
        return [place for var, value in self.values.items() if (place := self._place(var, value, apart)) is not None]

    def _place(self, var: relax.Var, value: relax.Expr, apart: float) -> _Place | None:
        made = self._makers(value) if isinstance(value, relax.Call) else None
        if made is None:
            return None
        axis, makers, scaled = made
        gains = np.sum([np.abs(self.params[param]).reshape(-1) for param in makers], axis=0)
        gains = gains[gains > _SMALLEST * gains.max(initial=0)]
        read = self._readers(var, axis) if gains.size and gains.max() >= apart * gains.min() else None
        if not read:
            return None
        readers, behind = read
        names = tuple(tensor.name for tensor in (*scaled, var, *behind))
        return _Place(var.name, axis, tuple(param.name for param in makers), readers, names)

    def _own(self, expr: relax.Expr, channels: int) -> bool:
        """Whether an operand is a vector by channel, a parameter that nothing else reads."""
        value = self.params.get(expr) if self.is_alone(expr) else None
        return value is not None and value.size == channels and max(value.shape, default=0) == channels

    def _makers(self, call: relax.Call) -> tuple[int, list[relax.Var], list[relax.Var]] | None:
        """The channels' axis of a result, the parameters that scale it by channel, and the tensors before it that they scale;
        None where it is not made so."""
        if not isinstance(call.ty, relax.TensorType) or not static_shape(call):
            return None
        shape, name = static_shape(call), call.op.name
        if name in _NORMALIZATIONS:
            axis = -1
            if name in ("relax.nn.instance_norm", "relax.nn.group_norm"):
                axis = self._channels(int(call.attrs.channel_axis), len(shape))
            elif [int(axis) % len(shape) for axis in call.attrs.axes] != [len(shape) - 1]:
                return None
            params = list(call.args[1:])
            scaled = name == "relax.nn.rms_norm" or (bool(call.attrs.scale) and bool(call.attrs.center))
            fits = axis and scaled and all(self._own(param, shape[axis]) for param in params)
            return (axis, params, []) if fits else None
        if name not in ("relax.multiply", "relax.add"):
            return None
        axis = self._axis_of(call.args[1], shape)
        if not axis or not self._own(call.args[1], shape[axis]):
            return None
        if name == "relax.multiply":
            return (axis, [call.args[1]], [])
        before = self.call(call.args[0]) if self.is_alone(call.args[0]) else None
        inner = self._makers(before) if before is not None and before.op.name == "relax.multiply" else None
        return (axis, [*inner[1], call.args[1]], [call.args[0]]) if inner is not None and inner[0] == axis else None

    def _axis_of(self, param: relax.Expr, shape: tuple[int, ...]) -> int:
        """The axis along which a parameter has values; 0 where it is not that of channels."""
        value = self.params.get(param)
        if value is None or value.size < 2 or value.ndim > len(shape):
            return 0
        places = [place for place, size in enumerate(value.shape, start=len(shape) - value.ndim) if size > 1]
        return self._channels(places[0], len(shape)) if len(places) == 1 else 0

    @staticmethod
    def _channels(axis: int, rank: int) -> int:
        """1, or -1 for the last; 0 for another one."""
        return -1 if axis % rank == rank - 1 else 1 if axis == 1 else 0

    def _readers(self, var: relax.Var, axis: int) -> tuple[tuple[tuple[str, int | None], ...], list[relax.Var]] | None:
        """The weights that alone read a tensor, and the tensors between; None where something else does."""
        found: list[tuple[str, int | None]] = []
        between: list[relax.Var] = []
        for reader in self.readers.get(var, []):
            call = self.call(reader)
            if reader.same_as(var) or call is None:
                return None
            name, shape = call.op.name, static_shape(var)
            last = axis == -1 or axis == len(shape) - 1
            if (name == "relax.matmul" and last) or (name in _CONVOLUTIONS and axis % len(shape) == 1):
                weight = call.args[1]
                value = self.params.get(weight) if self.is_alone(weight) else None
                matrix = name == "relax.matmul"
                plain = matrix or (call.attrs.data_layout.startswith("NC") and call.attrs.kernel_layout.startswith("OI"))
                if value is None or not plain or not call.args[0].same_as(var) or (matrix and value.ndim != 2):
                    return None
                found.append((weight.name, None if matrix else int(call.attrs.groups)))
                continue
            same = name == "relax.reshape" and last and static_shape(call)[-1:] == shape[-1:]
            inner = self._readers(reader, -1 if same else axis) if same or self._passes(call, axis) else None
            if inner is None:
                return None
            found.extend(inner[0])
            between.extend([reader, *inner[1]])
        return tuple(found), between

    @staticmethod
    def _passes(call: relax.Call, axis: int) -> bool:
        """Whether scales of channels go through an operator."""
        return call.op.name in HOMOGENEOUS and ("pool" not in call.op.name or axis % len(static_shape(call)) == 1)
