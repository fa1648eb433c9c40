"""How ONNX operators become Relax: one rule an operator, where TVM's own conversion does not serve."""

from . import convolution, elementwise, indexing, layers, moves, pooling, reduction, resize
from .registry import RULES, CannotImportError, Node

__all__ = [
    "RULES",
    "CannotImportError",
    "Node",
    "convolution",
    "elementwise",
    "indexing",
    "layers",
    "moves",
    "pooling",
    "reduction",
    "resize",
]
