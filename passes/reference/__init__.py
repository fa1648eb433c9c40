"""Reference implementations of Relax operators in NumPy: one function an operator, for any batch size.

Used to calibrate, to evaluate and to fold constants. An operator that is not here still runs, compiled by TVM.
"""

from . import convolution, elementwise, indexing, linear, normalization, pooling, quantized, reduction, resize, shape
from .registry import REFERENCES, Context, Reference, reference_of, register_reference

__all__ = [
    "REFERENCES",
    "Context",
    "Reference",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "quantized",
    "reduction",
    "reference_of",
    "register_reference",
    "resize",
    "shape",
]
