"""Functions compiled for a library of its own: kept for the next build, and none taken for another."""

# mypy: ignore-errors

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets import object_cache, objects
from tvmcompress.targets.aot import compiled as compiling
from tvmcompress.targets.aot import lower as lowering
from tvmcompress.targets.aot.compiled import compile_program
from tvmcompress.targets.aot.generate import generate
from tvmcompress.targets.aot.lower import LLVM_OPTIONS_ATTR, lower
from tvmcompress.targets.aot.program import make_program
from tvmcompress.targets.aot.schedule import FLOAT_REGISTERS, NEON

HOST = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(object_cache.CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def started(monkeypatch):
    """The names of the functions that are compiled, as it happens."""
    names: list[str] = []
    start = objects._Worker.start

    def noted(self, job, limit) -> None:
        names.extend(job.names)
        start(self, job, limit)

    monkeypatch.setattr(objects._Worker, "start", noted)
    return names


@pytest.fixture(scope="module")
def program(integer_net):
    return make_program(IntegerCore()(integer_net), "net", FLOAT_REGISTERS)


def test_a_second_build_compiles_nothing_and_is_the_same(integer_net, tmp_path: Path, started) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        generate(integer_net, HOST, folder, registers=NEON, prefix="net")
        if folder == folders[0]:
            count = len(started)
            assert count > 3
    assert len(started) == count
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes()


def test_facts_come_with_the_objects(program, started) -> None:
    """Kept ones too; as lowering says."""
    target = tvm.target.Target(HOST)
    expected = lower(program.functions, target, threads=True)
    for _ in range(2):
        made = compile_program(program, target, 2)
        assert made.workspaces == expected.workspaces
        assert made.parallel == expected.parallel
        assert set(made.objects) == set(program.functions)
    assert len(started) == len(program.functions)


def test_what_objects_depend_on(program, started, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another core, other features, threads, LLVM options, limits of lowering, or sources of the compiler."""
    name, func = min(program.functions.items(), key=lambda item: len(item[1].script()))

    def compiled(threads: bool = False, **changes) -> int:
        before = len(started)
        objects.compile_functions({name: [func]}, compiling._compiler(tvm.target.Target({**HOST, **changes}), threads))
        return len(started) - before

    assert compiled() == 1
    assert compiled(threads=True) == 1
    for changes in ({"mcpu": "x86-64-v2"}, {"mattr": ["+ssse3"]}, {"cl-opt": ["-disable-lsr:bool=true"]}):
        assert compiled(**changes) == 1
    for limit in ("STACK_LIMIT", "PARALLEL_ROUNDS"):
        with monkeypatch.context() as patch:
            patch.setattr(lowering, limit, 3)
            assert compiled() == 1
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "digest_of", lambda *_: "other sources")
        assert compiled() == 1
    assert compiled() == 0


def test_llvm_options_of_a_function_count(program, started) -> None:
    name, func = min(program.functions.items(), key=lambda item: len(item[1].script()))
    compiler = compiling._compiler(tvm.target.Target(HOST), False)
    for options in ("", "-disable-lsr:bool=true", "-unroll-threshold:uint=1", ""):
        asked = func.with_attr(LLVM_OPTIONS_ATTR, options) if options else func
        objects.compile_functions({name: [asked]}, compiler)
    assert started == [name] * 3


def test_no_conversions_that_nobody_calls(integer_net, tmp_path: Path) -> None:
    """TVM puts those of float16 into every module."""
    made = generate(integer_net, HOST, tmp_path, registers=NEON, prefix="net")
    (kernels,) = made.objects
    listed = subprocess.run(["nm", kernels], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in listed if name.startswith("net_")} == set(made.program.functions)
    assert "__truncsfhf2" not in listed
