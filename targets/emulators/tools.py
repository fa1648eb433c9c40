"""Running other programs: found or named with the package that brings them, their failures in a sentence."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ...passes.errors import DiskFullError, MissingToolError, ToolError
from ..children import die_with_parent

# Program: the Debian package that brings it.
PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "arm-none-eabi-ar": "binutils-arm-none-eabi",
    "arm-none-eabi-ld": "binutils-arm-none-eabi",
    "arm-none-eabi-nm": "binutils-arm-none-eabi",
    "arm-none-eabi-objcopy": "binutils-arm-none-eabi",
    "arm-none-eabi-objdump": "binutils-arm-none-eabi",
    "arm-none-eabi-size": "binutils-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-aarch64": "qemu-user",
    "qemu-arm": "qemu-user",
    "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf",
    "arm-linux-gnueabihf-ar": "binutils-arm-linux-gnueabihf",
    "arm-linux-gnueabihf-ld": "binutils-arm-linux-gnueabihf",
    "arm-linux-gnueabihf-nm": "binutils-arm-linux-gnueabihf",
    "arm-linux-gnueabihf-size": "binutils-arm-linux-gnueabihf",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "aarch64-linux-gnu-ar": "binutils-aarch64-linux-gnu",
    "aarch64-linux-gnu-ld": "binutils-aarch64-linux-gnu",
    "aarch64-linux-gnu-nm": "binutils-aarch64-linux-gnu",
    "aarch64-linux-gnu-objdump": "binutils-aarch64-linux-gnu",
    "aarch64-linux-gnu-size": "binutils-aarch64-linux-gnu",
    "cc": "gcc",
    "ld": "binutils",
    "llvm-mca": "llvm",
    "llvm-mc": "llvm",
}


def missing(programs: Sequence[str]) -> list[str]:
    """A sentence for each program that is not on the PATH."""
    return [f"{name} is not installed; run: apt-get install {PACKAGES[name]}." for name in programs if not shutil.which(name)]


def require(programs: Sequence[str], what: str) -> None:
    """Refuse to go on without programs.

    Raises:
        MissingToolError: One or more are not installed.
    """
    absent = missing(programs)
    if absent:
        raise MissingToolError(f"{what}: {' '.join(absent)}")


def run(
    command: Sequence[str | Path],
    *,
    what: str,
    timeout: float,
    log: Path | None = None,
    cwd: Path | None = None,
    lasting: bool = False,
) -> str:
    """Run a program to its end.

    Args:
        command: The program and its arguments.
        what: What it does, for messages: "compiling the kernels".
        timeout: Seconds.
        log: Where all its output is kept when it fails.
        cwd: Where it runs.
        lasting: Whether it may run for long: then it ends with this process, however that ends. A compiler ends by itself
            soon, and what must be prepared in the child makes starting one ten times as slow: a build starts a dozen.

    Returns:
        Its standard output.

    Raises:
        MissingToolError: It is not installed.
        ToolError: It failed or took longer.
    """
    program = str(command[0])
    if not shutil.which(program):
        raise MissingToolError(f"{what} needs {program}; run: apt-get install {PACKAGES.get(program, program)}")
    with subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=cwd,
        # A group of its own: what it has started itself is stopped with it.
        process_group=0,
        preexec_fn=functools.partial(die_with_parent, os.getpid()) if lasting else None,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                reason = f"{what} was stopped after {timeout:g} seconds: {program} did not come to an end"
                raise ToolError(reason) from error
            raise
    if process.returncode != 0:
        output = (stdout + stderr).strip()
        if log is not None:
            log.write_text(" ".join(str(part) for part in command) + "\n" + output + "\n")
        lines = output.splitlines() or [f"exit code {process.returncode}"]
        telling = [line for mark in ("no space left", "error") for line in lines if mark in line.lower()]
        last = telling[0] if telling else lines[-1]
        if "no space left" in last.lower():
            raise DiskFullError(f"{what} failed: {program}: {last}")
        raise ToolError(f"{what} failed: {program}: {last}", log)
    return stdout


def package_version() -> str:
    """Our own version, for what is generated."""
    try:
        return metadata.version("tvmcompress")
    except metadata.PackageNotFoundError:
        return "0"
