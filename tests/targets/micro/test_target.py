"""Cortex-M: what the firmware library computes, what is measured of it, and what is refused."""

# mypy: ignore-errors

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from tests.passes.integer.spatial_nets import tall_net
from tvmcompress.passes import MissingToolError, UserError
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets import get_target, load_artifact, read_description
from tvmcompress.targets.registry import target_of

pytestmark = pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")
CORES = ["cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "cortex-m85"]


@pytest.fixture(scope="module")
def integer_artifact(integer_net, tmp_path_factory):
    return get_target("cortex-m4").build(integer_net, tmp_path_factory.mktemp("m4") / "integer")


@pytest.mark.parametrize("core", CORES)
def test_the_integer_model_gives_the_reference_bytes_on_every_core(integer_net, samples, tmp_path, core) -> None:
    artifact = get_target(core).build(integer_net, tmp_path)
    x = artifact.inputs[0].quantize(samples)
    expected = run(IntegerCore()(integer_net), [x])[0]
    np.testing.assert_array_equal(artifact.run([x])[0], expected)


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4", "cortex-m55"])
def test_the_float_model_agrees(float_net, samples, tmp_path, core) -> None:
    artifact = get_target(core).build(float_net, tmp_path)
    (want,) = run(float_net, [samples])
    np.testing.assert_allclose(artifact.run_float([samples])[0], want, rtol=2e-5, atol=1e-6)


def test_c_source_gives_the_same_bytes(integer_net, integer_artifact, samples, tmp_path) -> None:
    portable = get_target("cortex-m4").build(integer_net, tmp_path, emit="c", prefix="digits")
    x = portable.inputs[0].quantize(samples)
    np.testing.assert_array_equal(portable.run([x])[0], integer_artifact.run([x])[0])
    assert "tvm" not in (tmp_path / "digits_kernels.c").read_text().lower()
    for source in tmp_path.glob("digits*.c"):
        strict = ["arm-none-eabi-gcc", "-mthumb", "-mcpu=cortex-m4", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([*strict, "-O1", "-c", source, "-o", tmp_path / "strict.o"], check=True)


def test_float_outputs_are_those_of_the_dequantized_core(integer_net, integer_artifact, samples) -> None:
    (want,) = run(integer_net, [samples])
    np.testing.assert_allclose(integer_artifact.run_float([samples])[0], want, rtol=0, atol=1e-7)


def test_counts_repeat_exactly_and_add_up(integer_artifact, samples) -> None:
    x = integer_artifact.inputs[0].quantize(samples[:1])
    first, second = integer_artifact.measure([x]), integer_artifact.measure([x])
    assert first == second
    assert first.source == "qemu"
    assert first.latency is None
    assert first.instructions == pytest.approx(sum(first.functions.values()), abs=8)
    assert first.flash_bytes == first.code_bytes + first.constant_bytes
    assert first.ram_bytes == first.arena_bytes + first.stack_bytes
    assert 64 < first.stack_bytes < 4096
    layers = [layer for names in integer_artifact.info.layers.values() for layer in names]
    assert {"a", "p", "d", "f", "g", "i"} <= set(layers)


def test_more_work_takes_more_instructions(float_net, integer_artifact, tmp_path) -> None:
    generic = get_target("cortex-m3").build(float_net, tmp_path).measure()
    assert generic.instructions > 5 * integer_artifact.measure().instructions


def test_the_artifact_loads_from_its_folder(integer_artifact, samples, tmp_path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(integer_artifact.path, moved)
    loaded = load_artifact(moved)
    x = loaded.inputs[0].quantize(samples)
    np.testing.assert_array_equal(loaded.run([x])[0], integer_artifact.run([x])[0])
    assert (loaded.inputs, loaded.outputs) == (integer_artifact.inputs, integer_artifact.outputs)
    (moved / "firmware" / "model.elf").unlink()
    with pytest.raises(UserError, match="build the model again"):
        load_artifact(moved).run([x])


def test_a_damaged_folder_is_refused(integer_artifact, tmp_path) -> None:
    content = json.loads((integer_artifact.path / "artifact.json").read_text())
    content["library"]["arena_bytes"] += 1
    (tmp_path / "artifact.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="artifact.json is damaged; build"):
        load_artifact(tmp_path)


def test_a_program_that_was_cut_short_is_not_run(integer_artifact, samples, tmp_path) -> None:
    folder = shutil.copytree(integer_artifact.path, tmp_path / "copy")
    program = folder / "firmware" / "model.elf"
    program.write_bytes(program.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model.elf has been changed or cut short"):
        load_artifact(folder).run([integer_artifact.inputs[0].quantize(samples)])


def test_a_file_that_no_build_has_left_is_not_replaced(integer_net, tmp_path) -> None:
    (tmp_path / "CMakeLists.txt").write_text("mine")
    with pytest.raises(UserError, match=r"CMakeLists.txt is in the way"):
        get_target("cortex-m4").build(integer_net, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["CMakeLists.txt"]


@pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake")
@pytest.mark.parametrize("emit", ["object", "c"])
def test_the_folder_builds_as_it_is(integer_net, tmp_path, emit) -> None:
    get_target("nucleo-l4r5zi").build(integer_net, tmp_path, emit=emit)
    configure = ["cmake", "-S", tmp_path, "-B", tmp_path / "build", "-DCMAKE_TOOLCHAIN_FILE=arm-none-eabi.cmake"]
    for command in (configure, ["cmake", "--build", tmp_path / "build"]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "build" / "example").exists()
    sections = subprocess.run(["arm-none-eabi-size", "-A", tmp_path / "build" / "example"], capture_output=True, text=True)
    addresses = {line.split()[0]: int(line.split()[2]) for line in sections.stdout.splitlines() if line.startswith(".")}
    assert addresses[".text"] == 0x08000000


def test_the_library_needs_nothing_but_memory_functions(integer_artifact) -> None:
    archive = integer_artifact.path / "libmodel.a"
    listed = subprocess.run(["arm-none-eabi-nm", archive], capture_output=True, text=True, check=True).stdout
    undefined = {line.split()[-1] for line in listed.splitlines() if " U " in line}
    defined = {line.split()[-1] for line in listed.splitlines() if len(line.split()) == 3}
    assert undefined - defined <= {"memset", "memcpy", "memmove", "__aeabi_memset", "__aeabi_memcpy", "__aeabi_memclr"}


def _board(**sizes):
    return target_of(get_target("cortex-m4").description.model_copy(update={"name": "board", **sizes}))


def test_code_counts_as_flash(integer_net, integer_artifact, tmp_path) -> None:
    """Where the constants fit, and code and constants do not; the same to the byte where they do."""
    info = integer_artifact.info
    needed = info.code_bytes + info.constant_bytes
    assert info.code_bytes > 100
    _board(flash_bytes=needed).build(integer_net, tmp_path / "fits")
    with pytest.raises(UserError, match=rf"needs {needed:,} bytes of flash .*: 1 too many"):
        _board(flash_bytes=needed - 1).build(integer_net, tmp_path / "out")


def test_a_model_that_does_not_fit_is_refused_with_figures(float_net, tmp_path) -> None:
    output = tmp_path / "out"
    with pytest.raises(UserError) as refused:
        _board(flash_bytes=4000).build(float_net, output)
    needed, excess = _numbers(r"needs ([\d,]+) bytes of flash \(.*\) and board has 4,000: ([\d,]+) too many", refused)
    assert needed - excess == 4000
    # Nearly all constants are float weights, of which int8 takes a quarter.
    (quarter,) = _numbers(r"--quantize int8\), ([\d,]+) bytes", refused)
    assert quarter == pytest.approx(needed / 4, rel=0.1)
    (share,) = _numbers(r"constants of (\d+) % of their size: prune to it with --max-flash 4000", refused)
    assert share == pytest.approx(100 * 4000 / needed, abs=1)
    with pytest.raises(UserError) as refused:
        _board(ram_bytes=9000).build(float_net, output)
    arena, excess = _numbers(r"needs ([\d,]+) bytes of RAM .* board has 9,000: ([\d,]+) too many; .* at layer '\w+'", refused)
    assert arena + 4096 - 9000 == excess
    assert "a larger board: nucleo-f446re, cortex-m4, " in str(refused.value)
    with pytest.raises(UserError, match=r"bytes of flash .*; and the model needs .* bytes of RAM"):
        _board(flash_bytes=4000, ram_bytes=9000).build(float_net, output)
    assert [path.name for path in output.iterdir()] == []
    _board(ram_bytes=9000).build(float_net, output, check_memory=False)


def _numbers(pattern, refused) -> list[int]:
    """The numbers that the message of an error states."""
    found = re.search(pattern, str(refused.value))
    assert found, refused.value
    return [int(number.replace(",", "")) for number in found.groups()]


def test_what_patches_would_save_is_tried_out(tmp_path) -> None:
    net = tall_net()
    integer_net = net.core()
    whole = get_target("cortex-m4").build(integer_net, tmp_path / "large").info.arena_bytes
    with pytest.raises(UserError) as refused:
        _board(ram_bytes=4096 + whole - 8).build(integer_net, tmp_path / "whole")
    (strips,) = _numbers(r"in patches \(--patch-wise\), ([\d,]+) bytes, which fits", refused)
    assert strips < whole
    artifact = _board(ram_bytes=4096 + whole - 8).build(integer_net, tmp_path / "strips", patch_wise=True)
    assert artifact.info.arena_bytes == strips
    measured = artifact.measure()
    assert (measured.arena_bytes, measured.patches.whole_arena_bytes) == (strips, whole)
    assert measured.arena_lower_bound <= strips
    assert any("patches" in note for note in measured.notes)
    x = net.input()
    np.testing.assert_array_equal(artifact.run([x])[0], run(integer_net, [x])[0])
    with pytest.raises(UserError) as refused:
        _board(ram_bytes=4096 + strips - 8).build(integer_net, tmp_path / "small")
    assert _numbers(r"([\d,]+) bytes, which is still (\d+) over", refused) == [strips, 8]


def test_floating_point_without_a_unit_is_computed_or_refused(float_net, integer_net, tmp_path) -> None:
    small = get_target("cortex-m3")
    with pytest.raises(UserError, match=r"cortex-m3 has no floating-point unit, and \d+ of \d+ steps .*--quantize int8"):
        small.build(float_net, tmp_path / "refused", soft_float=False)
    small.build(integer_net, tmp_path / "integer", soft_float=False)
    # A core with a unit has nothing to refuse.
    get_target("cortex-m4").build(float_net, tmp_path / "float", soft_float=False)


def test_a_description_of_ones_own(integer_net, tmp_path) -> None:
    source = (get_target("cortex-m4").description).model_dump(exclude_none=True)
    lines = ['name = "mine"', 'title = "My board"']
    for key, value in source.items():
        if key in ("name", "title"):
            continue
        if isinstance(value, dict):
            lines.append(f"{key} = {{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + " }")
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    path = tmp_path / "mine.toml"
    path.write_text("\n".join(lines))
    assert read_description(path).name == "mine"
    assert get_target(path).build(integer_net, tmp_path / "out").target.name == "mine"


def test_missing_tools_are_named_with_their_packages(integer_net, integer_artifact, samples, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    target = get_target("cortex-m4")
    sentences = " ".join(target.missing_tools())
    for package in ("gcc-arm-none-eabi", "qemu-system-arm"):
        assert f"apt-get install {package}" in sentences
    with pytest.raises(MissingToolError, match="gcc-arm-none-eabi"):
        target.build(integer_net, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(MissingToolError, match="qemu-system-arm"):
        integer_artifact.run([integer_artifact.inputs[0].quantize(samples)])


def test_an_emulator_that_hangs_is_stopped(integer_artifact, samples, tmp_path, monkeypatch) -> None:
    hanging = tmp_path / "qemu-system-arm"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UserError, match="stopped after 0.5 seconds"):
        integer_artifact.run([integer_artifact.inputs[0].quantize(samples)], timeout=0.5)


def test_a_compiler_that_fails_leaves_its_output(integer_net, tmp_path, monkeypatch) -> None:
    broken = tmp_path / "bin" / "arm-none-eabi-gcc"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'line 1'\necho 'fatal error: no more disks' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:/usr/bin:/bin")
    output = tmp_path / "out"
    with pytest.raises(UserError, match=r"compiling model.c failed: .*no more disks; all of its output is in .*compiler.log"):
        get_target("cortex-m4").build(integer_net, output)
    assert "line 1" in (output / "compiler.log").read_text()
    assert not (output / "artifact.json").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: [x[:, :12]], "has shape"),
        (lambda x: [x.astype("float32")], "is int8"),
        (lambda x: [x, x], "takes 1 inputs, 2 were given"),
        (lambda x: [x[:0]], "has shape"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(integer_artifact, samples, change, words) -> None:
    with pytest.raises(UserError, match=words):
        integer_artifact.run(change(integer_artifact.inputs[0].quantize(samples)))


def test_unknown_options_are_refused(integer_net, integer_artifact, tmp_path) -> None:
    with pytest.raises(UserError, match="has no option 'cpu'"):
        get_target("cortex-m4").build(integer_net, tmp_path, cpu="x")
    with pytest.raises(UserError, match="without option 'runs'"):
        integer_artifact.measure(runs=3)
