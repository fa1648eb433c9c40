"""Weights that an ONNX model keeps in files of their own, beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

import onnx
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from ..errors import UserError
from .onnx_editing import node_graphs


def load_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Read the weights of a model that stand in other files of its folder.

    Args:
        proto: The model, which is changed.
        path: Its own file.

    Raises:
        UserError: A file is missing, is too short, or lies elsewhere than in the folder.
    """
    try:
        load_external_data_for_model(proto, str(path.parent))
    except Exception as error:  # onnx has no class of its own for this
        tensor = _first(proto)
        where = _location(tensor) if tensor is not None else ""
        whose = f"weight '{tensor.name}'" if tensor is not None else "a weight"
        if not where or PurePath(where).is_absolute() or ".." in PurePath(where).parts:
            reason = f"a place that is not in the folder of the model ('{where}'); save the model again with its data beside it"
        elif not (path.parent / where).is_file():
            reason = f"the file {path.parent / where}, which does not exist; put it there"
        else:
            reason = f"the file {path.parent / where}, which is too short or is a link; copy it again"
        raise UserError(f"{path} keeps {whose} in {reason}") from error


def refuse_external_data(proto: onnx.ModelProto, source: str) -> None:
    """Refuse a model in memory whose weights are still in files: only its folder would say where.

    Raises:
        UserError: A weight is in a file.
    """
    tensor = _first(proto)
    if tensor is not None:
        raise UserError(
            f"weight '{tensor.name}' of {source} is still in the file '{_location(tensor)}'; "
            "load the model with its external data (onnx.load does), or give the path of the model"
        )


def _first(proto: onnx.ModelProto) -> onnx.TensorProto | None:
    nodes = [node for function in proto.functions for node in function.node]
    tensors = (*_tensors(proto.graph), *_of_nodes(nodes))
    return next((tensor for tensor in tensors if uses_external_data(tensor)), None)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
        for inner in node_graphs(node):
            yield from _tensors(inner)


def _location(tensor: onnx.TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
