"""Counting layers, operations and parameters."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.analysis import count_macs, count_params, layers, param_bytes


@I.ir_module
class Net:
    @R.function
    def main(
        x: R.Tensor((1, 4, 8, 8), "float32"),
        w: R.Tensor((6, 2, 3, 3), "float32"),
        d: R.Tensor((6, 1, 3, 3), "float32"),
        t: R.Tensor((6, 5, 2, 2), "float32"),
        f: R.Tensor((5, 7), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a = R.nn.conv2d(x, w, strides=[2, 2], padding=[1, 1, 1, 1], groups=2)
            b = R.nn.conv2d(a, d, padding=[1, 1, 1, 1], groups=6)
            c = R.nn.conv2d_transpose(b, t, strides=[2, 2])
            e = R.mean(c, axis=[2, 3])
            g = R.matmul(e, f)
            R.output(g)
        return g


def test_counts_by_hand() -> None:
    main = Net["main"]
    params = {v.name: np.zeros([int(d) for d in v.ty.shape], "float32") for v in list(main.params)[1:]}
    mod = attach_params(Net, params)
    found = {layer.name: layer for layer in layers(mod)}
    assert found["a"].macs == 4 * 4 * 6 * 2 * 9
    assert found["b"].macs == 4 * 4 * 6 * 9
    assert found["c"].macs == 4 * 4 * 6 * 5 * 4
    assert found["e"].macs == 0
    assert found["g"].macs == 35
    assert count_macs(mod) == sum(layer.macs for layer in found.values())
    assert (found["a"].params, found["a"].param_bytes) == (108, 432)
    assert found["a"].input_shapes == ((1, 4, 8, 8),)
    assert found["a"].output_shape == (1, 6, 4, 4)
    assert count_params(mod) == 108 + 54 + 120 + 35
    assert param_bytes(mod) == 4 * count_params(mod)


def test_shared_parameter_counts_once() -> None:
    x = relax.Var("x", relax.TensorType((1, 4), "float32"))
    w = relax.Var("w", relax.TensorType((4, 4), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, w], attrs={"num_input": 1}):
        with builder.dataflow():
            once = builder.emit(relax.op.matmul(x, w))
            out = builder.emit_output(relax.op.matmul(once, w))
        builder.emit_func_output(out)
    mod = attach_params(builder.get(), {"w": np.zeros((4, 4), "float32")})
    assert [layer.params for layer in layers(mod)][:2] == [16, 0]
    assert count_macs(mod) == 32
