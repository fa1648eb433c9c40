"""Random integer networks of spatial layers, as Hypothesis draws them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.module_params import static_shape
from tvmcompress.passes.integer.ops import add_parameters, qadd, qavgpool, qconv2d, qdepthwise, qmaxpool, qrequantize
from tvmcompress.passes.integer.requantize import quantize_multipliers
from tvmcompress.passes.lowering.integer_core import IOQuantization, TensorQuantization, set_io_quantization


class Net:
    """A network under construction; `value` is its last tensor, int8 NHWC."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.x = relax.Var("x", relax.TensorType(shape, "int8"))
        self.value: Any = self.x
        self.params: dict[relax.Var, np.ndarray] = {}
        self.builder = relax.BlockBuilder()
        self.emitted: list[tuple[relax.Var, relax.Expr]] = []
        self.values: list[Any] = [self.x]

    def param(self, value: np.ndarray) -> relax.Var:
        var = relax.Var(f"p{len(self.params)}", relax.TensorType(value.shape, value.dtype.name))
        self.params[var] = value
        return var

    def emit(self, call: relax.Expr) -> None:
        normal = self.builder.normalize(call)
        var = relax.DataflowVar(f"layer{len(self.emitted)}", normal.ty)
        self.emitted.append((var, normal))
        self.value = var
        self.values.append(var)

    def convolution(self, outputs: int, kernel: int, stride: int, pads: tuple[int, int], depthwise: bool = False) -> None:
        channels = static_shape(self.value)[3]
        outputs = channels if depthwise else outputs
        shape = (1, kernel, kernel, outputs) if depthwise else (outputs, kernel, kernel, channels)
        multiplier, shift = quantize_multipliers(0.02 * self.rng.uniform(0.3, 2.0, outputs))
        bias = self.rng.integers(-500, 500, outputs).astype("int32")
        values = (self.rng.integers(-128, 128, shape).astype("int8"), bias, multiplier, shift)
        self.emit(
            (qdepthwise if depthwise else qconv2d)(
                self.value,
                *map(self.param, values),
                strides=(stride, stride),
                padding=(*pads, *pads),
                input_zero_point=int(self.rng.integers(-128, 128)),
                output_zero_point=int(self.rng.integers(-128, 128)),
            )
        )

    def pool(self, maximum: bool, size: int, stride: int, before: int) -> None:
        pool = qmaxpool if maximum else qavgpool
        self.emit(pool(self.value, pool_size=(size, size), strides=(stride, stride), padding=(before, before, 0, 0)))

    def add(self, other: relax.Expr) -> None:
        scales = add_parameters(0.1, 0.2, 0.25)
        self.emit(qadd(self.value, other, input1_zero_point=3, input2_zero_point=-7, output_zero_point=1, **scales))

    def requantize(self) -> None:
        self.emit(qrequantize(self.value, input_zero_point=4, output_zero_point=-9, multiplier=1_500_000_000, shift=0))

    def module(self) -> tvm.IRModule:
        """The network, named as `main`."""
        result = relax.Var("out", self.value.ty)
        block = relax.DataflowBlock(
            [*(relax.VarBinding(var, value) for var, value in self.emitted), relax.VarBinding(result, self.value)]
        )
        attrs = tvm.ir.make_node("ir.DictAttrs", num_input=1, global_symbol="main")
        body = relax.SeqExpr([block], result)
        func = relax.Function([self.x, *self.params], body, self.value.ty, True, attrs)
        return attach_params(tvm.IRModule({"main": func}), {var.name: value for var, value in self.params.items()})

    def core(self) -> tvm.IRModule:
        """The network as the program of a device, int8 in and out."""

        def end(name: str, var: relax.Var) -> tuple[TensorQuantization]:
            shape = static_shape(var)
            return (TensorQuantization(name, shape, shape, tuple(range(len(shape))), "int8", 0.1, 0),)

        return set_io_quantization(self.module(), IOQuantization(end("x", self.x), end("output0", self.value)))

    def input(self) -> np.ndarray:
        """A random input."""
        return self.rng.integers(-128, 128, static_shape(self.x)).astype("int8")


def tall_net() -> Net:
    """A small input, two wide layers, a small result."""
    net = Net((1, 32, 16, 4), 5)
    net.convolution(16, 3, 1, (1, 1))
    net.convolution(16, 3, 1, (1, 1), depthwise=True)
    net.convolution(8, 3, 2, (1, 1))
    net.convolution(8, 1, 2, (0, 0))
    return net


@st.composite
def spatial_nets(draw: st.DrawFn, channels: int = 1) -> Net:
    """Convolutions, depthwise ones, pools, sums over shortcuts, rescaling; `channels` divides all numbers of channels."""
    shape = (1, draw(st.integers(9, 21)), draw(st.integers(5, 9)), channels * draw(st.integers(1, 3)))
    net = Net(shape, draw(st.integers(0, 2**32 - 1)))
    for _ in range(draw(st.integers(1, 5))):
        _, height, width, depth = static_shape(net.value)
        kernel = draw(st.sampled_from([1, 3, 5] if min(height, width) > 4 else [1]))
        stride = draw(st.sampled_from([1, 2]))
        pads = draw(st.tuples(st.integers(0, kernel // 2), st.integers(0, kernel // 2)))
        kind = draw(st.sampled_from(["conv", "depthwise", "max", "average", "add", "requantize"]))
        if kind == "add":
            fitting = [v for v in net.values[:-1] if static_shape(v) == static_shape(net.value)]
            if not fitting:
                net.convolution(depth, 3, 1, (1, 1)) if min(height, width) > 2 else net.requantize()
            net.add(draw(st.sampled_from(fitting or [net.values[-2]])))
        elif kind == "requantize":
            net.requantize()
        elif kind in ("max", "average"):
            size = max(kernel - 1, 1) if kernel > 1 else 1
            net.pool(kind == "max", size, stride, draw(st.integers(0, size - 1)))
        else:
            net.convolution(channels * draw(st.integers(1, 3)), kernel, stride, pads, kind == "depthwise")
    return net
