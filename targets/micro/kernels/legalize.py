"""Replacing integer operators by this core's kernels; what no kernel takes keeps its generic definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from tvm.relax.expr_functor import PyExprMutator, mutator

from ....passes._tvm import Constant, relax, tirx, tvm
from ....passes.integer.registry import PREFIX
from ....passes.integer.requantize import multiply
from ....passes.module_params import static_shape
from ...aot.lower import LLVM_OPTIONS_ATTR
from . import dense, depthwise, elementwise, panel, pool
from .epilogue import Epilogue, NotRepresentable
from .packing import planes_are_exact
from .plans import plan_band, plan_convolution

_NO_STRENGTH_REDUCTION = "-disable-lsr:bool=true"


@tvm.transform.module_pass(opt_level=0, name="UseDspKernels")
class UseDspKernels:
    """Use the kernels for cores with the DSP extension where they apply; parameters must be bound."""

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        rewriter = _Rewriter(mod)
        main = mod.get_global_var("main")
        rewriter.builder_.update_func(main, rewriter.visit_expr(mod["main"]))
        return rewriter.builder_.get()


class _Kernel:
    """A function and its constants."""

    def __init__(self, name: str, func: tirx.PrimFunc, constants: list[np.ndarray], *, plain_lsr: bool = False) -> None:
        self.name = name
        self.func = func if plain_lsr else func.with_attr(LLVM_OPTIONS_ATTR, _NO_STRENGTH_REDUCTION)
        self.constants = constants


@mutator
class _Rewriter(PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        name = getattr(call.op, "name", "")
        make = _MAKERS.get(name)
        if make is None:
            return call
        tensors = [arg for arg in call.args if not isinstance(arg, Constant)]
        try:
            kernel = make(call)
        except NotRepresentable:
            return call
        if kernel is None or static_shape(call)[0] != 1:
            return call
        # Opaque to fusion: the body is a loop nest of its own, not a block.
        function = self.builder_.add_func(kernel.func.with_attr("op_pattern", 8), kernel.name)
        flat = [relax.op.reshape(tensor, (int(np.prod(static_shape(tensor))),)) for tensor in tensors]
        flat = [self.builder_.emit(tensor) for tensor in flat]
        shape = static_shape(call)
        args = [*flat, *(relax.const(value) for value in kernel.constants)]
        out_type = relax.TensorType((int(np.prod(shape)),), "int8")
        result = self.builder_.emit(relax.call_tir(function, relax.Tuple(args), out_ty=out_type))
        return relax.op.reshape(result, shape)


def _constants(call: relax.Call) -> list[np.ndarray] | None:
    values = [arg.value.numpy() for arg in call.args[1:] if isinstance(arg, Constant)]
    return values if len(values) == len(call.args) - 1 else None


def _epilogue(call: relax.Call) -> Epilogue:
    attrs = call.attrs
    return Epilogue(str(attrs.rounding), int(attrs.output_zero_point), int(attrs.qmin), int(attrs.qmax))


def _folded_bias(call: relax.Call, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The bias with the input's zero point taken out of the sum over (O, K) weights."""
    folded = bias.astype(np.int64) - int(call.attrs.input_zero_point) * weight.astype(np.int64).sum(1)
    if np.abs(folded).max(initial=0) >= 1 << 31:
        raise NotRepresentable("a bias that leaves 32 bits")
    return folded.astype(np.int32)


def _convolution(call: relax.Call) -> _Kernel | None:
    attrs = call.attrs
    constants = _constants(call)
    if constants is None or int(attrs.groups) != 1 or [int(d) for d in attrs.dilation] != [1, 1]:
        return None
    weight, bias, multiplier, shift = constants
    outputs, kh, kw, channels = weight.shape
    _, height, width, _ = static_shape(call.args[0])
    _, out_height, out_width, _ = static_shape(call)
    top, left, bottom, right = (int(p) for p in attrs.padding)
    flat = weight.reshape(outputs, -1)
    folded = _folded_bias(call, flat, bias)
    covers = (out_height, out_width) == (1, 1) and (kh, kw) == (height, width) and not (top or left or bottom or right)
    if covers:
        return _fully_connected(call, flat, folded, multiplier, shift)
    conv = panel.Convolution(
        height=height,
        width=width,
        channels=channels,
        out_height=out_height,
        out_width=out_width,
        out_channels=outputs,
        kernel=(kh, kw),
        strides=tuple(int(s) for s in attrs.strides),  # type: ignore[arg-type]
        top=top,
        left=left,
        input_zero_point=int(attrs.input_zero_point),
        epilogue=_epilogue(call),
    )
    plan = plan_convolution(conv, wide_weights=not planes_are_exact(flat))
    if plan is None:
        return None
    kernel = panel.PanelConvolution(conv, plan)
    parameters = kernel.parameters(folded, multiplier, shift)
    single_round = kernel.words == plan.unroll and kernel.words <= 8
    return _Kernel("conv2d", kernel.function(), [kernel.weights(weight), parameters], plain_lsr=single_round)


