"""Everything whose name or place depends on the TVM version, and the check that the versions are those we pin."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import linecache
import sys
import types
from typing import Any

from .errors import LimitError, MissingToolError, ToolError, UnsupportedOperatorError, UserError

TVM_VERSION = "0.27.0.post1"
FFI_VERSION = "0.1.14.post1"


def check_versions() -> None:
    """Refuse to load an ffi that is known to kill the process.

    apache-tvm-ffi 0.1.15 and its post-releases crash in `tvm.ir.save_json` and `Schedule.tensorize`, and apache-tvm's
    own requirement lets pip choose them.

    Raises:
        UserError: Another version is installed than the one we pin.
    """
    for package, wanted in (("apache-tvm-ffi", FFI_VERSION), ("apache-tvm", TVM_VERSION)):
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise UserError(f"{package} is not installed; run: pip install {package}=={wanted}") from None
        if found != wanted:
            raise UserError(
                f"{package} {found} is installed but tvmcompress needs {wanted} (others crash or lack interfaces); "
                f"run: pip install {package}=={wanted}"
            )


check_versions()

# Importing these intrinsic tables takes from two seconds to half a minute and registers nothing that we use.
for _family in ("cuda", "rocm", "metal", "hexagon", "riscv_cpu", "arm_cpu"):
    _name = f"tvm.s_tir.tensor_intrin.{_family}"
    sys.modules.setdefault(_name, types.ModuleType(_name))

# tvm_ffi would import torch wherever it is installed, which takes longer than TVM itself.
_torch_hidden = "torch" not in sys.modules
if _torch_hidden:
    sys.modules["torch"] = None  # type: ignore[assignment]

import tvm  # noqa: E402
import tvm_ffi  # noqa: E402
from tvm import relax, te, tirx, topi  # noqa: E402
from tvm.ir import GenericConst as Constant  # noqa: E402
from tvm.relax.transform.legalize_ops.common import register_legalize  # noqa: E402
from tvm.relax.vm_build import _vmcodegen as vm_codegen  # noqa: E402
from tvm.relax.vm_build import _vmlink as vm_link  # noqa: E402

# A pass is called through the ffi, which turns errors that it does not know into RuntimeError.
for _error in (UserError, UnsupportedOperatorError, LimitError, ToolError, MissingToolError):
    tvm_ffi.register_error(_error)


def _stack(context: int = 1) -> list[inspect.FrameInfo]:
    """`inspect.stack` as the decorators of TVMScript use it: all frames, but the lines of source of the first three alone.

    The original looks for the module of every frame among all that are loaded, which takes longer than parsing the function
    that is decorated; the tuner and the kernels decorate thousands.
    """
    frame, found = sys._getframe(1), list[inspect.FrameInfo]()
    while frame is not None:
        name, line = frame.f_code.co_filename, None
        if len(found) < _FRAMES_LOOKED_AT:
            line = linecache.getline(name, frame.f_lineno, frame.f_globals) or None
        index = None if line is None else 0
        found.append(
            inspect.FrameInfo(frame, name, frame.f_lineno, frame.f_code.co_name, None if line is None else [line], index)
        )
        frame = frame.f_back  # type: ignore[assignment]
    return found


_FRAMES_LOOKED_AT = 3


class _Inspect(types.ModuleType):
    """The module `inspect` with that `stack`."""

    stack = staticmethod(_stack)

    def __getattr__(self, name: str) -> Any:
        return getattr(inspect, name)


for _entry in ("tvm.tirx.script.parser.entry", "tvm.script.parser.ir.entry", "tvm.relax.script.parser.entry"):
    vars(importlib.import_module(_entry))["inspect"] = _Inspect("inspect")


def _power(builder: relax.BlockBuilder, call: tvm.ir.Call) -> relax.Expr:
    """`relax.power` without the warnings that TVM prints for each exponent of three and more which is written into code.

    Small whole ones are products, as the warning advises; others are read from memory.
    """
    constant = call.args[1].value.numpy() if isinstance(call.args[1], Constant) else None
    if constant is None or constant.ndim or not (float(constant).is_integer() and 1 <= constant <= _LONGEST_PRODUCT):
        return builder.call_te(topi.power, *call.args)

    def product(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *i: _product(x(*i), int(constant)), "T_power", "elementwise")

    return builder.call_te(product, call.args[0], primfunc_name_hint="power")


def _product(x: tirx.PrimExpr, factors: int) -> tirx.PrimExpr:
    if factors == 1:
        return x
    half = _product(x, factors // 2)
    return half * half * x if factors % 2 else half * half


_LONGEST_PRODUCT = 8


def _take(builder: relax.BlockBuilder, call: tvm.ir.Call) -> relax.Expr:
    """`relax.take` without the warning that TVM prints for each lookup whose indices are not checked, its default."""
    if str(call.attrs.mode) != "fast" or call.attrs.axis is None:
        return builder.call_te(topi.take, call.args[0], call.args[1], call.attrs.axis, mode=call.attrs.mode)
    axis = int(call.attrs.axis) % len(call.args[0].ty.shape)

    def take(x: te.Tensor, indices: te.Tensor) -> te.Tensor:
        behind = axis + len(indices.shape)
        shape = [*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]]
        return te.compute(shape, lambda *i: x(*i[:axis], indices(*i[axis:behind]), *i[behind:]), "T_take", "injective")

    return builder.call_te(take, call.args[0], call.args[1])


tvm.ir.register_op_attr("relax.power", "FLegalize", _power, level=11)
tvm.ir.register_op_attr("relax.take", "FLegalize", _take, level=11)

if _torch_hidden:
    del sys.modules["torch"]

__all__ = ["Constant", "check_versions", "register_legalize", "relax", "te", "tirx", "topi", "tvm", "vm_codegen", "vm_link"]
