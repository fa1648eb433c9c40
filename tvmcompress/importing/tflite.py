"""From a fully integer TFLite model to our integer operators, bit for bit.

Every number that TFLite's interpreter derives when it prepares a model (multipliers, shifts, clips of activations, padding)
is derived here in the same way and in the same precision, so that the imported model gives the bytes of TFLite's reference
kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..errors import MissingToolError, UnsupportedOperatorError, UserError
from ..model import InputSpec, Model
from ..passes import attach_params
from ..passes._tvm import relax, tvm
from ..passes.integer import ops
from ..passes.integer.core import IOQuantization, TensorQuantization, set_io_quantization
from ..passes.integer.requantize import quantize_multiplier, quantize_multipliers
from ..passes.integer.softmax import OUTPUT_SCALE, OUTPUT_ZERO_POINT


@dataclass(frozen=True)
class _Tensor:
    """One tensor of the file.

    Attributes:
        index: In the subgraph.
        name: Its name.
        shape: Its shape.
        dtype: Its dtype.
        scales: float32, one or one per channel; empty for a float tensor.
        zero_points: As many.
        data: Its value when it is a constant.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: np.ndarray
    zero_points: np.ndarray
    data: np.ndarray | None

    @property
    def scale(self) -> float:
        """Its only scale, as a double."""
        return float(self.scales[0])

    @property
    def zero_point(self) -> int:
        """Its only zero point."""
        return int(self.zero_points[0])


@dataclass(frozen=True)
class _Operator:
    kind: str
    index: int
    inputs: tuple[_Tensor | None, ...]
    output: _Tensor
    options: Any


def load_tflite(path: Path, *, dense_rounding: str = "double") -> Model:
    """Import a fully integer TFLite file (int8 weights and activations).

    Args:
        path: The file.
        dense_rounding: How fully connected layers round. TFLite up to 2.14, TFLite Micro and CMSIS-NN round them twice
            as they round convolutions ("double"); the reference kernel of LiteRT 2 rounds them once ("single").

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
        self._tflite, self._source, self.dense_rounding = tflite, source, dense_rounding
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
                    f"{self._source} is not fully integer: '{tensor.name}' is {tensor.dtype}; "
                    "convert it with int8 inference input and output types"
                )
        operators = [self._operator(index) for index in range(graph.OperatorsLength())]
        variables = [relax.Var(_identifier(t.name), relax.TensorType(t.shape, t.dtype)) for t in inputs]
        self._values.update({t.index: var for t, var in zip(inputs, variables)})
        # Parameters come to light on the way, so the function is put together at the end.
        bindings = []
        for operator in operators:
            convert = _CONVERTERS.get(operator.kind)
            if convert is None:
                raise UnsupportedOperatorError(
                    f"operator {operator.kind} (number {operator.index}, making '{operator.output.name}') of {self._source} "
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
            provenance=(f"imported from {self._source}, TFLite, integer",),
        )

    def _module(
        self, variables: list[relax.Var], bindings: list[tuple[_Tensor, relax.Expr]], outputs: list[_Tensor]
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

    def value(self, tensor: _Tensor) -> relax.Expr:
        """A tensor computed before, or an input."""
        if tensor.index not in self._values:
            raise UserError(f"{self._source}: '{tensor.name}' is read before it is computed")
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

    def _operator(self, index: int) -> _Operator:
        raw = self._graph.Operators(index)
        code = self._model.OperatorCodes(raw.OpcodeIndex())
        kind = self._kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs = tuple(self._tensor(int(i)) if i >= 0 else None for i in raw.InputsAsNumpy())
        if raw.OutputsLength() != 1:
            raise UnsupportedOperatorError(f"operator {kind} (number {index}) of {self._source} has several outputs")
        output = self._tensor(int(raw.Outputs(0)))
        # What later operators refer to; typed as the file says.
        self._values.setdefault(
            output.index, relax.DataflowVar(f"t{output.index}", relax.TensorType(output.shape, output.dtype))
        )
        return _Operator(kind, index, inputs, output, self._options(kind, raw))

    def _options(self, kind: str, raw: Any) -> Any:
        name = _OPTIONS.get(kind)
        table = raw.BuiltinOptions()
        if name is None or table is None:
            return None
        options = getattr(self._tflite, name)()
        options.Init(table.Bytes, table.Pos)
        return options

    def _tensor(self, index: int) -> _Tensor:
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
        return _Tensor(index, raw.Name().decode(), shape, dtype, np.asarray(scales), np.asarray(zeros), data)


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name)


def _quantization(tensor: _Tensor, name: str) -> TensorQuantization:
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


def _clip(activation: int, output: _Tensor) -> dict[str, Any]:
    """The limits of a fused activation in the output's integers (`CalculateActivationRangeQuantized`)."""

    def quantized(real: float) -> int:
        # std::round: halves away from zero.
        value = np.float32(real) / np.float32(output.scale)
        return output.zero_point + int(np.floor(np.abs(value) + 0.5) * np.sign(value))

    low, high = {0: (None, None), 1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}[activation]
    return {
        "qmin": -128 if low is None else max(-128, quantized(low)),
        "qmax": 127 if high is None else min(127, quantized(high)),
    }


