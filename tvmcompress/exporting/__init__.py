"""Exchange formats: from a `Model` to files that other programs run."""

from __future__ import annotations

from .onnx import can_export, export_onnx, to_onnx

__all__ = ["can_export", "export_onnx", "to_onnx"]
