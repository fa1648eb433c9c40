"""Integer operators, their meaning, and lowering of quantized models to them."""

from . import ops, reference
from .requantize import quantize_multiplier, quantize_multipliers, requantize

__all__ = ["ops", "quantize_multiplier", "quantize_multipliers", "reference", "requantize"]
