"""Running a module in NumPy: any batch size, every tensor in reach.

Calibration, sensitivity and evaluation of float models need many samples and all intermediate tensors. Matrix products
over a whole batch give that at a speed that an untuned compiled module does not reach, and independently of TVM's code
generation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._tvm import Constant, relax, tirx, tvm
from ..reference import Context, reference_of, register_reference
from ..reference.registry import Value
from .analysis import count_macs
from .module_params import get_params, input_vars, static_shape
from .rebuild import bindings

_LARGE = 200_000_000
"""Multiply-accumulate operations from which on samples run one by one: stacking them gains nothing and takes memory."""

Tap = Callable[[str, np.ndarray], None]

__all__ = ["Execution", "Interpreter", "evaluate_call", "plain_value", "register_reference", "run"]


class Interpreter:
    """Runs the `main` of one module; make it once for many batches.

    Args:
        mod: A module whose `main` is straight-line, parameters attached.

    Raises:
        ValueError: `main` is not straight-line, or has no parameter values attached.
    """

    def __init__(self, mod: tvm.IRModule) -> None:
        self._main: relax.Function = mod["main"]
        self._program = list(bindings(self._main))
        self._params = dict(zip(list(self._main.params)[len(input_vars(self._main)) :], get_params(mod).values()))
        self._dying = self._lifetimes()
        self._compiled: dict[relax.Call, Callable[..., Value]] = {}
        self._batchable: bool | None = None
        self._large = count_macs(mod) >= _LARGE

    def __call__(self, inputs: Sequence[np.ndarray], tap: Tap | None = None) -> list[np.ndarray]:
        """Run on a batch.

        Args:
            inputs: One array an input of `main`, in order; axis 0 may be any multiple of the graph's.
            tap: Called with the name and value of every input and every tensor computed; the value must not be changed or kept.

        Returns:
            The outputs, axis 0 stacked as in the inputs.

        Raises:
            ValueError: Number, shape or dtype of the inputs do not fit.
        """
        batch = self._check(inputs)
        if batch == 1:
            return self._run(inputs, 1, tap)
        if not self._large and self.takes_batches(inputs):
            return self._run(inputs, batch, tap)
        samples = [self._run(sample, 1, tap) for sample in _samples(inputs, batch)]
        return [np.concatenate([sample[index] for sample in samples]) for index in range(len(samples[0]))]

    def _check(self, inputs: Sequence[np.ndarray]) -> int:
        variables = input_vars(self._main)
        if len(inputs) != len(variables):
            raise ValueError(f"main has {len(variables)} inputs, {len(inputs)} arrays were given")
        batches = set()
        for var, value in zip(variables, inputs):
            shape = static_shape(var)
            fits = value.ndim == len(shape) and value.shape[1:] == shape[1:]
            if not fits or (shape and (value.shape[0] == 0 or value.shape[0] % shape[0])):
                raise ValueError(f"input {var.name} has shape {shape}, the array given {value.shape}")
            if value.dtype.name != str(var.ty.dtype):
                raise ValueError(f"input {var.name} is {var.ty.dtype}, the array given {value.dtype}")
            batches.add(value.shape[0] // shape[0] if shape else 1)
        if len(batches) > 1:
            raise ValueError("the inputs have different batch sizes")
        return batches.pop() if batches else 1

    def _try_batch(self, inputs: Sequence[np.ndarray], batch: int) -> bool:
        """Whether stacking samples on axis 0 gives what single samples give; some graphs move or mix that axis."""
        two = [value[: 2 * (value.shape[0] // batch)] for value in inputs]
        single = [self._run(sample, 1, None) for sample in _samples(two, 2)]
        try:
            stacked = self._run(two, 2, None)
        except (ValueError, IndexError, TypeError):
            return False
        for index, value in enumerate(stacked):
            expected = np.concatenate([outputs[index] for outputs in single])
            if value.shape != expected.shape:
                return False
            tolerance = 2.0 if np.issubdtype(value.dtype, np.integer) else 0.02 * float(np.abs(expected).max(initial=0))
            if float(np.abs(value.astype(np.float64) - expected).max(initial=0)) > tolerance + 1e-6:
                return False
        return True

    def takes_batches(self, inputs: Sequence[np.ndarray]) -> bool:
        """Whether samples, as many as there are in `inputs`, can be run at once and give what they give one by one.

        Raises:
            ValueError: The inputs do not fit.
        """
        batch = self._check(inputs)
        if batch > 1 and self._batchable is None:
            self._batchable = self._try_batch(inputs, batch)
        return batch == 1 or bool(self._batchable)

    def start(self, inputs: Sequence[np.ndarray]) -> Execution:
        """Begin a run that the caller takes binding by binding, on all samples; each alone where the graph would mix them.

        Raises:
            ValueError: The inputs do not fit.
        """
        return Execution(self, inputs, self._check(inputs), apart=not self.takes_batches(inputs))

    def _lifetimes(self) -> dict[int, list[relax.Var]]:
        """Which variables are read for the last time by which binding."""
        last: dict[relax.Var, int] = {}
        for index, (_, value) in enumerate(self._program):
            for var in relax.analysis.free_vars(value):
                last[var] = index
        for var in relax.analysis.free_vars(self._main.body.body):
            last[var] = len(self._program)
        dying: dict[int, list[relax.Var]] = {}
        for var, index in last.items():
            dying.setdefault(index, []).append(var)
        return dying

    def _run(self, inputs: Sequence[np.ndarray], batch: int, tap: Tap | None) -> list[np.ndarray]:
        execution = Execution(self, inputs, batch)
        if tap is not None:
            for var, value in zip(input_vars(self._main), inputs):
                tap(var.name, value)
        for var, result in execution:
            if tap is not None and isinstance(result, np.ndarray):
                tap(var.name, result)
        return execution.outputs()

    def evaluate(self, expr: relax.Expr, values: Mapping[relax.Var, Value], batch: int) -> Value:
        """The value of an expression, given those of variables and how many samples are stacked in them."""
        if isinstance(expr, relax.Var):
            return values[expr]
        if isinstance(expr, relax.Tuple):
            return tuple(self.evaluate(field, values, batch) for field in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self.evaluate(expr.tuple_value, values, batch)[int(expr.index)]
        if isinstance(expr, relax.Call):
            args = [self.evaluate(arg, values, batch) for arg in expr.args]
            return self._call(expr, args, batch)
        return plain_value(expr)

    def _call(self, call: relax.Call, args: Sequence[Value], batch: int) -> Value:
        reference = reference_of(getattr(call.op, "name", ""))
        if reference is not None and call not in self._compiled:
            with (
                contextlib.suppress(NotImplementedError),  # a variant that the table lacks is compiled
                np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"),
            ):
                return reference(args, Context(call, batch))
        if call not in self._compiled:
            self._compiled[call] = _compile_call(call)
        return self._compiled[call](*args)


class Execution:
    """One run of a module, binding by binding.

    Args:
        interpreter: What runs it.
        inputs: One array an input.
        batch: How many samples these are.
        apart: Whether each binding is computed sample by sample, the results stacked on axis 0.

    Attributes:
        values: The value of every variable that is still to be read. The value of a parameter may be replaced before the
            binding that reads it runs.
        kept: Variables whose values stay after their last reader.
        samples: How many samples there are.
        apart: Whether they are computed one by one.
        evaluate: See `Interpreter.evaluate`.
    """

    def __init__(self, interpreter: Interpreter, inputs: Sequence[np.ndarray], batch: int, apart: bool = False) -> None:
        self._interpreter = interpreter
        self._batch = self.samples = batch
        self.apart, self.evaluate = apart, interpreter.evaluate
        # The variables whose values hold all samples, where each is computed alone.
        self._stacked: set[relax.Var] | None = set(input_vars(interpreter._main)) if apart else None
        self._next = 0
        self.kept: set[relax.Var] = set()
        self.values: dict[relax.Var, Value] = dict(interpreter._params)
        self.values.update(zip(input_vars(interpreter._main), inputs))

    def __iter__(self) -> Iterator[tuple[relax.Var, Value]]:
        """Run to the end, giving each variable and its value."""
        while self.upcoming() is not None:
            yield self.step()

    def upcoming(self) -> tuple[relax.Var, relax.Expr] | None:
        """The binding that runs next; None at the end."""
        program = self._interpreter._program
        return program[self._next] if self._next < len(program) else None

    def remaining(self) -> list[tuple[relax.Var, relax.Expr]]:
        """The bindings still to run, in order."""
        return self._interpreter._program[self._next :]

    def step(self) -> tuple[relax.Var, Value]:
        """Run one binding."""
        var, expr = self._interpreter._program[self._next]
        if self._stacked is None:
            result = self._interpreter.evaluate(expr, self.values, self._batch)
        else:
            result = self._apart(var, expr, self._stacked)
        self.values[var] = result
        for gone in self._interpreter._dying.get(self._next, ()):
            if gone not in self.kept:
                self.values.pop(gone, None)
        self._next += 1
        return var, result

    def _apart(self, var: relax.Var, expr: relax.Expr, stacked: set[relax.Var]) -> Value:
        """One binding, sample by sample; once where no sample is read."""
        read = set(relax.analysis.free_vars(expr))
        if not read & stacked:
            return self._interpreter.evaluate(expr, self.values, 1)
        stacked.add(var)
        shared = {name: self.values[name] for name in read - stacked}
        parts = {name: _apart(self.values[name], self._batch, name.ty) for name in read & stacked}
        results = []
        for index in range(self._batch):
            values = shared | {name: samples[index] for name, samples in parts.items()}
            results.append(self._interpreter.evaluate(expr, values, 1))
        return _together(results)

    def outputs(self) -> list[np.ndarray]:
        """What `main` returns, once all bindings have run."""
        output = self._interpreter.evaluate(self._interpreter._main.body.body, self.values, self._batch)
        return list(output) if isinstance(output, tuple) else [output]


def run(mod: tvm.IRModule, inputs: Sequence[np.ndarray], tap: Tap | None = None) -> list[np.ndarray]:
    """Run `main` of `mod` once; see `Interpreter`."""
    return Interpreter(mod)(inputs, tap)


def evaluate_call(call: relax.Call, args: Sequence[Value]) -> Value:
    """The value of one call on constant arguments, for folding."""
    reference = reference_of(getattr(call.op, "name", ""))
    if reference is not None:
        return reference(args, Context(call))
    return _compile_call(call)(*args)


def _apart(value: Value, batch: int, ty: Any) -> list[Value]:
    """The samples of a stacked value of the type of one."""
    if isinstance(value, tuple):
        return list(zip(*(_apart(field, batch, inner) for field, inner in zip(value, ty.fields))))
    return list(value) if len(ty.shape) == 0 else np.split(value, batch)


def _together(samples: Sequence[Value]) -> Value:
    """Samples stacked on axis 0."""
    if isinstance(samples[0], tuple):
        return tuple(map(_together, zip(*samples)))
    return np.concatenate(samples) if np.ndim(samples[0]) else np.asarray(samples)


def _samples(inputs: Sequence[np.ndarray], batch: int) -> list[list[np.ndarray]]:
    return [list(sample) for sample in zip(*(np.split(value, batch) for value in inputs))]


def plain_value(expr: relax.Expr) -> Value:
    """The Python value of an argument that is no variable: an array, a shape, a number or a string."""
    if isinstance(expr, Constant):
        return expr.value.numpy()
    if isinstance(expr, relax.ShapeExpr):
        return tuple(int(dim) for dim in expr.values)
    if isinstance(expr, tirx.IntImm):
        return int(expr.value)
    if isinstance(expr, tirx.FloatImm):
        return float(expr.value)
    if isinstance(expr, tvm.ir.StringImm):
        return str(expr.value)
    raise ValueError(f"cannot interpret {type(expr).__name__} {expr}")


def _compile_call(call: relax.Call) -> Callable[..., Value]:
    """The reference of an operator that the table lacks: TVM's own, compiled for the host."""
    builder = relax.BlockBuilder()
    tensors: list[relax.Var] = []

    def parameter(expr: relax.Expr) -> relax.Expr:
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([parameter(field) for field in expr.fields])
        if isinstance(expr.ty, relax.TensorType):
            var = relax.Var(f"arg{len(tensors)}", expr.ty)
            tensors.append(var)
            return var
        return expr

    args = [parameter(arg) for arg in call.args]
    with builder.function("main", tensors):
        with builder.dataflow():
            out = builder.emit_output(relax.Call(call.op, args, call.attrs, call.ty_args))
        builder.emit_func_output(out)
    machine = relax.VirtualMachine(tvm.compile(builder.get(), target="llvm"), tvm.cpu())

    def flat(values: Sequence[Value]) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for value in values:
            if isinstance(value, tuple) and value and isinstance(value[0], np.ndarray):
                found.extend(value)
            elif isinstance(value, np.ndarray):
                found.append(value)
        return found

    def compiled(*values: Value) -> Value:
        arrays = flat(values)
        for var, value in zip(tensors, arrays):
            if value.shape != static_shape(var):
                raise ValueError(f"{call.op} runs on {static_shape(var)} only, not on {value.shape}")
        result = machine["main"](*(tvm.runtime.tensor(np.array(value, order="C")) for value in arrays))
        if isinstance(result, tvm.runtime.Tensor):
            return result.numpy()
        return tuple(field.numpy() for field in result)

    return compiled
