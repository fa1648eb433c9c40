"""Cortex-A on boards: the library for TVM's runtime, and cores that lack what the code needs."""

# mypy: ignore-errors

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tvm_ffi

import tvmcompress
from tvmcompress.passes import UserError
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets import get_target
from tvmcompress.targets.aot.generate import generate
from tvmcompress.targets.aot.schedule import NEON
from tvmcompress.targets.arm.artifact import CortexAArtifact
from tvmcompress.targets.arm.features import lacking, masks, needed
from tvmcompress.targets.arm.kernels.products import Dot, Matrix, Pairs, products_of
from tvmcompress.targets.arm.project import write_module_source
from tvmcompress.targets.remote.facts import Facts, ffi_includes

WITH_MATRIX_PRODUCTS = ["cortex-a510", "cortex-a710", "cortex-a715", "neoverse-n2", "neoverse-v1"]

pytestmark = pytest.mark.skipif(bool(get_target("cortex-a72").missing_tools()), reason="needs the Cortex-A tool chain")


@pytest.fixture(scope="module")
def artifact(integer_net, tmp_path_factory):
    return get_target("cortex-a76").build(integer_net, tmp_path_factory.mktemp("a76") / "integer")


@pytest.fixture(scope="module")
def caller(artifact, tmp_path_factory):
    """A program that calls the module's function as TVM's runtime does."""
    folder = tmp_path_factory.mktemp("caller")
    source, parts = folder / "model_module.c", artifact.path.glob("model*.[coS]")
    write_module_source(source, "model", artifact.info.threads)
    includes = {tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path(), artifact.path}
    command = ["aarch64-linux-gnu-gcc", "-static", *(f"-I{place}" for place in includes)]
    command += [Path(__file__).parent / "call_module.c", source, *parts, "-lm", "-o", folder / "caller"]
    subprocess.run(list(map(str, command)), check=True)
    return folder


def call(caller, sizes, arguments=2, stride=1, cpu="cortex-a76"):
    command = ["qemu-aarch64", "-cpu", cpu, "./caller", *map(str, (*sizes, arguments, stride))]
    return subprocess.run(command, cwd=caller, capture_output=True, text=True, timeout=60)


def test_the_module_computes_what_the_library_does(artifact, caller, samples) -> None:
    x = artifact.inputs[0].quantize(samples[:1])
    (caller / "input.bin").write_bytes(x.tobytes())
    sizes = artifact.inputs[0].nbytes, artifact.outputs[0].nbytes
    assert call(caller, sizes).returncode == 0
    got = np.frombuffer((caller / "output.bin").read_bytes(), artifact.outputs[0].dtype)
    np.testing.assert_array_equal(got.reshape(artifact.outputs[0].shape), artifact.run([x])[0])


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ((0, 0), {"arguments": 1}, "the model's inputs and then its outputs"),
        ((-1, 0), {}, "dense tensor of the model's size"),
        ((0, 1), {}, "dense tensor of the model's size"),
        ((0, 0), {"stride": 2}, "dense tensor of the model's size"),
        ((0, 0), {"cpu": "cortex-a53"}, "the processor lacks instructions"),
    ],
)
def test_the_module_refuses_what_is_not_its_own(artifact, caller, change, options, words) -> None:
    sizes = [spec.nbytes + more for spec, more in zip((artifact.inputs[0], artifact.outputs[0]), change)]
    (caller / "input.bin").write_bytes(bytes(max(sizes)))
    ran = call(caller, sizes, **options)
    assert ran.returncode == 1
    assert words in ran.stdout


def test_the_module_has_all_it_needs(artifact) -> None:
    program = get_target("cortex-a76").remote_program(artifact.path)
    listed = subprocess.run(["aarch64-linux-gnu-nm", "-D", program.library], capture_output=True, text=True, check=True).stdout
    missing = {line.split()[-1].partition("@")[0] for line in listed.splitlines() if " U " in line}
    assert missing <= {"TVMFFIErrorSetRaisedFromCStr", "getauxval", "memcpy", "memset", "memmove"}
    assert " T __tvm_ffi_main" in listed


def test_the_program_says_that_the_core_lacks_something(artifact, samples) -> None:
    lesser = artifact.target.model_copy(update={"emulator_cpu": "cortex-a53"})
    with pytest.raises(UserError, match="the emulated core lacks instructions that the code uses"):
        CortexAArtifact(lesser, artifact.path, artifact.info).run([artifact.inputs[0].quantize(samples[:1])])


@pytest.mark.parametrize(
    ("core", "names"),
    [
        ("cortex-a53", {"asimd"}),
        ("cortex-a72", {"asimd"}),
        ("cortex-a76", {"asimd", "asimdhp", "asimdrdm", "asimddp"}),
        ("armv8-a", {"asimd"}),
        *((core, {"asimd", "asimdhp", "asimdrdm", "asimddp", "i8mm", "bf16", "asimdfhm"}) for core in WITH_MATRIX_PRODUCTS),
    ],
)
def test_what_code_for_a_core_needs(core, names) -> None:
    assert {feature.name for feature in needed(get_target(core).description.tvm)} == names


