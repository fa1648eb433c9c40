"""Replacing integer operators by kernels for cores with Helium."""

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
from ...kernels.compiler_options import llvm_options
from ...kernels.decisions import Decide, by_default
from ...kernels.layers import (
    averaged_pixels,
    checked_bias,
    constant_values,
    convolution_sizes,
    depthwise_sizes,
    is_plain,
    row_sizes,
)
from ...kernels.taps import group_taps
from ...kernels.use_kernels import Kernel, Maker, Makers
from . import helium_add, helium_columns, helium_conv, helium_depthwise, helium_pool
from .helium_conv_shape import HeliumConvolution
from .helium_epilogue import HeliumEpilogue
from .helium_plans import MOST_TAPS, plan_convolution, plan_depthwise
from .helium_spaces import (
    columns_of,
    convolution_choice,
    convolution_plan,
    depthwise_choice,
)

KERNELS: Registry[Maker] = Registry("Helium kernel", prefix=PREFIX)
"""What makes the kernel of each operator."""


@tvm.transform.module_pass(opt_level=0, name="UseHeliumKernels")
class UseHeliumKernels:
    """Use the kernels for cores with Helium where they apply; parameters must be bound.

    Args:
        spare: Whether kernels may take workspace for speed alone.
        tuned: What tuning logs know.
    """

    def __init__(self, spare: bool = True, tuned: Tuned | None = None) -> None:
        self.spare, self.tuned = spare, tuned

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        mod, makers = self.prepared(mod)
        return use_tuned_kernels(mod, makers, self.tuned, spare=self.spare)

    def prepared(self, mod: tvm.IRModule) -> tuple[tvm.IRModule, Callable[[Decide], Makers]]:
        """The module as kernels take it, and what makes them, given who decides."""

        def makers(decide: Decide) -> Makers:
            deciding = ("qconv2d", "qdense", "qdepthwise")
            return {
                name: partial(make, decide=decide) if name.removeprefix(PREFIX) in deciding else make
                for name, make in KERNELS.items()
            }

        return mod, makers


def _epilogue(call: relax.Call) -> HeliumEpilogue:
    return HeliumEpilogue.of(call.attrs)


@KERNELS.register("qconv2d")
def _convolution(
    call: relax.Call, spare: int, addition: relax.Call | None = None, *, decide: Decide = by_default
) -> Kernel | None:
    constants = constant_values(call)
    if constants is None or not is_plain(call):
        return None
    weight, bias, multiplier, shift = constants
    conv = HeliumConvolution(**convolution_sizes(call), epilogue=_epilogue(call))
    flat = weight.reshape(conv.out_channels, -1)
    folded = checked_bias(call, flat, bias)
    padded = any(int(p) for p in call.attrs.padding)
    if conv.kernel == (conv.height, conv.width) and not padded and addition is None:
        return _fully_connected(call, flat, folded, multiplier, shift, decide)
    made = _sum(addition) if addition is not None else None
    if addition is not None and made is None:
        return None
    decided = decide(call, convolution_choice(conv, plan_convolution(conv), made is not None, False))
    plan = convolution_plan(decided)
    kernel = helium_conv.HeliumKernel(conv, plan, made[0] if made is not None else None)
    packed = kernel.constants(weight, folded, multiplier, shift)
    if made is not None:
        return Kernel("conv2d_add", kernel.function(), [packed, made[1]], llvm_options(decided))
    return Kernel("conv2d", kernel.function(), [packed], llvm_options(decided), repeat=True)


@KERNELS.register("qdense")
def _dense(call: relax.Call, *, decide: Decide = by_default) -> Kernel | None:
    constants = constant_values(call)
    if constants is None or int(np.prod(static_shape(call.args[0])[:-1])) != 1:
        return None
    weight, bias, multiplier, shift = constants
    return _fully_connected(call, weight, checked_bias(call, weight, bias), multiplier, shift, decide)


def _fully_connected(
    call: relax.Call,
    weight: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    shift: np.ndarray,
    decide: Decide,
) -> Kernel:
    """A layer of (O, K) weights as the convolution of one pixel."""
    outputs, inputs = weight.shape
    sizes = row_sizes(1, inputs, outputs, int(call.attrs.input_zero_point))
    conv = HeliumConvolution(**sizes, epilogue=_epilogue(call))
    one_scale = bool((multiplier == multiplier[0]).all() and (shift == shift[0]).all())
    decided = decide(call, convolution_choice(conv, plan_convolution(conv), False, one_scale))
    kernel = helium_conv.HeliumKernel(conv, replace(convolution_plan(decided), one_scale=one_scale))
    packed = kernel.constants(weight.reshape(outputs, 1, 1, inputs), bias, multiplier, shift)
    return Kernel("dense", kernel.function(), [packed], llvm_options(decided), repeat=True)


@KERNELS.register("qdepthwise")
def _depthwise(call: relax.Call, *, decide: Decide = by_default) -> Kernel | None:
    constants = constant_values(call)
    if constants is None or not is_plain(call):
        return None
    weight, bias, multiplier, shift = constants
    sizes = depthwise_sizes(call)
    if sizes["out_channels"] != sizes["channels"]:
        return None
    taps = weight.reshape(-1, sizes["channels"])
    folded = checked_bias(call, taps.T, bias)
    layer = helium_depthwise.HeliumDepthwise(**sizes, epilogue=_epilogue(call), groups=group_taps(taps), rows=1)
    if not layer.fits or layer.taps > MOST_TAPS:
        return None
    layer = replace(layer, rows=plan_depthwise(layer))
    decided = decide(call, depthwise_choice(layer))
    if decided["kernel"] == "columns":
        by_columns = columns_of(layer)
        packed = helium_columns.pack_constants(by_columns, taps, folded, multiplier, shift)
        func = helium_columns.depthwise(by_columns)
        return Kernel("depthwise_columns", func, [packed], llvm_options(decided), repeat=True)
    layer = replace(layer, rows=int(decided["rows"]))
    packed = helium_depthwise.pack_constants(layer, taps, folded, multiplier, shift)
    return Kernel("depthwise", helium_depthwise.depthwise(layer), [packed], llvm_options(decided), repeat=True)


def _sum(call: relax.Call) -> tuple[helium_add.HeliumSum, np.ndarray] | None:
    """The sum that a `qadd` computes, and its constants."""
    made = helium_add.HeliumSum.of(call, _epilogue(call))
    return None if made is None or static_shape(call.args[0])[-1] % 4 else made


@KERNELS.register("qadd")
def _add(call: relax.Call) -> Kernel | None:
    made = _sum(call)
    if made is None:
        return None
    total, constants = made
    return Kernel("add", helium_add.add(int(np.prod(static_shape(call))), total), [constants], options="")


@KERNELS.register("qavgpool")
def _average(call: relax.Call) -> Kernel | None:
    pixels, channels = averaged_pixels(call), static_shape(call)[3]
    if pixels is None or channels < helium_pool.LANES or not 2 <= pixels <= helium_pool.MOST_PIXELS:
        return None
    func = helium_pool.global_average(pixels, channels, int(call.attrs.qmin), int(call.attrs.qmax))
    return Kernel("average", func, [], options="")
