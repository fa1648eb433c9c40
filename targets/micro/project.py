"""What lies around a firmware library: the program for the emulator, and a CMake project with an example."""

from __future__ import annotations

import shutil
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..aot.generate import Generated
from ..base import TargetDescription

STACK_BYTES = 4096
"""Reserved for the stack on the board."""

_EMULATOR_STACK_BYTES = 16384
_RUNTIME = Path(__file__).parent / "runtime"
_TEMPLATES = Environment(loader=FileSystemLoader(_RUNTIME), undefined=StrictUndefined, keep_trailing_newline=True)


def write_firmware(generated: Generated, description: TargetDescription) -> list[Path]:
    """Write start-up code, linker script and main program for the emulator; the C sources to compile."""
    firmware = generated.folder / "firmware"
    firmware.mkdir(exist_ok=True)
    context = {
        "prefix": generated.prefix,
        "stack_bytes": _EMULATOR_STACK_BYTES,
        "flash_origin": description.emulated_flash_origin,
        "flash_bytes": description.emulated_flash_bytes,
        "ram_origin": description.emulated_ram_origin,
        "ram_bytes": description.emulated_ram_bytes,
    }
    _render("linker.ld.j2", firmware / "emulator.ld", context)
    _render("runner.c.j2", firmware / "runner.c", context)
    for name in ("startup.c", "semihosting.h"):
        shutil.copyfile(_RUNTIME / name, firmware / name)
    return [firmware / "startup.c", firmware / "runner.c"]


def write_project(generated: Generated, description: TargetDescription) -> None:
    """Write a CMake project that builds the library and an example that runs it on the board."""
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
    }
    folder = generated.folder
    _render("CMakeLists.txt.j2", folder / "CMakeLists.txt", context)
    _render("toolchain.cmake.j2", folder / "arm-none-eabi.cmake", context)
    _render("example_main.c.j2", folder / "example_main.c", context)
    _render("linker.ld.j2", folder / "firmware" / "board.ld", context)


def _render(template: str, path: Path, context: dict[str, object]) -> None:
    path.write_text(_TEMPLATES.get_template(template).render(context))
