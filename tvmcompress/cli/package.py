"""`tvmcompress package`: a build as a tarball in Model Library Format, or as a shared library for TVM's runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import JsonOption, output, print_json
from .options.targets import WhichBuildOption

_DEFAULT_FOLDER, _DEFAULT_TAR = Path("out"), Path("model.tar")


def package(
    folder: Annotated[Path, typer.Argument(help="What compress or build wrote.")] = _DEFAULT_FOLDER,
    tarball: Annotated[
        Path, typer.Option("-o", "--output", help="The tarball to write, or a file ending in .so.")
    ] = _DEFAULT_TAR,
    target: WhichBuildOption = None,
    json: JsonOption = False,
) -> None:
    """Write a Cortex-M or Cortex-A build as a tarball in TVM's Model Library Format, for flows made for microTVM.

    With -o model.so, write a Cortex-A build as a shared library for TVM's runtime.
    """
    if tarball.suffix == ".so":
        from ..exporting.tvm_module import export_tvm_module

        written = export_tvm_module(folder, tarball, target=target)
        if json:
            print_json({"path": str(tarball), "bytes": written.stat().st_size})
        else:
            output().print(f"Written to [bold]{tarball}[/bold].", highlight=False)
        return
    import tarfile

    from ..exporting.model_library import export_model_library

    with tarfile.open(export_model_library(folder, tarball, target=target)) as archive:
        files = {entry.name.removeprefix("./"): entry.size for entry in archive}
    if json:
        print_json({"path": str(tarball), "files": files})
        return
    from rich.text import Text

    from ..report.tables import plain_table
    from ..report.units import size

    table = plain_table()
    table.add_column("file")
    table.add_figures("size")
    for name, count in files.items():
        table.add_row(Text(name), size(count))
    console = output()
    console.print(table)
    console.print(Text.assemble("Written to ", (str(tarball), "bold"), "."))
