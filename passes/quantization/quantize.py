"""Post-training quantization: a float model becomes one with quantize and dequantize operators (QDQ).

Layers may differ in their numbers (see `schemes`). The weights become int8 parameters of the same names, the biases
int32 parameters with the scale input scale * weight scale; tensors are rounded to integers and back where integer
operators will have them as integers. The result still computes in float, and is the form in which quantized models are
exchanged; `LowerQDQ` makes it an integer program. The scheme is that of Jacob et al., "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018), with weights per output channel (Krishnamoorthi,
2018), as TensorFlow Lite specifies it for 8 bits and, with int16 activations, for 16x8.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

from .._tvm import Constant, relax, tvm
from ..errors import UserError
from ..graph.adopt_module import model_pass
from ..graph.module_params import input_vars, static_shape
from ..graph.rebuild import Rebuilder, bindings
from ..graph.remarks import Remark, add_remarks
from ..integer.requantize import INT32_MAX
from ..integer.stored_weights import int4_weight
from ..numbers.affine import SMALLEST_SCALE, Affine, Range, affine_of_range, integer_limits, power_of_two
from ..numbers.int4_weights import quantize_int4
from ..numbers.schemes import Precision, Scheme, Schemes
from .few_bits import SUFFIX, clipped_to, outer_layers
from .kinds import CONVOLUTIONS, WEIGHTED, channel_axis, weight_axis
from .output_joins import separate_joins
from .plan import Plan, plan_quantization
from .tensor_dtypes import fixed_affine, tensor_schemes

Granularity = Literal["per_channel", "per_tensor"]

# No bias is larger than this as an integer: the weight scale of a channel is raised until it holds. Together with the
# largest sum of products the accumulator stays in 32 bits.
_LARGEST_BIAS = 2.0**28
_FLOAT16_MAX = float(np.finfo(np.float16).max)


@model_pass("Quantize")
class Quantize:
    """Insert quantization.

    Args:
        ranges: The range of every tensor to be quantized, from `calibrate` on the same module.
        weights: "per_channel" for one scale an output channel, "per_tensor" for one scale a weight; or by patterns (as of
            `fnmatch`) of names of layers, the first that fits counts, and "per_channel" where none does.
        exclude: Patterns (as of `fnmatch`) of names of layers that stay in float.
        power_of_two: Whether all scales are powers of two, the smallest that hold the ranges: a change of scale is then a
            shift, at up to one bit of precision.
        precision: In which numbers layers compute: a precision or `Scheme` for all, or by patterns of names of layers, the
            first that fits counts, and int8 where none does.
        symmetric: Whether activations have the zero point 0 (uint8: 128), so that kernels need not take it into account, at
            up to one bit of precision behind a ReLU. Results with a scale by definition, such as softmax's, keep theirs.

    Raises:
        UserError: An option is wrong.
    """

    def __init__(
        self,
        ranges: Mapping[str, Range],
        *,
        weights: Granularity | Mapping[str, Granularity] = "per_channel",
        exclude: Collection[str] = (),
        power_of_two: bool = False,
        precision: Precision | Scheme | Mapping[str, Precision | Scheme] = "int8",
        symmetric: bool = False,
    ) -> None:
        self.weights = {"*": weights} if isinstance(weights, str) else dict(weights)
        for granularity in self.weights.values():
            if granularity not in ("per_channel", "per_tensor"):
                raise UserError(f"weights are quantized 'per_channel' or 'per_tensor', not '{granularity}'")
        self.ranges = dict(ranges)
        patterns = precision if isinstance(precision, Mapping) else {"*": precision}
        self.schemes = Schemes(patterns, tuple(exclude))
        self.power_of_two = power_of_two
        self.symmetric = symmetric

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Return the module in QDQ form; parameters must be attached, `main` must be in canonical form."""
        stays_float = self.schemes.stays_float
        plan = plan_quantization(mod, stays_float)
        tensors = tensor_schemes(plan, self.schemes, bindings(mod["main"]))
        apart = separate_joins(mod, plan, tensors, self.ranges, stays_float)
        if apart:
            plan = plan_quantization(mod, lambda name: name in apart or stays_float(name))
        done = _Quantizer(mod, plan, self.ranges, self.weights, self.power_of_two, self.schemes, self.symmetric).run()
        return add_remarks(done, [Remark("Quantize", name, _apart(factor)) for name, factor in apart.items()])


