"""Permutations that move axes of length 1 only leave every byte where it is."""

from __future__ import annotations

from tvm.relax.expr_functor import PyExprMutator, mutator

from ...passes._tvm import relax, tvm
from .rewrite import rewrite_main


@tvm.transform.module_pass(opt_level=0, name="PermutationsToReshapes")
class PermutationsToReshapes:
    """Make reshapes of them."""

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        return rewrite_main(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if getattr(call.op, "name", "") != "relax.permute_dims":
            return call
        before = [int(dim) for dim in call.args[0].ty.shape]
        axes = list(range(len(before)))[::-1] if call.attrs.axes is None else [int(axis) for axis in call.attrs.axes]
        moving = [axis for axis in axes if before[axis] != 1]
        return relax.op.reshape(call.args[0], [before[axis] for axis in axes]) if moving == sorted(moving) else call
