"""Replacing integer operators by this core's kernels; what no kernel takes keeps its generic definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from ....passes._tvm import Constant, relax, tirx, tvm
from ....passes.graph.module_params import static_shape
from ....passes.integer.registry import PREFIX
from ....passes.integer.requantization import requantization_of
from ....passes.integer.requantize import requantized
from ....passes.plugins.registry import Registry
from ...kernels.choose import Tuned, use_tuned_kernels
from ...kernels.decisions import Decide, by_default
from ...kernels.layers import (
    ConvolutionShape,
    checked_bias,
    constant_values,
    convolution_sizes,
    depthwise_sizes,
    is_plain,
    row_sizes,
)
from ...kernels.sums import Operand
from ...kernels.taps import group_taps
from ...kernels.use_kernels import Kernel, Maker, Makers
from ...kernels.vectors import VECTOR
from .addition import Term, add
from .averages import MOST_PIXELS, Mean, average_pool, counts, mean, reciprocals
from .convolution import convolution
from .depthwise import DepthwiseKernel, DotTaps, HalfwordTaps
from .epilogue import Epilogue
from .lookup import lookup, pack_table
from .matmul import MatmulKernel, matmul
from .normalization import LONGEST, NormalizationKernel, normalization
from .plan import ConvolutionKernel, Plan
from .plans import plan_convolution
from .pools import Pool, max_pool
from .products import Dot, Pairs, Products
from .softmax import SoftmaxKernel, softmax
from .spaces import NO_HOISTING, convolution_choice, convolution_plan, llvm_options
from .winograd import SOURCE, WinogradKernel, winograd

_MOST_CONSTANTS = 1 << 16
"""Bytes of a constant operand, which is kept for every element."""
_MOST_TAPS = 25
"""Of the largest depthwise kernel; taps are unrolled."""

KERNELS: Registry[Maker] = Registry("NEON kernel", prefix=PREFIX)
"""What makes the kernel of each operator, given how the core multiplies bytes, and the call."""


@tvm.transform.module_pass(opt_level=0, name="UseNeonKernels")
class UseNeonKernels:
    """Use the kernels for 64-bit Cortex-A where they apply; parameters must be bound.

    Args:
        products: How the core multiplies bytes.
        tuned: What tuning logs know.
        threads: How many threads may share a layer; each should find something to do.
    """

    spare = True

    def __init__(self, products: Products, tuned: Tuned | None = None, threads: int = 1) -> None:
        self.products, self.tuned, self.threads = products, tuned, threads

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        mod, makers = self.prepared(mod)
        # Flash is no matter here.
        return use_tuned_kernels(mod, makers, self.tuned, spare_flash=1 << 30)

    def prepared(self, mod: tvm.IRModule) -> tuple[tvm.IRModule, Callable[[Decide], Makers]]:
        """The module as kernels take it, and what makes them, given who decides."""

        def makers(decide: Decide) -> Makers:
            made: dict[str, Maker] = {name: partial(make, self.products) for name, make in KERNELS.items()}
            for name in (f"{PREFIX}qconv2d", f"{PREFIX}qdense"):
                if name in made:
                    made[name] = partial(made[name], decide=decide, threads=self.threads)
            name = f"{PREFIX}qdepthwise"
            if name in made:
                made[name] = partial(made[name], threads=self.threads)
            return made

        return mod, makers


def _epilogue(call: relax.Call, shift: np.ndarray) -> Epilogue:
    record = requantization_of(call.attrs)
    return Epilogue.of(record["rounding"], record["output_zero_point"], record["qmin"], record["qmax"], shift)


def _bounds(weights: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest sums of channels with (O, K) weights, for whatever bytes come in."""
    wide = weights.astype(np.int64)
    ends = (wide * -128, wide * 127)
    return bias + np.minimum(*ends).sum(1), bias + np.maximum(*ends).sum(1)


@KERNELS.register("qconv2d")
def _convolution(
    products: Products,
    call: relax.Call,
    spare: int,
    addition: relax.Call | None = None,
    *,
    decide: Decide = by_default,
    threads: int = 1,
) -> Kernel | None:
    constants = constant_values(call)
    if addition is not None or constants is None or not is_plain(call):
        return None
    shape = ConvolutionShape(**convolution_sizes(call))
    whole = shape.kernel == (shape.height, shape.width) and (shape.out_height, shape.out_width) == (1, 1)
    if whole and not any(int(p) for p in call.attrs.padding):
        weight, *rest = constants
        return _tokens(products, call, decide, threads, 1, weight.reshape(len(weight), -1), *rest)
    return _kernel("conv2d", products, call, decide, threads, shape, *constants)