def _depthwise(call: relax.Call) -> _Kernel | None:
    attrs = call.attrs
    constants = _constants(call)
    if constants is None or [int(d) for d in attrs.dilation] != [1, 1]:
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
        _epilogue(call), 1,
    )  # fmt: skip
    layer = replace(layer, band=plan_band(out_height, layer))
    folded = _folded_bias(call, weight.reshape(-1, channels).T, bias)
    parameters = depthwise.pack_parameters(layer, folded, multiplier, shift)
    return _Kernel(
        "depthwise", depthwise.depthwise_3x3(layer), [depthwise.pack_weights(weight[0]), parameters], plain_lsr=True
    )


def _dense(call: relax.Call) -> _Kernel | None:
    constants = _constants(call)
    if constants is None or int(np.prod(static_shape(call.args[0])[:-1])) != 1:
        return None
    weight, bias, multiplier, shift = constants
    return _fully_connected(call, weight, _folded_bias(call, weight, bias), multiplier, shift)


def _fully_connected(
    call: relax.Call, weight: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
) -> _Kernel | None:
    outputs, inputs = weight.shape
    if inputs % 4 or not planes_are_exact(weight):
        return None
    # Unpacking once pays for small inputs; for large ones the workspace would cost more RAM than it saves time.
    unpacked = inputs <= 256
    preferred = 8 if unpacked else 4
    unroll = max(u for u in range(1, preferred + 1) if inputs // 4 % u == 0)
    layer = dense.Dense(inputs, outputs, _epilogue(call), 2, unroll, unpacked)
    constants = [dense.pack_weights(layer, weight), dense.pack_parameters(layer, bias, multiplier, shift)]
    return _Kernel("dense", dense.dense(layer), constants, plain_lsr=not unpacked)


def _add(call: relax.Call) -> _Kernel | None:
    attrs = call.attrs
    shapes = [static_shape(arg) for arg in call.args]
    if shapes[0] != shapes[1] or any(isinstance(arg, Constant) for arg in call.args):
        return None
    rounding = str(attrs.rounding)
    tables = [
        multiply(
            (np.arange(-128, 128, dtype=np.int64) - int(attrs[f"input{i}_zero_point"])) << int(attrs.left_shift),
            int(attrs[f"input{i}_multiplier"]), int(attrs[f"input{i}_shift"]), rounding,
        )
        for i in (1, 2)
    ]  # fmt: skip
    epilogue = _epilogue(call)
    parameters = epilogue.parameters(np.array([int(attrs.output_multiplier)]), np.array([int(attrs.output_shift)]))
    func = elementwise.add(int(np.prod(shapes[0])), epilogue, parameters[:, 0])
    return _Kernel("add", func, [elementwise.add_tables(*tables)])


def _average(call: relax.Call) -> _Kernel | None:
    attrs = call.attrs
    _, height, width, channels = static_shape(call.args[0])
    whole = [int(p) for p in attrs.pool_size] == [height, width] and not any(int(p) for p in attrs.padding)
    if not whole or channels % 4 or height * width > pool.MOST_PIXELS:
        return None
    return _Kernel("average", pool.global_average(height * width, channels, int(attrs.qmin), int(attrs.qmax)), [])


_MAKERS: dict[str, Callable[[relax.Call], _Kernel | None]] = {
    f"{PREFIX}qconv2d": _convolution,
    f"{PREFIX}qdepthwise": _depthwise,
    f"{PREFIX}qdense": _dense,
    f"{PREFIX}qadd": _add,
    f"{PREFIX}qavgpool": _average,
}
