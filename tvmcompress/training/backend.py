"""PyTorch, which brings gradients and which only training needs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import MissingToolError

Tensor = Any
"""A `torch.Tensor`; PyTorch may be absent, so types do not name it."""


def load_torch() -> Any:
    """The module `torch`.

    Raises:
        MissingToolError: It is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise MissingToolError("gradients need PyTorch; run: pip install 'tvmcompress[train]'") from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: for single samples of small networks, threads wait for each other longer than they work."""
    torch = load_torch()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
