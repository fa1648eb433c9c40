"""Compiling functions in child processes: what fails, hangs or dies falls back, and nothing is compiled twice."""

# TVMScript's annotations are calls, which are no types to mypy.
# mypy: disable-error-code="valid-type"

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.script import tirx as T

from tvmcompress.errors import UserError
from tvmcompress.passes._tvm import tirx, tvm
from tvmcompress.targets import object_cache, objects
from tvmcompress.targets.object_cache import Made, ObjectCache
from tvmcompress.targets.objects import Compiler, compile_functions


def scaled(factor: float = 2.0, extent: int = 8) -> tirx.PrimFunc:
    """y = factor * x."""

    @T.prim_func(s_tir=True)
    def function(x: T.Buffer((extent,), "float32"), y: T.Buffer((extent,), "float32")) -> None:
        for i in range(extent):
            with T.sblock("scaled"):
                v = T.axis.spatial(extent, i)
                y[v] = x[v] * T.float32(factor)

    return function


def marked(mark: str) -> tirx.PrimFunc:
    return scaled().with_attr("mark", mark)


def compiler(**changes: object) -> Compiler:
    return Compiler.for_runtime(tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3", **changes}))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(object_cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "objects"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of each function that is compiled the name that asked first, as it happens."""
    names: list[str] = []
    start = objects._Worker.start

    def noted(self: objects._Worker, job: objects._Job, limit: float) -> None:
        names.append(job.names[0])
        start(self, job, limit)

    monkeypatch.setattr(objects._Worker, "start", noted)
    return names


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
            os.abort()
        if mark == "raise":
            raise ValueError("traceback\n  it cannot be done")
        return real(mod, target=target)

    monkeypatch.setattr(tvm.tirx, "build", build)


def results(made: dict[str, objects.CompiledFunction], folder: Path, extent: int = 8) -> dict[str, np.ndarray]:
    """What compiled functions make of 0, 1, 2, ..."""
    files = []
    for index, function in enumerate(made.values()):
        files.append(folder / f"{index}.o")
        files[-1].write_bytes(function.content)
    library = folder / f"{len(list(folder.iterdir()))}.so"
    tvm.support.cc.create_shared(str(library), list(map(str, files)))
    loaded, found = tvm.runtime.load_module(str(library)), {}
    for name in made:
        y = tvm.runtime.empty((extent,), "float32")
        loaded[name](tvm.runtime.tensor(np.arange(extent, dtype="float32")), y)
        found[name] = y.numpy()
    return found


def test_objects_hold_the_functions_under_their_names(tmp_path: Path, started: list[str]) -> None:
    """Short names, long ones, and equal functions whose names have the same length, which are compiled once."""
    functions = {"f": scaled(), "a_longer_name": scaled(3), "fused_conv2d_1": scaled(5), "fused_conv2d_2": scaled(5)}
    made = compile_functions({name: [func] for name, func in functions.items()}, compiler())
    assert list(made) == list(functions)
    found = results(made, tmp_path)
    for name, factor in zip(functions, (2, 3, 5, 5), strict=True):
        np.testing.assert_array_equal(found[name], factor * np.arange(8, dtype="float32"))
    assert sorted(started) == ["a_longer_name", "f", "fused_conv2d_1"]


@pytest.mark.parametrize(
    ("mark", "reason"),
    [("hang", "it takes too long"), ("abort", "ended with signal 6"), ("raise", "it cannot be done")],
)
@pytest.mark.usefixtures("misbehaving")
def test_the_next_alternative(mark: str, reason: str) -> None:
    functions = {"good": [scaled(3)], "f": [marked(mark), scaled()], "g": [marked(mark), scaled()], "other": [scaled(4)]}
    made = compile_functions(functions, compiler(), limit=1.0)
    assert [function.alternative for function in made.values()] == [0, 1, 1, 0]
    assert reason in str(made["f"].reason)
    assert made["good"].reason is None
    assert all(function.content for function in made.values())


@pytest.mark.usefixtures("misbehaving")
def test_no_alternative_left() -> None:
    with pytest.raises(UserError, match="^f cannot be compiled: it cannot be done$"):
        compile_functions({"f": [marked("raise")]}, compiler())


def test_what_was_compiled_is_kept(started: list[str]) -> None:
    """Under whatever name; what a function or its object depends on makes it another one."""
    first = compile_functions({"a_longer_name": [scaled()]}, compiler())["a_longer_name"]
    assert compile_functions({"a_longer_name": [scaled()]}, compiler())["a_longer_name"] == first
    compile_functions({"another__name": [scaled()]}, compiler())
    assert started == ["a_longer_name"]
    others = [
        (scaled(2.5), compiler()),
        (scaled(extent=16), compiler()),
        (scaled().with_attr("tirx.noalias", True), compiler()),
        (scaled(), compiler(mcpu="x86-64-v2")),
        (scaled(), compiler(mattr=["-avx2"])),
        (scaled(), compiler(**{"cl-opt": ["-disable-lsr:bool=true"]})),
    ]
    for count, (func, other) in enumerate(others, 2):
        compile_functions({"a_longer_name": [func]}, other)
        assert len(started) == count
        compile_functions({"a_longer_name": [func]}, other)
        assert len(started) == count


def test_versions_and_settings_count(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {ObjectCache("identity").key(scaled()), ObjectCache("another").key(scaled())}
    with tvm.transform.PassContext(opt_level=1):
        keys.add(ObjectCache("identity").key(scaled()))
    with tvm.transform.PassContext(config={"tirx.disable_vectorize": True}):
        keys.add(ObjectCache("identity").key(scaled()))
    for name in ("TVM_VERSION", "FFI_VERSION"):
        with monkeypatch.context() as patch:
            patch.setattr(object_cache, name, "0.99")
            keys.add(ObjectCache("identity").key(scaled()))
    with monkeypatch.context() as patch:
        patch.setattr(object_cache, "_own_version", lambda: "9.9")
        keys.add(ObjectCache("identity").key(scaled()))
    assert len(keys) == 7
    assert ObjectCache("identity").key(scaled()) in keys


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1.5, 2.0, 3.0]), st.integers(1, 4)), min_size=2, max_size=4))
def test_keys_are_equal_where_functions_are(points: list[tuple[float, int]]) -> None:
    cache = ObjectCache("identity")
    assert len({cache.key(scaled(*point)) for point in points}) == len(set(points))


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: b"", lambda data: data[:60] + b"?" + data[61:]])
def test_a_damaged_object_is_compiled_again(damage, cache: Path, started: list[str]) -> None:  # type: ignore[no-untyped-def]
    first = compile_functions({"function": [scaled()]}, compiler())
    (place,) = cache.iterdir()
    whole = place.read_bytes()
    place.write_bytes(damage(whole))
    assert compile_functions({"function": [scaled()]}, compiler()) == first
    assert started == ["function"] * 2
    assert place.read_bytes() == whole


