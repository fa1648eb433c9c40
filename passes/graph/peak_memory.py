"""How much memory the activations of a network take at once, from the graph alone.

Operators that work element by element write over an operand that nobody reads any more, and reshapes move nothing, as in
the code that is generated for targets without an allocator. What a memory planner can reach is never less than the peak
counted here, unless kernels fuse further.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._tvm import relax, tvm
from .module_params import input_vars, param_vars, static_shape
from .rebuild import bindings

VIEWS = frozenset({"relax.reshape", "relax.squeeze", "relax.expand_dims", "relax.flatten"})
"""Operators that leave every byte where it is."""

_ELEMENTWISE = {
    f"relax.{name}"
    for name in (
        *("add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "negative", "abs", "sqrt", "rsqrt"),
        *("exp", "log", "erf", "sigmoid", "tanh", "clip", "nn.relu", "nn.relu6", "nn.leakyrelu", "nn.prelu", "nn.gelu"),
        *("nn.gelu_tanh", "nn.silu", "nn.dropout", "quantize", "dequantize"),
    )
}


@dataclass(frozen=True)
class Storage:
    """Memory that one or several tensors use one after the other.

    Attributes:
        name: The variable that it is made for.
        shape: That variable's shape.
        first: The step (index of the binding) that writes it; -1 for an input.
        last: The last step at which it is needed; the number of bindings for what the model returns.
    """

    name: str
    shape: tuple[int, ...]
    first: int
    last: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def storages(mod: tvm.IRModule) -> list[Storage]:
    """The memory of all activations of `main`, in the order in which it is written."""
    main = mod["main"]
    program = list(bindings(main))
    params = set(param_vars(main))
    last: dict[relax.Var, int] = {}
    for step, (_, value) in enumerate(program):
        for var in relax.analysis.free_vars(value):
            last[var] = step
    for var in relax.analysis.free_vars(main.body.body):
        last[var] = len(program)

    owner: dict[relax.Var, relax.Var] = {var: var for var in input_vars(main)}
    first = dict.fromkeys(owner, -1)
    ends = {var: last.get(var, 0) for var in owner}
    for step, (var, value) in enumerate(program):
        if not isinstance(var.ty, relax.TensorType):
            # A tuple is memory of its own only as far as its fields are taken out of it.
            continue
        source = _written_over(value, var, step, owner, params, ends)
        owner[var] = var if source is None else owner[source]
        if source is None:
            first[var] = step
        ends[owner[var]] = max(ends.get(owner[var], 0), last.get(var, step))
    return [Storage(var.name, static_shape(var), start, ends[var]) for var, start in first.items()]


def liveness(memory: list[Storage]) -> np.ndarray:
    """Which storages are in use at each step, bool (steps, storages)."""
    steps = max((storage.last for storage in memory), default=0) + 1
    at = np.arange(steps)[:, None]
    first = np.array([max(storage.first, 0) for storage in memory])
    last = np.array([storage.last for storage in memory])
    return (at >= first) & (at <= last)


def peak_activations(mod: tvm.IRModule) -> int:
    """The most elements of activations in use at one step."""
    memory = storages(mod)
    sizes = np.array([storage.elements for storage in memory], np.int64)
    return int((liveness(memory) @ sizes).max(initial=0)) if memory else 0


def _written_over(
    value: relax.Expr,
    var: relax.Var,
    step: int,
    owner: dict[relax.Var, relax.Var],
    params: set[relax.Var],
    ends: dict[relax.Var, int],
) -> relax.Var | None:
    """The operand whose memory the result takes over."""
    if not isinstance(value, relax.Call):
        return value if isinstance(value, relax.Var) and value in owner else None
    name = getattr(value.op, "name", "")
    if name not in VIEWS and name not in _ELEMENTWISE:
        return None
    for arg in value.args:
        if not isinstance(arg, relax.Var) or arg in params or arg not in owner:
            continue
        same = math.prod(static_shape(arg)) == math.prod(static_shape(var))
        if same and (name in VIEWS or ends[owner[arg]] <= step):
            return arg
    return None
