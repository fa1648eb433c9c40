"""A model built for x86: a shared library in a folder, run through the Relax virtual machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...passes._tvm import relax, tvm
from ...passes.errors import UserError
from ..artifact_folder import read_artifact, whole
from ..base import Artifact, Measurement, TensorSpec
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
        UserError: There is none, it is damaged, or this machine lacks instructions that it uses.
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
        missing = missing_features(self.cpu)
        if missing:
            raise UserError(
                f"{path} was built for {self.cpu} and this machine lacks {', '.join(missing)}; "
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
            UserError: The library is missing or damaged.
        """
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
        count = self._check(inputs)
        results: list[list[np.ndarray]] = []
        with thread_limit(threads):
            for index in range(count):
                batch = [x[index * s.shape[0] : (index + 1) * s.shape[0]] for x, s in zip(inputs, self.inputs)]
                result = self.machine["main"](*(tvm.runtime.tensor(np.ascontiguousarray(array)) for array in batch))
                fields = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
                results.append([field.numpy() for field in fields])
        return [np.concatenate(arrays) if count > 1 else arrays[0] for arrays in zip(*results)]

    def measure(self, inputs: Sequence[np.ndarray] | None = None, **options: Any) -> Measurement:
        """Measure one inference.

        Args:
            inputs: The first batch of them is used; random ones when none are given.
            options: `runs`, `warm_up` and `threads`, see `measure_latency`.

        Raises:
            UserError: The inputs or options do not fit.
        """
        if inputs is None:
            inputs = random_inputs(self.inputs)
        self._check(inputs)
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(array[: spec.shape[0]])) for array, spec in zip(inputs, self.inputs)]
        memory = self._memory
        arena = memory["activations"] + memory["workspace"]
        return Measurement(
            target=self.target.name,
            source="hardware",
            latency=measure_latency(self.machine, tensors, **options),
            flash_bytes=self.library.stat().st_size,
            constant_bytes=memory["constants"],
            arena_bytes=arena,
            ram_bytes=arena + memory["io"],
            notes=(
                *self._remarks(),
                "RAM is what the compiler planned: activations, workspace, inputs and outputs; TVM itself not counted",
            ),
        )

    def _remarks(self) -> list[str]:
        return [f"{name} runs without a schedule, slowly: {reason}" for name, reason in self._generic.items()]

    def _check(self, inputs: Sequence[np.ndarray]) -> int:
        """How many batches there are."""
        if len(inputs) != len(self.inputs):
            raise UserError(f"{self.path} takes {len(self.inputs)} inputs, {len(inputs)} were given")
        counts = set()
        for array, spec in zip(inputs, self.inputs):
            if array.dtype != np.dtype(spec.dtype):
                raise UserError(f"input {spec.name} must be {spec.dtype}, got {array.dtype}")
            batches, rest = divmod(array.shape[0] if array.ndim else 0, spec.shape[0])
            if array.ndim != len(spec.shape) or array.shape[1:] != spec.shape[1:] or rest or not batches:
                raise UserError(f"input {spec.name} must have shape {spec.shape} or a multiple of it, got {array.shape}")
            counts.add(batches)
        if len(counts) != 1:
            raise UserError(f"the inputs hold different numbers of samples: {[array.shape[0] for array in inputs]}")
        return counts.pop()


def random_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> list[np.ndarray]:
    """Random inputs: floats in [0, 1), integers over their whole range."""
    random = np.random.default_rng(seed)
    arrays = []
    for spec in specs:
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            arrays.append(random.random(spec.shape).astype(dtype))
        else:
            info = np.iinfo(dtype)
            arrays.append(random.integers(info.min, info.max, spec.shape, dtype, endpoint=True))
    return arrays
