"""How the weights of one block are rounded: learned by descent, and kept if the block is better on samples held back.

The block's outputs, its layers together, are to be those of the float network (Li et al., "BRECQ: Pushing the Limit of
Post-Training Quantization by Block Reconstruction", 2021). The steps of its activations are learned with the rounding (Esser et
al., "Learned Step Size Quantization", 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..passes.repair.soft_rounding import exponent
from .backend import Tensor, load_torch
from .block_targets import BlockTargets, chunks, pick
from .quantized_blocks import QuantizedBlock
from .soft_network import SoftNetwork, Values, share


@dataclass(frozen=True)
class RoundingOptions:
    """How blocks are learned.

    Attributes:
        iterations: Steps of Adam in each block.
        batch: Samples in each step.
        learning_rate: Of the rounding.
        step_rate: Of the steps of activations, relative to their size; 0 leaves them.
        strength: Of the regularizer, beside an error of the size that the block begins with.
        drop: With which probability a value stays unrounded while it is learned.
        fisher: Whether errors count by the squared gradient of the float network's loss, as BRECQ has it.
        seed: Of every choice; the same seed on the same number of threads gives the same integers.

    Raises:
        UserError: An option is out of range.
    """

    iterations: int = 500
    batch: int = 32
    learning_rate: float = 0.02
    step_rate: float = 0.002
    strength: float = 1.0
    drop: float = 0.5
    fisher: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.iterations, self.batch) < 1 or not min(self.learning_rate, self.strength) > 0 or not self.step_rate >= 0:
            raise UserError("rounding by blocks needs iterations, a batch, a learning rate and a strength above 0")
        if not 0 <= self.drop < 1:
            raise UserError(f"drop is a probability below 1, not {self.drop}")


class BlockDescent:
    """One block, and what is known of it when it is learned.

    Args:
        options: How it is learned.
        network: Its weights and steps are changed.
        block: The block.
        number: Its place in the network, for what is drawn.
        read: What it reads in the quantized network, of all samples.
        targets: What it is to come close to.
        learned: The numbers of the samples that are learned from.
        held: Of those that judge.
    """

    def __init__(
        self,
        options: RoundingOptions,
        network: SoftNetwork,
        block: QuantizedBlock,
        number: int,
        read: Values,
        targets: BlockTargets,
        learned: np.ndarray,
        held: np.ndarray,
    ) -> None:
        self._torch = load_torch()
        self._options, self._network, self._block, self._number = options, network, block, number
        self._read, self._targets = {var: read[var] for var in block.reads}, targets
        self._learned, self._held, self._samples = learned, held, len(learned) + len(held)
        self._grids = [layer.weight for layer in block.layers]
        self._scales = {var: max(float(value.square().mean()), 1e-12) for var, value in targets.wanted.items()}

    def learn(self, taken: set[str], on_step: Callable[[int], None]) -> str | None:
        """Round the weights of the block anew.

        Args:
            taken: The steps of activations that other blocks rely on.
            on_step: Told how many steps of the descent are done.

        Returns:
            Why the block stays as it was, if it does: a clause.
        """
        if not self._targets.wanted:
            return "the float model has no result of its block"
        network, options = self._network, self._options
        steps = sorted(network.steps_of(self._block) - taken) if options.step_rate else []
        tensors = {name: network.tensors[name] for name in (*(grid.parameter.name for grid in self._grids), *steps)}
        real = _copies(tensors)
        for grid in self._grids:
            network.put_nearest(grid)
        before = _copies(tensors)
        error, begun = self._judged(self._held), self._judged(self._learned)
        if not (math.isfinite(error) and math.isfinite(begun)):
            return "its block has results that are not finite; it keeps its rounding"
        if begun == 0:
            return None
        self._put(tensors, real)
        finite = self._descend([network.tensors[name] for name in steps], begun, on_step)
        for grid in self._grids:
            network.harden(grid)
        if not finite:
            self._put(tensors, before)
            return "its loss became infinite; it keeps its rounding"
        if not self._judged(self._held) < error:
            self._put(tensors, before)
            return "its block is no better on samples held back; it keeps its rounding"
        return None

    def _put(self, tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        with self._torch.no_grad():
            for name, value in values.items():
                tensors[name].copy_(value)

    def _descend(self, steps: list[Tensor], begun: float, on_step: Callable[[int], None]) -> bool:
        """Learn the rounding, and steps of activations; whether all losses were finite.

        Args:
            steps: Those that may change.
            begun: The error that the block begins with.
            on_step: Told how many steps are done.
        """
        torch, options, network = self._torch, self._options, self._network
        draws = torch.Generator().manual_seed(options.seed * 100_003 + self._number)
        rng = np.random.default_rng([options.seed, self._number])
        rounding = [network.soften(grid) for grid in self._grids]
        groups = [{"params": rounding, "lr": options.learning_rate}]
        rates = [options.step_rate * abs(step.item()) for step in steps]
        groups += [{"params": [step], "lr": rate} for step, rate in zip(steps, rates)]
        adam = torch.optim.Adam(groups)
        count = sum(tensor.numel() for tensor in rounding)

        def some_of(value: Tensor, rounded: Tensor) -> Tensor:
            return torch.where(torch.rand(value.shape, generator=draws) < options.drop, value, rounded)

        network.drop = some_of if options.drop else None
        try:
            for iteration in range(options.iterations):
                some = rng.permutation(self._learned)[: options.batch]
                read = {var: pick(value, some, self._samples) for var, value in self._read.items()}
                for var, value in self._targets.entering.items() if options.drop else ():
                    read[var] = some_of(pick(value, some, self._samples), read[var])
                loss = self._error(network.evaluate(self._block, read, len(some)), some) * (count / begun)
                if (power := exponent(iteration / options.iterations)) is not None:
                    for variable in rounding:
                        loss = loss + options.strength * (1.0 - (2.0 * share(variable) - 1.0).abs().pow(power)).sum()
                if not math.isfinite(float(loss.detach())):
                    return False
                adam.zero_grad(set_to_none=True)
                loss.backward()
                # Steps come to rest, so that the rounding is learned for those that stay.
                cosine = 0.5 * (1.0 + math.cos(math.pi * iteration / options.iterations))
                for group, rate in zip(adam.param_groups[1:], rates):
                    group["lr"] = rate * cosine
                adam.step()
                on_step(iteration + 1)
        finally:
            network.drop = None
        return True

    def _error(self, values: Mapping[object, Tensor], some: np.ndarray) -> Tensor:
        """The mean squared error of the outputs on some samples, each beside the mean square of what is wanted."""
        total = self._torch.zeros(())
        for var, wanted in self._targets.wanted.items():
            error = (values[var] - pick(wanted, some, self._samples)).square()
            if var in self._targets.weights:
                error = error * pick(self._targets.weights[var], some, self._samples)
            total = total + error.mean() / self._scales[var]
        return total

    def _judged(self, samples: np.ndarray) -> float:
        """The error of the block as it is on some samples."""
        total = 0.0
        with self._torch.no_grad():
            for some in chunks(samples):
                read = {var: pick(value, some, self._samples) for var, value in self._read.items()}
                total += float(self._error(self._network.evaluate(self._block, read, len(some)), some)) * len(some)
        return total / len(samples)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
