"""Compiling generated sources with a GNU cross compiler, and what came out in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..emulators.tools import run
from .generate import Generated

_FLASH_SECTIONS = (".text", ".rodata", ".data", ".ARM.ex")


@dataclass
class Compiled:
    """Object files.

    Attributes:
        library: Of the model.
        support: Of the program around it.
    """

    library: list[Path] = field(default_factory=list)
    support: list[Path] = field(default_factory=list)


class Toolchain:
    """A GNU cross compiler.

    Args:
        prefix: What its programs start with, for instance "arm-none-eabi-".
        flags: For every compilation and for linking.
        log: Where the output of a failing program is kept.
    """

    def __init__(self, prefix: str, flags: Sequence[str], log: Path) -> None:
        self.prefix, self.log = prefix, log
        self.flags = [*flags, "-ffunction-sections", "-fdata-sections"]

    def compile(self, generated: Generated, support: Sequence[Path], scratch: Path) -> Compiled:
        """Compile a generated library and the sources of the program around it into `scratch`.

        Raises:
            UserError: The compiler refused; its output is in the log.
        """
        compiled = Compiled(library=list(generated.objects))
        for sources, objects in ((generated.sources, compiled.library), (support, compiled.support)):
            for source in sources:
                made = scratch / f"{source.stem}.o"
                # Kernels are what takes the time; everything else is called once.
                level = "-O3" if "_kernels" in source.stem else "-O2"
                run(
                    [
                        *(f"{self.prefix}gcc", "-std=gnu11", level, *self.flags),
                        *("-I", source.parent, "-I", generated.folder, "-c", source, "-o", made),
                    ],
                    what=f"compiling {source.name}",
                    timeout=300,
                    log=self.log,
                )
                objects.append(made)
        return compiled

    def archive(self, compiled: Compiled, library: Path) -> None:
        """Collect the objects of the model in a static library."""
        library.unlink(missing_ok=True)
        run(
            [f"{self.prefix}ar", "rcsD", library, *compiled.library],
            what=f"writing {library.name}",
            timeout=60,
            log=self.log,
        )

    def share(self, compiled: Compiled, options: Sequence[str | Path], library: Path) -> None:
        """Link the objects of the model, which must be position-independent, to a shared library.

        Raises:
            UserError: The linker refused; its output is in the log.
        """
        shared = ["-shared", "-Wl,-Bsymbolic", f"-Wl,-soname,{library.name}"]
        run(
            [f"{self.prefix}gcc", *self.flags, *shared, *options, *compiled.library, "-lm", "-o", library],
            what=f"linking {library.name}",
            timeout=120,
            log=self.log,
        )

    def link(self, compiled: Compiled, options: Sequence[str | Path], program: Path) -> None:
        """Link the program.

        Raises:
            UserError: The linker refused; its output is in the log.
        """
        objects = [*compiled.library, *compiled.support]
        run(
            [f"{self.prefix}gcc", *self.flags, "-Wl,--gc-sections", *options, *objects, "-lm", "-o", program],
            what="linking the program for the emulator",
            timeout=120,
            log=self.log,
        )

    def flash_bytes(self, path: Path) -> int:
        """Bytes of a file's sections that lie in flash."""
        total = 0
        for line in run([f"{self.prefix}size", "-A", path], what="measuring the code", timeout=60).splitlines():
            fields = line.split()
            if len(fields) == 3 and fields[0].startswith(_FLASH_SECTIONS):
                total += int(fields[1])
        return total
