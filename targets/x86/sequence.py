"""One function in place of all calls of a model, so that the virtual machine makes one call.

For each call of a function the virtual machine makes a tensor for the result and interprets instructions, about 0.3 us
together: more than many layers of small networks take. Where everything is known at compile time one function takes their
place, which calls them one after another on tensors at fixed places of one piece of memory. It does nothing but write down
arguments, thousands of stores in a row, so that LLVM's optimizations take seconds for it in deep networks and gain nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from ...passes._tvm import Constant, relax, tirx, tvm
from ..objects import AS_WRITTEN

_NAME = "call_all"
_SYMBOL = "__tvm_ffi_{}"
"""The symbol of a function in an object file."""
_ALIGNMENT = 64
"""Bytes: of a register, and of a line of a cache."""

_FIELDS = ("data", "shape", "strides", "ndim", "code", "bits", "lanes", "offset", "device", "kind")
_TENSOR = {name: number for number, name in enumerate(_FIELDS, 1)}
"""TVM's numbers of the fields of a tensor, the DLTensor of DLPack."""
_TYPE, _PADDING, _VALUE = 13, 14, 15
"""The same of an argument, the TVMFFIAny of its C interface."""
_IS_TENSOR, _CPU = 7, 1
"""The type of an argument that points to a tensor, and the kind of device."""


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies.

    Attributes:
        kind: "input", "constant", "memory" or "output".
        place: Which input, constant or output; the offset in memory, in bytes.
        shape: Its shape.
        dtype: Its dtype.
    """

    kind: str
    place: int
    shape: tuple[int, ...]
    dtype: str


@dataclass
class _Sequence:
    """What the main function does.

    Attributes:
        inputs: What it takes.
        several: Whether it returns a tuple.
        calls: Names of functions with their arguments.
        constants: What arguments of the kind "constant" are.
        memory: Bytes for all that lies between inputs and outputs.
        outputs: What it returns.
    """

    inputs: list[_Tensor]
    several: bool
    calls: list[tuple[str, list[_Tensor]]] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    memory: int = 0
    outputs: list[_Tensor] = field(default_factory=list)

    def reserve(self, size: int) -> int:
        """The offset of so many bytes more."""
        start = self.memory
        self.memory += -(-size // _ALIGNMENT) * _ALIGNMENT
        return start


class _OtherwiseError(Exception):
    """The main function does something else than calling functions on tensors whose shapes are known."""


def join_calls(mod: tvm.IRModule) -> tvm.IRModule:
    """Have `main` call one function that calls all that it has called.

    Args:
        mod: A module whose memory is planned.

    Returns:
        The module, unchanged where `main` does anything else, or makes a single call.
    """
    if any(isinstance(func, relax.Function) and var.name_hint != "main" for var, func in mod.functions.items()):
        return mod
    try:
        sequence = _read(mod)
    except _OtherwiseError:
        return mod
    return _write(mod, sequence) if len(sequence.calls) > 1 else mod


def _read(mod: tvm.IRModule) -> _Sequence:
    main = mod["main"]
    bindings = [binding for block in main.body.blocks for binding in block.bindings]
    if not all(isinstance(binding, relax.VarBinding) for binding in bindings):
        raise _OtherwiseError
    values = {binding.var: binding.value for binding in bindings}

    def followed(value: Any) -> Any:
        while isinstance(values.get(value), relax.Var | relax.Tuple):
            value = values[value]
        return value

    end = followed(main.body.body)
    ends = list(end.fields) if isinstance(end, relax.Tuple) else [end]
    results = {followed(part): index for index, part in enumerate(ends)}
    inputs = [_Tensor("input", index, *_shape_of(param)) for index, param in enumerate(main.params)]
    sequence, tensors = _Sequence(inputs, isinstance(end, relax.Tuple)), dict(zip(main.params, inputs))
    storages: dict[relax.Var, int] = {}

    def read(value: Any) -> _Tensor:
        if isinstance(value, Constant):
            sequence.constants.append(value)
            return _Tensor("constant", len(sequence.constants) - 1, *_shape_of(value))
        if not isinstance(value, relax.Var) or value not in tensors:
            raise _OtherwiseError
        return tensors[value]

    for var, value in values.items():
        if isinstance(value, relax.Var | Constant):
            tensors[var] = read(value)
        elif isinstance(value, relax.Tuple):
            continue
        elif not isinstance(value, relax.Call):
            raise _OtherwiseError
        elif isinstance(value.op, tvm.ir.GlobalVar):
            sequence.calls.append((value.op.name_hint, [read(argument) for argument in value.args]))
        elif value.op == _ALLOC_STORAGE:
            storages[var] = sequence.reserve(math.prod(int(dim) for dim in value.args[0].values))
        elif value.op == _ALLOC_PLANNED:
            tensors[var] = _Tensor("memory", storages[value.args[0]] + int(value.args[1].value), *_shape_of(var))
        elif value.op == _ALLOC_TENSOR:
            shape, dtype = _shape_of(var)
            size = math.prod(shape) * np.dtype(dtype).itemsize
            kind, place = ("output", results[var]) if var in results else ("memory", sequence.reserve(size))
            tensors[var] = _Tensor(kind, place, shape, dtype)
        elif value.op == _RESHAPE:
            tensors[var] = replace(read(value.args[0]), shape=_shape_of(var)[0])
        else:
            raise _OtherwiseError
    sequence.outputs = [read(end) for end in ends]
    if [(tensor.kind, tensor.place) for tensor in sequence.outputs] != [("output", index) for index in range(len(ends))]:
        raise _OtherwiseError
    if sequence.memory >= 1 << 31:  # offsets are int32
        raise _OtherwiseError
    return sequence


def _shape_of(value: Any) -> tuple[tuple[int, ...], str]:
    ty = value.ty
    if not isinstance(ty, relax.TensorType) or not isinstance(ty.shape, relax.ShapeExpr):
        raise _OtherwiseError
    dims = list(ty.shape.values)
    # A buffer without elements or axes has no address.
    if not dims or not all(isinstance(dim, int | tirx.IntImm) and int(dim) for dim in dims):
        raise _OtherwiseError
    return tuple(int(dim) for dim in dims), str(ty.dtype)


def _function(sequence: _Sequence) -> tirx.PrimFunc:
    """The function: (inputs, constants, outputs)."""
    with IRBuilder() as ib, T.prim_func(s_tir=True):
        T.func_name(_NAME)
        T.func_attr({"tirx.is_scheduled": True, AS_WRITTEN: True})
        given = [T.arg(f"input{i}", T.Buffer(tensor.shape, tensor.dtype)) for i, tensor in enumerate(sequence.inputs)]
        constants = [T.arg(f"constant{i}", T.handle()) for i in range(len(sequence.constants))]
        results = [T.arg(f"output{i}", T.Buffer(tensor.shape, tensor.dtype)) for i, tensor in enumerate(sequence.outputs)]

        cpu, first = tirx.const(_CPU, "int32"), tirx.const(0, "int32")
        size, byte = tirx.const(max(1, sequence.memory), "uint64"), (tirx.const(1, "int32"), tirx.const(8, "int32"))
        memory = T.bind(tirx.call_extern("handle", "TVMBackendAllocWorkspace", cpu, first, size, *byte))
        with T.Assert(tirx.Not(tirx.isnullptr(memory)), "out of memory"):
            pass

        def data(tensor: _Tensor) -> Any:
            if tensor.kind == "constant":
                return tirx.tvm_struct_get(constants[tensor.place], 0, _TENSOR["data"], "handle")
            if tensor.kind == "memory":
                return tirx.handle_add_byte_offset(memory, tensor.place)
            buffer = (given if tensor.kind == "input" else results)[tensor.place]
            return T.address_of(buffer[(0,) * len(buffer.shape)])

        places: dict[_Tensor, int] = {}
        for tensor in (tensor for _, arguments in sequence.calls for tensor in arguments):
            places.setdefault(tensor, len(places))
        described = _describe(list(places), data)
        passed = T.bind(tirx.tvm_stack_alloca("tvm_ffi_any", max(len(arguments) for _, arguments in sequence.calls)))
        returned = T.bind(tirx.tvm_stack_alloca("tvm_ffi_any", 1))
        for name, arguments in sequence.calls:
            for index, tensor in enumerate(arguments):
                _set(passed, index, _TYPE, tirx.const(_IS_TENSOR, "int32"))
                _set(passed, index, _PADDING, tirx.const(0, "int32"))
                _set(passed, index, _VALUE, tirx.tvm_struct_get(described, places[tensor], 0, "handle"))
            _set(returned, 0, _TYPE, tirx.const(0, "int32"))
            # What is called as a packed function LLVM declares once more for every call, the second time under another name.
            count = tirx.const(len(arguments), "int32")
            code = T.bind(tirx.call_extern("int32", _SYMBOL.format(name), _nothing(), passed, count, returned))
            with T.Assert(code == 0, f"{name} failed"):
                pass
        T.evaluate(tirx.call_extern("int32", "TVMBackendFreeWorkspace", cpu, first, memory))
    return ib.get()


def _describe(tensors: Sequence[_Tensor], data: Callable[[_Tensor], Any]) -> Any:
    """Structures of DLPack on the stack, one for each tensor."""
    dims = [dim for tensor in tensors for dim in tensor.shape]
    shapes = T.decl_buffer((len(dims),), "int64", data=tirx.tvm_stack_alloca("shape", len(dims)))
    for index, dim in enumerate(dims):
        T.buffer_store(shapes, tirx.const(dim, "int64"), [index])
    structures = T.bind(tirx.tvm_stack_alloca("array", len(tensors)))
    first = 0
    for index, tensor in enumerate(tensors):
        kind = tvm.DataType(tensor.dtype)
        values = {
            "data": data(tensor),
            "shape": T.address_of(shapes[first]),
            "strides": _nothing(),
            "ndim": tirx.const(len(tensor.shape), "int32"),
            "code": tirx.const(int(kind.type_code), "uint8"),
            "bits": tirx.const(int(kind.bits), "uint8"),
            "lanes": tirx.const(1, "uint16"),
            "offset": tirx.const(0, "uint64"),
            "device": tirx.const(0, "int32"),
            "kind": tirx.const(_CPU, "int32"),
        }
        for name, value in values.items():
            _set(structures, index, _TENSOR[name], value)
        first += len(tensor.shape)
    return structures


def _nothing() -> Any:
    return tirx.reinterpret("handle", tirx.const(0, "uint64"))


def _set(structures: Any, index: int, part: int, value: Any) -> None:
    T.evaluate(tirx.tvm_struct_set(structures, index, part, value))


def _write(mod: tvm.IRModule, sequence: _Sequence) -> tvm.IRModule:
    main = mod["main"]
    builder = relax.BlockBuilder(mod)
    callee = builder.add_func(_function(sequence), _NAME)
    bindings = []

    def bind(name: str, value: Any, ty: Any = None) -> relax.Var:
        value = builder.normalize(value)
        bindings.append(relax.VarBinding(relax.Var(name, value.ty if ty is None else ty), value))
        return bindings[-1].var

    outputs = [
        bind(f"output{i}", relax.op.builtin.alloc_tensor(relax.ShapeExpr(tensor.shape), tensor.dtype, 0, "global"))
        for i, tensor in enumerate(sequence.outputs)
    ]
    bind("called", relax.Call(callee, [*main.params, *sequence.constants, *outputs]), relax.TupleType([]))
    end = builder.normalize(relax.Tuple(outputs)) if sequence.several else outputs[0]
    body = relax.SeqExpr([relax.BindingBlock(bindings)], end)
    new = builder.get()
    new.update_func(new.get_global_var("main"), relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs))
    return new


_ALLOC_STORAGE = tvm.ir.Op.get("relax.memory.alloc_storage")
_ALLOC_PLANNED = tvm.ir.Op.get("relax.memory.alloc_tensor")
_ALLOC_TENSOR = tvm.ir.Op.get("relax.builtin.alloc_tensor")
_RESHAPE = tvm.ir.Op.get("relax.reshape")
