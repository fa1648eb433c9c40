"""From a fully integer TFLite model to our integer operators, bit for bit.

Every number that TFLite's interpreter derives when it prepares a model (multipliers, shifts, clips of activations, padding)
is derived here in the same way and in the same precision, so that the imported model gives the bytes of TFLite's reference
kernels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingToolError, UnsupportedOperatorError, UserError
from ..model import InputSpec, Model
from ..passes import attach_params
from ..passes._tvm import relax, tvm
from ..passes.lowering.integer_core import IOQuantization, TensorQuantization, set_io_quantization
from .tflite_operators import CONVERTERS, OPTIONS, TfliteOperator, TfliteTensor, identifier


def load_tflite(path: Path, *, dense_rounding: str = "single") -> Model:
    """Import a fully integer TFLite file (int8 weights and activations).

    Args:
        path: The file.
        dense_rounding: How fully connected layers round: once, as the reference kernel of LiteRT 2 ("single"), or twice,
            as they round convolutions in TFLite up to 2.14, TFLite Micro and CMSIS-NN ("double").

    Returns:
        An integer model: `main` takes and gives int8, NHWC; its scales and zero points are recorded with it.

    Raises:
        UserError: The file cannot be read, is no TFLite file, or is not fully integer.
        UnsupportedOperatorError: An operator cannot be imported; the message names it.
        MissingToolError: The package `tflite`, which describes the file format, is not installed.
    """
    try:
        import tflite
    except ImportError as error:
        raise MissingToolError("importing TFLite needs the package tflite; run: pip install tflite") from error
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if data[4:8] != b"TFL3":
        raise UserError(f"{path} is not a TFLite file; convert the model again")
    try:
        return _Importer(tflite, data, path.name, dense_rounding).run()
    except (UserError, MissingToolError):
        raise
    except Exception as error:  # the format has no checks of its own: damage shows as any error
        raise UserError(f"{path} is not a whole TFLite file ({type(error).__name__}: {error}); convert it again") from error


class _Importer:
    def __init__(self, tflite: Any, data: bytes, source: str, dense_rounding: str) -> None:
        self._tflite, self.source, self.dense_rounding = tflite, source, dense_rounding
        self._model = tflite.Model.GetRootAsModel(data, 0)
        if self._model.SubgraphsLength() != 1:
            raise UserError(f"{source} has {self._model.SubgraphsLength()} subgraphs; only one can be imported")
        self._graph = self._model.Subgraphs(0)
        self._kinds = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
        self._dtypes = {
            value: name.lower() for name, value in vars(tflite.TensorType).items() if isinstance(value, int)
        }
        self._params: dict[str, np.ndarray] = {}
        self._param_vars: list[relax.Var] = []
        self._values: dict[int, relax.Expr] = {}
        self._builder = relax.BlockBuilder()

    def run(self) -> Model:
        """The model."""
        graph = self._graph
        inputs = [self._tensor(int(index)) for index in graph.InputsAsNumpy()]
        outputs = [self._tensor(int(index)) for index in graph.OutputsAsNumpy()]
        for tensor in (*inputs, *outputs):
            if tensor.dtype != "int8":
                raise UserError(
                    f"{self.source} is not fully integer: '{tensor.name}' is {tensor.dtype}; "
                    "convert it with int8 inference input and output types"
                )
        operators = [self._operator(index) for index in range(graph.OperatorsLength())]
        variables = [relax.Var(identifier(t.name), relax.TensorType(t.shape, t.dtype)) for t in inputs]
        self._values.update({t.index: var for t, var in zip(inputs, variables)})
        # Parameters come to light on the way, so the function is put together at the end.
        bindings = []
        for operator in operators:
            convert = CONVERTERS.get(operator.kind)
            if convert is None:
                raise UnsupportedOperatorError(
                    f"operator {operator.kind} (number {operator.index}, making '{operator.output.name}') of {self.source} "
                    "cannot be imported"
                )
            bindings.append((operator.output, convert(self, operator)))
        mod = self._module(variables, bindings, outputs)
        quantization = IOQuantization(
            inputs=tuple(_quantization(t, var.name) for t, var in zip(inputs, variables)),
            outputs=tuple(_quantization(t, f"output{index}") for index, t in enumerate(outputs)),
        )
        return Model(
            module=set_io_quantization(attach_params(mod, self._params), quantization),
            inputs=tuple(
                InputSpec(name=var.name, shape=t.shape, dtype=t.dtype, layout="NHWC" if len(t.shape) == 4 else None)
                for var, t in zip(variables, inputs)
            ),
            outputs=tuple(t.name for t in outputs),
            provenance=(f"imported from {self.source}, TFLite, integer",),
        )

    def _module(
        self, variables: list[relax.Var], bindings: list[tuple[TfliteTensor, relax.Expr]], outputs: list[TfliteTensor]
    ) -> tvm.IRModule:
        bound: list[relax.VarBinding] = []
        block = relax.BlockBuilder()
        new: dict[relax.Expr, relax.Expr] = {}
        for tensor, expr in bindings:
            placeholder = self._values[tensor.index]
            normal = block.normalize(_substitute(expr, new))
            var = relax.DataflowVar(f"t{tensor.index}", normal.ty)
            bound.append(relax.VarBinding(var, normal))
            new[placeholder] = var
        results = [new[self._values[t.index]] for t in outputs]
        result = results[0] if len(results) == 1 else relax.Tuple(results)
        result = block.normalize(result)
        out = relax.Var("output", result.ty)
        bound.append(relax.VarBinding(out, result))
        body = relax.SeqExpr([relax.DataflowBlock(bound)], out)
        attrs = tvm.ir.make_node("ir.DictAttrs", num_input=len(variables), global_symbol="main")
        func = relax.Function([*variables, *self._param_vars], body, out.ty, True, attrs)
        return tvm.IRModule({"main": func})

    def value(self, tensor: TfliteTensor) -> relax.Expr:
        """A tensor computed before, or an input."""
        if tensor.index not in self._values:
            raise UserError(f"{self.source}: '{tensor.name}' is read before it is computed")
        return self._values[tensor.index]

    def param(self, name: str, value: np.ndarray) -> relax.Var:
        """A parameter of its own."""
        unique, count = name, 1
        while unique in self._params:
            unique = f"{name}.{count}"
            count += 1
        var = relax.Var(unique, relax.TensorType(value.shape, value.dtype.name))
        self._params[unique] = value
        self._param_vars.append(var)
        return var

    def _operator(self, index: int) -> TfliteOperator:
        raw = self._graph.Operators(index)
        code = self._model.OperatorCodes(raw.OpcodeIndex())
        kind = self._kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs = tuple(self._tensor(int(i)) if i >= 0 else None for i in raw.InputsAsNumpy())
        if raw.OutputsLength() != 1:
            raise UnsupportedOperatorError(f"operator {kind} (number {index}) of {self.source} has several outputs")
        output = self._tensor(int(raw.Outputs(0)))
        # What later operators refer to; typed as the file says.
        self._values.setdefault(
            output.index, relax.DataflowVar(f"t{output.index}", relax.TensorType(output.shape, output.dtype))
        )
        return TfliteOperator(kind, index, inputs, output, self._options(kind, raw))

    def _options(self, kind: str, raw: Any) -> Any:
        name = OPTIONS.get(kind)
        table = raw.BuiltinOptions()
        if name is None or table is None:
            return None
        options = getattr(self._tflite, name)()
        options.Init(table.Bytes, table.Pos)
        return options

    def _tensor(self, index: int) -> TfliteTensor:
        raw = self._graph.Tensors(index)
        dtype = self._dtypes[raw.Type()]
        shape = tuple(int(dim) for dim in raw.ShapeAsNumpy()) if raw.ShapeLength() else ()
        buffer = self._model.Buffers(raw.Buffer())
        data = None
        if buffer.DataLength():
            data = np.frombuffer(buffer.DataAsNumpy().tobytes(), dtype).reshape(shape)
        quantization = raw.Quantization()
        has_scale = quantization is not None and quantization.ScaleLength()
        scales = quantization.ScaleAsNumpy() if has_scale else np.zeros(0, np.float32)
        zeros = quantization.ZeroPointAsNumpy() if has_scale else np.zeros(0, np.int64)
        return TfliteTensor(index, raw.Name().decode(), shape, dtype, np.asarray(scales), np.asarray(zeros), data)


def _quantization(tensor: TfliteTensor, name: str) -> TensorQuantization:
    """Images are NHWC here and NCHW in float models."""
    image = len(tensor.shape) == 4
    shape = tensor.shape
    return TensorQuantization(
        name=name,
        float_shape=(shape[0], shape[3], shape[1], shape[2]) if image else shape,
        shape=shape,
        axes=(0, 2, 3, 1) if image else (),
        scale=tensor.scale,
        zero_point=tensor.zero_point,
        layout="NHWC" if image else "",
    )


def _substitute(expr: relax.Expr, new: dict[relax.Expr, relax.Expr]) -> relax.Expr:
    if isinstance(expr, relax.Var):
        return new.get(expr, expr)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([_substitute(field, new) for field in expr.fields])
    if isinstance(expr, relax.Call):
        return relax.Call(expr.op, [_substitute(arg, new) for arg in expr.args], expr.attrs, expr.ty_args)
    return expr
