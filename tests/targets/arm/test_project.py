"""What lies beside a library for Cortex-A: the CMake project, the shared library, and threads of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tvmcompress.passes import LowerQDQ, UserError
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets import get_target
from tvmcompress.targets.aot import lower
from tvmcompress.targets.arm.artifact import CortexAArtifact
from tvmcompress.targets.arm.target import MOST_THREADS

pytestmark = pytest.mark.skipif(bool(get_target("cortex-a72").missing_tools()), reason="needs the Cortex-A tool chain")
needs_cmake = pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake")
SYSROOTS = {"aarch64-linux-gnu": "/usr/aarch64-linux-gnu", "arm-linux-gnueabihf": "/usr/arm-linux-gnueabihf"}
FEW = 4


def build(mod: tvm.IRModule, core: str, folder: Path, **options: object) -> CortexAArtifact:
    """A build, as its own class."""
    artifact = get_target(core).build(mod, folder, **options)
    assert isinstance(artifact, CortexAArtifact)
    return artifact


@pytest.fixture(scope="module", autouse=True)
def _divided() -> Iterator[None]:
    """Small layers are divided, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lower, "PARALLEL_ROUNDS", 2)
        yield


@pytest.fixture(scope="module")
def threaded(integer_net: tvm.IRModule, tmp_path_factory: pytest.TempPathFactory) -> CortexAArtifact:
    return build(integer_net, "cortex-a76", tmp_path_factory.mktemp("threads") / "a76", threads=FEW)


def expected(mod: tvm.IRModule, x: np.ndarray) -> np.ndarray:
    """The bytes of the NumPy reference."""
    return np.asarray(run(IntegerCore()(mod), [x])[0])


