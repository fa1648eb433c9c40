"""Integer operators, their reference in NumPy, and lowering of quantized models to them."""

from . import counting, ops, reference
from .requantize import quantize_multiplier, quantize_multipliers, requantize

__all__ = ["counting", "ops", "quantize_multiplier", "quantize_multipliers", "reference", "requantize"]
