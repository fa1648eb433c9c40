"""What a built model takes and gives: float as it stands, or the integer core of an integer model.

Devices keep no float tensors around an integer network: quantizing the input and dequantizing the output are the caller's.
"""

from __future__ import annotations

from ..passes._tvm import relax, tvm
from ..passes.errors import UserError
from ..passes.integer.registry import is_integer_op
from ..passes.module_params import input_vars
from ..passes.rebuild import bindings
from .base import TensorSpec


def is_integer(mod: tvm.IRModule) -> bool:
    """Whether `main` computes in our integer operators."""
    return any(is_integer_op(value) for _, value in bindings(mod["main"]))


def core_and_specs(
    mod: tvm.IRModule,
) -> tuple[tvm.IRModule, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The module to compile, and what its inputs and outputs are."""
    if not is_integer(mod) or not _has_boundary(mod):
        return mod, *specs_of(mod)
    from ..passes.integer.core import IntegerCore, get_io_quantization

    core = IntegerCore()(mod)
    io = get_io_quantization(core)
    plain_inputs, plain_outputs = specs_of(core)

    def merge(spec: TensorSpec, quantization: object) -> TensorSpec:
        scale, zero_point = getattr(quantization, "scale", None), getattr(quantization, "zero_point", None)
        layout = getattr(quantization, "layout", None)
        return spec.model_copy(update={"scale": scale, "zero_point": zero_point, "layout": layout})

    inputs = tuple(merge(spec, q) for spec, q in zip(plain_inputs, io.inputs))
    outputs = tuple(merge(spec, q) for spec, q in zip(plain_outputs, io.outputs))
    return core, inputs, outputs


def _has_boundary(mod: tvm.IRModule) -> bool:
    """Whether `main` still quantizes or dequantizes."""
    names = {getattr(value.op, "name", "") for _, value in bindings(mod["main"]) if isinstance(value, relax.Call)}
    return bool(names & {"relax.quantize", "relax.dequantize"})


def specs_of(mod: tvm.IRModule) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
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
