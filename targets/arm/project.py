"""What lies around a library for Linux: the program for the emulator, and a CMake project with an example."""

from __future__ import annotations

from pathlib import Path

from ..aot.generate import Generated
from ..aot.templates import Templates
from ..base import TargetDescription
from ..remote.packed_call import packed_call
from .cores import platform_of

_TEMPLATES = Templates(Path(__file__).parent / "runtime")


def write_runner(generated: Generated, threads: int) -> Path:
    """Write the main program for the emulator.

    Args:
        generated: The library.
        threads: The most threads that it may use.
    """
    return _TEMPLATES.write("runner.c.j2", generated.folder / "runner.c", {"prefix": generated.prefix, "threads": threads})


def write_project(generated: Generated, description: TargetDescription, threads: int) -> None:
    """Write a CMake project that builds the library, static or shared, and an example that runs it.

    Args:
        generated: The library.
        description: Of the target.
        threads: The most threads that the library may use.
    """
    platform, folder = platform_of(description), generated.folder
    toolchain = f"{platform.prefix.rstrip('-')}.cmake"
    context = {
        "prefix": generated.prefix,
        "flags": " ".join(description.compiler_flags),
        "sources": [path.name for path in generated.sources],
        "objects": [path.name for path in generated.objects],
        "target": description.name,
        "toolchain": toolchain,
        "tools": platform.prefix,
        "processor": "aarch64" if platform.wide else "armv7l",
        "threads": threads,
    }
    _TEMPLATES.write("CMakeLists.txt.j2", folder / "CMakeLists.txt", context)
    _TEMPLATES.write("toolchain.cmake.j2", folder / toolchain, context)
    _TEMPLATES.write("example_main.c.j2", folder / "example_main.c", context)


def write_module_source(path: Path, prefix: str, threads: int) -> None:
    """Write the source that makes a library a module of TVM's runtime."""
    context = {"prefix": prefix, "threads": threads, "packed_call": packed_call()}
    _TEMPLATES.write("tvm_module.c.j2", path, context)
