"""What sources of functions for TVM's runtime begin with."""

from __future__ import annotations

from pathlib import Path


def packed_call() -> str:
    """The text of runtime/packed_call.h, which such a source contains, so that it can be compiled wherever it is sent."""
    return (Path(__file__).parent / "runtime" / "packed_call.h").read_text(encoding="utf-8")
