"""--prefix: builds from the command line that one firmware links; and a CMake project that takes more flags."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.tvmcompress.cli.running import run
from tvmcompress.targets import get_target, load_artifact
from tvmcompress.targets.emulators.artifact import EmulatedArtifact

pytestmark = pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")

MAIN = """
#include "first.h"
#include "second.h"
#include "semihosting.h"
static uint8_t a[FIRST_ARENA_BYTES] __attribute__((aligned(16))), b[SECOND_ARENA_BYTES] __attribute__((aligned(16)));
int main(void) {
  first_t first;
  second_t second;
  if (first_init(&first, a, sizeof a) || second_init(&second, b, sizeof b)) return 2;
  const int in = semihosting_open("input.bin", SEMIHOSTING_READ), out = semihosting_open("output.bin", SEMIHOSTING_WRITE);
  if (semihosting_read(in, first_input(&first, 0), FIRST_INPUT0_BYTES)) return 3;
  if (semihosting_read(in, second_input(&second, 0), SECOND_INPUT0_BYTES)) return 3;
  if (first_run(&first) || second_run(&second)) return 4;
  semihosting_write(out, first_output(&first, 0), FIRST_OUTPUT0_BYTES);
  semihosting_write(out, second_output(&second, 0), SECOND_OUTPUT0_BYTES);
  semihosting_close(in);
  semihosting_close(out);
  return 0;
}
"""


@pytest.fixture(scope="module")
def builds(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> list[EmulatedArtifact]:
    """Two models, a prefix each."""
    folder = tmp_path_factory.mktemp("prefix")
    made = []
    for name, options in (("first", ()), ("second", ("--prune", 0.5))):
        asked = ("--calib", digits / "digits_calib.npz", "--calib-samples", 40, "--quantize", "int8", *options)
        out = folder / name
        ran = run("compress", digits / "digits.onnx", *asked, "-t", "cortex-m4", "--prefix", name, "-o", out)
        assert ran.code == 0, ran.err
        artifact = load_artifact(out / "cortex-m4")
        assert isinstance(artifact, EmulatedArtifact)
        made.append(artifact)
    return made


def test_two_builds_in_one_firmware(builds: list[EmulatedArtifact], tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(MAIN)
    flags = ["-mthumb", *get_target("cortex-m4").description.compiler_flags, "-O2"]
    firmware = builds[0].path / "firmware"
    subprocess.run(
        ["arm-none-eabi-gcc", *flags, *(f"-I{build.path}" for build in builds), f"-I{firmware}", "main.c",
         firmware / "startup.c", *(build.path / f"lib{build.info.prefix}.a" for build in builds), "-nostartfiles",
         "-specs=nano.specs", "-T", firmware / "emulator.ld", "-lm", "-o", "both.elf"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    random = np.random.default_rng(0)
    samples = [random.integers(-128, 128, build.inputs[0].shape, np.int8) for build in builds]
    (tmp_path / "input.bin").write_bytes(b"".join(sample.tobytes() for sample in samples))
    done = subprocess.run(builds[0].command((), Path("both.elf")), cwd=tmp_path, timeout=60)
    assert done.returncode == 0
    wanted = b"".join(build.run([sample])[0].tobytes() for build, sample in zip(builds, samples))
    assert (tmp_path / "output.bin").read_bytes() == wanted


@pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake")
def test_flags_of_the_user_are_added(builds: list[EmulatedArtifact], tmp_path: Path) -> None:
    subprocess.run(
        ["cmake", "-S", builds[1].path, "-B", tmp_path, "-DCMAKE_TOOLCHAIN_FILE=arm-none-eabi.cmake",
         "-DCMAKE_C_FLAGS=-Wall -DMINE=1", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(["cmake", "--build", tmp_path], check=True, capture_output=True)
    commands = (tmp_path / "compile_commands.json").read_text()
    assert "-DMINE=1" in commands
    assert "-mcpu=cortex-m4" in commands
