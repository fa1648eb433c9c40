"""Small networks compute faster on one thread than on several that wait for each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tvmcompress import Model


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    pytest.importorskip("torch")
    from tvmcompress.training.backend import one_thread

    with one_thread():
        yield


@pytest.fixture(scope="module")
def model() -> Model:
    """A network with random weights, which is trained by hand in PyTorch, too."""
    from .test_finetuning import SPEC
    from .test_gradient_criteria import network

    return Model(network(), SPEC)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """Samples of it, and their classes."""
    rng = np.random.default_rng(5)
    return rng.normal(size=(40, 2, 5, 5)).astype("float32"), rng.integers(0, 3, 40)
