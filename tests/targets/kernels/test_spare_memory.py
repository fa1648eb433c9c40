"""Workspace that kernels may use: half of what is alive at once where most is, less what is alive beside them."""

from __future__ import annotations

import numpy as np

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.integer import ops
from tvmcompress.targets.kernels.spare_memory import spare_memory


def convolution(x: relax.Expr, outputs: int, channels: int, strides: tuple[int, int]) -> relax.Call:
    """A convolution that keeps or halves the map."""
    weight = relax.const(np.zeros((outputs, 3, 3, channels), "int8"))
    rest = [relax.const(np.ones(outputs, "int32")) for _ in range(3)]
    return ops.qconv2d(
        x, weight, *rest, strides=strides, padding=(1, 1, 1, 1), input_zero_point=0, output_zero_point=0
    )


def test_what_is_alive_limits_the_workspace() -> None:
    x = relax.Var("x", relax.TensorType((1, 8, 8, 4), "int8"))  # 256 bytes
    builder = relax.BlockBuilder()
    with builder.function("main", [x], attrs={"num_input": 1}):
        with builder.dataflow():
            first = builder.emit(convolution(x, 8, 4, (1, 1)))  # 512 bytes beside 256
            second = builder.emit(convolution(first, 8, 8, (1, 1)))  # joins the sum, in the place of `first`
            scales = ops.add_parameters(0.1, 0.07, 0.12)
            added = builder.emit(
                ops.qadd(first, second, input1_zero_point=0, input2_zero_point=0, output_zero_point=0, **scales)
            )
            small = builder.emit_output(convolution(added, 4, 8, (2, 2)))  # 64 bytes
        builder.emit_func_output(small)
    main = builder.get()["main"]
    spare = {value.op.name.split(".")[-1] + str(i): spare_memory(main)[var] for i, (var, value) in enumerate(bindings(main))}
    # Most is alive at the sum: both operands, 1024 bytes.
    assert spare == {"qconv2d0": 1536 - 768, "qconv2d1": 1536 - 512, "qadd2": 1536 - 1024, "qconv2d3": 1536 - 576}