@KERNELS.register("qdense")
def _dense(products: Products, call: relax.Call, *, decide: Decide = by_default, threads: int = 1) -> Kernel | None:
    constants = constant_values(call)
    if constants is None:
        return None
    return _tokens(products, call, decide, threads, int(np.prod(static_shape(call.args[0])[:-1])), *constants)


def _tokens(
    products: Products,
    call: relax.Call,
    decide: Decide,
    threads: int,
    count: int,
    weight: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    shift: np.ndarray,
) -> Kernel:
    """A layer of (O, K) weights over `count` tokens, as the pointwise convolution of a row."""
    outputs, inputs = weight.shape
    shape = ConvolutionShape(**row_sizes(count, inputs, outputs))
    return _kernel(
        "dense", products, call, decide, threads, shape, weight.reshape(outputs, 1, 1, inputs), bias, multiplier, shift
    )


def _fitting(products: Products, weights: np.ndarray) -> Products:
    """`products`, or those that take weights of -128, two of whose products leave 16 bits."""
    return Pairs(whole=True) if isinstance(products, Pairs) and weights.min(initial=0) == -128 else products


def _kernel(
    name: str,
    products: Products,
    call: relax.Call,
    decide: Decide,
    threads: int,
    shape: ConvolutionShape,
    weight: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    shift: np.ndarray,
) -> Kernel:
    flat = weight.reshape(len(weight), -1)
    folded = checked_bias(call, flat, bias)
    epilogue = _epilogue(call, shift).for_sums(*_bounds(flat, folded), multiplier, shift)
    products = _fitting(products, flat)
    decided = decide(call, convolution_choice(name, shape, epilogue, products))
    plan = convolution_plan(decided)
    if plan.source == SOURCE and threads > 1:
        # Its transformed weights are made by one of them.
        plan = plan_convolution(shape, epilogue, products)
    if plan.source == SOURCE:
        filtering = WinogradKernel(shape, epilogue, plan)
        packed = [filtering.weights(weight), filtering.parameters(folded, multiplier, shift)]
        return Kernel(name, winograd(filtering), packed, llvm_options(decided))
    if threads > 1 and plan.source != "direct":
        # A band for each.
        plan = replace(plan, rows=min(plan.rows, max(plan.pixels[0], -(-shape.out_height // threads))))
    kernel = ConvolutionKernel(shape, epilogue, products, plan)
    packed = [kernel.weights(weight), kernel.parameters(folded, multiplier, shift)]
    return Kernel(name, _function(shape, epilogue, products, plan), packed, llvm_options(decided))


@lru_cache(maxsize=128)
def _function(shape: ConvolutionShape, epilogue: Epilogue, products: Products, plan: Plan) -> tirx.PrimFunc:
    """The function of a convolution, for all layers that differ in their constants: parsing it takes longer than the rest."""
    return convolution(ConvolutionKernel(shape, epilogue, products, plan))


@KERNELS.register("qdepthwise")
def _depthwise(products: Products, call: relax.Call, *, threads: int = 1) -> Kernel | None:
    constants = constant_values(call)
    if constants is None or not is_plain(call):
        return None
    if static_shape(call)[3] != static_shape(call.args[0])[3]:
        return None
    weight, bias, multiplier, shift = constants
    taps = weight.reshape(-1, weight.shape[3])
    if len(taps) > _MOST_TAPS:
        return None
    folded = checked_bias(call, taps.T, bias)
    shape = ConvolutionShape(**depthwise_sizes(call))
    epilogue = _epilogue(call, shift).for_sums(*_bounds(taps.T, folded), multiplier, shift)
    kernel = DepthwiseKernel(shape, epilogue, DotTaps() if products.dot else HalfwordTaps(group_taps(taps)), threads)
    if not kernel.fits:
        kernel = DepthwiseKernel(shape, epilogue, HalfwordTaps(group_taps(taps)), threads)
    if not kernel.fits:
        return None
    packed = [kernel.weights(weight[0]), kernel.parameters(folded, multiplier, shift)]
    return Kernel("depthwise", kernel.function(), packed, options=NO_HOISTING)


@KERNELS.register("qmatmul")
def _matmul(products: Products, call: relax.Call) -> Kernel | None:
    attrs = call.attrs
    first, second = (static_shape(arg) for arg in call.args)
    if first[:-2] != second[:-2] or any(isinstance(arg, Constant) for arg in call.args):
        return None
    count, shape = int(np.prod(first[:-2])), ConvolutionShape(**row_sizes(first[-2], first[-1], second[-1]))
    multiplier, shift = int(attrs.multiplier), int(attrs.shift)
    epilogue = _epilogue(call, np.array([shift]))
    chosen: Products = Dot() if products.dot else Pairs(whole=True)
    kernel = ConvolutionKernel(shape, epilogue, chosen, plan_convolution(shape, epilogue, chosen), constant=False)
    made = MatmulKernel(kernel, count, (int(attrs.input1_zero_point), int(attrs.input2_zero_point)))
    return Kernel("matmul", matmul(made), [made.parameters(multiplier, shift)], options=NO_HOISTING)


@KERNELS.register("qnormalize")
def _normalize(products: Products, call: relax.Call) -> Kernel | None:
    attrs, shape = call.attrs, static_shape(call.args[0])
    axes = [int(axis) for axis in attrs.axes]
    if axes != list(range(axes[0], len(shape))) or not all(isinstance(arg, Constant) for arg in call.args[1:]):
        return None
    factor, offset = (arg.value.numpy() for arg in call.args[1:])
    length = int(np.prod(shape[axes[0] :]))
    if not VECTOR <= length <= LONGEST or any(size != 1 for size in factor.shape[: axes[0]]):
        return None
    multiplier, shift, epsilon = int(attrs.multiplier), int(attrs.shift), int(attrs.epsilon)
    zero_point, centred = int(attrs.input_zero_point), bool(attrs.centred)
    kernel = NormalizationKernel(
        rows=int(np.prod(shape[: axes[0]])),
        length=length,
        centred=centred,
        narrow=NormalizationKernel.is_narrow(length, epsilon, zero_point, centred),
        dot=products.dot,
        epilogue=_epilogue(call, np.array([shift])),
    )
    factors, offsets = (np.broadcast_to(value[(0,) * axes[0]], shape[axes[0] :]).ravel() for value in (factor, offset))
    packed = [kernel.parameters(factors, offsets, zero_point, epsilon, multiplier, shift)]
    return Kernel("normalize", normalization(kernel), packed, options="")


@KERNELS.register("qsoftmax")
def _softmax(products: Products, call: relax.Call) -> Kernel | None:
    shape = static_shape(call)
    if shape[-1] < VECTOR or not isinstance(call.args[1], Constant):
        return None
    kernel = SoftmaxKernel(int(np.prod(shape[:-1])), shape[-1])
    return Kernel("softmax", softmax(kernel), [call.args[1].value.numpy()], options="")


@KERNELS.register("qmaskedsoftmax")
def _masked_softmax(products: Products, call: relax.Call) -> Kernel | None:
    shape = static_shape(call)
    if shape[-1] < VECTOR or not all(isinstance(arg, Constant) for arg in call.args[1:]):
        return None
    mask, table = (arg.value.numpy() for arg in call.args[1:])
    # What is equal for all rows or heads is kept once.
    apart = next((axis for axis, size in enumerate(mask.shape) if size > 1), mask.ndim - 1)
    rows = np.broadcast_to(mask, (*mask.shape[:apart], *shape[len(shape) - mask.ndim + apart :])).reshape(-1, shape[-1])
    if rows.size > _MOST_CONSTANTS:
        return None
    kernel = SoftmaxKernel(int(np.prod(shape[:-1])), shape[-1], masks=len(rows))
    constants = [np.where(rows, -1, 0).astype(np.int8).ravel(), table]
    return Kernel("masked_softmax", softmax(kernel), constants, options="")


def _pool(call: relax.Call) -> Pool | None:
    """The pool of a call; None where channels fill no vector."""
    attrs = call.attrs
    images, height, width, channels = static_shape(call.args[0])
    _, out_height, out_width, _ = static_shape(call)
    if channels < VECTOR or images > 1:
        return None
    top, left, *_ = (int(p) for p in attrs.padding)
    rows, columns = (int(n) for n in attrs.pool_size)
    down, across = (int(n) for n in attrs.strides)
    limits = int(attrs.qmin), int(attrs.qmax)
    return Pool(height, width, channels, out_height, out_width, (rows, columns), (down, across), top, left, *limits)


@KERNELS.register("qmaxpool")
def _max_pool(products: Products, call: relax.Call) -> Kernel | None:
    pool = _pool(call)
    if pool is None or not any(int(p) for p in call.attrs.padding) or pool.taps > _MOST_TAPS:
        return None
    return Kernel("maxpool", max_pool(pool), [], options="")


@KERNELS.register("qavgpool")
def _average_pool(products: Products, call: relax.Call) -> Kernel | None:
    pool = _pool(call)
    if pool is None or pool.taps > MOST_PIXELS:
        return None
    return Kernel("average", average_pool(pool), [reciprocals(*counts(pool)).ravel()], options="")


@KERNELS.register("qmean")
def _mean(products: Products, call: relax.Call) -> Kernel | None:
    """Over all axes between the first and the last, or some in a row before the last."""
    attrs, shape = call.attrs, static_shape(call.args[0])
    axes = sorted(int(axis) for axis in attrs.axes)
    if axes != list(range(axes[0], len(shape) - 1)) or shape[-1] < VECTOR:
        return None
    images, pixels = (int(np.prod(part)) for part in (shape[: axes[0]], shape[axes[0] : -1]))
    multiplier, shift, zero_point = (int(attrs[name]) for name in ("multiplier", "shift", "input_zero_point"))
    least, most = (np.array([pixels * (end - zero_point)]) for end in (-128, 127))
    exponent = np.array([shift])
    epilogue = _epilogue(call, exponent).for_sums(least, most, np.array([multiplier]), exponent)
    kernel = Mean(images, pixels, shape[-1], epilogue)
    return Kernel("mean", mean(kernel), [kernel.parameters(zero_point, multiplier, shift)], options="")


@KERNELS.register("qadd")
def _add(products: Products, call: relax.Call) -> Kernel | None:
    attrs, elements = call.attrs, int(np.prod(static_shape(call)))
    tensors = [arg for arg in call.args if not isinstance(arg, Constant)]
    if elements < VECTOR or any(static_shape(arg) != static_shape(call) for arg in tensors):
        return None
    given = [arg.value.numpy() for arg in call.args if isinstance(arg, Constant)]
    if not tensors or any(elements > _MOST_CONSTANTS for _ in given):
        return None
    operands = [Operand(*(int(attrs[f"input{i}_{name}"]) for name in ("zero_point", "multiplier", "shift"))) for i in (1, 2)]
    if isinstance(call.args[0], Constant):
        # The tensor comes first.
        operands.reverse()
    first, second = (Term(operand, int(attrs.left_shift), str(attrs.rounding)) for operand in operands)
    multiplier, shift = np.array([int(attrs.output_multiplier)]), np.array([int(attrs.output_shift)])
    scaled = [operand.table(int(attrs.left_shift), str(attrs.rounding)) for operand in operands]
    least, most = (np.array([sum(end(table) for table in scaled)]) for end in (np.min, np.max))
    epilogue = _epilogue(call, shift).for_sums(least, most, multiplier, shift)
    scalings = [term.scaling for term in (first, second)]
    words = [epilogue.parameters(multiplier, shift).ravel(), epilogue.tail, *(scaling.words for scaling in scalings)]
    parameters = np.concatenate([np.asarray(part, np.int32) for part in words])
    constants = [np.broadcast_to(value, static_shape(call)).ravel().copy() for value in given]
    return Kernel("add", add(elements, scalings[0], scalings[1], epilogue), [*constants, parameters], options="")


@KERNELS.register("qrequantize")
def _requantize(products: Products, call: relax.Call) -> Kernel | None:
    """A function of one byte, by its table."""
    elements = int(np.prod(static_shape(call)))
    if elements < VECTOR:
        return None
    table = requantized(np.arange(-128, 128) - int(call.attrs.input_zero_point), call.attrs)
    return Kernel("requantize", lookup(elements), [pack_table(table.astype(np.int8))], options="")


@KERNELS.register("qlut")
def _lut(products: Products, call: relax.Call) -> Kernel | None:
    elements = int(np.prod(static_shape(call)))
    if elements < VECTOR or not isinstance(call.args[1], Constant):
        return None
    return Kernel("lut", lookup(elements), [pack_table(call.args[1].value.numpy())], options="")
