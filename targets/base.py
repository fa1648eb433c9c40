"""What a target is: a description, and three verbs (build, run, measure).

Everything that differs between two boards of one core is data in a description; everything that differs between families of
targets is behind `Target` and `Artifact`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..passes._tvm import tvm
from ..passes.errors import MissingToolError, UserError
from .measurement import Energy, Measurement
from .record import Record

if TYPE_CHECKING:
    from .remote.artifact import RemoteProgram
    from .remote.board import Board


class TensorSpec(Record):
    """One input or output of a built model.

    Attributes:
        name: Its name.
        shape: Its shape, batch first.
        dtype: As NumPy names it.
        layout: What the axes mean, for instance "NHWC"; None where unknown.
        scale: Of an integer tensor: real = scale * (integer - zero_point); None for a float one.
        zero_point: Of an integer tensor.
        limit: Of indices: how many entries there are that they look up.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str | None = None
    scale: float | None = None
    zero_point: int | None = None
    limit: int | None = None

    @property
    def nbytes(self) -> int:
        """Its size."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def channels_last(self) -> bool:
        """Whether it is a signal, image or volume with its channels behind all other axes."""
        return self.layout in ("NWC", "NHWC", "NDHWC") and len(self.shape) == len(self.layout)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Float values as this tensor takes them, on any batch size; a float tensor takes them as they are.

        Args:
            x: float32; channels first where this tensor has them last. Integers of this tensor's dtype stay as they are.
        """
        if self.scale is None or self.zero_point is None or x.dtype.name == self.dtype:
            return np.asarray(x, self.dtype, order="C")
        info = np.iinfo(self.dtype)
        # float32 throughout, half to even: what `relax.quantize` computes.
        scaled = np.rint(x.astype(np.float32) / np.float32(self.scale)) + np.float32(self.zero_point)
        q = np.clip(scaled, info.min, info.max).astype(self.dtype)
        return np.ascontiguousarray(np.moveaxis(q, 1, -1) if self.channels_last else q)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """This tensor's values as float32; channels first where the tensor has them last."""
        if self.scale is None or self.zero_point is None:
            return q
        x = (q.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return np.ascontiguousarray(np.moveaxis(x, -1, 1) if self.channels_last else x)


_FLAGS = "-g|-ffast-math|-fno-math-errno|-ffp-contract=off|-fno-strict-aliasing|-fshort-enums|-fno-common"
"""Flags of the compiler besides those that choose the machine. What writes or runs files is none of them."""

CompilerFlag = Annotated[str, Field(pattern=rf"^(-m[A-Za-z0-9][A-Za-z0-9.,+=_-]*|{_FLAGS})$")]
Address = Annotated[int, Field(ge=0, lt=1 << 32, strict=True)]


class TargetDescription(BaseModel):
    """What is known of a target before anything is built; one TOML file each in `targets/descriptions`.

    Attributes:
        name: As the user types it.
        title: One line for the list of targets.
        family: Which code builds for it, see `registry.FAMILIES`.
        core: The processor core.
        tvm: The TVM target.
        compiler_flags: For the cross compiler.
        emulator_machine: Machine of qemu-system-arm that stands in for the board.
        emulator_cpu: CPU of the user-mode emulator.
        emulator_note: What a reader of figures must know of the emulator.
        flash_origin, flash_bytes: Flash of the board; 0 where it is not limited.
        ram_origin, ram_bytes: RAM of the board; 0 where it is not limited.
        emulated_flash_origin, emulated_ram_origin: Where the emulator's machine has them.
        emulated_flash_bytes, emulated_ram_bytes: How much of them it has.
        clock_mhz: Clock of the board, for the reader; nothing is computed from it.
        dsp, helium, fpu: Instruction set extensions of the core.
        channel_multiple: Layers whose channels are a multiple of this run without remainders; pruning keeps to it.
        source: Where figures come from on this target.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # It becomes the name of a folder, and stands in generated files.
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")
    title: str = Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")
    family: str
    core: str
    tvm: dict[str, Any]
    compiler_flags: tuple[CompilerFlag, ...] = ()
    emulator_machine: str | None = None
    emulator_cpu: str | None = None
    emulator_note: str | None = None
    flash_origin: Address = 0
    flash_bytes: Address = 0
    ram_origin: Address = 0
    ram_bytes: Address = 0
    emulated_flash_origin: Address = 0
    emulated_ram_origin: Address = 0x20000000
    emulated_flash_bytes: Address = Field(4 << 20, gt=0)
    emulated_ram_bytes: Address = Field(4 << 20, gt=0)
    clock_mhz: int | None = Field(None, gt=0, le=100_000)
    dsp: bool = False
    helium: bool = False
    fpu: bool = False
    channel_multiple: int = Field(1, ge=1, le=1024)
    source: Literal["hardware", "qemu"] = "qemu"

    @field_validator("name")
    @classmethod
    def _no_other_file(cls, value: str) -> str:
        if value.lower().endswith((".json", ".onnx", ".toml", ".tvmc")):
            raise ValueError(f"{value} is no name for a target: builds go into a folder of that name, beside such files")
        return value

    @field_validator("tvm")
    @classmethod
    def _known_to_tvm(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            tvm.target.Target(value)
        except Exception as error:  # TVM raises errors of several kinds, over many lines
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
            raise ValueError(f"TVM knows no such target ({reason.strip()})") from None
        return value

    @model_validator(mode="after")
    def _within_reach(self) -> Self:
        for kind in ("flash", "ram", "emulated_flash", "emulated_ram"):
            if getattr(self, f"{kind}_origin") + getattr(self, f"{kind}_bytes") > 1 << 32:
                raise ValueError(f"{kind}_origin and {kind}_bytes reach beyond 4 GB")
        return self


class Artifact(ABC):
    """A model built for a target, in a folder.

    Attributes:
        target: The target's description.
        path: The folder.
        inputs: What `run` takes.
        outputs: What `run` gives.
    """

    target: TargetDescription
    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @abstractmethod
    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run on samples.

        Args:
            inputs: One array an input, as `self.inputs` describes it; axis 0 may hold several samples.

        Returns:
            One array an output, as many samples.

        Raises:
            UserError: The inputs do not fit, or the run failed.
            MissingToolError: The emulator is missing.
        """

    @abstractmethod
    def measure(self, inputs: Sequence[np.ndarray] | None = None, **options: Any) -> Measurement:
        """Measure one inference; random inputs when none are given. Options are the family's."""

    def measure_energy(self, inputs: Sequence[np.ndarray] | None = None, threads: int | None = 1) -> Energy | None:
        """What the machine itself reports of the energy of one inference, over some seconds; None where it reports nothing.

        Args:
            inputs: The first batch of them is used; random ones when none are given.
            threads: How many threads kernels may use.
        """
        return None

    def measured(self, inputs: Sequence[np.ndarray] | None = None, **options: Any) -> Measurement:
        """`measure`, with the energy where the machine reports it."""
        found = self.measure(inputs, **options)
        energy = self.measure_energy(inputs, options.get("threads", 1)) if found.source == "hardware" else None
        return found if energy is None else found.model_copy(update={"energy": energy})

    def run_float(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run on float inputs (NCHW), quantizing and dequantizing on the host where the built model is integer."""
        made = [spec.quantize(x) for spec, x in zip(self.inputs, inputs)]
        return [spec.dequantize(y) for spec, y in zip(self.outputs, self.run(made))]


class Target(ABC):
    """Somewhere models run; one class for each family.

    Attributes:
        descriptions: The folder with the descriptions of the family's targets, one TOML file each.
        remote: Whether builds run on boards that a TVM RPC server serves.
    """

    descriptions: ClassVar[Path] = Path(__file__).parent / "descriptions"
    remote: bool = False

    def __init__(self, description: TargetDescription) -> None:
        self.description = description

    @classmethod
    def problem(cls, description: TargetDescription) -> str | None:
        """What is wrong with a description of this family, starting with the field; None where nothing is."""
        return None

    @abstractmethod
    def missing_tools(self) -> list[str]:
        """One sentence for each tool that building or running needs and that is not installed."""

    def details(self) -> dict[str, str]:
        """What builds for this target use, by heading, as far as it is decided here and not by the description."""
        return {}

    @abstractmethod
    def build(self, mod: tvm.IRModule, output: Path, **options: Any) -> Artifact:
        """Compile a model module into the folder `output`.

        Args:
            mod: Parameters attached; float, or integer as `LowerQDQ` leaves it.
            output: The folder, made if it is missing.
            options: The family's.

        Raises:
            UserError: The model cannot be built for this target; the sentence says why.
            MissingToolError: A tool is missing.
        """

    @abstractmethod
    def load(self, path: Path) -> Artifact:
        """The artifact that `build` left in a folder.

        Raises:
            UserError: There is none, or it is damaged.
        """

    def remote_options(self, board: Board) -> dict[str, Any]:
        """Options of a build for a board, as far as they are read from it."""
        return {}

    def remote_program(self, path: Path) -> RemoteProgram:
        """What the build in a folder has for boards that a TVM RPC server serves.

        Raises:
            UserError: There is no build, it is damaged, or the family has nothing for such boards.
        """
        raise UserError(f"{self.description.name} is no target that a TVM RPC server could serve")

    def require_tools(self) -> None:
        """Refuse to go on without the tools.

        Raises:
            MissingToolError: One or more are missing.
        """
        missing = self.missing_tools()
        if missing:
            raise MissingToolError(f"target {self.description.name}: " + " ".join(missing))
