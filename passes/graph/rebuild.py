"""Rebuilding `main` binding by binding: the one way in which passes here rewrite.

A model's `main` is straight-line dataflow. A pass walks its bindings in order and says for each what stands in its place;
types are inferred again, so a rewrite may change shapes. Parameters may be replaced, added and dropped on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from .._tvm import Constant, relax, tvm
from .module_params import attach_params, get_params, input_vars, param_vars


class Drop:
    """What a rewrite returns to leave a binding out; nothing may refer to its variable afterwards."""


DROP = Drop()
Rewrite = Callable[["Rebuilder", relax.Var, relax.Expr], "relax.Expr | Drop | None"]


def bindings(func: relax.Function) -> Iterator[tuple[relax.Var, relax.Expr]]:
    """The bindings of a straight-line function, in order, as (variable, value).

    Raises:
        ValueError: The function has control flow or a match cast.
    """
    if not isinstance(func.body, relax.SeqExpr):
        raise ValueError("main is not in normal form; run relax.transform.Normalize first")
    for block in func.body.blocks:
        for binding in block.bindings:
            if not isinstance(binding, relax.VarBinding) or isinstance(binding.value, (relax.If, relax.Function)):
                raise ValueError(f"main is not straight-line code at {binding.var.name}")
            yield binding.var, binding.value


class Rebuilder:
    """Builds a new `main` beside an old one.

    Attributes:
        source: The function being rebuilt.
        old_params: The values of its parameters by name.
        values: What stands in the new function for each variable of the old one.
    """

    def __init__(self, mod: tvm.IRModule) -> None:
        self._mod = mod
        self.source: relax.Function = mod["main"]
        self.old_params = get_params(mod)
        self._source_values = dict(bindings(self.source))
        self.values: dict[relax.Var, relax.Expr] = {}
        self._builder = relax.BlockBuilder()
        self._bindings: list[relax.VarBinding] = []
        self._new_params: dict[relax.Var, np.ndarray] = {}
        self._new_param_vars: dict[str, list[relax.Var]] = {}
        self._old_param_vars = {var: var.name for var in param_vars(self.source)}
        self._names: set[str] = {var.name for var in self.source.params}
        self.inputs = [self._input(var) for var in input_vars(self.source)]

    def _input(self, var: relax.Var) -> relax.Var:
        new = relax.Var(var.name, var.ty)
        self.values[var] = new
        return new

    def set_input(self, index: int, shape: tuple[int, ...], dtype: str) -> relax.Var:
        """Change the type of an input; call it before anything refers to the input."""
        old = input_vars(self.source)[index]
        new = relax.Var(old.name, relax.TensorType(shape, dtype))
        self.inputs[index] = new
        self.values[old] = new
        return new

    def param(self, name: str, value: np.ndarray) -> relax.Var:
        """A parameter of the new function with this value.

        The same name and value twice give the same variable. Of two values under one name only one may still be read when
        the function is finished.
        """
        for var in self._new_param_vars.get(name, ()):
            known = self._new_params[var]
            if known.dtype == value.dtype and np.array_equal(known, value):
                return var
        var = relax.Var(name, relax.TensorType(value.shape, value.dtype.name))
        self._new_params[var] = value
        self._new_param_vars.setdefault(name, []).append(var)
        self._names.add(name)
        return var

    def param_value(self, expr: relax.Expr) -> np.ndarray | None:
        """The value of an expression of the old function when it is a parameter or a constant; otherwise None."""
        if isinstance(expr, relax.Var) and expr in self._old_param_vars:
            return self.old_params[self._old_param_vars[expr]]
        if isinstance(expr, Constant):
            return expr.value.numpy()
        return None

    def param_name(self, expr: relax.Expr) -> str | None:
        """The name of an expression of the old function when it is a parameter; otherwise None."""
        return self._old_param_vars.get(expr) if isinstance(expr, relax.Var) else None

    def new_param_value(self, expr: relax.Expr) -> np.ndarray | None:
        """The value of a variable of the new function when it is one of its parameters; otherwise None."""
        return self._new_params.get(expr) if isinstance(expr, relax.Var) else None

    def source_value(self, expr: relax.Expr) -> relax.Expr | None:
        """What a variable of the old function is bound to; None for parameters and inputs."""
        return self._source_values.get(expr) if isinstance(expr, relax.Var) else None

    def get(self, expr: relax.Expr) -> relax.Expr:
        """An expression of the old function in terms of the new one."""
        if isinstance(expr, relax.Var):
            if expr not in self.values and expr in self._old_param_vars:
                name = self._old_param_vars[expr]
                self.values[expr] = self.param(name, self.old_params[name])
            return self.values[expr]
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.get(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self.get(expr.tuple_value), expr.index)
        if isinstance(expr, relax.Call):
            return relax.Call(expr.op, [self.get(arg) for arg in expr.args], expr.attrs, expr.ty_args)
        return expr

    def emit(self, expr: relax.Expr, name: str = "value") -> relax.Var:
        """Bind `expr`, whose type is inferred, to a new variable; a name already taken gets a number behind it.

        Calls inside `expr` are bound first, to variables of their own.
        """
        if isinstance(expr, relax.Call):
            args = [self.emit(arg, f"{name}.operand") if isinstance(arg, relax.Call) else arg for arg in expr.args]
            expr = relax.Call(expr.op, args, expr.attrs, expr.ty_args)
        normal = self._builder.normalize(expr)
        var = relax.DataflowVar(self._unique(name), normal.ty)
        self._bindings.append(relax.VarBinding(var, normal))
        return var

    @property
    def emitted(self) -> list[relax.VarBinding]:
        """What was bound so far, in order."""
        return self._bindings

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._names:
            unique = f"{name}_{count}"
            count += 1
        self._names.add(unique)
        return unique

    def finish(self, output: relax.Expr | None = None) -> tvm.IRModule:
        """The new module, its parameters in order of first use, other functions and attributes kept.

        Args:
            output: What the function returns; by default what the old one returned.
        """
        result = self.get(self.source.body.body) if output is None else output
        # What leaves a dataflow block must be a plain variable.
        out = self._builder.normalize(result)
        out_var = relax.Var(self._unique("output"), out.ty)
        self._bindings.append(relax.VarBinding(out_var, out))
        live, kept = {out_var}, []
        for binding in reversed(self._bindings):
            if binding.var in live:
                kept.append(binding)
                live.update(relax.analysis.free_vars(binding.value))
        body = relax.SeqExpr([relax.DataflowBlock(kept[::-1])], out_var)
        read = {var: value for var, value in self._new_params.items() if var in live}
        for name, count in Counter(var.name for var in read).items():
            if count > 1:
                raise ValueError(f"parameter {name} is given two different values")
        params = [*self.inputs, *read]
        attrs = {key: value for key, value in (self.source.attrs or {}).items() if key != "global_symbol"}
        attrs["num_input"] = len(self.inputs)
        attrs["global_symbol"] = "main"
        func = relax.Function(params, body, out.ty, True, tvm.ir.make_node("ir.DictAttrs", **attrs))
        mod = tvm.IRModule({gv: f for gv, f in self._mod.functions.items() if gv.name_hint != "main"})
        mod["main"] = func
        for key, value in (self._mod.attrs or {}).items():
            mod = mod.with_attr(key, value)
        mod = relax.transform.DeadCodeElimination(["main"])(mod)
        return attach_params(mod, {var.name: value for var, value in read.items()})


def rebuild(mod: tvm.IRModule, rewrite: Rewrite) -> tvm.IRModule:
    """Rebuild `main` with `rewrite` deciding on every binding.

    `rewrite(rebuilder, var, value)` is given the old variable and the old value. It returns the expression of the new
    function that takes the variable's place (a variable is used as it is, anything else is bound under the old name), or
    None to keep the binding as it is, or DROP to leave it out.
    """
    rebuilder = Rebuilder(mod)
    for var, value in bindings(rebuilder.source):
        new = rewrite(rebuilder, var, value)
        if isinstance(new, Drop):
            continue
        if new is None:
            new = rebuilder.get(value)
        is_alias = isinstance(new, (relax.Var, Constant))
        rebuilder.values[var] = new if is_alias else rebuilder.emit(new, var.name)
    return rebuilder.finish()


def users(func: relax.Function) -> Mapping[relax.Var, list[relax.Var]]:
    """For every variable the variables whose bindings read it; the function's result counts as a reader of itself."""
    readers: dict[relax.Var, list[relax.Var]] = {}

    def visit(expr: relax.Expr, reader: relax.Var) -> None:
        if isinstance(expr, relax.Var):
            readers.setdefault(expr, []).append(reader)
        elif isinstance(expr, relax.Tuple):
            for field in expr.fields:
                visit(field, reader)
        elif isinstance(expr, relax.TupleGetItem):
            visit(expr.tuple_value, reader)
        elif isinstance(expr, relax.Call):
            for arg in expr.args:
                visit(arg, reader)

    for var, value in bindings(func):
        visit(value, var)
    result = func.body.body
    if isinstance(result, relax.Var):
        readers.setdefault(result, []).append(result)
    return readers