def _keep_often(key: str, content: bytes) -> None:
    cache = ObjectCache("identity")
    for _ in range(200):
        cache.keep(key, Made(content, {"of": content[0]}))


def test_two_processes_share_it() -> None:
    """One that reads while two write sees what the one or the other has written, never a mixture."""
    contents = [bytes([index]) * 300_000 for index in (1, 2)]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_keep_often, args=("k" * 64, content)) for content in contents]
    for process in processes:
        process.start()
    cache, seen = ObjectCache("identity"), 0
    while any(process.is_alive() for process in processes):
        made = cache.take("k" * 64)
        if made is not None:
            assert made.content in contents
            assert made.facts == {"of": made.content[0]}
            seen += 1
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert seen
    assert cache.folder is not None
    assert [path.name for path in cache.folder.iterdir()] == ["k" * 64]


def test_the_oldest_go_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, factor in enumerate((2.0, 3.0, 4.0)):
        compile_functions({"f": [scaled(factor)]}, compiler())
        for path in cache.iterdir():
            os.utime(path, (path.stat().st_atime, min(path.stat().st_mtime, 1_000_000 + index)))
    size = max(path.stat().st_size for path in cache.iterdir())
    kept = {path.name for path in cache.iterdir() if path.stat().st_mtime > 1_000_000}
    monkeypatch.setattr(object_cache, "_MOST_BYTES", 2 * size + size // 2)
    compile_functions({"f": [scaled(5.0)]}, compiler())
    left = {path.name for path in cache.iterdir()}
    assert len(left) == 2
    assert len(left & kept) == 1


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(object_cache.CACHE_VARIABLE, str(tmp_path / "file"))
    assert compile_functions({"f": [scaled()]}, compiler())["f"].content


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(object_cache.CACHE_VARIABLE, "")
    assert object_cache.cache_folder() is None
    assert compile_functions({"f": [scaled()]}, compiler())["f"].content
    monkeypatch.delenv(object_cache.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert object_cache.cache_folder() == tmp_path / "xdg" / "tvmcompress" / "objects"


def test_names_do_not_change_the_code(tmp_path: Path) -> None:
    """An object has the same code under every name, and no other name in it than its own."""
    names = ["short", "a_name_of_20_letters", "a_name_of_24_characters_"]
    texts = set()
    for name in names:
        content = compile_functions({name: [scaled()]}, compiler())[name].content
        assert name.encode() in content
        assert b"zqzq" not in content
        (tmp_path / f"{name}.o").write_bytes(content)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", f"{name}.o", f"{name}.bin"], cwd=tmp_path, check=True)
        texts.add((tmp_path / f"{name}.bin").read_bytes())
    assert len(texts) == 1
