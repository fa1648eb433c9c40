"""The noise that compression puts on each layer: where a model loses its accuracy."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from .data import DataLike, Dataset, load_data
from .model import Model
from .passes._tvm import relax, tvm
from .passes.interpreter import Interpreter
from .passes.module_params import param_vars, static_shape
from .passes.rebuild import bindings
from .passes.surgery import get_surgery

_SAMPLES = 32
_BATCH = 8


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
    snr_db: float
    channels: int
    of_channels: int


def layer_noise(
    reference: Model, model: Model, data: DataLike | Dataset, *, samples: int = _SAMPLES
) -> list[LayerNoise]:
    """Compare two versions of a model layer by layer on the same inputs.

    Layers are matched by the names of their tensors, which passes keep; of a pruned layer the channels kept are
    compared. A tensor that only one version has, or whose channels cannot be matched, is left out.

    Args:
        reference: The original.
        model: A version of it: pruned, quantized (QDQ), or both; float tensors are compared.
        data: Samples; see `tvmcompress.data.load_data`.
        samples: How many to use at most.
    """
    dataset = load_data(data, reference.inputs, limit=samples)
    kept = kept_channels(model.module)
    ops = {var.name: value for var, value in bindings(reference.module["main"]) if isinstance(value, relax.Call)}
    wanted = [name for name in ops if name in kept]
    signal = dict.fromkeys(wanted, 0.0)
    noise = dict.fromkeys(wanted, 0.0)
    counts: dict[str, tuple[int, int]] = {}
    first, second = Interpreter(reference.module), Interpreter(model.module)
    for batch in dataset.batches(_BATCH):
        values: dict[str, np.ndarray] = {}
        first(batch, lambda name, value: values.update({name: value}) if name in signal else None)  # noqa: B023

        def compare(name: str, value: np.ndarray) -> None:
            original = values.get(name)  # noqa: B023
            if original is None or value.dtype.kind != "f" or value.ndim != original.ndim:
                return
            axis = channel_axis(value.ndim)
            index = kept[name]
            total = original.shape[axis]
            if index is not None:
                original = original.take(index, axis)
            if original.shape != value.shape:
                return
            counts[name] = (original.shape[axis], total)
            signal[name] += float(np.square(original, dtype=np.float64).sum())
            noise[name] += float(np.square(value - original, dtype=np.float64).sum())

        second(batch, compare)
    return [
        LayerNoise(
            name=name,
            op=getattr(ops[name].op, "name", "").removeprefix("relax.").removeprefix("nn."),
            snr_db=decibel(signal[name], noise[name]),
            channels=counts[name][0],
            of_channels=counts[name][1],
        )
        for name in wanted
        if name in counts
    ]


def channel_axis(rank: int) -> int:
    """The axis of the channels of a tensor in canonical form."""
    return 1 if rank >= 3 else rank - 1


def kept_channels(mod: tvm.IRModule) -> dict[str, np.ndarray | None]:
    """For every tensor the channels of the unpruned model that it still has; None where it has all.

    Channels are followed from each layer through the operators behind it that leave them in place. A tensor in which
    that cannot be seen keeps its entry None, and does not fit the original's shape.
    """
    report = get_surgery(mod)
    positions = {} if report is None else report.kept_positions()
    params = set(param_vars(mod["main"]))
    found: dict[str, np.ndarray | None] = {}
    for var, value in bindings(mod["main"]):
        found[var.name] = _kept(var, value, params, positions, found)
    return found


def _kept(
    var: relax.Var,
    value: relax.Expr,
    params: set[relax.Var],
    positions: dict[tuple[str, int], np.ndarray],
    found: dict[str, np.ndarray | None],
) -> np.ndarray | None:
    if not isinstance(value, relax.Call) or not isinstance(var.ty, relax.TensorType):
        return None
    shape = static_shape(var)
    if not shape:
        return None
    channels = shape[channel_axis(len(shape))]
    for arg in value.args:
        weight = _weight(arg, params)
        if weight is not None:
            rank = len(static_shape(weight))
            index = positions.get((weight.name, rank - 1 if rank == 2 else 0))
            if index is not None and len(index) == channels:
                return index
    for arg in value.args:
        index = found.get(arg.name) if isinstance(arg, relax.Var) else None
        if index is not None and len(index) == channels:
            return index
    return None


def _weight(arg: relax.Expr, params: set[relax.Var]) -> relax.Var | None:
    """The parameter that an argument is, if it has the rank of a weight."""
    if isinstance(arg, relax.Var) and arg in params and len(static_shape(arg)) >= 2:
        return arg
    return None


def decibel(signal: float, noise: float) -> float:
    """10 log10(signal / noise)."""
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(max(signal, 1e-30) / noise))