def test_what_a_raspberry_pi_4_lacks_for_code_of_a_raspberry_pi_5(artifact) -> None:
    # fp asimd evtstrm crc32 cpuid, as its kernel says it.
    features, pi4 = needed(artifact.target.tvm), 0x887
    assert lacking(features, pi4, 0) == ["asimdhp", "asimdrdm", "asimddp"]
    assert lacking(features, *masks(features)) == []
    program = get_target("cortex-a76").remote_program(artifact.path)
    assert program.lacking(Facts(hwcap=pi4), "aarch64") == ["asimdhp", "asimdrdm", "asimddp"]
    assert program.lacking(Facts(), "aarch64") == []
    assert program.lacking(Facts(), "x86_64") == ["the instructions of a 64-bit Arm"]


@pytest.mark.parametrize(
    ("hwcap", "hwcap2", "products"),
    [(0x887, 0, Pairs), (0x119FFF, 0, Dot), (0x7FFFFF, (1 << 13) | (1 << 14), Matrix)],
    ids=["Raspberry Pi 4", "Raspberry Pi 5", "Armv9"],
)
def test_features_that_are_read_from_the_board(integer_net, samples, tmp_path, hwcap, hwcap2, products) -> None:
    """For a core that the description leaves open; another one's are the description's."""
    board = SimpleNamespace(facts=Facts(hwcap=hwcap, hwcap2=hwcap2))
    target = get_target("armv8-a")
    options = target.remote_options(board)
    assert get_target("cortex-a72").remote_options(board) == {}
    # It has SVE, for which no kernel is.
    assert not any("sve" in name for name in options["features"])
    made = target.build(integer_net, tmp_path, **options)
    assert isinstance(products_of(made.target.tvm), products)
    program = target.remote_program(tmp_path)
    assert program.lacking(board.facts, "aarch64") == []
    if products is not Pairs:
        assert "asimddp" in program.lacking(Facts(hwcap=0x887), "aarch64")
    x = made.inputs[0].quantize(samples)
    np.testing.assert_array_equal(made.run([x])[0], run(IntegerCore()(integer_net), [x])[0])


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_tvms_runtime_loads_the_module(integer_net, samples, tmp_path) -> None:
    """Compiled for this machine, since no runtime of the other architecture is at hand."""
    made = generate(integer_net, {"kind": "c"}, tmp_path, registers=NEON, emit="c", threads=2)
    source = tmp_path / "module.c"
    write_module_source(source, made.prefix, 2)
    includes = [f"-I{place}" for place in (tmp_path, *ffi_includes())]
    command = [
        "cc",
        "-shared",
        "-fPIC",
        "-O1",
        "-pthread",
        *includes,
        source,
        *made.sources,
        "-lm",
        "-o",
        tmp_path / "model.so",
    ]
    subprocess.run(list(map(str, command)), check=True)
    module = tvm.runtime.load_module(str(tmp_path / "model.so"))
    x = made.inputs[0].quantize(samples[:1])
    (wanted,) = run(IntegerCore()(integer_net), [x])
    for threads in (1, 2):
        module["threads"](threads)
        out = tvm.runtime.tensor(np.zeros(made.outputs[0].shape, made.outputs[0].dtype))
        module["main"](tvm.runtime.tensor(x), out)
        np.testing.assert_array_equal(out.numpy(), wanted)
    with pytest.raises(ValueError, match="built for 2"):
        module["threads"](3)
    with pytest.raises(ValueError, match="inputs and then its outputs"):
        module["main"](out)


@pytest.mark.skipif("TVMCOMPRESS_ARM64_PYTHON" not in os.environ, reason="needs an arm64 Python: scripts/arm64_python.sh")
@pytest.mark.parametrize("core", ["cortex-a72", "cortex-a76", "neoverse-n2"])
def test_tvms_runtime_of_the_other_architecture_loads_the_module(core, integer_net, samples, tmp_path) -> None:
    made = get_target(core).build(integer_net, tmp_path / "built")
    library = tvmcompress.export_tvm_module(made, tmp_path / "model.so")
    x, (output,) = made.inputs[0].quantize(samples[:1]), made.outputs
    np.save(tmp_path / "x.npy", x)
    script = Path(__file__).parent / "run_module.py"
    shape = "x".join(str(size) for size in output.shape)
    arguments = [script, library, tmp_path / "x.npy", tmp_path / "y.npy", shape, output.dtype]
    subprocess.run([os.environ["TVMCOMPRESS_ARM64_PYTHON"], *map(str, arguments)], check=True, timeout=300)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), run(IntegerCore()(integer_net), [x])[0])


def test_a_module_is_written_by_name(artifact, integer_net, samples, tmp_path) -> None:
    written = tvmcompress.export_tvm_module(artifact, tmp_path / "out.so")
    listed = subprocess.run(["aarch64-linux-gnu-nm", "-D", written], capture_output=True, text=True, check=True).stdout
    assert " T __tvm_ffi_main" in listed
    assert " T __tvm_ffi_threads" not in listed
    other = get_target("x86").build(integer_net, tmp_path / "x86")
    with pytest.raises(UserError, match="are made of builds for Cortex-A"):
        tvmcompress.export_tvm_module(other, tmp_path / "none.so")
    assert not (tmp_path / "none.so").exists()
