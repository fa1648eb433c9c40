"""What a built model takes and gives: float as it stands, or the integer core of an integer model.

Devices keep no float tensors around an integer network: quantizing the input and dequantizing the output are the
caller's.
"""

from __future__ import annotations

from ..passes._tvm import relax, tvm
from ..passes.errors import UserError
from ..passes.graph.index_limits import index_limits
from ..passes.graph.module_params import detach_params, input_vars
from ..passes.graph.rebuild import bindings
from ..passes.integer.registry import is_integer_op
from ..passes.lowering.integer_core import IntegerCore, TensorQuantization, get_io_quantization
from .base import TensorSpec

Specs = tuple[TensorSpec, ...]


def is_integer(mod: tvm.IRModule) -> bool:
    """Whether `main` computes in our integer operators."""
    return any(is_integer_op(value) for _, value in bindings(mod["main"]))


def core_and_specs(mod: tvm.IRModule) -> tuple[tvm.IRModule, Specs, Specs]:
    """The module to compile, and what its inputs and outputs are."""
    core, inputs, outputs = _core_and_specs(mod)
    return core, with_limits(inputs, mod), outputs


def bound_core(mod: tvm.IRModule) -> tvm.IRModule:
    """The module to compile, of one with parameters attached, with these as constants."""
    bare, params = detach_params(_core_and_specs(mod)[0])
    tensors = {name: tvm.runtime.tensor(value) for name, value in params.items()}
    return relax.transform.BindParams("main", tensors)(bare)


def with_limits(inputs: Specs, mod: tvm.IRModule) -> Specs:
    """Inputs with how many entries there are that their values look up."""
    limits = index_limits(mod)
    return tuple(spec.model_copy(update={"limit": limits.get(spec.name)}) for spec in inputs)


def _core_and_specs(mod: tvm.IRModule) -> tuple[tvm.IRModule, Specs, Specs]:
    if not is_integer(mod):
        return mod, *_float_specs(mod)
    core = tvm.transform.Sequential([IntegerCore()])(mod)
    io = get_io_quantization(core)
    names = ["output"] if len(io.outputs) == 1 else [f"output{index}" for index in range(len(io.outputs))]
    inputs = tuple(integer_spec(tensor.name, tensor) for tensor in io.inputs)
    return core, inputs, tuple(integer_spec(name, tensor) for name, tensor in zip(names, io.outputs))


def integer_spec(name: str, tensor: TensorQuantization) -> TensorSpec:
    """An input or output of an integer program."""
    if tensor.dtype.startswith("float"):
        layout = "NCHW" if len(tensor.shape) == 4 else None
        return TensorSpec(name=name, shape=tensor.shape, dtype=tensor.dtype, layout=layout)
    return TensorSpec(
        name=name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        layout=tensor.layout or None,
        scale=tensor.scale,
        zero_point=tensor.zero_point,
    )


def _float_specs(mod: tvm.IRModule) -> tuple[Specs, Specs]:
    """Inputs and outputs of `main` as it stands."""
    main = mod["main"]
    inputs = tuple(_spec(var.name, var.ty) for var in input_vars(main))
    result = main.body.body.ty
    types = list(result.fields) if isinstance(result, relax.TupleType) else [result]
    names = ["output"] if len(types) == 1 else [f"output{index}" for index in range(len(types))]
    return inputs, tuple(_spec(name, ty) for name, ty in zip(names, types))


def _spec(name: str, ty: relax.Type) -> TensorSpec:
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        raise UserError(f"{name} is of type {ty}; only tensors can go in and out")
    shape = tuple(int(dim) for dim in ty.shape)
    return TensorSpec(name=name, shape=shape, dtype=str(ty.dtype), layout="NCHW" if len(shape) == 4 else None)
