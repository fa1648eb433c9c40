"""Small networks compute faster on one thread than on several that wait for each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    pytest.importorskip("torch")
    from tvmcompress.training.backend import one_thread

    with one_thread():
        yield
