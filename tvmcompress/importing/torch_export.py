"""From a program of torch.export, through TVM's own front end, to a module with the weights under PyTorch's names."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from ..errors import MissingToolError, UnsupportedOperatorError, UserError
from ..model import Model
from ..passes._tvm import relax, tvm
from ..passes.graph.adopt_module import with_named_params
from ..passes.graph.module_params import param_vars
from ..passes.graph.rebuild import Rebuilder, bindings


class ExportedProgram(Protocol):
    """What this package names of torch.export's `ExportedProgram`, so that its type is known without PyTorch."""

    @property
    def graph_signature(self) -> Any: ...

    @property
    def state_dict(self) -> Any: ...


def is_exported_program(model: object) -> TypeGuard[ExportedProgram]:
    """Whether something is an `ExportedProgram`, without loading PyTorch."""
    return type(model).__module__.startswith("torch.export") and type(model).__name__ == "ExportedProgram"


def load_pt2(path: Path) -> Model:
    """Load a file that `torch.export.save` wrote; see `from_exported`.

    Raises:
        UserError: The file cannot be read, or as `from_exported`.
        MissingToolError: PyTorch is not installed.
    """
    torch = _torch()
    try:
        program = torch.export.load(str(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch names no error of its own for a damaged archive
        raise UserError(f"{path} is no whole file of torch.export.save ({type(error).__name__})") from error
    return from_exported(program, path.name)


def from_exported(program: ExportedProgram, source: str = "torch.export") -> Model:
    """Import a program of `torch.export.export`.

    Args:
        program: The `ExportedProgram`, exported in evaluation mode with fixed shapes.
        source: What to call it in messages and in the provenance.

    Returns:
        The model in canonical form, weights under the names that they have in PyTorch's module.

    Raises:
        UnsupportedOperatorError: An operator that TVM's front end does not know; the message names it.
        UserError: A shape is open.
        MissingToolError: PyTorch is not installed.
    """
    _torch()
    from tvm.relax.frontend.torch import from_exported_program

    try:
        mod = from_exported_program(
            program,
            keep_params_as_input=True,
            unwrap_unit_return_tuple=True,
            custom_convert_map={"amax.default": _extreme(relax.op.max), "amin.default": _extreme(relax.op.min)},
        )
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise UnsupportedOperatorError(f"{source} cannot be imported: {reason}") from error
    signature = program.graph_signature
    return Model.from_module(
        _renamed(with_named_params(mod), {**signature.inputs_to_parameters, **signature.inputs_to_buffers}),
        note=f"imported from {source}, torch.export",
    )


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise MissingToolError("importing PyTorch's programs needs PyTorch; run: pip install 'tvmcompress[train]'") from error


def _extreme(make: Any) -> Any:
    """The largest or smallest along axes, which TVM's front end lacks."""

    def convert(node: Any, importer: Any) -> relax.Var:
        args = [importer.env.get(arg, arg) for arg in node.args[:1]]
        axes = list(node.args[1]) if len(node.args) > 1 else []
        keep = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim", False))
        return importer.block_builder.emit(make(args[0], axes or None, keep))

    return convert


def _renamed(mod: tvm.IRModule, names: dict[str, str]) -> tvm.IRModule:
    """The same module with other names for its parameters."""
    build = Rebuilder(mod)
    for var in param_vars(build.source):
        build.values[var] = build.param(names.get(var.name, var.name), build.old_params[var.name])
    for var, value in bindings(build.source):
        build.values[var] = build.emit(build.get(value), var.name)
    return build.finish()
