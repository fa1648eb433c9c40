"""Compiling functions in child processes: what fails, hangs or dies falls back, and nothing is compiled twice."""

# TVMScript's annotations are calls, which are no types to mypy.
# mypy: disable-error-code="valid-type"

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from tvm.script import tirx as T

from tvmcompress.errors import UserError
from tvmcompress.passes._tvm import tirx, tvm
from tvmcompress.targets import objects
from tvmcompress.targets.objects import compile_functions
from tvmcompress.targets.x86.host import tvm_target


@T.prim_func(s_tir=True)
def _double(x: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")) -> None:
    for i in range(8):
        with T.sblock("double"):
            v = T.axis.spatial(8, i)
            y[v] = x[v] * T.float32(2)


def named(name: str, mark: str = "") -> tirx.PrimFunc:
    func = _double.with_attr("global_symbol", name)
    return func.with_attr("mark", mark) if mark else func


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(objects.CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions that are marked make the compiler hang, abort or raise."""
    real = tvm.tirx.build

    def build(mod: tvm.IRModule, target: tvm.target.Target) -> object:
        (func,) = mod.functions.values()
        mark = str(func.attrs.get("mark", ""))
        if mark == "hang":
            time.sleep(60)
        if mark == "abort":
            import os

            os.abort()
        if mark == "raise":
            raise ValueError("traceback\n  it cannot be done")
        return real(mod, target=target)

    monkeypatch.setattr(tvm.tirx, "build", build)


def test_objects_hold_the_functions(tmp_path: Path) -> None:
    made = compile_functions({"f": [named("f")], "g": [named("g")]}, tvm_target("x86-64-v3", 1), tmp_path)
    library = tmp_path / "both.so"
    tvm.support.cc.create_shared(str(library), [str(function.path) for function in made.values()])
    loaded = tvm.runtime.load_module(str(library))
    for name in ("f", "g"):
        y = tvm.runtime.empty((8,), "float32")
        loaded[name](tvm.runtime.tensor(np.arange(8, dtype="float32")), y)
        np.testing.assert_array_equal(y.numpy(), 2 * np.arange(8))


@pytest.mark.parametrize(
    ("mark", "reason"),
    [("hang", "it takes too long"), ("abort", "ended with signal 6"), ("raise", "it cannot be done")],
)
@pytest.mark.usefixtures("misbehaving")
def test_the_next_alternative(mark: str, reason: str, tmp_path: Path) -> None:
    made = compile_functions({"f": [named("f", mark), named("f")]}, tvm_target("x86-64-v3", 1), tmp_path, limit=1.0)
    assert made["f"].alternative == 1
    assert reason in str(made["f"].reason)
    assert made["f"].path.stat().st_size > 0


@pytest.mark.usefixtures("misbehaving")
def test_no_alternative_left(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^f cannot be compiled: it cannot be done$"):
        compile_functions({"f": [named("f", "raise")]}, tvm_target("x86-64-v3", 1), tmp_path)


def test_what_was_compiled_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tvm_target("x86-64-v3", 1)
    first = compile_functions({"f": [named("f")]}, target, tmp_path)["f"].path.read_bytes()

    def start(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(objects._Job, "start", start)
    (tmp_path / "again").mkdir()
    assert compile_functions({"f": [named("f")]}, target, tmp_path / "again")["f"].path.read_bytes() == first
    for other, name in ((tvm_target("x86-64-v2", 1), "f"), (target, "g")):
        with pytest.raises(AssertionError, match="compiled again"):
            compile_functions({name: [named(name)]}, other, tmp_path)


def test_the_oldest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tvm_target("x86-64-v3", 1)
    size = compile_functions({"f": [named("f")]}, target, tmp_path)["f"].path.stat().st_size
    monkeypatch.setattr(objects, "_MOST_BYTES", 2 * size + size // 2)
    for name in ("g", "h", "i"):
        compile_functions({name: [named(name)]}, target, tmp_path)
    assert len(list((tmp_path / "cache" / "objects").iterdir())) == 2


def test_no_cache_where_none_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(objects.CACHE_VARIABLE, "")
    assert compile_functions({"f": [named("f")]}, tvm_target("x86-64-v3", 1), tmp_path)["f"].path.exists()
    assert not (tmp_path / "cache").exists()
