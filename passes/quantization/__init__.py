"""Ranges of tensors, the plan of which tensor is quantized how, and QDQ form."""
