"""A model built for x86: a shared library in a folder, run through the Relax virtual machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...passes._tvm import relax, tvm
from ...passes.errors import UserError
from ..aot.samples import joined
from ..artifact_folder import read_artifact, whole
from ..base import Artifact
from ..inputs import check_inputs, random_inputs
from ..measurement import Energy, Latency, Measurement
from ..remote.energy import energy_of, here
from .host import missing_features
from .measure import measure_latency, thread_limit


class X86Artifact(Artifact):
    """A built model.

    Args:
        path: The folder that `X86Target.build` left.

    Attributes:
        cpu: What it was compiled for, by LLVM's name.
        tuned: Functions whose schedule came from a tuning log.
        untuned: Functions with the default schedule.

    Raises:
        UserError: There is none, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        content = read_artifact(path)
        self.path = path
        self.target = content["target"]
        self.inputs = content["inputs"]
        self.outputs = content["outputs"]
        self.cpu: str = content["cpu"]
        self._library: str = content["library"]
        self.tuned: tuple[str, ...] = tuple(content["tuned"])
        self.untuned: tuple[str, ...] = tuple(content["untuned"])
        self._generic: dict[str, str] = content.get("generic", {})
        self._memory: dict[str, int] = content["memory"]

    def require_features(self) -> None:
        """Refuse to go on where this machine cannot run it.

        Raises:
            UserError: It lacks instructions that the code uses.
        """
        missing = missing_features(self.cpu)
        if missing:
            raise UserError(
                f"{self.path} was built for {self.cpu} and this machine lacks {', '.join(missing)}; "
                "build it for this machine, or with cpu='portable'"
            )

    @property
    def library(self) -> Path:
        """The shared library. Its name tells its content, since a process that has loaded a name never loads it again."""
        return self.path / self._library

    @cached_property
    def machine(self) -> relax.VirtualMachine:
        """The virtual machine with the library loaded; its function is `main`.

        Raises:
            UserError: The library is missing or damaged, or this machine lacks instructions that it uses.
        """
        self.require_features()
        try:
            library = whole(self.path, self._library)
            return relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self.library} cannot be loaded; build the model again") from error

    def run(self, inputs: Sequence[np.ndarray], threads: int | None = None) -> list[np.ndarray]:
        """Run on samples; axis 0 may hold several batches of the built size.

        Args:
            inputs: One array an input, of the shapes and dtypes of `self.inputs`.
            threads: How many threads kernels may use; by default what TVM is set to.

        Raises:
            UserError: Number, shape or dtype of the inputs do not fit.
        """
        count = check_inputs(self.inputs, inputs)
        results: list[list[np.ndarray]] = []
        with thread_limit(threads):
            for index in range(count):
                batch = [np.split(x, count)[index] if x.ndim else x for x in inputs]
                result = self.machine["main"](*(tvm.runtime.tensor(np.asarray(array, order="C")) for array in batch))
                fields = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
                results.append([field.numpy() for field in fields])
        return [joined(arrays) for arrays in zip(*results)]

    def measure(self, inputs: Sequence[np.ndarray] | None = None, **options: Any) -> Measurement:
        """Measure one inference.

        Args:
            inputs: The first batch of them is used; random ones when none are given.
            options: `runs`, `warm_up`, `threads` and `duration`, see `measure_latency`.

        Raises:
            UserError: The inputs or options do not fit.
        """
        latency = measure_latency(self.machine, self._sample(inputs), **options)
        return Measurement(target=self.target.name, source="hardware", latency=latency, **self.figures())

    def measure_energy(self, inputs: Sequence[np.ndarray] | None = None, threads: int | None = 1) -> Energy | None:
        """As `Artifact.measure_energy`, by this machine's own counter or sensor.

        Raises:
            UserError: The inputs do not fit.
            ToolError: What reads the counter does not compile.
        """
        meter = here()
        if meter is None:
            return None
        tensors = self._sample(inputs)

        def times(runs: int) -> Latency:
            return measure_latency(self.machine, tensors, runs, 0, threads)

        return energy_of(meter, times, times(5).median_ms)

    def _sample(self, inputs: Sequence[np.ndarray] | None) -> list[Any]:
        """The first batch as TVM's tensors; random values where there is none."""
        given = random_inputs(self.inputs) if inputs is None else inputs
        check_inputs(self.inputs, given)
        return [
            tvm.runtime.tensor(np.asarray(array[: spec.shape[0]] if spec.shape else array, order="C"))
            for array, spec in zip(given, self.inputs)
        ]

    def figures(self) -> dict[str, Any]:
        """What is known without running it: fields of `Measurement`."""
        memory = self._memory
        arena = memory["activations"] + memory["workspace"]
        return {
            "flash_bytes": self.library.stat().st_size,
            "constant_bytes": memory["constants"],
            "arena_bytes": arena,
            "ram_bytes": arena + memory["io"],
            "notes": (
                *self._remarks(),
                "RAM is what the compiler planned: activations, workspace, inputs and outputs; TVM itself not counted",
            ),
        }

    def _remarks(self) -> list[str]:
        return [f"{name} runs without a schedule, slowly: {reason}" for name, reason in self._generic.items()]
