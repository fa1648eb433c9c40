"""The shared library of a compiled model."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tvm.runtime._ffi_api as runtime

from ...files.manifest import WrittenFile
from ..emulators.tools import run
from ..object_code import object_code
from .host import ASK_FOR_TILES

_COMPILERS = ("g++", "clang++", "gcc", "clang")


def compiler() -> str | None:
    """The program that links: $CXX, or the first that is installed; None where there is none."""
    chosen = os.environ.get("CXX")
    return next((name for name in ([chosen] if chosen else _COMPILERS) if shutil.which(name)), None)


_ASKING = f"""#include <unistd.h>
__attribute__((constructor)) static void ask_for_tiles(void) {{ syscall({", ".join(map(str, ASK_FOR_TILES))}); }}
"""
"""Whoever loads a library that uses the tiles of AMX has to ask for them first."""


def link(objects: Iterable[Path], library: Path) -> Path:
    """Link object files, or C sources, to a shared library.

    Raises:
        UserError: The linker refused.
    """
    run([str(compiler()), "-shared", "-fPIC", "-o", library, *objects], what="linking the library", timeout=600)
    return library


def write_library(executable: Any, folder: Path, tiles: bool = False) -> Path:
    """Write what `relax.build` gives as a shared library, under a name made of its content.

    TVM's own `export_library` has LLVM write to disk, see `object_code`.

    Args:
        executable: It.
        folder: Where.
        tiles: Whether its code uses the tiles of AMX.

    Raises:
        UserError: The linker refused.
        OSError: A file cannot be written.
    """
    # Where functions come as objects, TVM adds an empty C source.
    modules = [part for part in executable.mod._collect_dso_modules() if part.kind != "c"]
    target = next((str(part["_get_target_string"]()) for part in modules if part.kind == "llvm"), '{"kind": "llvm"}')
    modules.append(runtime.ModulePackImportsToLLVM(executable.mod, False, target, ""))
    library = folder / "model.so"
    with tempfile.TemporaryDirectory() as scratch:
        objects = [Path(scratch) / f"{index}.o" for index in range(len(modules))]
        for path, module in zip(objects, modules, strict=True):
            path.write_bytes(object_code(module))
        if tiles:
            objects.append(Path(scratch) / "tiles.c")
            objects[-1].write_text(_ASKING)
        link(objects, library)
    return library.rename(folder / f"model-{WrittenFile.of(library).sha256[:12]}.so")
