"""Loops of kernels that threads may share out among themselves."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..aot.lower import PARALLEL


def parallel(extent: Any) -> Any:
    """A loop whose rounds may run in any order and at once, in TVMScript; see `PARALLEL`.

    Rounds may overlap in what they write, where they write the same.
    """
    return T.serial(extent, annotations={PARALLEL: 1})
