"""Names of a model's layers as identifiers, before functions are made that bear them."""

from __future__ import annotations

from collections.abc import Mapping

from tvm.relax.expr_functor import PyExprMutator, mutator

from ...passes._tvm import relax, tvm
from ...passes.graph.rebuild import bindings
from ..escaping import identifiers


def with_plain_names(mod: tvm.IRModule) -> tuple[tvm.IRModule, Mapping[str, str]]:
    """A module whose variables have identifiers as names, and the old names by the new.

    A variable that is only another name for a value, as the model's result is, counts as that value: later passes keep but
    one of the two, and reports call it as the model does.
    """
    main = mod["main"]
    names = identifiers([*(var.name for var in main.params), *(var.name for var, _ in bindings(main))])
    renamed = tvm.IRModule({**mod.functions, mod.get_global_var("main"): _Renamer(names).visit_expr(main)}, attrs=mod.attrs)
    values = {var.name: value.name for var, value in bindings(main) if isinstance(value, relax.Var)}
    originals = {}
    for old, new in names.items():
        while old in values:
            old = values[old]
        originals[new] = old
    return renamed, originals


@mutator
class _Renamer(PyExprMutator):
    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__()
        self._names = names

    def visit_var_def_(self, var: relax.Var) -> relax.Var:
        return self._renamed(var, relax.Var)

    def visit_dataflow_var_def_(self, var: relax.DataflowVar) -> relax.Var:
        return self._renamed(var, relax.DataflowVar)

    def _renamed(self, var: relax.Var, kind: type[relax.Var]) -> relax.Var:
        new = kind(self._names.get(var.name, var.name), var.ty)
        self.set_var_remap(var, new)
        return new
