"""Rewriting `main` by a mutator, where what comes out are calls of TensorIR functions, which the mutator's builder holds."""

from __future__ import annotations

from tvm.relax.expr_functor import PyExprMutator

from ...passes._tvm import tvm


def rewrite_main(mod: tvm.IRModule, rewriter: PyExprMutator) -> tvm.IRModule:
    """The module with its `main` as a mutator, made for the module, rewrites it."""
    rewriter.builder_.update_func(mod.get_global_var("main"), rewriter.visit_expr(mod["main"]))
    return rewriter.builder_.get()
