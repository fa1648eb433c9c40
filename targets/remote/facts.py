"""What a board says of itself: what it is, what its processor can do, how fast and how warm it is at the moment."""

from __future__ import annotations

import functools
import platform
import tempfile
from pathlib import Path

import tvm_ffi

from ...passes.errors import MissingToolError
from ..emulators.tools import run
from ..record import Record

_COMPILERS = {"x86_64": "gcc", "aarch64": "aarch64-linux-gnu-gcc"}
"""By architecture of the board."""

_MINIMUM = 100
"""Below so many thousandths of a degree a sensor tells nothing."""


class Facts(Record):
    """What is known of a board; None and empty where it does not tell.

    Attributes:
        model: Of the board, or of its processor where the board has no name.
        cpu: The core by LLVM's name.
        cpus: How many there are.
        flags: Instruction sets as the kernel of an x86 names them.
        hwcap, hwcap2: Instruction sets as the kernel of an Arm does.
        governor: Who decides the clock.
        mhz: The clock of the first core.
        celsius: The temperature of the first sensor.
        tvm: The version that serves.
    """

    model: str | None = None
    cpu: str | None = None
    cpus: int | None = None
    flags: frozenset[str] = frozenset()
    hwcap: int = 0
    hwcap2: int = 0
    governor: str | None = None
    mhz: float | None = None
    celsius: float | None = None
    tvm: str | None = None

    def state(self) -> str:
        """How fast and how warm it is, for the reader of a figure."""
        governor = f"governor {self.governor}" if self.governor else "governor unknown"
        clock = f"{self.mhz:,.0f} MHz" if self.mhz else "clock unknown"
        heat = f"{self.celsius:.0f} °C" if self.celsius is not None else "temperature unknown"
        return f"{governor}, {clock}, {heat}"


def parse_facts(text: str, cpu: str | None = None) -> Facts:
    """The facts in what runtime/board.c writes: lines `name=value`.

    Args:
        text: The lines; what is no such line or no number is passed over.
        cpu: The core by LLVM's name.
    """
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    khz, heat = _number(found.get("khz")), _number(found.get("millicelsius"))
    return Facts(
        model=_words(found.get("model")) or _words(found.get("processor")),
        cpu=cpu or None,
        cpus=_number(found.get("cpus")),
        flags=frozenset(found.get("flags", "").split()),
        hwcap=_number(found.get("hwcap"), 16) or 0,
        hwcap2=_number(found.get("hwcap2"), 16) or 0,
        governor=_words(found.get("governor")),
        mhz=khz / 1e3 if khz else None,
        celsius=heat / 1e3 if heat is not None and heat > _MINIMUM else None,
        tvm=_words(found.get("tvm")),
    )


def _number(text: str | None, base: int = 10) -> int | None:
    try:
        return int((text or "").strip(" \0"), base)
    except ValueError:
        return None


def _words(text: str | None) -> str | None:
    return " ".join((text or "").replace("\0", " ").split()) or None


def ffi_includes() -> list[str]:
    """The folders with the headers of TVM's functions and tensors."""
    found = (tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path())
    return list(dict.fromkeys(map(str, found)))


@functools.cache
def helper(architecture: str) -> bytes:
    """The library of runtime/board.c and runtime/energy.c for an architecture, compiled when it is first asked for.

    Args:
        architecture: As in a target triple: x86_64, aarch64.

    Raises:
        MissingToolError: There is no compiler for it.
        ToolError: It refused.
    """
    compiler = "cc" if architecture == platform.machine() else _COMPILERS.get(architecture)
    if compiler is None:
        raise MissingToolError(f"there is no compiler for boards with a {architecture}")
    sources = [Path(__file__).parent / "runtime" / name for name in ("board.c", "energy.c")]
    includes = [part for folder in ffi_includes() for part in ("-I", folder)]
    with tempfile.TemporaryDirectory(prefix="tvmcompress-board-") as scratch:
        library = Path(scratch) / "board.so"
        flags = ("-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread")
        command: list[str | Path] = [compiler, *flags, *includes, *sources, "-o", library]
        run(command, what="compiling what watches over a board", timeout=60)
        return library.read_bytes()
