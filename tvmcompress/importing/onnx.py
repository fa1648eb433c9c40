"""From ONNX to a model in canonical form."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from ..errors import UnsupportedOperatorError, UserError
from ..model import InputSpec, Model
from ..passes import attach_params
from ..passes._tvm import tvm
from ..passes.pipeline import canonical_passes
from .onnx_dynamic import expand_dynamic
from .onnx_editing import GraphEditor
from .onnx_external_data import load_external_data, refuse_external_data
from .onnx_graph import clean
from .onnx_importer import Importer, can_import
from .onnx_qdq import canonical_qdq, is_quantized
from .onnx_qoperator import expand_qoperators
from .onnx_versions import default_opset, modern


def load_onnx(path: Path, *, shapes: Mapping[str, Sequence[int]] | None = None, batch: int = 1) -> Model:
    """Load an ONNX file; see `from_onnx`.

    Raises:
        UserError: The file cannot be read or is not ONNX, or as `from_onnx`.
    """
    try:
        proto = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf's DecodeError is not a stable name
        raise UserError(f"{path} is not a whole ONNX file (truncated or of another kind); export it again") from error
    if not proto.graph.node or not proto.opset_import:
        raise UserError(f"{path} is not a whole ONNX file (it has no nodes or no opset); export it again")
    load_external_data(proto, path)
    try:
        return from_onnx(proto, shapes=shapes, batch=batch, source=str(path.name))
    except UserError:
        raise
    except Exception as error:
        # Whose mistake is it? ONNX's own checker tells a file that is none.
        try:
            onnx.checker.check_model(proto)
        except Exception as problem:
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            raise UserError(f"{path} is not a valid ONNX file ({reason}); export it again") from error
        raise


def from_onnx(
    proto: onnx.ModelProto,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int = 1,
    source: str = "onnx",
) -> Model:
    """Import an ONNX model, opset 7 to 28; one that is quantized keeps its integers and scales.

    Quantized models in QDQ form, and those of integer operators (QLinearConv and the like), become what `Quantize` gives.
    Dynamically quantized ones (DynamicQuantizeLinear), which hold no scales of activations, become float.

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
        UserError: The opset is out of range, a shape is open, a weight is NaN or was not loaded from its file, or scales are
            missing or contradictory.
    """
    if not proto.graph.output:
        raise UserError(f"{source} has no output; export a model that has one")
    refuse_external_data(proto, source)
    proto, notes = modern(proto, source)
    opset = default_opset(proto)
    if is_quantized(proto.graph):
        proto, more = _as_qdq(proto, shapes or {}, batch, source)
        notes += more
    _refuse_foreign(proto.graph, source)
    proto = clean(proto, shapes or {}, batch)
    _refuse_unsupported(proto.graph, source)
    _refuse_nan(proto.graph, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mod = Importer(proto, source, opset).convert()
    main = mod["main"]
    count = int(main.attrs["num_input"])
    tensors = main.attrs.get("params", [])
    params = {var.name: tensor.numpy() for var, tensor in zip(list(main.params)[count:], tensors)}
    mod["main"] = main.without_attr("params") if "params" in main.attrs else main
    mod = attach_params(mod, params)
    mod = tvm.transform.Sequential(canonical_passes())(mod)
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
    for rewrite in (expand_dynamic, expand_qoperators, canonical_qdq):
        proto = clean(proto, shapes, batch)
        editor = GraphEditor(proto.graph, source)
        rewrite(editor)
        editor.finish()
        notes += editor.notes
    return proto, notes


def _refuse_foreign(graph: onnx.GraphProto, source: str) -> None:
    for index, node in enumerate(graph.node):
        if node.domain not in ("", "ai.onnx"):
            reason = (
                "classical machine learning, not a neural network; run that part outside of the model"
                if node.domain == "ai.onnx.ml"
                else "not in the ONNX standard; export the model without custom operators"
            )
            raise UnsupportedOperatorError(
                f"node '{_name(node, index)}' of {source} uses operator {node.domain}::{node.op_type}, which is {reason}"
            )


def _refuse_unsupported(graph: onnx.GraphProto, source: str) -> None:
    for index, node in enumerate(graph.node):
        if node.op_type in ("If", "Loop", "Scan"):
            raise UnsupportedOperatorError(
                f"node '{_name(node, index)}' ({node.op_type}) of {source} depends on values that are computed at run time; "
                "only branches and loops that constants and shapes decide can be imported"
            )
        if not can_import(node.op_type):
            raise UnsupportedOperatorError(
                f"node '{_name(node, index)}' of {source} uses operator {node.op_type}, which cannot be imported; "
                "replace it in the model or export the part without it"
            )


def _name(node: onnx.NodeProto, index: int) -> str:
    return node.name or next((name for name in node.output if name), f"number {index}")


def _refuse_nan(graph: onnx.GraphProto, source: str) -> None:
    for tensor in graph.initializer:
        try:
            value = onnx.numpy_helper.to_array(tensor)
        except ValueError as error:
            raise UserError(
                f"weight '{tensor.name}' of {source} has not as many bytes as its shape needs; export the model again"
            ) from error
        if value.dtype.kind == "f" and value.ndim > 0 and np.isnan(value).any():
            raise UserError(f"weight '{tensor.name}' of {source} contains NaN; train or export the model again")
