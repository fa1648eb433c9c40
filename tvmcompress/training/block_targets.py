"""What the float network has in the place of a block's tensors: that which the block is to come close to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..passes._tvm import relax, tvm
from ..passes.graph.module_params import input_vars, static_shape
from ..passes.graph.view import GraphView
from .backend import Tensor, load_torch
from .bridge import TorchModel
from .gradients import SampleLoss
from .quantized_blocks import QuantizedBlock, float_name

_CHUNK = 32


@dataclass(frozen=True, eq=False)
class BlockTargets:
    """Tensors of the float network on all samples, by the variable of the quantized network in whose place they are.

    Attributes:
        entering: Of what a block reads; what the float network has nothing for is left out.
        wanted: Of what a block is to restore.
        weights: How much errors of `wanted` count, each beside the mean; what is not there counts alike.
    """

    entering: dict[relax.Var, Tensor]
    wanted: dict[relax.Var, Tensor]
    weights: dict[relax.Var, Tensor]


class FloatBlocks:
    """The float network, looked at between the blocks of the quantized one.

    Args:
        reference: The float module, parameters attached.
        inputs: All samples, one tensor an input.
        graph: The quantized module.
        fisher: Whether errors count by the squared gradient of the loss that `SampleLoss` is.
        seed: Of that loss.
    """

    def __init__(self, reference: tvm.IRModule, inputs: Sequence[Tensor], graph: GraphView, fisher: bool, seed: int) -> None:
        self._torch = load_torch()
        self._network, self._graph = TorchModel(reference), graph
        self._inputs, self._samples = list(inputs), self._network.samples(inputs)
        self._given = dict(zip((var.name for var in input_vars(reference["main"])), inputs))
        self._computed = {var.name for var in GraphView(reference).values}
        self._fisher, self._seed = fisher, seed

    def targets(self, block: QuantizedBlock) -> BlockTargets:
        """What a block is to come close to; nothing is wanted where the float network has nothing in its place."""
        named = {var: name for var in block.reads if (name := float_name(self._graph, var)) is not None}
        restored = {var: name for name, var in block.targets.items() if name in self._computed}
        names = sorted({name for name in (*named.values(), *restored.values()) if name in self._computed})
        values, squares = self._run(names, sorted(restored.values()) if self._fisher else [])
        values |= self._given
        wanted = {var: values[name] for var, name in restored.items() if is_stacked(values[name], var, self._samples)}
        return BlockTargets(
            {var: values[name] for var, name in named.items() if name in values and self._replaces(values[name], var)},
            wanted,
            {var: squares[name] / squares[name].mean() for var, name in restored.items() if name in squares and var in wanted},
        )

    def _replaces(self, value: Tensor, var: relax.Var) -> bool:
        return value.is_floating_point() and is_stacked(value, var, self._samples)

    def _run(self, names: Sequence[str], differentiated: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Tensors on all samples by name, and the squared gradients of the loss by some of them."""
        torch = self._torch
        self._network.tap(names)
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        squares: dict[str, list[Tensor]] = {name: [] for name in differentiated}
        loss: SampleLoss | None = None
        for some in chunks(np.arange(self._samples)):
            with torch.set_grad_enabled(bool(squares)):
                outputs = self._network(*(pick(value, some, self._samples) for value in self._inputs))
                tapped = dict(zip(names, self._network.tapped()))
                if squares:
                    loss = loss or SampleLoss(outputs, labels=False, seed=self._seed)
                    total = loss(outputs, None).sum()
                    gradients = torch.autograd.grad(total, [tapped[name] for name in squares], allow_unused=True)
                    for name, gradient in zip(squares, gradients):
                        squares[name].append(torch.zeros_like(tapped[name]) if gradient is None else gradient.square())
            for name, value in tapped.items():
                found[name].append(value.detach())
        whole = {name: torch.cat(parts) for name, parts in squares.items()}
        return (
            {name: torch.cat(parts) for name, parts in found.items()},
            {name: value for name, value in whole.items() if float(value.mean()) > 0},
        )


def is_stacked(value: Tensor, var: relax.Var, samples: int) -> bool:
    """Whether a tensor of several samples has their rows one after the other on axis 0, as `pick` takes it.

    Args:
        value: Of all samples.
        var: What one sample has in its place.
        samples: How many there are.
    """
    shape = static_shape(var)
    return len(shape) > 0 and tuple(value.shape) == (samples * shape[0], *shape[1:])


def pick(value: Tensor, some: np.ndarray, samples: int) -> Tensor:
    """A tensor of all samples, of some.

    Args:
        value: Axis 0 the rows of one sample after those of another.
        some: The numbers of the samples.
        samples: How many there are in all.
    """
    rows = len(value) // samples
    chosen = value.reshape(samples, rows, *value.shape[1:])[load_torch().from_numpy(some)]
    return chosen.reshape(len(some) * rows, *value.shape[1:])


def chunks(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Samples, at most so many at a time as fit into memory on their way through a network."""
    yield from np.array_split(samples, -(-len(samples) // _CHUNK))
