"""Options of a build that changed nothing, so that nobody takes its figures for theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compression import is_quantized
from ..model import Model
from ..passes.graph.rebuild import bindings
from ..passes.integer.registry import is_integer_op
from ..passes.lowering.compress_sparse import CompressSparse
from ..targets.base import Measurement, TargetDescription


def without_effect(
    model: Model, target: TargetDescription, options: Mapping[str, Any], measurement: Measurement
) -> tuple[str, ...]:
    """A sentence for each option of a microcontroller's build that changed nothing.

    Args:
        model: As it was built.
        target: What for.
        options: Of the build.
        measurement: Of what was built.
    """
    found = []
    if options.get("sparse_weights") and not _has_sparse_weights(model):
        found.append("--sparse-weights changed nothing: no int8 weight has pattern 2:4 (see --sparsify 2:4)")
    if options.get("patch_wise") and measurement.patches is None:
        found.append("--patch-wise changed nothing: computing the first layers strip by strip takes no less RAM")
    if options.get("spend_flash") and (not target.dsp or target.helium or not is_quantized(model)):
        found.append("--spend-flash changed nothing: weights of 16 bits are for int8 layers on Cortex-M4, M7 and M33")
    return tuple(found)


def _has_sparse_weights(model: Model) -> bool:
    main = model.apply(CompressSparse()).module["main"]
    return any(is_integer_op(value, "unpack_2of4") for _, value in bindings(main))
