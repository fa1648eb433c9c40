"""The table of contents: in which order the passes go together. Each pipeline is registered with TVM under its name.

    from tvm import relax
    import tvmcompress.passes

    mod = relax.get_pipeline("tvmcompress.int8", samples=[images])(mod)

A pipeline takes a model module with its parameter values attached (`attach_params`) and gives one. It is a
`tvm.transform.Pass` like any other and can stand in a `tvm.transform.Sequential`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._tvm import relax, tvm
from .canonical.canonicalize import Canonicalize
from .canonical.fold_batch_norm import FoldBatchNorm
from .canonical.restore_normalizations import RestoreNormalizations
from .canonical.split_projections import SplitProjections
from .graph.adopt_module import model_pass
from .lowering.lower_qdq import LowerQDQ
from .plugins.registry import Registry
from .pruning.prune_channels import PruneChannels
from .quantization.calibrate import calibrate
from .quantization.quantize import Granularity, Quantize
from .repair.reconstruct import Reconstruct
from .repair.repairs import REPAIRS, make_repair

Samples = Sequence[np.ndarray]
"""One float array for each input of `main`, axis 0 the samples."""

_NAMES = """
Canonicalize CompressSparse ConvertLayout CorrectBias Dequantize EqualizeLayers FoldBatchNorm IntegerCore LowerQDQ
PruneBlocks PruneChannels PruneHeads PruneToBudget Quantize Reconstruct RestoreNormalizations RoundByHessian RoundWeights
SmoothScales Sparsify SplitProjections
"""
PASSES: Registry[Callable[..., tvm.transform.Pass]] = Registry(
    "pass", "tvmcompress.passes", lazy={name: f"tvmcompress.passes:{name}" for name in _NAMES.split()}
)
"""The classes of passes, or functions that make one, given their options by name."""


@relax.register_pipeline("tvmcompress.canonical")
def canonical() -> tvm.transform.Pass:
    """The form that the other passes expect, batch normalization folded."""
    return tvm.transform.Sequential(canonical_passes(), name="tvmcompress.canonical")


def canonical_passes() -> list[tvm.transform.Pass]:
    """What brings an imported module into canonical form."""
    # Folding leaves biases where there were none.
    return [Canonicalize(), RestoreNormalizations(), SplitProjections(), FoldBatchNorm(), Canonicalize()]


@relax.register_pipeline("tvmcompress.prune")
def prune(ratio: float = 0.5, samples: Samples | None = None, **options: Any) -> tvm.transform.Pass:
    """Remove channels, and repair the weights that stay.

    Args:
        ratio: Fraction of the channels to remove, in (0, 1).
        samples: For the repair, which is left out without them.
        options: More options of `PruneChannels`.
    """
    return PruneAndRepair(PruneChannels(ratio, **options), samples)


@relax.register_pipeline("tvmcompress.int8")
def int8(
    samples: Samples,
    observer: str = "minmax",
    weights: Granularity = "per_channel",
    rounding: str = "double",
    repair: Sequence[str] = (),
    **options: Any,
) -> tvm.transform.Pass:
    """From a float module in canonical form to integer operators.

    Args:
        samples: What activations' ranges are found on.
        observer: See `observers.list_observers`.
        weights: "per_channel" or "per_tensor".
        rounding: "double", TFLite's, or "single".
        repair: What is repaired from the samples, by name and in order, see `repairs`.
        options: Of the observer.
    """
    return tvm.transform.Sequential(
        [
            CalibrateAndQuantize(samples, observer, weights, options, repair),
            LowerQDQ(rounding=rounding),
        ],
        name="tvmcompress.int8",
    )


@relax.register_pipeline("tvmcompress.compress")
def compress(samples: Samples, ratio: float = 0.5, **options: Any) -> tvm.transform.Pass:
    """Everything: canonical form, pruning, repair, quantization.

    Args:
        samples: For the repair and the ranges.
        ratio: Fraction of the channels to remove, in (0, 1).
        options: Of `PruneChannels`.
    """
    return tvm.transform.Sequential(
        [
            canonical(),
            prune(ratio, samples, **options),
            int8(samples),
        ],
        name="tvmcompress.compress",
    )


@model_pass("PruneAndRepair")
class PruneAndRepair:
    """Prune a module, and repair it towards what it was.

    Args:
        removal: The pruning pass.
        samples: For the repair, which is left out without them.
    """

    def __init__(self, removal: tvm.transform.Pass, samples: Samples | None) -> None:
        self.removal = removal
        self.samples = samples

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the smaller module."""
        pruned = self.removal(mod)
        return pruned if self.samples is None else tvm.transform.Sequential([Reconstruct(mod, self.samples)])(pruned)


@model_pass("CalibrateAndQuantize")
class CalibrateAndQuantize:
    """Find the ranges of a module's activations on samples, quantize it, and repair it.

    Args:
        samples: One array for each input, axis 0 the samples.
        observer: See `observers.list_observers`.
        weights: "per_channel" or "per_tensor".
        options: Of the observer.
        repair: Names of repairs, see `repairs`.

    Raises:
        UserError: There is no repair of a name.
    """

    def __init__(
        self,
        samples: Samples,
        observer: str = "minmax",
        weights: Granularity = "per_channel",
        options: Any = None,
        repair: Sequence[str] = (),
    ) -> None:
        self.repair = [(name, REPAIRS[name].of_float) for name in repair]
        self.samples = samples
        self.observer = observer
        self.weights: Granularity = weights
        self.options = dict(options or {})

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module in QDQ form."""
        before = [make_repair(name, None, self.samples) for name, of_float in self.repair if of_float]
        mod = tvm.transform.Sequential(before)(mod)
        ranges = calibrate(mod, [list(self.samples)], self.observer, options=self.options)
        behind = [make_repair(name, mod, self.samples) for name, of_float in self.repair if not of_float]
        return tvm.transform.Sequential([Quantize(ranges, weights=self.weights), *behind])(mod)
