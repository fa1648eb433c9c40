"""What Relax operators mean, in NumPy: one function an operator, for any batch size.

Used to calibrate, to evaluate and to fold constants. An operator that is not here still runs, compiled by TVM.
"""

from . import convolution, elementwise, linear, normalization, pooling, quantized, reduction, resize, shape
from .registry import Context, Meaning, meaning_of, register_meaning

__all__ = [
    "Context",
    "Meaning",
    "convolution",
    "elementwise",
    "linear",
    "meaning_of",
    "normalization",
    "pooling",
    "quantized",
    "reduction",
    "register_meaning",
    "resize",
    "shape",
]
