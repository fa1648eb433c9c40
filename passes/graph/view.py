"""`main` by variable: what each is bound to, what reads it, and the values of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from .._tvm import relax, tvm
from .module_params import get_params, param_vars
from .rebuild import bindings, users


class GraphView:
    """The straight-line `main` of a module by variable; what a pass does not ask for is not computed.

    Attributes:
        mod: The module.
        main: Its function.
    """

    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod, self.main = mod, mod["main"]

    @cached_property
    def values(self) -> dict[relax.Var, relax.Expr]:
        """What each variable is bound to, in order."""
        return dict(bindings(self.main))

    @cached_property
    def readers(self) -> Mapping[relax.Var, list[relax.Var]]:
        """The variables whose bindings read a variable, see `rebuild.users`; parameters and inputs have readers too."""
        return users(self.main)

    @cached_property
    def params(self) -> dict[relax.Var, np.ndarray]:
        """The values of the parameters, which must be attached."""
        named = get_params(self.mod)
        return {var: named[var.name] for var in param_vars(self.main)}

    def call(self, expr: relax.Expr) -> relax.Call | None:
        """The call that a variable is bound to; None for everything else."""
        value = self.values.get(expr) if isinstance(expr, relax.Var) else None
        return value if isinstance(value, relax.Call) else None

    def is_alone(self, expr: relax.Expr) -> bool:
        """Whether a variable is read once."""
        return isinstance(expr, relax.Var) and len(self.readers.get(expr, [])) == 1

    def sole_reader(self, var: relax.Var) -> tuple[relax.Var, relax.Call] | None:
        """The call that alone reads a variable, and its result; None where `main` returns the variable."""
        readers = self.readers.get(var, [])
        call = self.call(readers[0]) if len(readers) == 1 and not readers[0].same_as(var) else None
        return (readers[0], call) if call is not None else None
