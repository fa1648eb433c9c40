"""A float model beside another form of it: what its tensors are on the same samples, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .._tvm import relax, tvm
from ..errors import UserError
from .interpreter import Execution, Interpreter
from .module_params import get_params
from .rebuild import bindings


class FloatReference:
    """The tensors of a float model, computed as far as they are asked for and kept until they are read.

    Args:
        original: The model, parameters attached.
        inputs: Samples, one array an input, axis 0 the samples.
        wanted: How often each tensor will be asked for, by name.
        purpose: What the tensors are for, the end of a sentence: "the network cannot be ...".

    Raises:
        UserError: There are no samples, or they do not fit.
    """

    def __init__(
        self, original: tvm.IRModule, inputs: Sequence[np.ndarray], wanted: Counter[str], purpose: str = "repaired"
    ) -> None:
        self._execution = start(original, inputs, purpose)
        self._wanted = wanted
        self._params = get_params(original)
        self._calls = {var.name: value for var, value in bindings(original["main"]) if isinstance(value, relax.Call)}
        self._by_name = {var.name: var for var, _ in bindings(original["main"]) if var.name in wanted}
        self._execution.kept.update(self._by_name.values())

    def value(self, name: str) -> np.ndarray | None:
        """The value of a tensor; as often as it was said to be wanted. None where the model has none of this name."""
        var = self._by_name.get(name)
        if var is None:
            return None
        while var not in self._execution.values:
            self._execution.step()
        self._wanted[name] -= 1
        if self._wanted[name] <= 0 and _is_last(self._execution, var):
            return self._execution.values.pop(var)
        return self._execution.values[var]

    def weight(self, layer: str) -> np.ndarray | None:
        """The weight of a layer by the name of its result; None where there is none."""
        call = self._calls.get(layer)
        weight = call.args[1] if call is not None and len(call.args) > 1 else None
        return self._params.get(weight.name) if isinstance(weight, relax.Var) else None


def start(mod: tvm.IRModule, inputs: Sequence[np.ndarray], purpose: str = "repaired") -> Execution:
    """Begin a run on all samples at once, for a pass that goes layer by layer.

    Raises:
        UserError: There are no samples, or they do not fit.
    """
    if not inputs or len(inputs[0]) == 0:
        raise UserError(f"the network cannot be {purpose} without calibration samples, and none were given")
    try:
        return Interpreter(mod).start(inputs)
    except ValueError as error:
        raise UserError(f"the network cannot be {purpose}: {error}") from error


def _is_last(execution: Execution, var: relax.Var) -> bool:
    """Whether no binding still to run reads `var`."""
    return all(var not in relax.analysis.free_vars(value) for _, value in execution.remaining())
