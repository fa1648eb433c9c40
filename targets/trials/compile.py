"""Compiling candidates in child processes: one that makes the compiler abort or not end costs nobody else anything."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
from tvm.tirx.build import codegen_build

from ...passes._tvm import tirx, tvm
from ..aot.lower import Lowered, lower
from ..children import die_with_parent
from ..kernels.compiler_options import act_late
from ..object_code import code_alone, object_of_source
from ..objects import available_cpus
from .trial import MakeTrial, Outcome, Trial

LIMIT = 20.0
"""Seconds that one candidate may take."""


@dataclass(frozen=True)
class CompiledTrial:
    """A candidate and its object file.

    Attributes:
        trial: The candidate, without its function.
        content: The file.
        workspaces: Bytes of the workspaces that follow the other parameters.
    """

    trial: Trial
    content: bytes
    workspaces: tuple[int, ...]


class _Child:
    """A process that compiles some candidates one after the other."""

    def __init__(
        self, trials: Sequence[MakeTrial], indices: Sequence[int], numbers: Sequence[int], target: dict[str, Any]
    ) -> None:
        fork = multiprocessing.get_context("fork")  # a forked child has TVM loaded, and the functions at hand
        self.waiting = deque(indices)
        self.result, sender = fork.Pipe(duplex=False)
        arguments = ([(numbers[index], trials[index]) for index in indices], target, sender, os.getpid())
        self.process = fork.Process(target=_compile, args=arguments, daemon=True)
        self.process.start()
        sender.close()
        self.deadline = time.monotonic() + LIMIT

    def receive(self) -> tuple[int, CompiledTrial | Outcome] | None:
        """The next candidate's outcome; None where there is none left."""
        try:
            if not self.result.poll():
                return self.waiting.popleft(), Outcome("timeout", reason=f"compiling took more than {LIMIT:g} seconds")
            made: CompiledTrial | Outcome = self.result.recv()
        except EOFError:
            self.process.join()
            if not self.waiting:
                return None
            return self.waiting.popleft(), Outcome("crash", reason=f"the compiler ended with {self.process.exitcode}")
        self.deadline = time.monotonic() + LIMIT
        return self.waiting.popleft(), made

    def kill(self) -> None:
        """End it."""
        self.process.kill()
        self.process.join()


def compile_trials(
    trials: Sequence[MakeTrial], target: dict[str, Any], numbers: Sequence[int] | None = None
) -> list[CompiledTrial | Outcome]:
    """Compile candidates, as many at once as there are CPUs; the function of number i is called `trial<i>`.

    Neighbours that have the same function share all but LLVM's code generator where their options act there alone.

    Args:
        trials: What makes the candidates.
        target: The TVM target.
        numbers: Of the candidates; from 0 on where not given.

    Returns:
        For each its object, or why there is none.
    """
    found: dict[int, CompiledTrial | Outcome] = {}
    numbers = range(len(trials)) if numbers is None else numbers
    count = min(available_cpus(), len(trials))
    shares = np.array_split(np.arange(len(trials)), count) if trials else []
    children = [_Child(trials, [int(index) for index in share], numbers, target) for share in shares]
    try:
        while children:
            first = min(child.deadline for child in children)
            ready = wait([child.result for child in children], max(0.0, first - time.monotonic()))
            for child in list(children):
                if child.result not in ready and time.monotonic() < child.deadline:
                    continue
                received = child.receive()
                if received is None:
                    child.kill()
                    children.remove(child)
                    continue
                index, made = received
                found[index] = made
                if isinstance(made, Outcome) and made.status in ("timeout", "crash"):
                    child.kill()
                    children.remove(child)
                    if child.waiting:
                        children.append(_Child(trials, list(child.waiting), numbers, target))
    finally:
        for child in children:
            child.kill()
    return [found[index] for index in range(len(trials))]


def made_trial(make: MakeTrial) -> Trial | Outcome:
    """A candidate, or why there is none."""
    try:
        trial = make()
    except Exception as error:  # TVM raises errors of many kinds
        return Outcome("error", reason=reason_of(error))
    if trial is None or trial.func is None:
        return Outcome("error", reason="the kernel does not take what was decided")
    return trial


def reason_of(error: Exception) -> str:
    """What an error says at its end; its name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _compile(trials: Sequence[tuple[int, MakeTrial]], target: dict[str, Any], result: Connection, parent: int) -> None:
    """In the child: send each object, or what was wrong with it."""
    die_with_parent(parent)
    faulthandler.disable()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    compiler = Compiler(target)
    for index, make in trials:
        trial = made_trial(make)
        if isinstance(trial, Outcome):
            result.send(trial)
            continue
        try:
            content, workspaces = compiler.compile(f"trial{index}", trial)
            result.send(CompiledTrial(replace(trial, func=None), content, workspaces))
        except Exception as error:  # TVM raises errors of many kinds
            result.send(Outcome("error", reason=reason_of(error)))
    result.close()
    # Not what a process does at its end: it would be done twice.
    os._exit(0)


_NAME = "tvmcompress_candidate"
_TARGET_LINE = re.compile(r'(!"tvm_target", !")([^"]*)(")')


class Compiler:
    """Compiles candidates one after the other, each step once for those that have the same function.

    Args:
        target: The TVM target.
    """

    def __init__(self, target: dict[str, Any]) -> None:
        self._target = target
        self._func: tirx.PrimFunc | None = None
        self._lowered: Lowered | None = None
        self._source: str | None = None

    def compile(self, name: str, trial: Trial) -> tuple[bytes, tuple[int, ...]]:
        """The object file of a candidate, whose function is called `name`, and the bytes of its workspaces."""
        assert trial.func is not None
        if self._lowered is None or self._func is None or not self._func.same_as(trial.func):
            self._func, self._source = trial.func, None
            self._lowered = lower({_NAME: trial.func}, tvm.target.Target(self._target), tidy=True)
        options = trial.options.split()
        if not act_late(trial.options):
            target = tvm.target.Target({**self._target, "cl-opt": options})
            source = code_alone(codegen_build(self._lowered.module, target).inspect_source("ll"))
        else:
            if self._source is None:
                built = codegen_build(self._lowered.module, tvm.target.Target(self._target))
                self._source = code_alone(built.inspect_source("ll"))
            source = _with_options(self._source, options)
        return object_of_source(source.replace(_NAME, name)), self._lowered.workspaces[_NAME]


def _with_options(source: str, options: Sequence[str]) -> str:
    """LLVM's intermediate code, which says what it is for, for its code generator with other options."""

    def changed(match: re.Match[str]) -> str:
        target = json.loads(match[2].replace("\\22", '"'))
        if options:
            target["cl-opt"] = list(options)
        return match[1] + json.dumps(target, separators=(",", ":")).replace('"', "\\22") + match[3]

    made, count = _TARGET_LINE.subn(changed, source)
    if count != 1:
        raise RuntimeError("LLVM's intermediate code does not say once what it is for")
    return made
