"""The integer program alone: what a device runs, without the conversions at its ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from .._tvm import relax, tvm
from ..errors import UserError
from ..graph.adopt_module import model_pass
from ..graph.module_params import input_vars, static_shape
from ..graph.rebuild import Rebuilder, bindings, users
from ..graph.remarks import Remark, add_remarks
from ..layout.converter import RANKS, is_call, layout_name, to_first, to_last
from ..numbers.affine import Affine

IO_ATTR = "tvmcompress.io_quantization"


@dataclass(frozen=True)
class TensorQuantization:
    """How one input or output of the integer program stands for a tensor of the float model.

    Attributes:
        name: The input's name; "output" and a number for outputs.
        float_shape: Shape of the float tensor.
        shape: Shape of the integer tensor.
        axes: The integer tensor's axes are these axes of the float tensor.
        dtype: "int8", or "float32" where the tensor stays as it is.
        scale: Real value of one step.
        zero_point: The integer that means 0.
        layout: "NHWC" where an NCHW image was permuted, "NWC" for a signal and "NDHWC" for a volume, else "".
    """

    name: str
    float_shape: tuple[int, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    dtype: str = "int8"
    scale: float = 1.0
    zero_point: int = 0
    layout: str = ""

    @property
    def affine(self) -> Affine:
        """Scale and zero point."""
        return Affine(self.scale, self.zero_point, self.dtype)


@dataclass(frozen=True)
class IOQuantization:
    """All inputs and outputs of an integer program.

    Attributes:
        inputs: In order.
        outputs: In order.
    """

    inputs: tuple[TensorQuantization, ...]
    outputs: tuple[TensorQuantization, ...]


@model_pass("IntegerCore")
class IntegerCore:
    """Strip the quantization of the inputs and the dequantization of the outputs from a module made by `LowerQDQ`.

    `main` then takes and returns int8 tensors in the layout in which it computes (images NHWC). `get_io_quantization`
    tells how they are to be read. An input that is also used in float, or an output that is computed in float, stays
    as it is, and a remark says so.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`; a module that is stripped already is returned as it is."""
        return mod if mod.attrs is not None and IO_ATTR in mod.attrs else _strip(mod)


def get_io_quantization(mod: tvm.IRModule) -> IOQuantization:
    """The inputs and outputs of a module that `IntegerCore` made.

    Raises:
        ValueError: The module was not made by it.
    """
    if mod.attrs is None or IO_ATTR not in mod.attrs:
        raise ValueError("the module is no integer program; apply IntegerCore first")
    entry = json.loads(str(mod.attrs[IO_ATTR]))
    return IOQuantization(*(tuple(map(_tensor_quantization, entry[side])) for side in ("inputs", "outputs")))


def set_io_quantization(mod: tvm.IRModule, io: IOQuantization) -> tvm.IRModule:
    """Mark a module whose `main` already takes and returns integers, imported from elsewhere, as an integer program."""
    return mod.with_attr(IO_ATTR, json.dumps({side: [asdict(t) for t in getattr(io, side)] for side in ("inputs", "outputs")}))


def _tensor_quantization(entry: dict) -> TensorQuantization:
    lists = {key: tuple(entry[key]) for key in ("float_shape", "shape", "axes")}
    return TensorQuantization(**{**entry, **lists})


def quantize_input(x: np.ndarray, tensor: TensorQuantization) -> np.ndarray:
    """A float input, as the float model takes it, as the integer program takes it.

    Args:
        x: float32, `float_shape` but for the batch on axis 0.
        tensor: The description of that input.

    Returns:
        `tensor.dtype`, `shape` but for the batch.
    """
    if tuple(x.shape[1:]) != tensor.float_shape[1:]:
        raise UserError(f"input {tensor.name} has shape {tensor.float_shape}, the array given {x.shape}")
    values = x if tensor.dtype == "float32" else tensor.affine.quantize(x)
    moved = values.transpose(tensor.axes) if tensor.axes else values
    return np.ascontiguousarray(moved)


def dequantize_output(q: np.ndarray, tensor: TensorQuantization) -> np.ndarray:
    """An output of the integer program as the float model would return it, float32."""
    values = q if tensor.dtype == "float32" else tensor.affine.dequantize(q)
    return np.ascontiguousarray(values.transpose(np.argsort(tensor.axes)) if tensor.axes else values)


def _strip(mod: tvm.IRModule) -> tvm.IRModule:
    build = Rebuilder(mod)
    values = dict(bindings(build.source))
    readers = users(build.source)
    remarks: list[Remark] = []
    inputs = [_strip_input(build, index, values, readers, remarks) for index in range(len(build.inputs))]
    for var, value in bindings(build.source):
        if var in build.values:
            continue
        new = build.get(value)
        build.values[var] = new if isinstance(new, relax.Var) else build.emit(new, var.name)
    result = build.source.body.body
    while isinstance(values.get(result), relax.Var):
        result = values[result]
    tuple_value = values.get(result, result)
    fields = list(tuple_value.fields) if isinstance(tuple_value, relax.Tuple) else [result]
    ends = [_strip_output(build, index, field, values, remarks) for index, field in enumerate(fields)]
    exprs = [expr for expr, _ in ends]
    core = build.finish(relax.Tuple(exprs) if isinstance(tuple_value, relax.Tuple) else exprs[0])
    record = {"inputs": [asdict(t) for t in inputs], "outputs": [asdict(t) for _, t in ends]}
    return add_remarks(core.with_attr(IO_ATTR, json.dumps(record)), remarks)


def _strip_input(
    build: Rebuilder,
    index: int,
    values: dict[relax.Var, relax.Expr],
    readers: Mapping[relax.Var, list[relax.Var]],
    remarks: list[Remark],
) -> TensorQuantization:
    old = input_vars(build.source)[index]
    shape = static_shape(old)
    dtype = str(old.ty.dtype)
    plain = TensorQuantization(old.name, shape, shape, tuple(range(len(shape))), dtype)
    quantized = readers.get(old, [])
    if dtype != "float32":
        return plain
    if len(quantized) != 1 or not is_call(values.get(quantized[0]), "quantize"):
        remarks.append(Remark("IntegerCore", old.name, "this input is used in float and stays float"))
        return plain
    call = values[quantized[0]]
    scale, zero = build.param_value(call.args[1]), build.param_value(call.args[2])
    assert scale is not None
    assert zero is not None
    end, axes = quantized[0], plain.axes
    moved = readers.get(end, [])
    rank, layout = len(shape), ""
    if len(moved) == 1 and rank in RANKS and _moves(values.get(moved[0]), to_last(rank)):
        end, axes, layout = moved[0], to_last(rank), layout_name(rank)
    new = build.set_input(index, static_shape(end), str(end.ty.dtype))
    build.values[quantized[0]] = new
    build.values[end] = new
    return TensorQuantization(old.name, shape, static_shape(end), axes, str(end.ty.dtype), float(scale), int(zero), layout)


def _strip_output(
    build: Rebuilder, index: int, result: relax.Expr, values: dict[relax.Var, relax.Expr], remarks: list[Remark]
) -> tuple[relax.Expr, TensorQuantization]:
    name = f"output{index}"
    while isinstance(values.get(result), relax.Var):
        result = values[result]
    shape = static_shape(result)
    call = values.get(result)
    if not is_call(call, "dequantize"):
        remarks.append(Remark("IntegerCore", getattr(result, "name", name), "this output is computed in float and stays so"))
        axes = tuple(range(len(shape)))
        return build.get(result), TensorQuantization(name, shape, shape, axes, str(result.ty.dtype))
    scale, zero = build.param_value(call.args[1]), build.param_value(call.args[2])
    assert scale is not None
    assert zero is not None
    integers, axes = call.args[0], tuple(range(len(shape)))
    rank, layout = len(shape), ""
    if rank in RANKS and _moves(values.get(integers), to_first(rank)):
        integers, axes, layout = values[integers].args[0], to_last(rank), layout_name(rank)
    dtype = str(integers.ty.dtype)
    description = TensorQuantization(name, shape, static_shape(integers), axes, dtype, float(scale), int(zero), layout)
    return build.get(integers), description


def _moves(value: relax.Expr | None, axes: tuple[int, ...]) -> bool:
    """Whether a value is a permutation of axes, or a reshape that is the same in memory."""
    if is_call(value, "permute_dims") and value.attrs.axes is not None:
        return tuple(int(axis) for axis in value.attrs.axes) == axes
    if not is_call(value, "reshape"):
        return False
    before = static_shape(value.args[0])
    moving = [axis for axis in axes if len(before) == len(axes) and before[axis] != 1]
    return len(before) == len(axes) and moving == sorted(moving) and static_shape(value) == tuple(before[a] for a in axes)
