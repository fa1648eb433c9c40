"""Importance from gradients: how much the loss would change if a unit were gone, to first and to second order.

Scores are means over samples of what each sample's own gradient says, since the gradients of a trained network cancel
over its data. Which loss is meant, with and without labels, see `SampleLoss`. Importing this module does not import
PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ..passes._tvm import tvm
from ..passes.channels import Group
from ..passes.channels.atoms import Role
from ..passes.pruning.importance import CRITERIA, Criterion, SampledCriterion, unit_values, weight_members
from .backend import Tensor, load_torch
from .bridge import TorchModel
from .gradients import sample_gradients


class GradientCriterion(SampledCriterion):
    """Base of the criteria on gradients. Another package's is a subclass, named in the entry points `tvmcompress.criteria`.

    Args:
        samples: Calibration samples, one array an input of the model, axis 0 the samples.
        labels: The class of each sample, integers (samples,), where known.
        seed: For the draws where there are no labels.

    Raises:
        MissingToolError: PyTorch is not installed.
        UserError: There are no samples.
    """

    name: ClassVar[str]

    def __init__(self, samples: Sequence[np.ndarray] | None, labels: np.ndarray | None = None, *, seed: int = 0) -> None:
        load_torch()
        super().__init__(samples)
        self.labels = labels
        self.seed = seed

    def _contributions(self, mod: tvm.IRModule) -> Iterator[dict[str, Tensor]]:
        """For each sample and parameter the product of weights and gradient, in the parameter's shape."""
        model = TorchModel(mod)
        values = {name: tensor.detach() for name, tensor in model.tensors.items()}
        for gradients in sample_gradients(model, self.samples, self.labels, self.seed):
            yield {name: gradient * values[name] for name, gradient in gradients.items()}


class TaylorImportance(GradientCriterion):
    """The mean over samples of (sum of weight times gradient)², over all weights that read a unit.

    The sum is what a sample's loss changes by to first order when the unit's activations become zero. Squared as in
    Molchanov et al., "Importance Estimation for Neural Network Pruning" (2019, equation 8), which makes it twice what
    Theis et al. (2018) rank feature maps by. Where no layer reads a group through weights, the sum is over all the
    parameters that go with a unit.
    """

    name = "taylor"

    def prepare(self, mod: tvm.IRModule) -> Criterion:
        sums: dict[tuple[str, int], list[np.ndarray]] = {}
        count = 0
        for contributions in self._contributions(mod):
            count += 1
            for parameter, product in contributions.items():
                for axis in range(product.ndim):
                    others = [other for other in range(product.ndim) if other != axis]
                    vector = product.sum(others) if others else product
                    sums.setdefault((parameter, axis), []).append(vector.numpy())
        # (samples, positions along the axis)
        of_axis = {key: np.stack(vectors).astype(np.float64) for key, vectors in sums.items()}

        def score(group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
            total = np.zeros((count, group.size))
            readers = [key for key in group.members if group.roles.get(key) == Role.INPUT]
            for key in readers or group.members:
                if key in of_axis:
                    total += of_axis[key][:, group.members[key]].sum(axis=2)
            return np.asarray(np.square(total).mean(axis=0))

        return score


class FisherImportance(GradientCriterion):
    """Half the mean over samples of (weight times gradient)², summed over all weights of a unit.

    What the loss changes by to second order when each weight goes alone: Optimal Brain Damage (LeCun et al., 1990), with
    the diagonal of the Fisher information in the place of the Hessian's (Theis et al., "Faster gaze prediction with
    dense networks and Fisher pruning", 2018).
    """

    name = "fisher"

    def prepare(self, mod: tvm.IRModule) -> Criterion:
        sums: dict[str, Any] = {}
        count = 0
        for contributions in self._contributions(mod):
            count += 1
            for parameter, product in contributions.items():
                sums[parameter] = sums.get(parameter, 0) + product.square()
        squares = {name: value.numpy().astype(np.float64) for name, value in sums.items()}

        def score(group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
            total = np.zeros(group.size)
            for key in weight_members(group):
                if key[0] in squares:
                    total += unit_values(group, squares, key).sum(axis=1)
            return total / (2 * count)

        return score


def gradient_criterion(name: str | None) -> type[GradientCriterion] | None:
    """The class of the criterion of a name, if it is one on gradients, which can use labels and needs PyTorch."""
    made = CRITERIA.get(name or "")
    return made if isinstance(made, type) and issubclass(made, GradientCriterion) else None
