"""From channels-first to channels-last: NCHW graphs, float or quantized, become NHWC.

Inputs and outputs keep their layout. Weights and other parameters are permuted, not transposed at run time; a
permutation of a tensor is inserted only where an operator needs another order than the tensor has, and where the
tensor is quantized it is the integers that are permuted. A flattened image that goes into a matrix product is not put
back in order either: the rows of the weight are.
"""

from __future__ import annotations

from collections.abc import Collection

from .._tvm import tvm
from ..graph.adopt_module import model_pass
from . import rules as layout_rules  # noqa: F401  (registers the rules)
from .converter import Converter


@model_pass("ConvertLayout")
class ConvertLayout:
    """Make images channels-last between the inputs and the outputs; parameters must be attached.

    Args:
        keep: Relax operators, named without their prefix, that stay as they are.
    """

    def __init__(self, keep: Collection[str] = ()) -> None:
        self.keep = tuple(keep)

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        return convert_layout(mod, self.keep)


def convert_layout(mod: tvm.IRModule, keep: Collection[str] = ()) -> tvm.IRModule:
    """`ConvertLayout` as a function."""
    return Converter(mod, keep).run()
