"""Replacing integer operators by kernels for cores without the DSP extension; the rest keeps its generic definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from ....passes._tvm import relax, tvm
from ....passes.graph.module_params import static_shape
from ....passes.integer.registry import PREFIX
from ....passes.plugins.registry import Registry
from ...kernels.choose import Tuned, use_tuned_kernels
from ...kernels.decisions import Decide, by_default
from ...kernels.layers import constant_values, convolution_sizes, depthwise_sizes, folded_bias, is_plain, row_sizes
from ...kernels.use_kernels import Kernel, Maker, Makers
from .constant_channels import settle_constant_channels
from .scalar_add import ScalarSum
from .scalar_assembly import long_sums_fit
from .scalar_conv import ScalarConvolution, ScalarKernel
from .scalar_depthwise import ScalarDepthwise
from .scalar_epilogue import ScalarEpilogue
from .scalar_spaces import convolution_choice, convolution_plan, depthwise_choice

KERNELS: Registry[Maker] = Registry("scalar kernel", prefix=PREFIX)
"""What makes the kernel of each operator."""


@tvm.transform.module_pass(opt_level=0, name="UseScalarKernels")
class UseScalarKernels:
    """Use the kernels for cores without the DSP extension where they apply; parameters must be bound.

    Args:
        long: Whether the core multiplies words to two words (Armv7-M does, Armv6-M does not).
        spare: Whether kernels may take workspace for speed alone.
        tuned: What tuning logs know.
    """

    def __init__(self, long: bool, spare: bool = True, tuned: Tuned | None = None) -> None:
        self.long, self.spare, self.tuned = long, spare, tuned

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        mod, makers = self.prepared(mod)
        return use_tuned_kernels(mod, makers, self.tuned, spare=self.spare)

    def prepared(self, mod: tvm.IRModule) -> tuple[tvm.IRModule, Callable[[Decide], Makers]]:
        """The module as kernels take it, and what makes them, given who decides."""

        def makers(decide: Decide) -> Makers:
            return {name: partial(make, long=self.long, decide=decide) for name, make in KERNELS.items()}

        return mod, makers


@KERNELS.register("qconv2d")
def _convolution(
    call: relax.Call, spare: int, addition: relax.Call | None = None, *, long: bool, decide: Decide = by_default
) -> Kernel | None:
    constants = constant_values(call)
    if constants is None or not is_plain(call) or addition is not None:
        return None
    conv = ScalarConvolution(**convolution_sizes(call), epilogue=ScalarEpilogue.of(call.attrs, long))
    return _products(call, conv, constants, spare, decide, "conv2d")


@KERNELS.register("qdepthwise")
def _depthwise(call: relax.Call, *, long: bool, decide: Decide = by_default) -> Kernel | None:
    constants = constant_values(call)
    if constants is None or not is_plain(call):
        return None
    layer = ScalarDepthwise(**depthwise_sizes(call), epilogue=ScalarEpilogue.of(call.attrs, long))
    if not layer.fits:
        return None
    weight, *rest = constants
    flat, parameters = _settled(call, layer.epilogue, weight.reshape(-1, layer.channels).T, *rest)
    decided = decide(call, depthwise_choice(layer))
    layer = replace(layer, tile=int(decided["tile"]))
    return Kernel("depthwise", layer.function(), layer.constants(flat, parameters))


@KERNELS.register("qdense")
def _dense(call: relax.Call, *, long: bool, decide: Decide = by_default) -> Kernel | None:
    constants = constant_values(call)
    if constants is None:
        return None
    tokens, (outputs, inputs) = int(np.prod(static_shape(call.args[0])[:-1])), static_shape(call.args[1])
    sizes = row_sizes(tokens, inputs, outputs, int(call.attrs.input_zero_point))
    conv = ScalarConvolution(**sizes, epilogue=ScalarEpilogue.of(call.attrs, long))
    return _products(call, conv, constants, 0, decide, "dense")


@KERNELS.register("qadd")
def _add(call: relax.Call, *, long: bool, decide: Decide = by_default) -> Kernel | None:
    made = ScalarSum.of(call, ScalarEpilogue.of(call.attrs, long))
    if made is None:
        return None
    total = replace(made[0], elements=int(np.prod(static_shape(call))))
    constants = total.constants(int(call.attrs.output_multiplier), int(call.attrs.output_shift))
    return Kernel("add", total.function(), [constants])


def _products(
    call: relax.Call, conv: ScalarConvolution, constants: list[np.ndarray], spare: int, decide: Decide, name: str
) -> Kernel:
    weight, *rest = constants
    flat, parameters = _settled(call, conv.epilogue, weight.reshape(conv.out_channels, -1), *rest)
    decided = decide(call, convolution_choice(conv, spare, long_sums_fit(flat)))
    kernel = ScalarKernel(conv, convolution_plan(decided))
    return Kernel(name, kernel.function(), kernel.constants(flat, parameters))


def _settled(
    call: relax.Call,
    epilogue: ScalarEpilogue,
    weight: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    shift: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (O, K), and the epilogue's parameters, proven to fit the kernels."""
    settled = settle_constant_channels(weight, folded_bias(call, weight, bias), multiplier, shift, epilogue)
    return settled[0], epilogue.parameters(*settled)
