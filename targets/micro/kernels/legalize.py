"""Replacing integer operators by this core's kernels; what no kernel takes keeps its generic definition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ....passes._tvm import Constant, relax, tvm
from ....passes.graph.module_params import static_shape
from ....passes.integer.registry import PREFIX
from ....passes.plugins.registry import Registry
from ...kernels.choose import Tuned, use_tuned_kernels
from ...kernels.compiler_options import llvm_options
from ...kernels.decisions import Decide, by_default
from ...kernels.layers import averaged_pixels, constant_values, folded_bias, is_plain, row_sizes
from ...kernels.use_kernels import Kernel, Maker, Makers
from . import dense, depthwise, elementwise, panel, pool, winograd
from .constant_channels import settle_constant_channels
from .forms import dense_forms, depthwise_forms, panel_forms, plans_of, winograd_forms
from .formula import Formula, choose_forms
from .packing import planes_are_exact
from .plans import plan_band, plan_convolution, plan_winograd
from .shapes import convolution_shape, epilogue_of
from .spaces import (
    convolution_choice,
    convolution_plan,
    dense_choice,
    dense_plan,
    depthwise_choice,
    depthwise_plan,
)
from .sparse import decode_sparse, plan_sparse
from .winograd import WinogradPlan

_SMALL_LAYER = 1536
"""Weights."""

_PLAIN = Formula()

KERNELS: Registry[Maker] = Registry("DSP kernel", prefix=PREFIX)
"""What makes the kernel of each operator."""


@tvm.transform.module_pass(opt_level=0, name="UseDspKernels")
class UseDspKernels:
    """Use the kernels for cores with the DSP extension where they apply; parameters must be bound.

    Args:
        spare: Whether kernels may take workspace for speed alone.
        spend_flash: Bytes of flash to spend for speed, see `choose_forms`.
        tuned: What tuning logs know.
    """

    def __init__(self, spare: bool = True, spend_flash: int | None = None, tuned: Tuned | None = None) -> None:
        self.spare, self.spend_flash, self.tuned = spare, spend_flash, tuned

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        mod, makers, formula = self._prepared(mod)
        # What the formula leaves of its own share stays unspent: a tuned build takes no more than an untuned one.
        left = 0 if self.spend_flash is None else formula.left
        return use_tuned_kernels(mod, makers, self.tuned, spare=self.spare, spare_flash=left)

    def prepared(self, mod: tvm.IRModule) -> tuple[tvm.IRModule, Callable[[Decide], Makers]]:
        """The module as kernels take it, and what makes them, given who decides."""
        return self._prepared(mod)[:2]

    def halfwords(self, mod: tvm.IRModule) -> list[bytes]:
        """The weights of a model that become halfwords though bytes would hold them, as they are before."""
        return [weight.value.numpy().tobytes() for weight in self._prepared(mod)[2].halfwords]

    def _prepared(self, mod: tvm.IRModule) -> tuple[tvm.IRModule, Callable[[Decide], Makers], Formula]:
        mod, sparse = decode_sparse(mod)

        def makers(decide: Decide, formula: Formula) -> Makers:
            made = {
                f"{PREFIX}qconv2d": partial(_convolution, formula=formula, sparse=sparse, decide=decide),
                f"{PREFIX}qdense": partial(_dense, formula=formula, sparse=sparse, decide=decide),
                f"{PREFIX}qdepthwise": partial(_depthwise, formula=formula, decide=decide),
            }
            return {**KERNELS, **{name: maker for name, maker in made.items() if name in KERNELS}}

        formula = choose_forms(mod, makers, self.spend_flash, self.spare)
        return mod, partial(makers, formula=formula), formula


def _settled(
    call: relax.Call, weight: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights (O, K), bias with the input's zero point taken out, multipliers and shifts, proven to fit the kernels."""
    epilogue = epilogue_of(call)
    settled = settle_constant_channels(weight, folded_bias(call, weight, bias), multiplier, shift, epilogue)
    epilogue.check_range(*settled[:2])
    return settled


def _is_late(weight: np.ndarray, bias: np.ndarray) -> bool:
    """Whether byte planes hold the weights but not the bias with them."""
    return planes_are_exact(weight) and not planes_are_exact(weight, bias)


@KERNELS.register("qconv2d")
def _convolution(
    call: relax.Call,
    spare: int,
    addition: relax.Call | None = None,
    *,
    formula: Formula = _PLAIN,
    sparse: Sequence[Constant] = (),
    decide: Decide = by_default,
) -> Kernel | None:
    constants = constant_values(call)
    if constants is None or not is_plain(call):
        return None
    weight, bias, multiplier, shift = constants
    conv = convolution_shape(call)
    flat, folded, multiplier, shift = _settled(call, weight.reshape(conv.out_channels, -1), bias, multiplier, shift)
    if _is_among(call.args[1], sparse):
        return _sparse(conv, flat, folded, multiplier, shift)
    weight = flat.reshape(weight.shape)
    covers = (conv.out_height, conv.out_width) == (1, 1) and conv.kernel == (conv.height, conv.width)
    if covers and not any(int(p) for p in call.attrs.padding):
        return _fully_connected(call, flat, folded, multiplier, shift, formula, decide)
    made = elementwise.Sum.of(addition, epilogue_of(addition)) if addition is not None else None
    if addition is not None and made is None:
        return None
    residual = made[0] if made is not None else None
    exact, late = planes_are_exact(flat), _is_late(flat, folded)
    adds = residual is not None
    filtered = plan_winograd(conv, spare)
    if filtered is not None:
        forms = winograd_forms(conv, filtered, spare, adds)
    else:
        by_panels = plan_convolution(conv, adds)
        if by_panels is None:
            return None
        forms = panel_forms(conv, by_panels, adds, exact, late)
    default = formula.take(call, forms)
    choice = convolution_choice(conv, default, spare, adds, exact, late, plans_of(forms))
    decided = decide(call, choice)
    plan, options = convolution_plan(decided, late), llvm_options(decided)
    kernel: winograd.WinogradConvolution | panel.PanelConvolution
    if isinstance(plan, WinogradPlan):
        name, kernel = "_winograd", winograd.WinogradConvolution(conv, plan, residual)
    else:
        name, kernel = "", panel.PanelConvolution(conv, plan, residual)
    constants = list(kernel.constants(weight, folded, multiplier, shift))
    if made is not None:
        return Kernel(f"conv2d_add{name}", kernel.function(), [*constants, made[1]], options)
    return Kernel(f"conv2d{name}", kernel.function(), constants, options, repeat=True)


