"""Model Library Format: the tarball in which microTVM handed compiled models to the projects of boards.

The layout is that of its version 7: `metadata.json` with the memory map, `codegen/host` with what is to be compiled and
linked, `parameters`, and the model as text in `src`. What differs from a tarball of microTVM's: the text is Relax, the
constants are compiled in, and the code needs no C runtime, so there is no `runtime` folder.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files.whole_file import whole_file
from ..measuring.built import find_build, model_beside
from ..model import Model
from ..passes import detach_params
from ..passes._tvm import tvm
from ..targets.aot.build_info import BuildInfo
from ..targets.artifact_folder import read_artifact
from ..targets.base import Artifact, TensorSpec

VERSION = 7
_CPU = 1
"""kDLCPU, the device of the memory map."""


def export_model_library(
    built: Artifact | str | PathLike[str],
    path: str | PathLike[str],
    *,
    target: str | None = None,
    model: Model | None = None,
) -> Path:
    """Write a model built for a Cortex-M or a Cortex-A as a tarball in Model Library Format.

    Contents are the same for the same build but for `export_datetime`, which is the environment's SOURCE_DATE_EPOCH where
    that is set.

    Args:
        built: The build, or the folder of it, or the folder that `compress` wrote.
        path: The tarball.
        target: Which build of the folder, where it holds several.
        model: What was built, for `parameters` and `src`; by default what lies beside the build, and where none does the
            tarball has neither.

    Returns:
        The tarball.

    Raises:
        UserError: There is no such build, it is no library, files of it are missing, or the tarball cannot be written.
    """
    folder = built.path if isinstance(built, Artifact) else find_build(Path(built), target)
    description = read_artifact(folder)["target"]
    if description.family == "x86":
        raise UserError(
            f"{folder} is built for {description.name}, which runs on TVM's virtual machine; Model Library Format holds "
            "libraries for Cortex-M and Cortex-A"
        )
    info = BuildInfo.read(folder)
    subject = model_beside(folder) if model is None else model
    metadata = {"version": VERSION, "modules": {info.prefix: _module(info, description.tvm)}}
    files = {"metadata.json": json.dumps(metadata, indent=2, sort_keys=True).encode()}
    files.update(_code(folder, info.prefix))
    if subject is not None:
        bare, params = detach_params(subject.module)
        tensors = {name: tvm.runtime.tensor(params[name]) for name in sorted(params)}
        files[f"parameters/{info.prefix}.params"] = bytes(tvm.runtime.save_param_dict(tensors))
        files[f"src/{info.prefix}.relax"] = bare.script(show_meta=False).encode()
    with whole_file(path) as partial:
        _write(partial, files)
    return Path(path)


def _module(info: BuildInfo, target: dict[str, Any]) -> dict[str, Any]:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    when = datetime.fromtimestamp(int(epoch), UTC) if epoch and epoch.isdigit() else datetime.now(UTC)
    return {
        "model_name": info.prefix,
        "export_datetime": when.strftime("%Y-%m-%d %H:%M:%SZ"),
        "target": [str(tvm.target.Target(target))],
        "executors": ["aot"],
        "style": "full-model",
        "memory": {
            "functions": {
                "main": [
                    {
                        "device": _CPU,
                        # The arena holds inputs and outputs too.
                        "workspace_size_bytes": info.arena_bytes,
                        "constants_size_bytes": info.constant_bytes,
                        "io_size_bytes": sum(spec.nbytes for spec in (*info.inputs, *info.outputs)),
                        "inputs": {spec.name: _tensor(spec) for spec in info.inputs},
                        "outputs": {spec.name: _tensor(spec) for spec in info.outputs},
                    }
                ],
                "operator_functions": [
                    {
                        "function_name": name,
                        "workspace": [{"device": _CPU, "workspace_size_bytes": info.workspaces.get(name, 0)}],
                        "layers": list(layers),
                    }
                    for name, layers in info.layers.items()
                ],
            },
            "arena_lower_bound_bytes": info.arena_lower_bound,
            "code_size_bytes": info.code_bytes,
        },
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    entry: dict[str, Any] = {"dtype": spec.dtype, "size": spec.nbytes, "shape": list(spec.shape), "layout": spec.layout}
    if spec.scale is not None:
        entry.update(scale=spec.scale, zero_point=spec.zero_point)
    return entry


def _code(folder: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    """The library's files by their names in the tarball."""
    places = {".h": "include", ".c": "src", ".S": "src", ".bin": "src", ".o": "lib"}
    names = [f"{prefix}.h", f"{prefix}.c", f"{prefix}_constants.h"]
    patterns = [f"{prefix}_{ending}" for ending in ("constants.*", "kernels*", "pool.*", "routines.c")]
    names += sorted(path.name for pattern in patterns for path in folder.glob(pattern))
    for name in dict.fromkeys(names):
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise UserError(f"{folder} lacks {name}; build the model again") from error
        yield f"codegen/host/{places[Path(name).suffix]}/{name}", content


def _write(path: Path, files: dict[str, bytes]) -> None:
    """A tar of files with nothing in it that depends on the machine or the time."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(f"./{name}")
            entry.size, entry.mode = len(files[name]), 0o644
            entry.uname = entry.gname = "root"
            archive.addfile(entry, io.BytesIO(files[name]))
