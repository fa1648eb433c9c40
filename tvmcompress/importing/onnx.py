"""From ONNX to a model in canonical form."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tvm.relax.frontend.onnx import onnx_frontend

from ..errors import UnsupportedOperatorError, UserError
from ..model import InputSpec, Model
from ..passes import Canonicalize, FoldBatchNorm, RestoreNormalizations, SplitProjections, attach_params
from ..passes._tvm import Constant, relax, tvm
from .onnx_editing import GraphEditor
from .onnx_graph import clean
from .onnx_operators import convert
from .onnx_qdq import canonical_qdq, is_quantized
from .onnx_qoperator import expand_qoperators

MIN_OPSET, MAX_OPSET = 9, 22
_NO_BOUND = float(np.finfo(np.float32).max)


def load_onnx(path: Path, *, shapes: Mapping[str, Sequence[int]] | None = None, batch: int = 1) -> Model:
    """Load an ONNX file; see `from_onnx`.

    Raises:
        UserError: The file cannot be read or is not ONNX, or as `from_onnx`.
    """
    try:
        proto = onnx.load(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf's DecodeError is not a stable name
        raise UserError(f"{path} is not a whole ONNX file (truncated or of another kind); export it again") from error
    if not proto.graph.node or not proto.opset_import:
        raise UserError(f"{path} is not a whole ONNX file (it has no nodes or no opset); export it again")
    return from_onnx(proto, shapes=shapes, batch=batch, source=str(path.name))


def from_onnx(
    proto: onnx.ModelProto,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int = 1,
    source: str = "onnx",
) -> Model:
    """Import an ONNX model, opset 9 to 22; one that is quantized keeps its integers and scales.

    Quantized models in QDQ form, and those of integer operators (QLinearConv and the like), become what `Quantize` gives.

    Args:
        proto: The model.
        shapes: Input shapes by input name, for inputs whose shape the model leaves open.
        batch: The size of an open leading dimension.
        source: What to call the model in messages and in its provenance.

    Returns:
        The model: float or in QDQ form, canonical, batch normalization folded, weights as parameters under their ONNX
        names.

    Raises:
        UnsupportedOperatorError: A node uses an operator that cannot be imported; the message names both.
        UserError: The opset is out of range, a shape is open, a weight is NaN, or scales are missing or contradictory.
    """
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UserError(f"{source} uses ONNX opset {opset}; opsets {MIN_OPSET} to {MAX_OPSET} can be imported")
    notes: list[str] = []
    if is_quantized(proto.graph):
        proto, notes = _as_qdq(proto, shapes or {}, batch, source)
    _refuse_unsupported(proto.graph, source)
    proto = clean(proto, shapes or {}, batch)
    _refuse_unsupported(proto.graph, source)
    _refuse_nan(proto.graph, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mod = _Importer(source).convert(proto.graph, opset)
    main = mod["main"]
    count = int(main.attrs["num_input"])
    tensors = main.attrs.get("params", [])
    params = {var.name: tensor.numpy() for var, tensor in zip(list(main.params)[count:], tensors)}
    mod["main"] = main.without_attr("params") if "params" in main.attrs else main
    mod = attach_params(mod, params)
    passes = (Canonicalize(), RestoreNormalizations(), SplitProjections(), FoldBatchNorm(), Canonicalize())
    mod = tvm.transform.Sequential(passes)(mod)
    inputs = tuple(
        InputSpec(
            name=var.name,
            shape=tuple(int(dim) for dim in var.ty.shape),
            dtype=str(var.ty.dtype),
            layout="NCHW" if len(var.ty.shape) == 4 else None,
        )
        for var in list(mod["main"].params)[:count]
    )
    return Model(
        module=mod,
        inputs=inputs,
        outputs=tuple(value.name for value in proto.graph.output),
        provenance=(f"imported from {source}, ONNX opset {opset}", *notes),
    )


def _as_qdq(
    proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], batch: int, source: str
) -> tuple[onnx.ModelProto, list[str]]:
    """A model that is quantized already, in the QDQ form that `Quantize` gives, and what that changed."""
    notes: list[str] = []
    for rewrite in (expand_qoperators, canonical_qdq):
        proto = clean(proto, shapes, batch)
        editor = GraphEditor(proto.graph, source)
        rewrite(editor)
        editor.finish()
        notes += editor.notes
    return proto, notes


class _Importer(onnx_frontend.ONNXGraphImporter):
    """TVM's importer with our Clip, and with errors that name the node."""

    def __init__(self, source: str) -> None:
        super().__init__({}, {}, keep_params_in_input=True, sanitize=False)
        self._source = source

    def convert(self, graph: onnx.GraphProto, opset: int) -> tvm.IRModule:
        """The Relax module of a cleaned graph."""
        try:
            return self.from_onnx(graph, opset)
        except UserError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise UserError(f"{self._source} cannot be imported: {reason}") from error

    def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> Any:
        node = attrs.get("tvm_custom", {}).get("name", "")
        try:
            if op_name == "Clip":
                clipped = self._clip(inputs, attrs)
                if clipped is not None:
                    return clipped
            if op_name in ("QuantizeLinear", "DequantizeLinear"):
                return self._affine(op_name, inputs, attrs)
            if op_name == "Pad":
                padded = self._pad(inputs, attrs)
                if padded is not None:
                    return padded
            self._inline_indices(inputs)
            converted = convert(self.bb, op_name, inputs, attrs)
            return super()._convert_operator(op_name, inputs, attrs, opset) if converted is None else converted
        except UserError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise UnsupportedOperatorError(
                f"node '{node}' ({op_name}) of {self._source} cannot be imported: {reason}"
            ) from error

    def _inline_indices(self, inputs: Any) -> None:
        """Put the values of indices, shapes and masks into the graph: shapes that depend on parameters are not static."""
        for index, given in enumerate(list(inputs)):
            if isinstance(given, relax.Var) and str(getattr(given.ty, "dtype", "")) in ("int64", "bool"):
                value = self._constant(given)
                if value is not None:
                    inputs[index] = relax.const(value, str(value.dtype))

    def _clip(self, inputs: Any, attrs: dict[str, Any]) -> relax.Expr | None:
        """A single `clip` where the bounds are constants; TVM's own gives four operators that no pass recognizes."""
        bounds = []
        for index, (name, default) in enumerate((("min", -_NO_BOUND), ("max", _NO_BOUND)), start=1):
            given = inputs[index] if len(inputs) > index else None
            value = self._constant(given) if given is not None else attrs.get(name, default)
            if value is None:
                return None
            bounds.append(float(np.asarray(value).reshape(())))
        return self.bb.normalize(relax.op.clip(inputs[0], *bounds))

    def _pad(self, inputs: Any, attrs: dict[str, Any]) -> relax.Expr | None:
        """Padding as the operator for it, where TVM's own gives a function that no pass recognizes."""
        given = [inputs[index] if len(inputs) > index else None for index in range(1, 4)]
        values = [self._constant(expr) if expr is not None else None for expr in given]
        if any(expr is not None and value is None for expr, value in zip(given, values)):
            return None
        rank = len(inputs[0].ty.shape)
        widths = np.asarray(attrs["pads"] if values[0] is None else values[0]).reshape(2, -1)
        axes = range(rank) if values[2] is None else [int(axis) % rank for axis in values[2]]
        pairs = np.zeros((rank, 2), np.int64)
        pairs[list(axes)] = widths.T
        mode = bytes(attrs.get("mode", b"constant")).decode()
        if (pairs < 0).any():
            return None
        value = float(attrs.get("value", 0.0) if values[1] is None else values[1].reshape(-1)[0])
        mode = {"edge": "replicate", "wrap": "circular"}.get(mode, mode)
        return self.bb.normalize(relax.op.nn.pad(inputs[0], pairs.reshape(-1).tolist(), mode, value))

    def _affine(self, op_name: str, inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
        """Quantize and dequantize with constants for scale and zero point, which TVM's own would make parameters."""
        scale, zero = (self._constant(given) for given in list(inputs)[1:3])
        if scale is None or zero is None:
            raise UserError("its scale and zero point must be constant")
        parameters = (relax.const(scale), relax.const(zero))
        if op_name == "QuantizeLinear":
            return self.bb.normalize(relax.op.quantize(inputs[0], *parameters, out_dtype=str(zero.dtype)))
        axis = int(attrs.get("axis", -1))
        return self.bb.normalize(relax.op.dequantize(inputs[0], *parameters, axis=axis))

    def _constant(self, expr: relax.Expr) -> np.ndarray | None:
        if isinstance(expr, Constant):
            return expr.value.numpy()
        if isinstance(expr, relax.Var) and expr.name in self._params:
            value = self._params[expr.name][1]
            return value.numpy() if hasattr(value, "numpy") else np.asarray(value)
        return None


def _refuse_unsupported(graph: onnx.GraphProto, source: str) -> None:
    supported = set(onnx_frontend._get_convert_map()) | {"Constant"}
    for index, node in enumerate(graph.node):
        name = node.name or f"number {index}"
        if node.domain not in ("", "ai.onnx"):
            raise UnsupportedOperatorError(
                f"node '{name}' of {source} uses operator {node.domain}::{node.op_type}, which is not in the ONNX standard; "
                "export the model without custom operators"
            )
        if node.op_type not in supported:
            raise UnsupportedOperatorError(
                f"node '{name}' of {source} uses operator {node.op_type}, which cannot be imported; "
                "replace it in the model or export the part without it"
            )


def _refuse_nan(graph: onnx.GraphProto, source: str) -> None:
    for tensor in graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype.kind == "f" and value.ndim > 0 and np.isnan(value).any():
            raise UserError(f"weight '{tensor.name}' of {source} contains NaN; train or export the model again")
