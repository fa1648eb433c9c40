"""Storing the weights of integer layers as two of every four where they have that pattern."""

from __future__ import annotations

from .._tvm import relax, tvm
from ..graph.adopt_module import model_pass
from ..graph.rebuild import Rebuilder, bindings, rebuild, users
from ..graph.remarks import Remark, add_remarks
from ..integer.registry import is_integer_op
from ..integer.sparse_weights import sparse_weight
from ..numbers.sparsity_2_4 import has_2_4_sparsity, pack_2_4


@model_pass("CompressSparse")
class CompressSparse:
    """Replace the weights of `qconv2d` and `qdense` by `unpack_2of4` of 2.5 bytes for four weights; the results stay the same.

    It applies where at most two of every four successive weights along the input channels are not zero, as `Sparsify`
    with pattern (2, 4) leaves them. The values keep the weight's name; the indices are `<weight>.indices`.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`; a module without integer layers is returned as it is."""
        remarks: list[Remark] = []
        values_of, readers = dict(bindings(mod["main"])), users(mod["main"])

        def rewrite(rebuilder: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
            if not _is_layer(value):
                return None
            weight = rebuilder.param_value(value.args[1])
            if weight is None:
                return None
            if not all(_is_layer(values_of.get(reader)) for reader in readers.get(value.args[1], ())):
                remarks.append(Remark("CompressSparse", var.name, "its weights are read by another operator as well"))
                return None
            if not has_2_4_sparsity(weight):
                remarks.append(Remark("CompressSparse", var.name, "its weights are not two of every four input channels"))
                return None
            name = rebuilder.param_name(value.args[1]) or f"{var.name}.weight"
            values, indices = (rebuilder.param(key, array) for key, array in zip((name, f"{name}.indices"), pack_2_4(weight)))
            x, _, *rest = (rebuilder.get(arg) for arg in value.args)
            stored = rebuilder.emit(sparse_weight(values, indices, shape=weight.shape), f"{name}.unpacked")
            return relax.Call(value.op, [x, stored, *rest], value.attrs, value.ty_args)

        return add_remarks(rebuild(mod, rewrite), remarks)


def _is_layer(value: relax.Expr | None) -> bool:
    return value is not None and any(is_integer_op(value, name) for name in ("qconv2d", "qdense"))
