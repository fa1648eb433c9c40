"""From quantize and dequantize operators to integer operators: the walk over the graph, and what rules work with.

A value that comes out of `dequantize` is known as integers. At every `quantize` the computation in front of it, back
to known integers, is matched by a rule and becomes integer operators. Float code is made only on demand: where no rule
fits, and at the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from .._tvm import Constant, relax, tvm
from ..graph.module_params import input_vars, static_shape
from ..graph.rebuild import bindings
from ..graph.remarks import Remark
from ..integer.ops import qlut
from ..layout.converter import to_first, to_last
from ..layout.rules import with_attrs
from ..numbers.affine import Affine
from ..plugins.registry import Registry
from ..quantization.few_bits import SUFFIX
from ..quantization.kinds import CLIPS, TRANSPOSED, is_float
from .constants import Weights
from .integers import CannotLowerError, Integers, KnownIntegers, Wanted, operand
from .tables import pointwise_root, pointwise_table, pointwise_values

# What rules work with, wherever it is defined.
__all__ = ["CannotLowerError", "Integers", "Lowering", "Rule", "Wanted", "Weights", "lowering_rule", "operand"]

_INFINITE = float("inf")

Rule = Callable[["Lowering", relax.Var, relax.Call, Wanted], relax.Expr]
"""Given the lowering, the operator's variable, its call and what is wanted; gives an integer expression that has the wanted
scale, zero point, dtype and clip, or raises `CannotLowerError` when it does not fit."""

RULES: Registry[Rule] = Registry("lowering rule", prefix="relax.")
"""By the full name of the operator."""

WIDE: set[str] = set()
"""Those whose operands and result may be int16."""


def lowering_rule(*names: str, wide: bool = False) -> Callable[[Rule], Rule]:
    """Register how Relax operators, named without their prefix, are lowered.

    Args:
        names: Of the operators.
        wide: Whether operands and result may be int16.
    """
    if wide:
        WIDE.update(f"relax.{name}" for name in names)
    return RULES.register(*names)


class Lowering(KnownIntegers):
    """One lowering of a channels-last module in QDQ form.

    Attributes:
        scales: How the integers of the new function are to be read, by their names.
    """

    def __init__(self, mod: tvm.IRModule, rounding: str, packed: Mapping[str, tuple[np.ndarray, int]] | None = None) -> None:
        super().__init__(mod, rounding, packed)
        self.scales: dict[str, Affine] = {}
        # Integer variables of the old function in the new one.
        self._integers: dict[relax.Var, relax.Expr] = {}
        self._floats: dict[relax.Var, relax.Expr] = {var: self.build.values[var] for var in input_vars(self.build.source)}
        self._done: dict[tuple[relax.Var, Affine, float, float], relax.Expr] = {}
        self._reasons: dict[relax.Var, str] = {}
        self._stayed: list[relax.Var] = []

    def run(self) -> tvm.IRModule:
        """The module with integer operators."""
        for var, value in bindings(self.build.source):
            if not isinstance(value, relax.Call):
                continue
            name = getattr(value.op, "name", "")
            if name == "relax.quantize":
                self._quantize(var, value)
            elif name == "relax.dequantize":
                self._dequantize(var, value)
            elif self._is_integer(var) and all(self._known(arg) for arg in value.args):
                args = [self._in_integers(arg) for arg in value.args]
                self._integers[var] = self.build.emit(relax.Call(value.op, args, value.attrs, value.ty_args), var.name)
        return self.build.finish(self._float(self.build.source.body.body))

    def remarks(self) -> list[Remark]:
        """What stayed in float, and why."""
        found = []
        for var in self._stayed:
            op = self.values[var].op.name.removeprefix("relax.")
            known = self.values[var].op.name in RULES
            other = "its operands or its result are not quantized" if known else "it has no integer form"
            reason = self._reasons.get(var, other)
            found.append(Remark("LowerQDQ", var.name, f"{op} stays in float: {reason}"))
        return found

    # What rules ask

    def scaled(self, x: relax.Expr, factor: float, wanted: Wanted) -> relax.Expr:
        """x * factor as it is wanted: x computed onto another scale.

        Raises:
            CannotLowerError: x has no integer form.
        """
        affine = replace(wanted.affine, scale=wanted.affine.scale / factor)
        inner = Wanted(affine, wanted.low / factor, wanted.high / factor, wanted.name)
        found = self._apply(x, inner) if isinstance(x, relax.Var) else None
        if found is None:
            raise CannotLowerError(f"its operand {getattr(x, 'name', '')} is not quantized")
        return found

    def plain(self, expr: relax.Expr) -> relax.Expr:
        """An operand that is no activation, such as indices or a condition, in the new function."""
        if not isinstance(expr, (relax.Var, relax.Tuple)):
            return expr
        root = pointwise_root(self, expr) if str(getattr(expr.ty, "dtype", "")) == "bool" else None
        if root is None or self._tensors[root].affine.dtype == "int16":
            return self._float(expr)
        # A condition on a tensor known as integers: a table of zeros and ones.
        table = self.param(f"{expr.name}.table", pointwise_values(self, expr, root).astype(bool).astype(np.int8))
        flags = self.emit(qlut(self._tensors[root].expr, table), expr.name)
        return self.emit(relax.op.not_equal(flags, relax.const(0, "int8")), expr.name)

    # The walk

    def _is_integer(self, var: relax.Var) -> bool:
        return isinstance(var.ty, relax.TensorType) and str(var.ty.dtype) in ("int8", "uint8", "int16")

    def _known(self, expr: relax.Expr) -> bool:
        if isinstance(expr, relax.Tuple):
            return all(map(self._known, expr.fields))
        return not isinstance(expr, relax.Var) or expr in self._integers

    def _in_integers(self, expr: relax.Expr) -> relax.Expr:
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._in_integers(field) for field in expr.fields])
        return self._integers.get(expr, expr) if isinstance(expr, relax.Var) else expr

    def _affine(self, call: relax.Call, dtype: str) -> Affine | None:
        """The scale and zero point of a quantize or dequantize, for int8 or int16; None when there are several."""
        scale, zero = self.build.param_value(call.args[1]), self.build.param_value(call.args[2])
        if scale is None or zero is None or scale.size != 1 or zero.size != 1:
            return None
        if dtype not in ("int8", "uint8", "int16"):
            return None
        # Unsigned integers are kept less 128: the same bytes with the top bit flipped.
        offset = 128 if dtype == "uint8" else 0
        return Affine(float(scale.reshape(())), int(zero.reshape(())) - offset, "int16" if dtype == "int16" else "int8")

    def _quantize(self, var: relax.Var, call: relax.Call) -> None:
        affine = self._affine(call, str(var.ty.dtype))
        x = call.args[0]
        if affine is None or not (isinstance(x, relax.Var)):
            return
        new = self._lower(x, affine)
        if new is None:
            name = f"{x.name}.quantized"
            new = self.emit(relax.op.quantize(self._float(x), *_constants(affine), out_dtype=affine.dtype), name)
        self._integers[var] = new

    def _dequantize(self, var: relax.Var, call: relax.Call) -> None:
        q = call.args[0]
        if not isinstance(q, relax.Var) or q not in self._integers:
            return
        affine = self._affine(call, str(q.ty.dtype))
        if affine is not None:
            self._tensors[var] = Integers(self._integers[q], affine)
            self.scales[self._integers[q].name] = affine

    def _lower(self, x: relax.Var, affine: Affine) -> relax.Expr | None:
        """The integers of a float tensor, computed in integers; None when that cannot be done."""
        y, low, high = self._through_clips(x)
        key = (y, affine, low, high)
        if key in self._done:
            return self._done[key]
        name = x.name.removesuffix(SUFFIX)
        found = self._apply(y, Wanted(affine, low, high, name))
        if found is None:
            found = self._table(x, affine)
        if found is None:
            return None
        result = found if isinstance(found, relax.Var) else self.emit(found, name)
        self._done[key] = result
        return result

    def _through_clips(self, x: relax.Var) -> tuple[relax.Var, float, float]:
        """The tensor behind the ReLUs and clips that end in `x`, and what they clip it to."""
        low, high = -_INFINITE, _INFINITE
        while not self.is_integers(x):
            call = self.source(x)
            if not isinstance(call, relax.Call) or call.op.name not in CLIPS or not isinstance(call.args[0], relax.Var):
                break
            ends = (0.0, 6.0 if call.op.name == "relax.nn.relu6" else _INFINITE)
            if call.op.name == "relax.clip":
                ends = (float(call.args[1].value), float(call.args[2].value))
            low, high = min(max(ends[0], low), high), max(min(ends[1], high), low)
            x = call.args[0]
        return x, low, high

    def _apply(self, y: relax.Var, wanted: Wanted) -> relax.Expr | None:
        try:
            if self.is_integers(y):
                return self.rescaled(self._tensors[y], wanted)
            value = self.source(y)
            if isinstance(value, relax.TupleGetItem):
                call = self.source(value.tuple_value)
                return self._by_rule(y, call, wanted)
            return self._by_rule(y, value, wanted)
        except CannotLowerError as reason:
            self._reasons[y] = str(reason)
            return None

    def _by_rule(self, y: relax.Var, call: relax.Expr | None, wanted: Wanted) -> relax.Expr | None:
        name = getattr(call.op, "name", "") if isinstance(call, relax.Call) else ""
        rule = RULES.get(name)
        if rule is None:
            return None
        if name not in WIDE:
            operands = [self._tensors[var] for var in relax.analysis.free_vars(call) if var in self._tensors]
            if "int16" in (wanted.affine.dtype, *(tensor.affine.dtype for tensor in operands)):
                raise CannotLowerError("it has no form for int16")
        return rule(self, y, call, wanted)

    def _table(self, x: relax.Var, affine: Affine) -> relax.Expr | None:
        try:
            return pointwise_table(self, x, affine)
        except CannotLowerError as reason:
            self._reasons[x] = str(reason)
            return None

    def _float(self, expr: relax.Expr) -> relax.Expr:
        """An operand in float."""
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._float(field) for field in expr.fields])
        if not isinstance(expr, relax.Var) or expr in self.params:
            return self.build.get(expr)
        if expr in self._floats:
            return self._floats[expr]
        if expr in self._integers:
            return self._integers[expr]
        self._floats[expr] = new = self._made_float(expr)
        return new

    def _made_float(self, var: relax.Var) -> relax.Expr:
        if var in self._tensors:
            tensor = self._tensors[var]
            return self.emit(relax.op.dequantize(tensor.expr, *_constants(tensor.affine)), var.name)
        value = self.values[var]
        if isinstance(value, (relax.Var, Constant)):
            return self._float(value)
        if isinstance(value, relax.TupleGetItem):
            return self.emit(relax.TupleGetItem(self._float(value.tuple_value), value.index), var.name)
        if not isinstance(value, relax.Call):
            return self._float(value)
        if value.op.name != "relax.dequantize" and is_float(var):
            self._stayed.append(var)
        args = [self._float(arg) if isinstance(arg, (relax.Var, relax.Tuple)) else arg for arg in value.args]
        if value.op.name in TRANSPOSED and str(value.attrs.data_layout).endswith("C"):
            return self._channels_first(value, args, var.name)
        return self.emit(relax.Call(value.op, args, value.attrs, value.ty_args), var.name)

    def _channels_first(self, call: relax.Call, args: list[relax.Expr], name: str) -> relax.Expr:
        """A float operator that TVM compiles for channels-first tensors only."""
        rank = len(static_shape(call))
        layout = "NC" + str(call.attrs.data_layout)[1:-1]
        x = self.emit(relax.op.permute_dims(args[0], list(to_first(rank))), f"{name}.permuted")
        first = with_attrs(call, [x, *args[1:]], data_layout=layout, out_layout=layout)
        return self.emit(relax.op.permute_dims(self.emit(first, name), list(to_last(rank))), f"{name}.permuted")


def _constants(affine: Affine) -> tuple[relax.Expr, relax.Expr]:
    return relax.const(np.float32(affine.scale)), relax.const(np.asarray(affine.zero_point, affine.dtype))
