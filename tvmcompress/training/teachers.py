"""What a network learns from besides labels: other networks' outputs, and what goes on inside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import UserError
from ..model import Model
from .backend import Tensor, load_torch
from .bridge import TorchModel


class Teachers:
    """One or several networks in PyTorch, whose outputs count as one: their mean, which for logits is the geometric mean of the
    predictions (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, on ensembles).

    Args:
        models: With the inputs and outputs of the network that learns; its architecture may be another.
        layers: Variables of the first one whose values are wanted too.

    Raises:
        UserError: There is no such variable.
        MissingToolError: PyTorch is not installed.
    """

    def __init__(self, models: Sequence[Model], layers: Sequence[str] = ()) -> None:
        self.networks = [TorchModel(model.module) for model in models]
        self.networks[0].tap(layers, "the teacher")

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """The outputs, and behind them the values that were asked for."""
        outputs = [network(*inputs) for network in self.networks]
        mean = outputs[0]
        if len(outputs) > 1:
            mean = [sum(values) / len(outputs) if values[0].is_floating_point() else values[0] for values in zip(*outputs)]
        return [*mean, *self.networks[0].tapped()]


class Hints:
    """Layers that shall come close to layers of the teacher (Romero et al., "FitNets: Hints for Thin Deep Nets", 2015).

    Where the numbers of channels differ, a linear map between them is learned, which is thrown away in the end.

    Args:
        layers: By the learning network's variable, the teacher's.
        found: Values of the one's, in that order.
        wanted: Values of the other's.

    Attributes:
        maps: The linear maps, by name.

    Raises:
        UserError: Shapes differ in more than the channels.
    """

    def __init__(self, layers: Mapping[str, str], found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
        self._torch = load_torch()
        self.maps: dict[str, Tensor] = {}
        self._axes: list[tuple[str, int] | None] = []
        for (own, other), value, target in zip(layers.items(), found, wanted):
            shapes = tuple(value.shape), tuple(target.shape)
            differ = [] if value.ndim != target.ndim else [axis for axis, (a, b) in enumerate(zip(*shapes)) if a != b]
            if value.ndim != target.ndim or len(differ) > 1 or differ == [0]:
                raise UserError(
                    f"layer '{own}' gives {shapes[0][1:]} a sample and the teacher's '{other}' {shapes[1][1:]}; "
                    "hints are between layers that differ in their channels alone"
                )
            if not differ:
                self._axes.append(None)
                continue
            name, axis = f"hint.{len(self._axes)}", differ[0]
            generator = self._torch.Generator().manual_seed(len(self._axes))
            start = self._torch.randn(target.shape[axis], value.shape[axis], generator=generator) / value.shape[axis] ** 0.5
            self.maps[name] = start.requires_grad_(True)
            self._axes.append((name, axis))

    def __call__(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """The mean of the squared errors, each relative to the mean square of what is wanted."""
        total = self._torch.zeros(())
        for place, value, target in zip(self._axes, found, wanted):
            if place is not None:
                moved = self._torch.tensordot(value, self.maps[place[0]], dims=([place[1]], [1]))
                value = moved.movedim(-1, place[1])
            total = total + (value - target).square().mean() / target.square().mean().clamp_min(1e-12)
        return total / len(self._axes)
