"""The one form of a float model that all other passes may rely on.

What a front end emits differs by exporter. After `Canonicalize`:

- a computation on parameters alone is done, and its result is a parameter;
- the bias of a convolution is `add(conv, bias)` with a parameter of shape (1, O, 1, 1), that of a matrix product
  `add(matmul, bias)` with a parameter of shape (N,); the parameter is the second operand;
- a scalar is an inline constant;
- ReLU is `nn.relu`; another clamp to constants is `clip`;
- the largest of several tensors is `maximum` of two after two, the smallest `minimum`;
- integers and flags become floats behind operators that only move them;
- operators that do nothing are gone;
- every variable is named after its layer: the stem of the weight's name, then the operator (`conv1`, `conv1.relu`).
"""

from __future__ import annotations

import re

import numpy as np

from .._tvm import Constant, relax, tvm
from ..graph.adopt_module import model_pass
from ..graph.interpreter import evaluate_call, plain_value
from ..graph.module_params import get_params, param_vars, static_shape
from ..graph.rebuild import DROP, Drop, Rebuilder, bindings, rebuild
from ..reference.registry import Value

# These stay although their operands are parameters: the exchange form of quantized models.
_NEVER_FOLDED = {"relax.dequantize", "relax.quantize"}
_COMMUTATIVE = {"relax.add", "relax.multiply", "relax.maximum", "relax.minimum"}
_WITH_SCALAR = {"relax.subtract", "relax.divide", "relax.power", "relax.mod", "relax.floor_mod", "relax.floor_divide"}
_MOVES = {f"relax.{name}" for name in ("expand_dims", "squeeze", "reshape", "permute_dims", "broadcast_to")}
_WEIGHTED = {f"relax.nn.conv{rank}d{kind}" for rank in (1, 2, 3) for kind in ("", "_transpose")} | {"relax.matmul"}
_SUFFIXES = re.compile(r"[._/](weight|bias|kernel|w|b|gamma|beta|scale|quantized)$", re.IGNORECASE)


@model_pass("Canonicalize")
class Canonicalize:
    """Bring `main` into canonical form; parameters must be attached."""

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        return _rename(rebuild(_fold(mod), _simplify))


