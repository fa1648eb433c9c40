"""Importance from what flows through the network on calibration samples.

What counts is what the layers that read a group are given, behind activation functions and additions. Statistics are
those of each channel over all samples and positions; one run serves all groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .._tvm import relax, tvm
from ..channels import Group
from ..errors import UserError
from ..graph.interpreter import Interpreter
from ..graph.module_params import param_vars, static_shape
from ..graph.rebuild import bindings
from .importance import CRITERIA, Criterion, SampledCriterion, weight_shares


@dataclass(frozen=True)
class Reader:
    """A layer that reads channels through a weight.

    Attributes:
        tensor: Its input.
        axis: The input's axis of channels.
        weight: Its weight.
        weight_axis: The weight's axis of input channels.
        groups: Groups of a grouped convolution, each of which reads its part of the channels.
    """

    tensor: str
    axis: int
    weight: str
    weight_axis: int
    groups: int


@dataclass(frozen=True)
class ChannelStatistics:
    """Of one tensor along one axis, each float64 (channels,): the mean, the mean magnitude, the mean square, and the
    fraction of values other than zero."""

    mean: np.ndarray
    magnitude: np.ndarray
    square: np.ndarray
    nonzero: np.ndarray


class ActivationCriterion(SampledCriterion):
    """Base of the criteria on statistics of the activations that layers read."""

    def prepare(self, mod: tvm.IRModule) -> Criterion:
        """Run the samples and return the criterion for this module."""
        readers = weight_readers(mod)
        wanted = {(reader.tensor, reader.axis) for group in readers.values() for reader in group}
        statistics = collect_statistics(mod, self.samples, wanted, self.batch)

        def score(group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
            if not any(readers.get(key) for key in group.members):
                return weight_shares(group, params)
            total = np.zeros(group.size)
            for key, index in group.members.items():
                for reader in readers.get(key, ()):
                    channels = self.channels(statistics[reader.tensor, reader.axis], params[reader.weight], reader)
                    if reader.groups > 1:
                        channels = channels.reshape(reader.groups, -1).sum(axis=0)
                    total += channels[index].sum(axis=1)
            return total

        return score

    def channels(self, statistics: ChannelStatistics, weight: np.ndarray, reader: Reader) -> np.ndarray:
        """What each channel means to one reader, float64 (channels,)."""
        raise NotImplementedError


class ActivationMagnitude(ActivationCriterion):
    """The mean magnitude of the activations (Molchanov et al., "Pruning Convolutional Neural Networks for Resource
    Efficient Inference", 2017, section 2.2)."""

    def channels(self, statistics: ChannelStatistics, weight: np.ndarray, reader: Reader) -> np.ndarray:
        return statistics.magnitude


class NonzeroFraction(ActivationCriterion):
    """One less the average percentage of zeros, APoZ (Hu et al., "Network Trimming", 2016)."""

    def channels(self, statistics: ChannelStatistics, weight: np.ndarray, reader: Reader) -> np.ndarray:
        return statistics.nonzero


class OutputEnergy(ActivationCriterion):
    """The share that a unit has in the energy of what the layers compute that read it.

    For each reader the mean square of a channel times the squared norm of the weights that read it, divided by the sum
    over all channels: the relative squared error of the layer's output that zeroing the channel causes, were channels
    uncorrelated. Optimal Brain Damage (LeCun et al., 1990) with the layer's output in the place of the loss.
    """

    def channels(self, statistics: ChannelStatistics, weight: np.ndarray, reader: Reader) -> np.ndarray:
        others = tuple(axis for axis in range(weight.ndim) if axis != reader.weight_axis)
        if reader.groups == 1:
            norms = np.square(weight.astype(np.float64)).sum(axis=others)
        else:
            # Rows of the weight belong to groups in turn: each group's rows read that group's channels.
            parts = np.split(weight.astype(np.float64), reader.groups, axis=0)
            norms = np.concatenate([np.square(part).sum(axis=others) for part in parts])
        energy = statistics.square * norms
        return energy / max(energy.sum(), np.finfo(np.float64).tiny)


def collect_statistics(
    mod: tvm.IRModule, samples: Sequence[np.ndarray], wanted: set[tuple[str, int]], batch: int = 32
) -> dict[tuple[str, int], ChannelStatistics]:
    """Statistics of (tensor, axis) pairs over all samples.

    Args:
        mod: The module, parameter values attached.
        samples: One array an input, axis 0 the samples.
        wanted: Names of tensors with the axis along which channels lie.
        batch: Samples run at a time.

    Raises:
        UserError: The samples do not fit the model's inputs, or hold values that are not finite.
    """

    def moments(value: np.ndarray, axis: int) -> np.ndarray:
        others = tuple(index for index in range(value.ndim) if index != axis)
        wide = value.astype(np.float64)
        return np.stack([moment.sum(axis=others) for moment in (wide, np.abs(wide), np.square(wide), wide != 0)])

    return {key: ChannelStatistics(*means) for key, means in channel_means(mod, samples, wanted, moments, batch).items()}


def channel_means(
    mod: tvm.IRModule,
    samples: Sequence[np.ndarray],
    wanted: set[tuple[str, int]],
    measure: Callable[[np.ndarray, int], np.ndarray],
    batch: int = 32,
) -> dict[tuple[str, int], np.ndarray]:
    """What `measure` adds up over the positions of a tensor, given the axis of its channels, divided by all positions that
    there are; arguments and errors as of `collect_statistics`."""
    sums: dict[tuple[str, int], np.ndarray] = {}
    counts: dict[tuple[str, int], int] = {}
    axes: dict[str, list[int]] = {}
    for name, axis in wanted:
        axes.setdefault(name, []).append(axis)

    def tap(name: str, value: np.ndarray) -> None:
        for axis in axes.get(name, ()):
            sums[name, axis] = sums.get((name, axis), 0) + measure(value, axis)
            counts[name, axis] = counts.get((name, axis), 0) + value.size // value.shape[axis]

    interpreter = Interpreter(mod)
    try:
        for start in range(0, len(samples[0]), batch):
            interpreter([array[start : start + batch] for array in samples], tap)
    except ValueError as error:
        raise UserError(f"the calibration samples cannot be run: {error}") from error
    if not all(np.isfinite(total).all() for total in sums.values()):
        raise UserError("the activations on the calibration samples are not finite; look for NaN in samples and weights")
    return {key: total / counts[key] for key, total in sums.items()}


def weight_readers(mod: tvm.IRModule) -> dict[tuple[str, int], list[Reader]]:
    """For each weight's axis of input channels the layers that read channels through it."""
    params = {var: var.name for var in param_vars(mod["main"])}
    found: dict[tuple[str, int], list[Reader]] = {}
    for _, call in bindings(mod["main"]):
        name = getattr(call.op, "name", "") if isinstance(call, relax.Call) else ""
        make: Callable[[relax.Call, str], Reader | None] | None = _READERS.get(name)
        if make is None or call.args[1] not in params or not isinstance(call.args[0], relax.Var):
            continue
        reader = make(call, params[call.args[1]])
        if reader is not None:
            found.setdefault((reader.weight, reader.weight_axis), []).append(reader)
    return found


def _convolution(call: relax.Call, weight: str) -> Reader | None:
    data, kernel = str(call.attrs.data_layout), str(call.attrs.kernel_layout)
    if "C" not in data or (kernel.index("O") != 0 and int(call.attrs.groups) > 1):
        return None
    return Reader(call.args[0].name, data.index("C"), weight, kernel.index("I"), int(call.attrs.groups))


def _matmul(call: relax.Call, weight: str) -> Reader | None:
    rank = len(static_shape(call.args[1]))
    return Reader(call.args[0].name, len(static_shape(call.args[0])) - 1, weight, max(rank - 2, 0), 1)


_READERS: dict[str, Callable[[relax.Call, str], Reader | None]] = {
    "relax.nn.conv1d": _convolution,
    "relax.nn.conv2d": _convolution,
    "relax.nn.conv3d": _convolution,
    "relax.nn.conv1d_transpose": _convolution,
    "relax.nn.conv2d_transpose": _convolution,
    "relax.matmul": _matmul,
}

CRITERIA["activation"] = ActivationMagnitude
CRITERIA["apoz"] = NonzeroFraction
CRITERIA["output_energy"] = OutputEnergy
