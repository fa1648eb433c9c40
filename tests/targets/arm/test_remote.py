"""Cortex-A on boards: the library for TVM's runtime, and cores that lack what the code needs."""

# mypy: ignore-errors

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi

from tvmcompress.passes import UserError
from tvmcompress.targets import get_target
from tvmcompress.targets.arm.artifact import CortexAArtifact
from tvmcompress.targets.arm.features import lacking, masks, needed
from tvmcompress.targets.remote.facts import Facts

pytestmark = pytest.mark.skipif(bool(get_target("cortex-a72").missing_tools()), reason="needs the Cortex-A tool chain")


@pytest.fixture(scope="module")
def artifact(integer_net, tmp_path_factory):
    return get_target("cortex-a76").build(integer_net, tmp_path_factory.mktemp("a76") / "integer")


@pytest.fixture(scope="module")
def caller(artifact, tmp_path_factory):
    """A program that calls the module's function as TVM's runtime does."""
    folder = tmp_path_factory.mktemp("caller")
    program = get_target("cortex-a76").remote_program(artifact.path)
    source, parts = program.library.with_name("model_module.c"), artifact.path.glob("model*.[coS]")
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
        ("neoverse-n2", {"asimd", "asimdhp", "asimdrdm", "asimddp", "i8mm", "bf16", "asimdfhm"}),
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
