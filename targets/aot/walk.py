"""Finding nodes in TensorIR; TVM 0.27 has no visitor of statements in Python."""

from __future__ import annotations

from typing import Any

import tvm_ffi


def find(root: Any, kind: type) -> list[Any]:
    """All nodes of a type below `root`, innermost first."""
    found: list[Any] = []

    def note(node: Any) -> None:
        found.append(node)

    tvm_ffi.structural_walk(root, (kind, note))
    return found
