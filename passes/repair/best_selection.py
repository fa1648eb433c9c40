"""For each group whether its units are removed or folded: what is tried with both costs less on samples held back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .._tvm import tvm
from ..channels import ChannelGraph
from ..errors import UserError
from ..pruning.folding import Clusters, Fold
from ..pruning.prune_channels import prune
from .repaired_damage import Trial


class BestSelection:
    """What is left of the outputs' error behind the repair decides between removing and folding, group by group.

    Args:
        samples: Calibration samples, one array an input, axis 0 the samples; some are held back to compare on.

    Raises:
        UserError: There are no samples.
    """

    def __init__(self, samples: Sequence[np.ndarray] | None) -> None:
        if not samples or len(samples[0]) == 0:
            raise UserError("to choose between removing and folding takes calibration samples, and none were given")
        self.samples = list(samples)

    def __call__(
        self, mod: tvm.IRModule, graph: ChannelGraph, units: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Clusters], dict[str, str]]:
        """See `Selector`."""
        clusters, refused = Fold(self.samples)(mod, graph, units)
        trial = Trial(mod, self.samples)
        better: dict[str, Clusters] = {}
        for group in graph.groups:
            if group.name not in clusters:
                continue
            one = {group.name: clusters[group.name]}
            gone = {group.name: units[group.name]}
            removed = prune(mod, graph, gone, "tried")
            merged = prune(mod, graph, gone, "tried", selector=lambda *_, one=one: (one, {}))
            if trial.error(merged, group) < trial.error(removed, group):
                better |= one
        return better, refused
