"""Shared fixtures. Tests marked `shared` use measuring models and data that are not part of the repository."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.boards import Cluster

_ROOT = Path(__file__).resolve().parent.parent


def shared_folder() -> Path | None:
    """The folder of measuring models and data: TVMCOMPRESS_SHARED, or `shared` beside the repository."""
    for place in (os.environ.get("TVMCOMPRESS_SHARED"), _ROOT.parent / "shared"):
        if place and (Path(place) / "models").is_dir():
            return Path(place)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shared_folder() is None:
        skip = pytest.mark.skip(reason="needs the measuring models: set TVMCOMPRESS_SHARED to their folder")
        for item in items:
            if "shared" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of measuring models and data; use it only in tests marked `shared`."""
    folder = shared_folder()
    assert folder is not None
    return folder


@pytest.fixture(autouse=True)
def _own_tuning_logs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the tuning logs of whoever runs it."""
    monkeypatch.setenv("TVMCOMPRESS_TUNING_LOGS", str(tmp_path_factory.getbasetemp() / "tuning_logs"))


@pytest.fixture(autouse=True, scope="session")
def _own_compiled_functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nor their compiled functions; those of this run are shared by its tests, of all its workers."""
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TVMCOMPRESS_CACHE", str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"))
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A tracker of TVM's on this machine; tests start the servers that they need."""
    pytest.importorskip("tornado", reason="TVM's tracker needs tornado")
    from tests.boards import Cluster

    with Cluster() as started:
        yield started


@pytest.fixture(scope="session")
def board(cluster: Cluster) -> str:
    """The key of a board that stays."""
    cluster.start("steady")
    return "steady"
