"""Averages of the weights that training goes through, which are better than most of them."""

from __future__ import annotations

from collections.abc import Mapping

from .backend import Tensor, load_torch

_SLOWEST = 0.998
"""Share of the average that stays in a step, once there were enough."""


PARTS_OF_THE_WAY = (0.25, 0.5, 0.75)
"""Of that from the weights before to those behind training, where what lies between is tried."""

CLEARLY = 0.05
"""What lies between is better if it lowers the loss held back by more than so much of what training has: less than that is the
chance of which samples are held back, and the last weights have learned more."""


def between(before: Mapping[str, Tensor], after: Mapping[str, Tensor], part: float) -> dict[str, Tensor]:
    """Weights on the line from those before to those behind training, which have learned less by heart than these (Wortsman et
    al., "Robust fine-tuning of zero-shot models", 2022).

    Args:
        before: Weights by name.
        after: The same weights.
        part: Of the way, in [0, 1].
    """
    return {name: value.lerp(after[name], part) for name, value in before.items()}


class Average:
    """An exponential average of weights over steps (Polyak and Juditsky, "Acceleration of Stochastic Approximation by
    Averaging", 1992). At the beginning it looks at few steps, so that it soon forgets where training began.

    Args:
        weights: By name; their values now are the average's first.
        steps: How many steps training takes: of few, the average is over fewer.
    """

    def __init__(self, weights: Mapping[str, Tensor], steps: int) -> None:
        self._torch = load_torch()
        self._weights = dict(weights)
        self._slowest = min(_SLOWEST, 1 - 10 / max(steps, 20))
        self.values = {name: tensor.detach().clone() for name, tensor in weights.items()}
        self.count = 0

    def update(self) -> None:
        """Take in the weights as they are now."""
        self.count += 1
        kept = min(self._slowest, (1 + self.count) / (10 + self.count))
        with self._torch.no_grad():
            self._torch._foreach_lerp_(
                list(self.values.values()), [self._weights[name].detach() for name in self.values], 1 - kept
            )
