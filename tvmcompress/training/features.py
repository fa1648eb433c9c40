"""What layers of a compressed network give, beside what the same layers give in the network that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..model import Model
from ..passes.graph.surgery import Channels
from ..passes.repair.reconstruct import repaired_outputs
from .backend import Tensor, load_torch


@dataclass(frozen=True)
class _Pair:
    """One tensor.

    Attributes:
        name: In both networks.
        axis: Of its channels.
        kept: What is left of the teacher's channels; None for all.
    """

    name: str
    axis: int
    kept: Channels | None


class Features:
    """Some of the tensors that `Reconstruct` restores, as far as both networks have them: of residual networks the sums, which
    all that follows reads, of others the results of layers behind their bias; before an activation, so that what it cuts off
    is learned too.

    Args:
        model: What learns.
        teacher: What it was made from: its layers have the same names.
    """

    def __init__(self, model: Model, teacher: Model) -> None:
        self._torch = load_torch()
        theirs = {name: shape for name, _, shape, _ in repaired_outputs(teacher.module)}
        self._pairs = []
        for name, axis, shape, kept in repaired_outputs(model.module, sums=True):
            there = theirs.get(name)
            if there is None or len(there) != len(shape):
                continue
            left = there if kept is None else tuple(len(kept.positions) if a == axis else n for a, n in enumerate(there))
            if left[1:] == shape[1:] and (kept is None or kept.positions[-1] < there[axis]):
                self._pairs.append(_Pair(name, axis, kept))
        self._sizes: list[Tensor | None] = [None] * len(self._pairs)
        self._index = [None if pair.kept is None else self._torch.from_numpy(pair.kept.positions) for pair in self._pairs]
        self._means = [
            self._torch.from_numpy(pair.kept.matrix(theirs[pair.name][pair.axis])) if pair.kept and pair.kept.means else None
            for pair in self._pairs
        ]

    @property
    def names(self) -> list[str]:
        """The tensors to look at, in both networks."""
        return [pair.name for pair in self._pairs]

    def __call__(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """The mean of the squared errors, each relative to the mean square of what was wanted in the first batch.

        Args:
            found: The tensors of `names` in the network that learns.
            wanted: The same in the teacher.
        """
        total = self._torch.zeros(())
        for place, (pair, index, value, target) in enumerate(zip(self._pairs, self._index, found, wanted)):
            means = self._means[place]
            if means is not None:
                target = (target.movedim(pair.axis, -1) @ means.T.to(target)).movedim(-1, pair.axis)
            elif index is not None:
                target = target.index_select(pair.axis, index)
            size = self._sizes[place]
            if size is None:
                size = self._sizes[place] = target.square().mean().clamp_min(1e-12)
            total = total + self._torch.nn.functional.mse_loss(value, target) / size
        return total / max(len(self._pairs), 1)