def _fold(mod: tvm.IRModule) -> tvm.IRModule:
    """Evaluate what depends on parameters and constants alone; the result takes the name of the parameter it comes from."""
    main = mod["main"]
    params = get_params(mod)
    known: dict[relax.Var, np.ndarray] = {var: params[var.name] for var in param_vars(main)}
    origin: dict[relax.Var, str | None] = {var: var.name for var in param_vars(main)}
    program = list(bindings(main))
    kept = []
    for var, value in program:
        folded = _evaluate(value, known)
        if folded is None:
            kept.append(value)
        else:
            known[var] = folded
            sources = [origin[free] for free in relax.analysis.free_vars(value)]
            origin[var] = next((name for name in sources if name), None)
    # A parameter that is still read as it is keeps its name; a folded one takes the name when it is free.
    needed = {var for value in [*kept, main.body.body] for var in relax.analysis.free_vars(value) if var in known}
    names = {var: var.name for var in param_vars(main) if var in needed}
    for var, _ in program:
        if var in needed and origin[var] is not None:
            # Layers that share a parameter share what becomes of it.
            same = (v for v in names if origin[v] == origin[var] and np.array_equal(known[v], known[var]))
            twin = next(same, None)
            names[var] = _free_name(str(origin[var]), set(names.values())) if twin is None else names[twin]

    def rewrite(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | Drop | None:
        if var in known:
            return DROP if var not in needed else _constant(build, names.get(var), known[var])
        return None

    return rebuild(mod, rewrite)


def _constant(build: Rebuilder, name: str | None, value: np.ndarray) -> relax.Expr:
    # Without its type a number would become int32.
    return relax.const(value, str(value.dtype)) if name is None else build.param(name, value)


def _free_name(stem: str, taken: set[str]) -> str:
    name, count = stem, 1
    while name in taken:
        name = f"{stem}.{count}"
        count += 1
    return name


def _evaluate(value: relax.Expr, known: dict[relax.Var, np.ndarray]) -> np.ndarray | None:
    """The value of a binding that depends on nothing but `known`; None when it does not, or must not be folded."""
    if isinstance(value, relax.Var):
        return known.get(value)
    if isinstance(value, Constant):
        return value.value.numpy()
    if not isinstance(value, relax.Call) or value.op.name in _NEVER_FOLDED or not isinstance(value.ty, relax.TensorType):
        return None
    if any(var not in known for var in relax.analysis.free_vars(value)):
        return None
    return np.asarray(evaluate_call(value, [_argument(arg, known) for arg in value.args]))


def _argument(expr: relax.Expr, known: dict[relax.Var, np.ndarray]) -> Value:
    if isinstance(expr, relax.Var):
        return known[expr]
    if isinstance(expr, relax.Tuple):
        return tuple(_argument(field, known) for field in expr.fields)
    return plain_value(expr)


def _simplify(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """Rewrites of single calls."""
    if isinstance(value, relax.TupleGetItem) and int(value.index) == 0:
        source = build.source_value(value.tuple_value)
        if isinstance(source, relax.Call) and source.op.name == "relax.nn.dropout":
            return build.get(source.args[0])
    if not isinstance(value, relax.Call):
        return None
    name = value.op.name
    if name in _COMMUTATIVE:
        return _order_operands(build, value)
    if name in _WITH_SCALAR:
        return _inline_scalars(build, value)
    if name in ("relax.max", "relax.min"):
        return _extreme_of_stack(build, value)
    if name == "relax.clip" and float(value.args[1].value) == 0 and float(value.args[2].value) >= 3.4e38:
        return relax.op.nn.relu(build.get(value.args[0]))
    if name == "relax.nn.relu6":
        return relax.op.clip(build.get(value.args[0]), 0.0, 6.0)
    if name in ("relax.reshape", "relax.broadcast_to", "relax.permute_dims") and _is_identity(value):
        return build.get(value.args[0])
    return _cast_last(build, value) if name in _MOVES else None


def _cast_last(build: Rebuilder, call: relax.Call) -> relax.Expr | None:
    """Integers and flags move before they become floats, so that masks are known however they were put together."""
    cast = build.source_value(call.args[0])
    if not isinstance(cast, relax.Call) or cast.op.name != "relax.astype" or "float" in str(cast.args[0].ty.dtype):
        return None
    moved = build.emit(relax.Call(call.op, [build.get(cast.args[0]), *call.args[1:]], call.attrs, call.ty_args))
    return relax.op.astype(moved, str(call.ty.dtype))


def _order_operands(build: Rebuilder, call: relax.Call) -> relax.Expr | None:
    """The parameter second; a scalar as a constant; the bias of a matrix product without leading ones."""
    first, second = call.args
    if build.param_value(first) is not None and build.param_value(second) is None:
        first, second = second, first
    value = build.param_value(second)
    if value is None:
        return None
    operand = build.get(second)
    out_rank = len(static_shape(call))
    if value.size == 1 and value.ndim <= 1 and build.param_name(second) is not None:
        if not _is_bias(build, first):
            operand = relax.const(value.reshape(()), str(value.dtype))
    elif value.ndim == 2 and value.shape[0] == 1 and out_rank == 2 and _is_bias(build, first):
        name = build.param_name(second)
        operand = build.param(name, value.reshape(-1)) if name else relax.const(value.reshape(-1))
    return relax.Call(call.op, [build.get(first), operand], call.attrs, call.ty_args)


def _extreme_of_stack(build: Rebuilder, call: relax.Call) -> relax.Expr | None:
    """The largest or smallest of several tensors, for which TVM's importer stacks them."""
    stack = build.source_value(call.args[0])
    if not isinstance(stack, relax.Call) or stack.op.name != "relax.stack" or call.attrs.keepdims:
        return None
    axis = int(stack.attrs.axis) % len(static_shape(stack))
    if call.attrs.axis is None or [int(a) % len(static_shape(stack)) for a in call.attrs.axis] != [axis]:
        return None
    make = relax.op.maximum if call.op.name == "relax.max" else relax.op.minimum
    found = None
    for field in stack.args[0].fields:
        value = build.param_value(field)
        operand = build.get(field)
        if value is not None and value.size > 0 and (value == value.reshape(-1)[0]).all():
            operand = relax.const(value.reshape(-1)[0], str(value.dtype))
        found = operand if found is None else make(*((operand, found) if isinstance(found, Constant) else (found, operand)))
    return found


def _inline_scalars(build: Rebuilder, call: relax.Call) -> relax.Expr:
    rank = len(static_shape(call))
    args = []
    for arg, other in (call.args, call.args[::-1]):
        value = build.param_value(arg) if build.param_name(arg) is not None else None
        if value is not None and value.size == 1 and value.ndim <= 1 and len(static_shape(other)) == rank:
            args.append(relax.const(value.reshape(()), str(value.dtype)))
        else:
            args.append(build.get(arg))
    return relax.Call(call.op, args, call.attrs, call.ty_args)


def _is_bias(build: Rebuilder, expr: relax.Expr) -> bool:
    source = build.source_value(expr)
    return isinstance(source, relax.Call) and source.op.name in _WEIGHTED


def _is_identity(call: relax.Call) -> bool:
    if call.op.name == "relax.permute_dims":
        axes = call.attrs.axes
        return axes is not None and [int(axis) for axis in axes] == list(range(len(axes)))
    return static_shape(call) == static_shape(call.args[0])


def _rename(mod: tvm.IRModule) -> tvm.IRModule:
    """Name every variable after the layer that it belongs to."""
    stems: dict[relax.Var, str] = {}

    def rewrite(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if not isinstance(value, (relax.Call, relax.TupleGetItem)):
            return None
        rounded = _rounded_name(build, value)
        if rounded is not None:
            if value.args[0] in stems:
                stems[var] = stems[value.args[0]]
            return build.emit(build.get(value), rounded)
        stem, suffix = _name_parts(build, value, stems)
        stems[var] = stem
        return build.emit(build.get(value), f"{stem}.{suffix}" if stem and suffix else stem or suffix)

    return rebuild(mod, rewrite)


def _rounded_name(build: Rebuilder, value: relax.Expr) -> str | None:
    """The name of what quantize or dequantize gives: that of the tensor, and which of both it was."""
    name = getattr(value.op, "name", "") if isinstance(value, relax.Call) else ""
    if name not in ("relax.quantize", "relax.dequantize"):
        return None
    operand = build.get(value.args[0])
    stem = operand.name if isinstance(operand, relax.Var) else "constant"
    return f"{stem.removesuffix('.quantized')}.{name.removeprefix('relax.')}d"


def _weight_name(build: Rebuilder, expr: relax.Expr) -> str | None:
    """The name of a parameter, dequantized or not."""
    source = build.source_value(expr)
    if isinstance(source, relax.Call) and getattr(source.op, "name", "") == "relax.dequantize":
        expr = source.args[0]
    return build.param_name(expr)


def _name_parts(build: Rebuilder, value: relax.Expr, stems: dict[relax.Var, str]) -> tuple[str, str]:
    if isinstance(value, relax.TupleGetItem):
        return stems.get(value.tuple_value, ""), f"part{int(value.index)}"
    op = value.op.name.rpartition(".")[2]
    for arg in list(value.args)[1:]:
        name = _weight_name(build, arg)
        if name is not None and (value.op.name in _WEIGHTED or "norm" in op):
            return _SUFFIXES.sub("", name), ""
    activations = [arg for arg in _tensor_args(value) if build.param_name(arg) is None and arg in stems]
    if not activations:
        return "", op
    stem = stems[activations[-1]] if len(activations) == 1 else stems[activations[0]]
    if op == "add" and len(activations) == 1 and _is_bias(build, value.args[0]):
        return stem, "bias_add"
    return stem, op


def _tensor_args(call: relax.Call) -> list[relax.Expr]:
    found: list[relax.Expr] = []
    for arg in call.args:
        found.extend(arg.fields if isinstance(arg, relax.Tuple) else [arg])
    return [arg for arg in found if isinstance(arg, relax.Var)]