def cmake(source: Path, folder: Path, toolchain: str, *options: str) -> Path:
    """The project's program, configured and built."""
    configure = ["cmake", "-S", source, "-B", folder, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}.cmake", *options]
    for command in (configure, ["cmake", "--build", folder]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "example"


@needs_cmake
@pytest.mark.parametrize(
    ("core", "shared", "options"),
    [
        ("cortex-a76", False, {}),
        ("raspberry-pi-4", True, {"emit": "c", "prefix": "keywords"}),
        ("cortex-a72", True, {"threads": FEW}),
        ("cortex-a7", True, {"threads": FEW}),
    ],
)
def test_the_project_builds_a_program_that_gives_the_reference_bytes(
    integer_net: tvm.IRModule, samples: np.ndarray, tmp_path: Path, core: str, shared: bool, options: dict[str, object]
) -> None:
    if get_target(core).missing_tools():
        pytest.skip("needs the 32-bit tool chain")
    artifact = build(integer_net, core, tmp_path / "out", **options)
    (toolchain,) = (path.stem for path in artifact.path.glob("*.cmake"))
    program = cmake(artifact.path, tmp_path / "made", toolchain, f"-DBUILD_SHARED_LIBS={'ON' if shared else 'OFF'}")
    libraries = {path.name for path in (tmp_path / "made").glob("lib*")}
    assert libraries == {f"lib{options.get('prefix', 'model')}.{'so' if shared else 'a'}"}
    x = artifact.inputs[0].quantize(samples[:1])
    (tmp_path / "in.bin").write_bytes(x.tobytes())
    threads = [str(FEW)] if "threads" in options else []
    description, root = artifact.target, SYSROOTS[toolchain]
    emulator = ["qemu-aarch64" if "aarch64" in toolchain else "qemu-arm", "-cpu", str(description.emulator_cpu), "-L", root]
    subprocess.run([*emulator, program, *threads, "in.bin", "out.bin"], cwd=tmp_path, check=True, timeout=60)
    got = np.frombuffer((tmp_path / "out.bin").read_bytes(), artifact.outputs[0].dtype)
    np.testing.assert_array_equal(got.reshape(artifact.outputs[0].shape), expected(integer_net, x))
    for arguments, words in (((*threads, "none.bin", "out.bin"), "none.bin"), ((), "usage: example")):
        done = subprocess.run([*emulator, program, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert words in done.stderr


@pytest.mark.parametrize("threads", range(1, FEW + 1))
def test_threads_give_the_same_bytes(
    integer_net: tvm.IRModule, threaded: CortexAArtifact, samples: np.ndarray, threads: int
) -> None:
    x = threaded.inputs[0].quantize(samples)
    np.testing.assert_array_equal(threaded.run([x], threads=threads)[0], expected(integer_net, x))


@pytest.mark.parametrize("core", ["cortex-a72", "neoverse-n2"])
def test_threads_of_other_kernels(
    integer_net: tvm.IRModule, attention_qdq: tvm.IRModule, samples: np.ndarray, tmp_path: Path, core: str
) -> None:
    """Those of other cores; of transformers."""
    mod = integer_net if core == "neoverse-n2" else LowerQDQ()(attention_qdq)
    artifact = build(mod, core, tmp_path, threads=3)
    x = np.random.default_rng(0).integers(-128, 128, (3, *artifact.inputs[0].shape[1:]), np.int8)
    wanted = np.concatenate([expected(mod, x[i : i + 1]) for i in range(len(x))])
    np.testing.assert_array_equal(artifact.run([x], threads=3)[0], wanted)


@pytest.mark.parametrize("kernels", [True, False])
def test_threads_of_generic_functions(
    float_net: tvm.IRModule, integer_net: tvm.IRModule, samples: np.ndarray, tmp_path: Path, kernels: bool
) -> None:
    """Those without kernels: float sums do not depend on the number of threads either."""
    mod = float_net if kernels else integer_net
    artifact = build(mod, "cortex-a72", tmp_path, threads=FEW, kernels=kernels)
    x = artifact.inputs[0].quantize(samples)
    one = artifact.run([x])[0]
    for threads in (2, FEW):
        np.testing.assert_array_equal(artifact.run([x], threads=threads)[0], one)
    if not kernels:
        np.testing.assert_array_equal(one, expected(mod, x))


def test_what_threads_cost_is_said(integer_net: tvm.IRModule, threaded: CortexAArtifact, tmp_path: Path) -> None:
    """Each has workspaces of its own, in the arena; without threads there is no pool, and nothing of pthreads."""
    single = build(integer_net, "cortex-a76", tmp_path)
    assert threaded.info.threads == FEW
    assert single.info.threads == 1
    assert threaded.info.arena_bytes > single.info.arena_bytes
    source = (threaded.path / "model.c").read_text()
    assert source.count("model_pool_run(model->pool, step") >= 4
    header = (single.path / "model.h").read_text()
    assert "thread" not in header + (single.path / "model.c").read_text()
    assert not list(single.path.glob("*pool*"))


def test_what_threads_cannot_be(
    integer_net: tvm.IRModule, threaded: CortexAArtifact, samples: np.ndarray, tmp_path: Path
) -> None:
    x = threaded.inputs[0].quantize(samples[:1])
    for threads in (0, FEW + 1):
        with pytest.raises(UserError, match=f"built for up to {FEW} threads; {threads} were asked for"):
            threaded.run([x], threads=threads)
    for threads in (0, MOST_THREADS + 1):
        with pytest.raises(UserError, match=f"1 to {MOST_THREADS} threads"):
            build(integer_net, "cortex-a76", tmp_path, threads=threads)


def test_the_shared_library_needs_the_system_alone(threaded: CortexAArtifact) -> None:
    listed = subprocess.run(
        ["aarch64-linux-gnu-readelf", "-d", threaded.path / "libmodel.so"], capture_output=True, text=True, check=True
    ).stdout
    needed = {line.rpartition("[")[2].rstrip("]") for line in listed.splitlines() if "(NEEDED)" in line}
    assert needed <= {"libc.so.6", "libm.so.6", "ld-linux-aarch64.so.1"}
    assert "[libmodel.so]" in listed
