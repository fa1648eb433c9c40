"""The repairs of quantized models by name: what one is made of, and when it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from .._tvm import tvm
from ..errors import UserError
from ..plugins.registry import Registry
from .correct_bias import CorrectBias
from .equalize_layers import EqualizeLayers
from .round_by_hessian import RoundByHessian
from .round_weights import RoundWeights
from .smooth_scales import SmoothScales

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Repair:
    """A repair of quantized models from samples.

    Attributes:
        make: Makes the pass from the float module, samples (one array an input, axis 0 the samples), `on_progress`, and
            options by name.
        note: What it does, as reports say it: "biases corrected".
        of_float: Whether it changes the float module before its ranges are found, and not the module in QDQ form.
        resumes: Whether it takes a folder, `checkpoint`, in which it keeps its state and goes on where it was.
    """

    make: Callable[..., tvm.transform.Pass]
    note: str
    of_float: bool = False
    resumes: bool = False


REPAIRS: Registry[Repair] = Registry(
    "repair",
    "tvmcompress.repairs",
    # What needs more than the passes do.
    lazy={"brecq": "tvmcompress.training.block_rounding:REPAIR"},
    of=Repair,
)
REPAIRS["equalize"] = Repair(
    lambda reference, inputs, on_progress, **options: EqualizeLayers(**options),
    "ranges of channels equalized across layers",
    of_float=True,
)
REPAIRS["smooth"] = Repair(
    lambda reference, inputs, on_progress, **options: SmoothScales(inputs or (), on_progress=on_progress, **options),
    "outliers behind normalizations moved into weights",
    of_float=True,
)
REPAIRS["bias"] = Repair(CorrectBias, "biases corrected")
REPAIRS["gptq"] = Repair(RoundByHessian, "weights rounded by the Hessian")
REPAIRS["adaround"] = Repair(RoundWeights, "rounding of weights learned")


def make_repair(
    name: str,
    reference: tvm.IRModule | None,
    inputs: Sequence[np.ndarray] | None,
    options: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
    checkpoint: str | PathLike[str] | None = None,
) -> tvm.transform.Pass:
    """The pass of a repair.

    Args:
        name: One of `REPAIRS`.
        reference: The float module; repairs of the float module do without.
        inputs: Samples, one array an input, axis 0 the samples.
        options: Of the repair.
        on_progress: Called with steps done, all steps, and what is being done.
        checkpoint: A folder for the state of those that go on where they were.

    Raises:
        UserError: There is none of the name, or it does not take the options.
    """
    repair = REPAIRS[name]
    kept = {"checkpoint": checkpoint} if repair.resumes else {}
    try:
        return repair.make(reference, inputs, on_progress=on_progress, **kept, **(options or {}))
    except TypeError:
        raise UserError(f"the repair '{name}' does not take the options {', '.join(options or ())}") from None
