"""Steps along orthogonal matrices: every direction in which a layer's weights can change is changed as much as any other.

Importing this module imports PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from .backend import Tensor

_STEPS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial a x + b x³ + c x⁵, which brings singular values of up to 1 to about 1 (0.7 to 1.2) in so many steps."""

_SIZE = 0.3
"""The root mean square of a step, in units of the rate: about that of Adam's, so that both learn at the same rates (Liu et al.,
"Muon is Scalable for LLM Training", 2025, section 2.2)."""

_SECOND_MOMENT, _TINY = 0.999, 1e-8


class Muon(torch.optim.Optimizer):
    """Momentum whose singular values are all made about one (Jordan et al., "Muon: An optimizer for hidden layers in neural
    networks", 2024), for matrices and for kernels of convolutions, whose rows are their outputs; Adam for what is neither:
    biases, scales and depthwise kernels.

    Args:
        groups: Of parameters, each with its rate "lr".
        momentum: Of both, Adam's first moment, in [0, 1).
        weight_decay: Decoupled from the gradient, as in AdamW.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(list(groups), {"momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Change the parameters by their gradients; there is no closure to evaluate."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._change(weight, weight.grad, group)

    def _change(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[weight], group["momentum"]
        if not state:
            state |= {"step": 0, "first": torch.zeros_like(weight)}
        state["step"] += 1
        first = state["first"].lerp_(gradient, 1 - momentum)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        if is_matrix(weight):
            # Nesterov's: where the momentum would be after one more such gradient.
            wanted = gradient.lerp(first, momentum)
            matrix = orthogonal(wanted.reshape(len(weight), -1))
            weight.add_(matrix.reshape(weight.shape), alpha=-group["lr"] * _SIZE * max(matrix.shape) ** 0.5)
            return
        second = state.setdefault("second", torch.zeros_like(weight))
        second.mul_(_SECOND_MOMENT).addcmul_(gradient, gradient, value=1 - _SECOND_MOMENT)
        deviation = (second / (1 - _SECOND_MOMENT ** state["step"])).sqrt_().add_(_TINY)
        weight.addcdiv_(first, deviation, value=-group["lr"] / (1 - momentum ** state["step"]))


def is_matrix(weight: Tensor) -> bool:
    """Whether a parameter maps several values to several others."""
    return weight.ndim >= 2 and weight.shape[0] > 1 and weight.shape[1] > 1


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix with about the singular vectors of another one and singular values of about one, by Newton and Schulz's
    iteration; zero stays zero.

    Args:
        matrix: (rows, columns).
    """
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if tall else matrix
    found = found / found.norm().clamp_min(1e-30)
    a, b, c = _COEFFICIENTS
    for _ in range(_STEPS):
        square = found @ found.T
        found = a * found + (b * square + c * square @ square) @ found
    return found.T if tall else found
