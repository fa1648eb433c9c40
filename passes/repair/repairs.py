"""The repairs of quantized models by name: what one is made of, and when it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._tvm import tvm
from ..errors import UserError
from .correct_bias import CorrectBias
from .equalize_layers import EqualizeLayers
from .round_by_hessian import RoundByHessian
from .round_weights import RoundWeights
from .smooth_scales import SmoothScales

Progress = Callable[[int, int, str], None]


def _of_reference(maker: Callable[..., Any]) -> Callable[..., Any]:
    return lambda reference, inputs, progress, **options: maker(reference, inputs, on_progress=progress, **options)


FLOAT_REPAIRS: dict[str, Callable[..., Any]] = {
    "equalize": lambda inputs, progress, **options: EqualizeLayers(**options),
    "smooth": lambda inputs, progress, **options: SmoothScales(inputs or (), on_progress=progress, **options),
}
"""Of the float module, before its ranges are found; made from samples, a progress callback, and options."""

INTEGER_REPAIRS: dict[str, Callable[..., Any]] = {
    name: _of_reference(maker) for name, maker in (("bias", CorrectBias), ("gptq", RoundByHessian), ("adaround", RoundWeights))
}
"""Of the module in QDQ form; made from the float module, samples, a progress callback, and options."""


def float_repair(
    name: str,
    inputs: Sequence[np.ndarray] | None,
    options: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> tvm.transform.Pass:
    """A repair of `FLOAT_REPAIRS`.

    Raises:
        UserError: It does not take the options.
    """
    return _made(name, FLOAT_REPAIRS[name], options, inputs, on_progress)


def integer_repair(
    name: str,
    reference: tvm.IRModule,
    inputs: Sequence[np.ndarray],
    options: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> tvm.transform.Pass:
    """A repair of `INTEGER_REPAIRS`.

    Raises:
        UserError: It does not take the options.
    """
    return _made(name, INTEGER_REPAIRS[name], options, reference, inputs, on_progress)


def check_repairs(names: Sequence[str]) -> None:
    """Refuse names of repairs that there are not.

    Raises:
        UserError: There is none of a name.
    """
    for name in names:
        if name not in FLOAT_REPAIRS and name not in INTEGER_REPAIRS:
            raise UserError(f"there is no repair '{name}'; choose of {', '.join([*FLOAT_REPAIRS, *INTEGER_REPAIRS])}")


def _made(name: str, maker: Callable[..., Any], options: Mapping[str, Any] | None, *args: Any) -> tvm.transform.Pass:
    given = dict(options or {})
    try:
        return maker(*args, **given)
    except TypeError:
        raise UserError(f"the repair '{name}' does not take the options {', '.join(given)}") from None