def _padding(
    same: bool, size: tuple[int, ...], out: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...],
    dilation: tuple[int, ...] = (1, 1),
) -> tuple[int, int, int, int]:  # fmt: skip
    """Top, left, bottom, right."""
    if not same:
        return 0, 0, 0, 0
    totals = [
        max((o - 1) * s + (k - 1) * d + 1 - n, 0) for n, o, k, s, d in zip(size, out, kernel, strides, dilation)
    ]
    return totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2


def _weight(operator: _Operator, source: str) -> _Tensor:
    weight = operator.inputs[1]
    if weight is None or weight.data is None or weight.dtype != "int8" or (weight.zero_points != 0).any():
        raise UserError(
            f"{source}: the weight of {operator.kind} number {operator.index} is not constant, symmetric int8; "
            "convert the model with full integer quantization"
        )
    return weight


def _bias(operator: _Operator, channels: int) -> np.ndarray:
    bias = operator.inputs[2] if len(operator.inputs) > 2 else None
    return np.zeros(channels, np.int32) if bias is None or bias.data is None else bias.data.astype(np.int32)


def _convolution(importer: _Importer, operator: _Operator) -> relax.Expr:
    x, out, options = operator.inputs[0], operator.output, operator.options
    assert x is not None
    weight = _weight(operator, importer._source)
    depthwise = operator.kind == "DEPTHWISE_CONV_2D"
    assert weight.data is not None
    channels = weight.shape[3] if depthwise else weight.shape[0]
    scales = np.broadcast_to(weight.scales.astype(np.float64), (channels,))
    multiplier, shift = quantize_multipliers([x.scale * float(s) / out.scale for s in scales])
    strides = (options.StrideH(), options.StrideW())
    dilation = (options.DilationHFactor(), options.DilationWFactor())
    name = _identifier(out.name)
    arguments = [
        importer.value(x),
        importer.param(f"{name}.weight", weight.data),
        importer.param(f"{name}.bias", _bias(operator, channels)),
        importer.param(f"{name}.multiplier", multiplier),
        importer.param(f"{name}.shift", shift),
    ]
    attrs: dict[str, Any] = {
        "strides": strides,
        "dilation": dilation,
        "padding": _padding(options.Padding() == 0, x.shape[1:3], out.shape[1:3], weight.shape[1:3], strides, dilation),
        "input_zero_point": x.zero_point,
        "output_zero_point": out.zero_point,
        "max_shift": int(shift.max(initial=0)),
        **_clip(options.FusedActivationFunction(), out),
    }
    if depthwise:
        return ops.qdepthwise(*arguments, **attrs)
    return ops.qconv2d(*arguments, groups=x.shape[3] // weight.shape[3], **attrs)


def _fully_connected(importer: _Importer, operator: _Operator) -> relax.Expr:
    x, out, options = operator.inputs[0], operator.output, operator.options
    assert x is not None
    weight = _weight(operator, importer._source)
    assert weight.data is not None
    outputs, depth = weight.shape
    if len(weight.scales) == 1:
        # One scale: TFLite multiplies in float32 here.
        factors = [float(np.float32(x.scale) * np.float32(weight.scale)) / out.scale] * outputs
    else:
        factors = [x.scale * float(s) / out.scale for s in weight.scales]
    multiplier, shift = quantize_multipliers(factors)
    name = _identifier(out.name)
    value = importer.value(x)
    flat = value if len(x.shape) == 2 and x.shape[1] == depth else relax.op.reshape(value, (-1, depth))
    call = ops.qdense(
        flat,
        importer.param(f"{name}.weight", weight.data),
        importer.param(f"{name}.bias", _bias(operator, outputs)),
        importer.param(f"{name}.multiplier", multiplier),
        importer.param(f"{name}.shift", shift),
        input_zero_point=x.zero_point,
        output_zero_point=out.zero_point,
        max_shift=int(shift.max(initial=0)),
        rounding=importer.dense_rounding,
        **_clip(options.FusedActivationFunction(), out),
    )
    return call


def _add(importer: _Importer, operator: _Operator) -> relax.Expr:
    a, b, out = operator.inputs[0], operator.inputs[1], operator.output
    assert a is not None
    assert b is not None
    activation = operator.options.FusedActivationFunction() if operator.options is not None else 0
    return ops.qadd(
        importer.value(a),
        importer.value(b),
        input1_zero_point=a.zero_point,
        input2_zero_point=b.zero_point,
        output_zero_point=out.zero_point,
        **cast(dict[str, Any], ops.add_parameters(a.scale, b.scale, out.scale)),
        **_clip(activation, out),
    )


def _mul(importer: _Importer, operator: _Operator) -> relax.Expr:
    a, b, out = operator.inputs[0], operator.inputs[1], operator.output
    assert a is not None
    assert b is not None
    multiplier, shift = quantize_multiplier(a.scale * b.scale / out.scale)
    activation = operator.options.FusedActivationFunction() if operator.options is not None else 0
    return ops.qmul(
        importer.value(a),
        importer.value(b),
        input1_zero_point=a.zero_point,
        input2_zero_point=b.zero_point,
        output_zero_point=out.zero_point,
        multiplier=multiplier,
        shift=shift,
        **_clip(activation, out),
    )


def _pool(importer: _Importer, operator: _Operator) -> relax.Expr:
    x, out, options = operator.inputs[0], operator.output, operator.options
    assert x is not None
    if (x.scale, x.zero_point) != (out.scale, out.zero_point):
        raise UserError(f"{importer._source}: {operator.kind} number {operator.index} changes the scale, which no pool does")
    kernel = (options.FilterHeight(), options.FilterWidth())
    strides = (options.StrideH(), options.StrideW())
    pool = ops.qavgpool if operator.kind == "AVERAGE_POOL_2D" else ops.qmaxpool
    return pool(
        importer.value(x),
        pool_size=kernel,
        strides=strides,
        padding=_padding(options.Padding() == 0, x.shape[1:3], out.shape[1:3], kernel, strides),
        **_clip(options.FusedActivationFunction(), out),
    )


def _reshape(importer: _Importer, operator: _Operator) -> relax.Expr:
    assert operator.inputs[0] is not None
    return relax.op.reshape(importer.value(operator.inputs[0]), operator.output.shape)


def _softmax(importer: _Importer, operator: _Operator) -> relax.Expr:
    x, out = operator.inputs[0], operator.output
    assert x is not None
    if (out.scale, out.zero_point) != (OUTPUT_SCALE, OUTPUT_ZERO_POINT):
        raise UserError(f"{importer._source}: SOFTMAX gives scale {out.scale}, not 1/256")
    table = ops.exponentials(x.scale, operator.options.Beta())
    return ops.qsoftmax(importer.value(x), importer.param(f"{_identifier(out.name)}.exponentials", table))


def _concatenation(importer: _Importer, operator: _Operator) -> relax.Expr:
    out = operator.output
    tensors = [t for t in operator.inputs if t is not None]
    pairs = [
        ops.IDENTITY if (t.scale, t.zero_point) == (out.scale, out.zero_point) else quantize_multiplier(t.scale / out.scale)
        for t in tensors
    ]
    axis = operator.options.Axis()
    return ops.qconcat(
        [importer.value(t) for t in tensors],
        axis=axis if axis >= 0 else axis + len(out.shape),
        input_zero_points=[t.zero_point for t in tensors],
        multipliers=[q for q, _ in pairs],
        shifts=[s for _, s in pairs],
        output_zero_point=out.zero_point,
    )


def _pad(importer: _Importer, operator: _Operator) -> relax.Expr:
    x, widths = operator.inputs[0], operator.inputs[1]
    assert x is not None
    if widths is None or widths.data is None:
        raise UserError(f"{importer._source}: the widths of PAD number {operator.index} are not constant")
    return ops.qpad(importer.value(x), pad_width=[int(v) for v in widths.data.ravel()], value=x.zero_point)


_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "MUL": "MulOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "SOFTMAX": "SoftmaxOptions",
    "CONCATENATION": "ConcatenationOptions",
}
_CONVERTERS: dict[str, Callable[[_Importer, _Operator], relax.Expr]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FULLY_CONNECTED": _fully_connected,
    "ADD": _add,
    "MUL": _mul,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    "CONCATENATION": _concatenation,
    "PAD": _pad,
}
