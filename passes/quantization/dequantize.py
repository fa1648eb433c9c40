"""Back from QDQ form to float, with the weights that the integers stand for."""

from __future__ import annotations

from .._tvm import relax, tvm
from ..graph.adopt_module import model_pass
from ..graph.rebuild import Rebuilder, rebuild
from ..graph.view import GraphView
from .few_bits import clip_of_bits
from .weight_grid import weight_grid


@model_pass("Dequantize")
class Dequantize:
    """Turn a module in QDQ form into a float one: activations are no longer rounded, weights and biases keep the values that
    their integers stand for, float32, under their names.

    So what works on float models alone, as pruning does, can start from a quantized network, and `Quantize` behind it finds
    the weights on their grid again.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`; a module without quantize and dequantize operators is returned as it is."""
        graph = GraphView(mod)

        def rewrite(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
            name = getattr(value.op, "name", "") if isinstance(value, relax.Call) else ""
            if name == "relax.quantize":
                clip = clip_of_bits(graph, value)
                return build.get(graph.values[clip[0]].args[0] if clip is not None else value.args[0])
            if name != "relax.dequantize":
                return None
            grid = weight_grid(var, graph.values, graph.params)
            if grid is not None:
                return build.param(grid.parameter.name, grid.real())
            made = graph.call(value.args[0])
            # What comes in as integers stays so.
            return build.get(value.args[0]) if made is not None and _floats(build, value.args[0]) else None

        return rebuild(mod, rewrite)


def _floats(build: Rebuilder, expr: relax.Expr) -> bool:
    return "float" in str(build.get(expr).ty.dtype)
