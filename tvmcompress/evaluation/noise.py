"""The noise that compression puts on each layer: where a model loses its accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, WithJsonSchema

from ..data.dataset import DataLike, Dataset, load_data
from ..model import Model
from ..passes._tvm import relax, tvm
from ..passes.graph.channel_scales import get_channel_scales
from ..passes.graph.decode_weights import is_stored_weight
from ..passes.graph.interpreter import Interpreter
from ..passes.graph.module_params import param_vars, static_shape
from ..passes.graph.rebuild import bindings
from ..passes.graph.surgery import get_surgery
from ..passes.lowering.lower_qdq import get_scales

_SAMPLES = 32
_BATCH = 8


_DECIBELS = {"anyOf": [{"type": "number"}, {"const": "Infinity"}]}
"""What is written as JSON, which has no infinite numbers."""


class LayerNoise(BaseModel):
    """One layer of two versions of a model.

    Attributes:
        name: The tensor compared, as both versions call it.
        op: The operator that computes it in the original.
        snr_db: Signal-to-noise ratio in dB, 10 log10(sum original^2 / sum (compressed - original)^2); infinite where
            they are equal.
        channels: Channels compared, those that pruning kept.
        of_channels: Channels of the original.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    name: str
    op: str
    snr_db: Annotated[float, WithJsonSchema(_DECIBELS, mode="serialization")]
    channels: int
    of_channels: int


def layer_noise(reference: Model, model: Model, data: DataLike | Dataset, *, samples: int = _SAMPLES) -> list[LayerNoise]:
    """Compare two versions of a model layer by layer on the same inputs.

    Layers are matched by the names of their tensors, which passes keep; of a pruned layer the channels kept are
    compared, and integers as the real numbers that they stand for. A tensor that only one version has, or whose
    channels cannot be matched, is left out.

    Args:
        reference: The original, float.
        model: A version of it: pruned, quantized (QDQ or integer), or both.
        data: Samples; see `tvmcompress.data.load_data`.
        samples: How many to use at most.
    """
    dataset = load_data(data, reference.inputs, limit=samples)
    ops = {var.name: value for var, value in bindings(reference.module["main"]) if isinstance(value, relax.Call)}
    read = _Reader(model.module)
    sums: dict[str, _Sums] = {}
    first, second = Interpreter(reference.module), Interpreter(model.module)
    for batch in dataset.batches(_BATCH):
        values: dict[str, np.ndarray] = {}

        def keep(name: str, value: np.ndarray, values: dict[str, np.ndarray] = values) -> None:
            if name in ops and name in read.kept:
                values[name] = value

        def compare(name: str, value: np.ndarray, values: dict[str, np.ndarray] = values) -> None:
            if name in values:
                sums.setdefault(name, _Sums()).add(values[name], read.real(name, value), read.kept[name])

        first(batch, keep)
        second(batch, compare)
    return [
        LayerNoise(
            name=name,
            op=getattr(ops[name].op, "name", "").removeprefix("relax.").removeprefix("nn."),
            snr_db=decibel(sums[name].signal, sums[name].noise),
            channels=sums[name].channels,
            of_channels=sums[name].of_channels,
        )
        for name in ops
        if name in sums and sums[name].of_channels
    ]


@dataclass
class _Sums:
    """Energies of a tensor and of its error, over batches."""

    signal: float = 0.0
    noise: float = 0.0
    channels: int = 0
    of_channels: int = 0

    def add(self, original: np.ndarray, value: np.ndarray | None, kept: np.ndarray | None) -> None:
        if value is None or value.ndim != original.ndim or original.ndim == 0:
            return
        axis = channel_axis(original.ndim)
        total = original.shape[axis]
        if kept is not None:
            original = original.take(kept, axis)
        if original.shape != value.shape:
            return
        self.channels, self.of_channels = original.shape[axis], total
        self.signal += float(np.square(original, dtype=np.float64).sum())
        self.noise += float(np.square(value - original, dtype=np.float64).sum())


class _Reader:
    """What the tensors of a module are in terms of the original: real numbers, channels first.

    Attributes:
        kept: For every tensor the channels of the unpruned model that it still has; None where it has all.
    """

    def __init__(self, mod: tvm.IRModule) -> None:
        self.scales = get_scales(mod)
        self.divided = get_channel_scales(mod)
        self.kept: dict[str, np.ndarray | None] = {}
        report = get_surgery(mod)
        self._positions = {} if report is None else report.kept_positions()
        self._shapes = {} if report is None else report.shapes
        # The weights of a module in QDQ form are read through a dequantize, stored ones through what widens them.
        self._weights = {var: var.name for var in param_vars(mod["main"])}
        for var, value in bindings(mod["main"]):
            self.kept[var.name] = None
            if isinstance(value, relax.Call) and isinstance(var.ty, relax.TensorType):
                decodes = value.op.name == "relax.dequantize" or is_stored_weight(value)
                if decodes and value.args[0] in self._weights:
                    self._weights[var] = self._weights[value.args[0]]
                else:
                    self.kept[var.name] = self._find(var, value)

    def real(self, name: str, value: np.ndarray) -> np.ndarray | None:
        """A tensor's value as the original would have it, real and channels first; None where that is not known."""
        divided = self.divided.get(name)
        if value.dtype.kind == "f":
            return value if divided is None else divided.undone(value)
        affine = self.scales.get(name)
        if affine is None:
            return None
        real = (value.astype(np.float32) - np.float32(affine.zero_point)) * np.float32(affine.scale)
        if divided is not None and divided.axis == -1:
            real = divided.undone(real)
        real = np.moveaxis(real, -1, 1) if real.ndim >= 3 else real
        return divided.undone(real) if divided is not None and divided.axis == 1 else real

    def _find(self, var: relax.Var, call: relax.Call) -> np.ndarray | None:
        """The channels left: those of its weight, or of an operand that has as many."""
        shape = static_shape(var)
        if not shape:
            return None
        channels = shape[-1] if var.name in self.scales else shape[channel_axis(len(shape))]
        for arg in call.args:
            name = self._weights.get(arg) if isinstance(arg, relax.Var) else None
            rank = len(self._shapes.get(name, ())) if name is not None else 0
            index = self._positions.get((name, 1 if rank == 2 else 0)) if name is not None and rank >= 2 else None
            if index is not None and len(index) == channels:
                return index
        for arg in call.args:
            index = self.kept.get(arg.name) if isinstance(arg, relax.Var) else None
            if index is not None and len(index) == channels:
                return index
        return None


def channel_axis(rank: int) -> int:
    """The axis of the channels of a tensor in canonical form."""
    return 1 if rank >= 3 else rank - 1


def decibel(signal: float, noise: float) -> float:
    """10 log10(signal / noise)."""
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(max(signal, 1e-30) / noise))
