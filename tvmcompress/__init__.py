"""tvmcompress: a model-compression compiler on Apache TVM for edge targets.

Names are loaded on first use, so that importing the package does not load TVM.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .errors import UserError
    from .model import InputSpec, Model
    from .importing import load

_HOMES = {
    "InputSpec": "model",
    "Model": "model",
    "UserError": "errors",
    "load": "importing",
}

__all__ = ["InputSpec", "Model", "UserError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
