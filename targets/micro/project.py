"""What lies around a firmware library: the program for the emulator, and a CMake project with an example."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

from ..aot.generate import Generated
from ..aot.templates import Templates
from ..base import TargetDescription
from .serial import CHUNK, MOST_RUNS, PROTOCOL

STACK_BYTES = 4096
"""Reserved for the stack on the board."""

EMULATOR_STACK_BYTES = 16384
RUNTIME = Path(__file__).parent / "runtime"
_TEMPLATES = Templates(RUNTIME)


def write_firmware(generated: Generated, description: TargetDescription) -> list[Path]:
    """Write start-up code, linker script and main program for the emulator; the C sources to compile."""
    firmware = generated.folder / "firmware"
    firmware.mkdir(exist_ok=True)
    write_emulator_script(firmware / "emulator.ld", description)
    _TEMPLATES.write("runner.c.j2", firmware / "runner.c", {"prefix": generated.prefix})
    for name in ("startup.c", "semihosting.h"):
        shutil.copyfile(RUNTIME / name, firmware / name)
    return [firmware / "startup.c", firmware / "runner.c"]


def write_emulator_script(path: Path, description: TargetDescription) -> None:
    """Write the linker script of the board's stand-in."""
    _write_script(path, description, EMULATOR_STACK_BYTES, "emulated_")


def write_board_script(path: Path, description: TargetDescription) -> None:
    """Write the linker script of the board itself, for programs of ours."""
    _write_script(path, description, STACK_BYTES, "")


def _write_script(path: Path, description: TargetDescription, stack_bytes: int, prefix: str) -> None:
    """Write a linker script; the description's fields that say where memory is begin with `prefix`."""
    places = ("flash_origin", "flash_bytes", "ram_origin", "ram_bytes")
    memory = {name: getattr(description, prefix + name) for name in places}
    _TEMPLATES.write("linker.ld.j2", path, {"stack_bytes": stack_bytes, **memory})


def library_identity(generated: Generated) -> str:
    """Checksum of all that the library is made of: eight hexadecimal digits."""
    paths = [*generated.sources, *generated.objects, *generated.folder.glob(f"{generated.prefix}_constants.bin")]
    checksum = 0
    for path in sorted(paths):
        checksum = zlib.crc32(path.read_bytes(), checksum)
    return f"{checksum:08X}"


def write_project(generated: Generated, description: TargetDescription, identity: str) -> None:
    """Write a CMake project that builds the library, an example that runs it on the board, and the program for `--port`."""
    context = {
        "prefix": generated.prefix,
        "flags": " ".join(description.compiler_flags),
        "sources": [path.name for path in generated.sources],
        "objects": [path.name for path in generated.objects],
        "target": description.name,
        "flash_origin": description.flash_origin,
        "flash_bytes": description.flash_bytes,
        "ram_origin": description.ram_origin,
        "ram_bytes": description.ram_bytes,
        "stack_bytes": STACK_BYTES,
        "identity": identity,
        "clock_hz": (description.clock_mhz or 0) * 1_000_000,
        "protocol": PROTOCOL,
        "chunk": CHUNK,
        "most_runs": MOST_RUNS,
    }
    folder = generated.folder
    _TEMPLATES.write("CMakeLists.txt.j2", folder / "CMakeLists.txt", context)
    _TEMPLATES.write("toolchain.cmake.j2", folder / "arm-none-eabi.cmake", context)
    _TEMPLATES.write("example_main.c.j2", folder / "example_main.c", context)
    _TEMPLATES.write("linker.ld.j2", folder / "firmware" / "board.ld", context)
    _TEMPLATES.write("serial_main.c.j2", folder / "firmware" / "serial_main.c", context)
    shutil.copyfile(RUNTIME / "serial_line.h", folder / "firmware" / "serial_line.h")