@KERNELS.register("qdepthwise")
def _depthwise(call: relax.Call, *, formula: Formula = _PLAIN, decide: Decide = by_default) -> Kernel | None:
    attrs = call.attrs
    constants = constant_values(call)
    if constants is None or not is_plain(call):
        return None
    weight, bias, multiplier, shift = constants
    _, height, width, channels = static_shape(call.args[0])
    _, out_height, out_width, outputs = static_shape(call)
    strides = [int(s) for s in attrs.strides]
    top, left = (int(p) for p in list(attrs.padding)[:2])
    fits = weight.shape[1:3] == (3, 3) and outputs == channels and channels % 4 == 0
    if not fits or strides not in ([1, 1], [2, 2]) or max(top, left) > 1 or width < 2 or out_width < 2:
        return None
    layer = depthwise.Depthwise(
        height, width, channels, out_height, out_width, strides[0], top, left, int(attrs.input_zero_point),
        epilogue_of(call), 1,
    )  # fmt: skip
    forms = depthwise_forms(replace(layer, band=plan_band(out_height, layer)))
    layer = formula.take(call, forms)
    decided = decide(call, depthwise_choice(layer, plans_of(forms)))
    layer = depthwise_plan(layer, decided)
    flat, folded, multiplier, shift = _settled(call, weight.reshape(-1, channels).T, bias, multiplier, shift)
    weight = flat.T.reshape(weight.shape)
    packed = depthwise.pack_constants(layer, weight[0], folded, multiplier, shift)
    return Kernel("depthwise", depthwise.depthwise_3x3(layer), packed, llvm_options(decided))


@KERNELS.register("qdense")
def _dense(
    call: relax.Call, *, formula: Formula = _PLAIN, sparse: Sequence[Constant] = (), decide: Decide = by_default
) -> Kernel | None:
    constants = constant_values(call)
    if constants is None or int(np.prod(static_shape(call.args[0])[:-1])) != 1:
        return None
    weight, bias, multiplier, shift = constants
    settled = _settled(call, weight, bias, multiplier, shift)
    if _is_among(call.args[1], sparse):
        outputs, inputs = weight.shape
        sizes = row_sizes(1, inputs, outputs, int(call.attrs.input_zero_point))
        position = panel.Convolution(**sizes, epilogue=epilogue_of(call))
        return _sparse(position, *settled)
    return _fully_connected(call, *settled, formula, decide)


def _sparse(conv: panel.Convolution, weight: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> Kernel:
    kernel = plan_sparse(conv)
    return Kernel("sparse", kernel.function(), [kernel.weights(weight), kernel.parameters(bias, multiplier, shift)], options="")


def _is_among(constant: relax.Expr, constants: Sequence[Constant]) -> bool:
    return any(constant.same_as(other) for other in constants)


def _fully_connected(
    call: relax.Call,
    weight: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    shift: np.ndarray,
    formula: Formula,
    decide: Decide,
) -> Kernel | None:
    outputs, inputs = weight.shape
    if inputs % 4 or not planes_are_exact(weight):
        return None
    # Unpacking once pays for small inputs; for large ones the workspace would cost more RAM than it saves time.
    unpacked = inputs <= 128
    # Small layers would be mostly code.
    longest = 32 if weight.size >= _SMALL_LAYER else 4
    unroll = max(u for u in range(1, longest + 1) if inputs // 4 % u == 0)
    one_scale = bool((multiplier == multiplier[0]).all() and (shift == shift[0]).all())
    late = _is_late(weight, bias)
    layer = dense.Dense(inputs, outputs, epilogue_of(call), 2 if unpacked else 4, unroll, unpacked, late, one_scale)
    forms = dense_forms(layer)
    layer = formula.take(call, forms)
    decided = decide(call, dense_choice(layer, plans_of(forms)))
    layer = dense_plan(layer, decided)
    constants = dense.pack_constants(layer, weight, bias, multiplier, shift)
    return Kernel("dense", dense.dense(layer), constants, llvm_options(decided))


@KERNELS.register("qadd")
def _add(call: relax.Call) -> Kernel | None:
    made = elementwise.Sum.of(call, epilogue_of(call))
    if made is None:
        return None
    total, constants = made
    return Kernel("add", elementwise.add(int(np.prod(static_shape(call))), total), [constants])


@KERNELS.register("qavgpool")
def _average(call: relax.Call) -> Kernel | None:
    pixels, channels = averaged_pixels(call), static_shape(call)[3]
    if pixels is None or channels % 4 or pixels > pool.MOST_PIXELS:
        return None
    return Kernel("average", pool.global_average(pixels, channels, int(call.attrs.qmin), int(call.attrs.qmax)), [])
