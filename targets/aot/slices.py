"""Slices and concatenations that need no copy: along the outermost axis longer than one, all bytes stay where they are.

A slice is then a pointer into the tensor that it is taken from, and the operands of a concatenation are written where they
belong from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm.relax.expr_functor import PyExprMutator, mutator

from ...passes._tvm import Constant, relax, tvm
from ...passes.graph.module_params import static_shape
from ...passes.graph.peak_memory import VIEWS
from ...passes.graph.rebuild import bindings
from .plan import ALIGNMENT
from .rewrite import rewrite_main

PART, JOIN = "tvmcompress.part", "tvmcompress.join"


def _register(name: str, doc: str, infer: Any) -> tvm.ir.Op:
    tvm.ir._ffi_api.RegisterOp(name, doc)
    op = tvm.ir.Op.get(name)
    op.set_num_inputs(1)
    tvm.ir.register_op_attr(name, "FInferType", lambda call, builder: infer(call))
    tvm.ir.register_op_attr(name, "FPurity", True)
    return op


def _part_type(call: relax.Call) -> relax.TensorType:
    return relax.TensorType([int(dim) for dim in call.attrs.shape], call.args[0].ty.dtype)


def _join_type(call: relax.Call) -> relax.TensorType:
    return relax.TensorType([int(dim) for dim in call.attrs.shape], call.args[0].fields[0].ty.dtype)


_PART = _register(PART, "A piece of a tensor's memory: the bytes from `offset` on, of shape `shape`", _part_type)
_JOIN = _register(JOIN, "Tensors one behind the other in memory, of shape `shape` together", _join_type)


@tvm.transform.module_pass(opt_level=0, name="SlicesToViews")
class SlicesToViews:
    """Replace `strided_slice` and `concat` by views where every piece starts at a multiple of the arena's alignment.

    An operand of a concatenation must be computed for it: no input, no constant, no output, no slice, and no part of another
    concatenation.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        return rewrite_main(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        main = mod["main"]
        self._values = dict(bindings(main))
        result = self._origin(main.body.body)
        outputs = self._values.get(result, result)
        fields = outputs.fields if isinstance(outputs, relax.Tuple) else [result]
        self._taken = {self._origin(field) for field in fields}

    def _origin(self, var: relax.Expr) -> relax.Expr:
        """The variable whose memory a variable is, reshapes looked through."""
        while isinstance(var, relax.Var):
            value = self._values.get(var)
            if isinstance(value, relax.Var):
                var = value
            elif isinstance(value, relax.Call) and getattr(value.op, "name", "") in VIEWS:
                var = value.args[0]
            else:
                break
        return var

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        name = getattr(call.op, "name", "")
        if name == "relax.strided_slice":
            return self._slice(call)
        if name == "relax.concat" and self._is_joined(call):
            fields = [self.visit_expr(field) for field in call.args[0].fields]
            return relax.Call(_JOIN, [relax.Tuple(fields)], _attrs(shape=static_shape(call)))
        return self.visit_expr_post_order(call)

    def _slice(self, call: relax.Call) -> relax.Expr:
        before, after = static_shape(call.args[0]), static_shape(call)
        changed = [axis for axis, (one, other) in enumerate(zip(before, after)) if one != other]
        stepped = len(call.args) > 4 and any(_number(step) != 1 for step in call.args[4].fields)
        if isinstance(call.args[0], Constant) or stepped or len(changed) != 1 or not _is_outermost(before, changed[0]):
            return self.visit_expr_post_order(call)
        axes = [_number(axis) % len(before) for axis in call.args[1].fields]
        begin = _number(call.args[2].fields[axes.index(changed[0])])
        begin = max(0, begin + before[changed[0]] if begin < 0 else begin)
        offset = begin * _nbytes(call.args[0]) // before[changed[0]]
        if offset % ALIGNMENT:
            return self.visit_expr_post_order(call)
        return relax.Call(_PART, [self.visit_expr(call.args[0])], _attrs(offset=offset, shape=after))

    def _is_joined(self, call: relax.Call) -> bool:
        """Whether a concatenation can be a view; its operands are taken from then on."""
        if not isinstance(call.args[0], relax.Tuple) or call.attrs.axis is None:
            return False
        fields = list(call.args[0].fields)
        axis = int(call.attrs.axis) % len(static_shape(call))
        origins = [self._origin(field) for field in fields]
        if not all(_is_outermost(static_shape(field), axis) for field in fields) or len(set(origins)) != len(origins):
            return False
        if any(origin in self._taken or not self._is_computed(origin) for origin in origins):
            return False
        if any(_nbytes(field) % ALIGNMENT for field in fields[:-1]):
            return False
        self._taken.update(origins)
        return True

    def _is_computed(self, var: relax.Expr) -> bool:
        value = self._values.get(var) if isinstance(var, relax.Var) else None
        return isinstance(value, relax.Call) and getattr(value.op, "name", "") not in ("relax.strided_slice", "relax.concat")


def _is_outermost(shape: Sequence[int], axis: int) -> bool:
    return all(dim == 1 for dim in shape[:axis])


def _nbytes(expr: relax.Expr) -> int:
    return int(np.prod(static_shape(expr), dtype=np.int64)) * np.dtype(str(expr.ty.dtype)).itemsize


def _number(value: Any) -> int:
    return int(getattr(value, "value", value))


def _attrs(**values: Any) -> Any:
    return tvm.ir.make_node("ir.DictAttrs", **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()})
