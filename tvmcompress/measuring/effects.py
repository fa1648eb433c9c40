"""Options of a build that changed nothing, so that nobody takes its figures for theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compression import is_quantized
from ..model import Model
from ..passes.graph.rebuild import bindings
from ..passes.integer.registry import is_integer_op
from ..passes.lowering.compress_sparse import CompressSparse
from ..targets.base import TargetDescription
from ..targets.integer_io import is_integer
from ..targets.measurement import Measurement


def without_effect(
    model: Model, target: TargetDescription, options: Mapping[str, Any], measurement: Measurement
) -> tuple[str, ...]:
    """A sentence for each option of a build that changed nothing.

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
        found.append("--patch-wise changed nothing: computing the first layers patch by patch takes no less RAM")
    if options.get("spend_flash") is not None and (why := _spends_nothing(model, target, options, measurement)):
        found.append(f"--spend-flash changed nothing: {why}")
    if not options.get("soft_float", True) and target.fpu:
        found.append("--no-soft-float changed nothing: the core has a floating-point unit")
    if options.get("float16") and is_integer(model.module):
        found.append("--float16 changed nothing: it is for float models")
    return tuple(found)


def _spends_nothing(
    model: Model, target: TargetDescription, options: Mapping[str, Any], measurement: Measurement
) -> str | None:
    """Why flash to spend is not spent, or None where it is, or where patches make it hard to tell."""
    if not target.dsp or target.helium or options.get("emit") == "c" or not is_quantized(model):
        return "weights of 16 bits are for int8 layers in object code on Cortex-M4, M7 and M33"
    if measurement.patches is not None:
        return None
    from ..targets.integer_io import bound_core
    from ..targets.micro.kernels.legalize import UseDspKernels

    lowered = model.apply(CompressSparse()) if options.get("sparse_weights") else model
    spare, core = not options.get("patch_wise"), bound_core(lowered.module)
    asked, usual = (UseDspKernels(spare, budget).halfwords(core) for budget in (options["spend_flash"], None))
    if asked != usual:
        return None
    return "that much is spent anyway" if asked else "no convolution's weights of 16 bits fit into it, and none are by default"


def _has_sparse_weights(model: Model) -> bool:
    main = model.apply(CompressSparse()).module["main"]
    return any(is_integer_op(value, "unpack_2of4") for _, value in bindings(main))
