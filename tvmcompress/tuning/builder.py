"""MetaSchedule's builder, in worker processes that stay."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.builder import BuilderInput, BuilderResult, PyBuilder

from ..passes._tvm import tvm
from .process import WorkerPool


@derived_object
class WorkerBuilder(PyBuilder):
    """Compiles candidates to shared libraries, as many at a time as the pool has workers.

    MetaSchedule's own `LocalBuilder` starts its pool anew for every batch, which takes longer than the compiling.

    Args:
        pool: The workers.
        directory: Where the libraries go.
        limit: Seconds that one may take.
    """

    def __init__(self, pool: WorkerPool, directory: Path, limit: float = 30.0) -> None:
        super().__init__()
        self.pool = pool
        self.directory = directory
        self.limit = limit
        self.count = itertools.count()

    def build(self, build_inputs: list[BuilderInput]) -> list[BuilderResult]:
        """Compile candidates; one that fails gets the reason in place of a library."""
        requests = []
        for item in build_inputs:
            path = self.directory / f"candidate{next(self.count)}.so"
            requests.append((tvm.ir.save_json(item.mod), target_json(item.target), str(path)))
        results = []
        for request, (status, value) in zip(requests, self.pool.map("build", requests, self.limit), strict=True):
            failed = status != "ok"
            results.append(BuilderResult(None if failed else request[2], f"{status}: {value}" if failed else None))
        return results


def target_json(target: tvm.target.Target) -> str:
    """A target as text from which it can be made again in another process."""
    return json.dumps(json.loads(str(target)))
