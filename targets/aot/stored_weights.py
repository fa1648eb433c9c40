"""Layers whose weights stay as they are stored, float16, packed int4 or two of every four, and are decoded where they are read.

Each becomes one function of its input and the stored weight, so that neither constant folding widens the weight at build
time nor the arena has to hold it.
"""

from __future__ import annotations

from typing import Any

from tvm import topi
from tvm.relax.expr_functor import PyExprMutator, mutator

from ...passes._tvm import Constant, relax, te, tvm
from ...passes.graph.decode_weights import is_stored_weight
from ...passes.graph.module_params import static_shape
from ...passes.integer.conv import te_window_sums
from ...passes.integer.registry import PREFIX, definition_of, is_integer_op
from ...passes.integer.stored_weights import te_unpacked
from .rewrite import rewrite_main
from .sparse_layers import te_sparse_layer


@tvm.transform.module_pass(opt_level=0, name="FuseStoredWeights")
class FuseStoredWeights:
    """Fuse the decoding of constant weights into the layers that read them; parameters must be bound."""

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        return relax.transform.DeadCodeElimination(["main"])(rewrite_main(mod, _Rewriter(mod)))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        stored = self.lookup_binding(call.args[1]) if len(call.args) > 1 and isinstance(call.args[1], relax.Var) else None
        if not is_stored_weight(stored) or not all(isinstance(arg, Constant) for arg in stored.args):
            return call
        name = str(getattr(call.op, "name", ""))
        if name.startswith(PREFIX):
            return self._integer(call, stored, name)
        define = _FLOAT.get(name)
        if define is None or (name == "relax.nn.conv2d" and str(call.attrs.data_layout) != "NHWC"):
            return call

        def layer(x: Any, weight: Any) -> Any:
            return define(call, x, topi.cast(weight, "float32"))

        return self.builder_.call_te(layer, call.args[0], stored.args[0], primfunc_name_hint=name.rpartition(".")[2])

    def _integer(self, call: relax.Call, stored: relax.Call, name: str) -> relax.Expr:
        define = definition_of(name)
        sparse = is_integer_op(stored, "unpack_2of4")

        def layer(x: Any, packed: Any, multipliers: Any, *rest: Any) -> Any:
            if sparse:
                return te_sparse_layer(call, x, packed, multipliers, *rest)
            return define(call, x, te_unpacked(stored, packed, multipliers), *rest)

        args = [call.args[0], *stored.args, *call.args[2:]]
        return self.builder_.call_te(layer, *args, primfunc_name_hint=name.removeprefix(PREFIX))


def _convolution(call: relax.Call, x: Any, weight: Any) -> Any:
    order = [str(call.attrs.kernel_layout).index(axis) for axis in "OHWI"]
    _, kh, kw, depth = (static_shape(call.args[1])[axis] for axis in order)

    def product(value: Any, *place: Any) -> Any:
        return value * weight(*(place[order.index(axis)] for axis in range(4)))

    return te_window_sums(x, call.attrs, static_shape(call), (kh, kw), product, "conv", depth=depth)


def _product(call: relax.Call, x: Any, weight: Any) -> Any:
    depth = te.reduce_axis((0, static_shape(call.args[0])[-1]), "k")
    return te.compute(
        static_shape(call),
        lambda *i: te.sum(x(*i[:-1], depth) * weight(depth, i[-1]), axis=depth),
        name="matmul",
    )


_FLOAT = {"relax.nn.conv2d": _convolution, "relax.matmul": _product}