class _Quantizer:
    def __init__(
        self,
        mod: tvm.IRModule,
        plan: Plan,
        ranges: Mapping[str, Range],
        weights: Mapping[str, Granularity],
        shift_only: bool,
        schemes: Schemes,
        symmetric: bool,
    ) -> None:
        self.mod = mod
        self.plan = plan
        self.ranges = ranges
        self.weights = weights
        self.shift_only = shift_only
        self.schemes = schemes
        self.symmetric = symmetric
        self.build = Rebuilder(mod)
        self.tensors = tensor_schemes(plan, schemes, list(bindings(self.build.source)))
        self.outer = set.union(*outer_layers(plan, bindings(self.build.source)))
        self.affines: dict[relax.Var, Affine] = {}
        self.scales: dict[relax.Var, np.ndarray] = {}
        self.of_constants: dict[relax.Var, Affine] = {}
        self.bias_layers = {bias: layer for layer, bias in plan.layers.items() if bias is not None}
        self.constants = dict(plan.constants)
        self.taken: dict[str, np.ndarray] = {}
        self.remarks: list[Remark] = []

    def run(self) -> tvm.IRModule:
        program = list(bindings(self.build.source))
        if any(isinstance(v, relax.Call) and v.op.name in ("relax.quantize", "relax.dequantize") for _, v in program):
            raise UserError("the model is quantized already; quantize the float model instead")
        if not plan_quantization(self.mod).layers:
            raise UserError("the model has no convolution or matrix product with constant weights to quantize")
        for var in input_vars(self.build.source):
            if var in self.plan.points:
                self._cut(var, self.build.values[var])
        values = dict(program)
        for var, value in program:
            new = self._rewrite(var, value, values)
            if isinstance(new, (relax.Var, Constant)):
                self.build.values[var] = new
                continue
            self.build.values[var] = self.build.emit(new, var.name)
            if var in self.plan.points:
                self._cut(var, self.build.values[var])
        return add_remarks(self.build.finish(), self.remarks)

    def _rewrite(self, var: relax.Var, value: relax.Expr, values: dict[relax.Var, relax.Expr]) -> relax.Expr:
        if var in self.plan.layers:
            bias = self.plan.layers[var]
            return self._layer(var, value, values[bias].args[1] if bias is not None else None)
        if var in self.bias_layers:
            return self._bias(var, value, self.bias_layers[var], values)
        if var in self.constants:
            return self._with_constant(var, value, self.constants[var])
        if self._is_halved(var, value):
            return self._halved(var, value)
        return self.build.get(value)

    def _cut(self, var: relax.Var, new: relax.Var) -> None:
        """Let everything that reads `var` from here on read it rounded to integers."""
        affine = self.affines[var] = self._affine(var)
        scale, zero_point = _constants(affine)
        if affine.bits is not None and self.plan.points[var].observed:
            new = self.build.emit(clipped_to(new, affine), f"{var.name}{SUFFIX}")
        quantized = relax.op.quantize(new, scale, zero_point, out_dtype=affine.dtype)
        q = self.build.emit(quantized, f"{var.name}.quantized")
        self.build.values[var] = self.build.emit(relax.op.dequantize(q, scale, zero_point), f"{var.name}.dequantized")

    def _affine(self, var: relax.Var) -> Affine:
        point, scheme = self.plan.points[var], self.tensors[var]
        if point.fixed is not None:
            return fixed_affine(point.fixed, scheme.activations)
        if point.same_as is not None:
            return self.affines[point.same_as]
        if point.of_constant:
            return self.of_constants[var]
        if var.name not in self.ranges:
            raise UserError(f"tensor {var.name} has no range; calibrate the module that is being quantized")
        return self._affine_of(self.ranges[var.name], scheme)

    def _affine_of(self, found: Range, scheme: Scheme) -> Affine:
        dtype = scheme.activations
        if dtype == "int16":
            return affine_of_range(found.wide, dtype, symmetric=True, shift_only=self.shift_only)
        return affine_of_range(
            found,
            dtype,
            symmetric=self.symmetric,
            shift_only=self.shift_only,
            bits=scheme.activation_bits,
            clipped=scheme.clipped_bits is not None,
        )

    def _scheme(self, layer: relax.Var) -> Scheme:
        """Of a layer; the first and the last have weights of 8 bits where activations in between have few."""
        scheme = self.schemes[layer.name]
        outer = layer in self.outer and scheme.clipped_bits is not None and scheme.precision == "int4"
        return Scheme() if outer else scheme

    def _per_channel(self, layer: relax.Var) -> bool:
        found = (granularity for pattern, granularity in self.weights.items() if fnmatchcase(layer.name, pattern))
        return next(found, "per_channel") == "per_channel"

    def _layer(self, var: relax.Var, call: relax.Call, bias: relax.Expr | None) -> relax.Expr:
        weight = self.build.param_value(call.args[1])
        assert weight is not None
        offsets = self.build.param_value(bias) if bias is not None else None
        name = str(self.build.param_name(call.args[1]))
        for array in (weight, offsets):
            if array is not None and not np.isfinite(array).all():
                raise UserError(f"layer {var.name} has weights that are not finite")
        axis = weight_axis(call)
        scheme, per_channel = self._scheme(var), self._per_channel(var)
        if scheme.precision == "int4":
            integers, scales = self._int4(var, call, weight, offsets, scheme.group_size)
        else:
            scales = self._weight_scales(var, call, weight, offsets, axis)
            wide = scales.reshape([-1 if a == axis else 1 for a in range(weight.ndim)])
            rounded = np.clip(np.rint(weight / wide), *scheme.weight_limits).astype(np.int8)
            integers = self._param(name, rounded, var.name)
        self.scales[var] = scales
        scale: np.ndarray = scales if per_channel else scales[0].reshape(())
        zero = relax.const(np.zeros(scale.shape, np.int8))
        dequantized = relax.op.dequantize(integers, relax.const(scale), zero, axis=axis if per_channel else -1)
        named = self.build.emit(dequantized, f"{name}.dequantized")
        return relax.Call(call.op, [self.build.get(call.args[0]), named], call.attrs, call.ty_args)

    def _int4(
        self, var: relax.Var, call: relax.Call, weight: np.ndarray, offsets: np.ndarray | None, group_size: int
    ) -> tuple[relax.Var, np.ndarray]:
        """The int8 weights made from four bits, and their scales, float32 (O,)."""
        outputs_first = call.op.name in CONVOLUTIONS
        moved = weight if outputs_first else weight.swapaxes(0, 1)
        as_oik = moved.reshape(*moved.shape[:2], -1)
        size = group_size if group_size < as_oik.shape[1] and not self._is_flattened(call.args[0]) else 0
        found = quantize_int4(
            as_oik,
            size,
            smallest=self._smallest_scales(var, call, weight, offsets),
            per_channel=self._per_channel(var),
            shift_only=self.shift_only,
        )
        values = found.values.reshape(moved.shape)
        values = values if outputs_first else values.swapaxes(0, 1)
        name = self.build.param_name(call.args[1]) or f"{var.name}.weight"
        stored = self._param(name, np.ascontiguousarray(values), var.name)
        multipliers = self._param(f"{stored.name}.multipliers", found.multipliers, var.name)
        axes = (0, 1) if outputs_first else (1, 0)
        made = int4_weight(stored, multipliers, output_axis=axes[0], input_axis=axes[1], group_size=size)
        return self.build.emit(made, f"{stored.name}.int8"), found.scales.astype(np.float32)

    def _is_flattened(self, expr: relax.Expr) -> bool:
        """Whether a matrix product's operand is an image of several pixels: its input channels do not lie together."""
        source = self.build.source_value(expr)
        while isinstance(source, relax.Var):
            source = self.build.source_value(source)
        if not isinstance(source, relax.Call) or source.op.name not in ("relax.reshape", "relax.flatten"):
            return False
        shape = static_shape(source.args[0])
        return len(shape) == 4 and shape[2] * shape[3] > 1

    def _smallest_scales(self, var: relax.Var, call: relax.Call, weight: np.ndarray, offsets: np.ndarray | None) -> np.ndarray:
        """float64 (O,): below these the biases, or sums of products with int8 activations, would be too large."""
        axis = weight_axis(call)
        outputs, per_channel, given = weight.shape[axis], self._per_channel(var), self.affines[call.args[0]]
        bias = np.zeros(outputs)
        if offsets is not None:
            # Groups of a transposed convolution share the scales of their channels.
            bias = np.abs(offsets.reshape(-1, outputs)).max(0).astype(np.float64)
        smallest = np.maximum(bias / (given.scale * _LARGEST_BIAS), SMALLEST_SCALE)
        span = max(abs(limit - given.zero_point) for limit in integer_limits(given.dtype))
        # What rounding adds to the sums at most: half a step a weight, and of a group's multiplier.
        rounding = weight.size / outputs * span * (7.5 if self._scheme(var).precision == "int4" else 0.5)
        if given.dtype != "int16" and rounding < INT32_MAX / 2:
            sums = np.abs(weight).sum(tuple(a for a in range(weight.ndim) if a != axis), dtype=np.float64)
            smallest = np.maximum(smallest, (sums * span + bias / given.scale) / (INT32_MAX - 1 - rounding))
        return smallest if per_channel else np.full_like(smallest, smallest.max())

    def _weight_scales(
        self, var: relax.Var, call: relax.Call, weight: np.ndarray, offsets: np.ndarray | None, axis: int
    ) -> np.ndarray:
        """float32 (O,): the scale of every output channel's weights."""
        magnitude = np.abs(weight).max(tuple(a for a in range(weight.ndim) if a != axis)).astype(np.float64)
        per_channel = self._per_channel(var)
        if not per_channel:
            magnitude = np.full_like(magnitude, magnitude.max())
        whole, largest = float(magnitude.max()), self._scheme(var).weight_limits[1]
        # A channel of zero weights takes the scale of the tensor.
        scales = np.where(magnitude > 0, magnitude, whole if whole > 0 else float(largest)) / largest
        smallest = self._smallest_scales(var, call, weight, offsets)
        if (smallest > scales).any():
            count = int((smallest > scales).sum())
            what = "have a bias that dwarfs their weights, or sums that could leave 32 bits"
            self.remarks.append(Remark("Quantize", var.name, f"{count} channels {what}; scales raised"))
        scales = np.maximum(scales, smallest)
        return (power_of_two(scales) if self.shift_only else scales).astype(np.float32)

    def _bias(self, var: relax.Var, call: relax.Call, layer: relax.Var, values: dict[relax.Var, relax.Expr]) -> relax.Expr:
        value = self.build.param_value(call.args[1])
        assert value is not None
        input_scale = np.float32(self.affines[values[layer].args[0]].scale)
        # In float32, as TensorFlow Lite has it.
        scales = np.tile(input_scale * self.scales[layer], value.size // self.scales[layer].size)
        if value.ndim > 1:
            # With the leading axes of the result that it may lack.
            value = value.reshape((1,) * (len(static_shape(layer)) - value.ndim) + value.shape)
        axis = min(channel_axis(values[layer]), value.ndim - 1)
        shape = [-1 if a == axis else 1 for a in range(value.ndim)]
        integers = np.rint(value.astype(np.float64) / scales.reshape(shape).astype(np.float64)).astype(np.int32)
        name = str(self.build.param_name(call.args[1]))
        param = self._param(name, integers, var.name)
        zero = relax.const(np.zeros(scales.shape, np.int32))
        dequantized = relax.op.dequantize(param, relax.const(scales), zero, axis=axis)
        named = self.build.emit(dequantized, f"{name}.dequantized")
        return relax.Call(call.op, [self.build.get(call.args[0]), named], call.attrs, call.ty_args)

    def _with_constant(self, var: relax.Var, call: relax.Call, position: int) -> relax.Expr:
        """A sum, product or look-up with a constant tensor, which is quantized over its own range."""
        expr = call.args[position]
        value = self.build.param_value(expr)
        assert value is not None
        scheme = self.tensors[var] if var in self.tensors else self.schemes[var.name]
        if scheme.clipped_bits is not None:
            scheme = replace(scheme, activation_bits=8)  # it is stored as int8 anyway
        affine = self.of_constants[var] = self._affine_of(Range(float(value.min()), float(value.max())), scheme)
        name = self.build.param_name(expr) or f"{call.op.name.rpartition('.')[2]}_constant"
        param = self._param(name, affine.quantize(value), name)
        named = self.build.emit(relax.op.dequantize(param, *_constants(affine)), f"{name}.dequantized")
        args = [named if i == position else self.build.get(arg) for i, arg in enumerate(call.args)]
        return relax.Call(call.op, args, call.attrs, call.ty_args)

    def _is_halved(self, var: relax.Var, value: relax.Expr) -> bool:
        """Whether a value is a layer whose weights are stored as float16."""
        if self.schemes[var.name].precision != "float16" or not isinstance(value, relax.Call):
            return False
        weight = self.build.param_value(value.args[1]) if getattr(value.op, "name", "") in WEIGHTED else None
        return weight is not None and weight.dtype == np.float32

    def _halved(self, var: relax.Var, call: relax.Call) -> relax.Expr:
        weight, name = self.build.param_value(call.args[1]), self.build.param_name(call.args[1])
        assert weight is not None
        if float(np.abs(weight).max(initial=0)) > _FLOAT16_MAX:
            self.remarks.append(Remark("Quantize", var.name, "it has weights beyond the range of float16; clipped"))
        stored = np.clip(weight, -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16)
        param = self._param(name or f"{var.name}.weight", stored, var.name)
        wide = self.build.emit(relax.op.astype(param, "float32"), f"{param.name}.wide")
        return relax.Call(call.op, [self.build.get(call.args[0]), wide], call.attrs, call.ty_args)

    def _param(self, name: str, value: np.ndarray, reader: str) -> relax.Var:
        """A parameter; one that several layers share, but with other integers, is split by reader."""
        unique, stem, count = name, f"{name}.{reader}", 1
        while unique in self.taken and not (
            self.taken[unique].dtype == value.dtype and np.array_equal(self.taken[unique], value)
        ):
            unique, count = stem if count == 1 else f"{stem}.{count}", count + 1
        self.taken[unique] = value
        return self.build.param(unique, value)


def _apart(factor: float) -> str:
    if not factor:
        return "it joins parts that are joined in float themselves, so it stays in float"
    what = f"it joins parts whose ranges differ by a factor of {factor:.3g}"
    return f"{what}; each part keeps its own scale, and they are joined in float"


def _constants(affine: Affine) -> tuple[relax.Expr, relax.Expr]:
    return relax.const(np.float32(affine.scale)), relax.const(np.asarray(affine.zero_point, affine.dtype))
