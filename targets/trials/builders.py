"""Compiling candidates on other machines, over TVM's RPC: servers that have this package, too, and any tracker.

Usage, on a machine that is to compile: python -m tvmcompress.targets.trials.builders HOST:PORT, the address of the tracker.

A server compiles in a process of its own for each session, so what the compiler does there costs nobody else anything. A
builder that is lost has its task done by another; when none is left, this machine compiles itself.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import tvm_ffi
from tvm.support import cc

from ...passes._tvm import tvm
from ...passes.errors import UserError
from ..emulators.tools import package_version
from ..object_code import object_code
from ..remote.board import Board
from ..remote.boards import Boards
from ..remote.errors import BoardsLostError, NoBoardError, RemoteFailure
from ..remote.tracker import Tracker
from .compile import CompiledTrial, Compiler, compile_trials, made_trial, reason_of
from .trial import MakeTrial, Outcome, Trial

KEY = "builders"
"""Of the servers at the tracker."""
_LIBRARY, _KERNELS = "tvmcompress.compile_library", "tvmcompress.compile_kernels"

T = TypeVar("T")


@tvm_ffi.register_global_func(_LIBRARY, override=True)
def _compile_library(module: str, target: str) -> str:
    """On a builder: the object of a scheduled module."""
    built = tvm.tirx.build(tvm.ir.load_json(module), target=tvm.target.Target(json.loads(target)))
    return _answer(base64.b64encode(object_code(getattr(built, "mod", built))).decode())


@tvm_ffi.register_global_func(_KERNELS, override=True)
def _compile_kernels(func: str, target: str, candidates: str) -> str:
    """On a builder: objects of a kernel under several options, with the bytes of its workspaces; or a reason in its place."""
    compiler, kernel = Compiler(json.loads(target)), tvm.ir.load_json(func)
    made: list[Any] = []
    for name, options in json.loads(candidates):
        try:
            content, workspaces = compiler.compile(name, Trial(kernel, (), (), None, options=options))  # type: ignore[arg-type]
            made.append([base64.b64encode(content).decode(), list(workspaces)])
        except Exception as error:  # TVM raises errors of many kinds
            made.append([reason_of(error)])
    return _answer(made)


def _answer(made: Any) -> str:
    return json.dumps({"version": package_version(), "made": made})


class Builders:
    """The machines that compile, at a tracker.

    Args:
        boards: The servers with their key.
    """

    def __init__(self, boards: Boards) -> None:
        self._boards = boards

    @staticmethod
    def at(address: str) -> Builders:
        """The builders of a tracker, HOST:PORT.

        Raises:
            UserError: No such address, no tracker there, or no builder.
        """
        boards = Boards(Tracker(address), KEY)
        boards.require()
        return Builders(boards)

    def libraries(self, requests: Sequence[tuple[str, str, str]]) -> dict[int, tuple[str, Any]]:
        """Compile scheduled modules to shared libraries of this machine's kind, as many at once as there are builders.

        Args:
            requests: Of each the module and the target, as JSON, and the library's path.

        Returns:
            By number ("ok", None), or a status and why there is none; nothing of those that no builder is left for.

        Raises:
            UserError: A builder has another version of this package.
        """

        def build(request: tuple[str, str, str]) -> tuple[str, Any] | None:
            module, target, output = request
            try:
                found = self._call(_LIBRARY, module, target)
            except RemoteFailure as failure:
                return failure.status, failure.reason
            if found is None:
                return None
            place = Path(output).with_suffix(".o")
            place.write_bytes(base64.b64decode(found))
            cc.create_shared(output, [str(place)])
            place.unlink()
            return "ok", None

        return {number: made for number, made in enumerate(self._all(build, requests)) if made is not None}

    def trials(self, trials: Sequence[MakeTrial], target: dict[str, Any]) -> list[CompiledTrial | Outcome]:
        """As `compile_trials`; kernels are made here, and neighbours that are one function go to one builder.

        Raises:
            UserError: A builder has another version of this package.
        """
        found: dict[int, CompiledTrial | Outcome] = {}
        groups: list[list[tuple[int, Trial]]] = []
        for number, make in enumerate(trials):
            trial = made_trial(make)
            if isinstance(trial, Outcome):
                found[number] = trial
            elif groups and trial.func is not None and trial.func.same_as(groups[-1][0][1].func):
                groups[-1].append((number, trial))
            else:
                groups.append([(number, trial)])
        asked = json.dumps(target)
        for made in self._all(lambda group: self._group(group, asked), groups):
            found.update(made)
        left = [number for number in range(len(trials)) if number not in found]
        found.update(zip(left, compile_trials([trials[number] for number in left], target, left)))
        return [found[number] for number in range(len(trials))]

    def _group(self, group: Sequence[tuple[int, Trial]], target: str) -> dict[int, CompiledTrial | Outcome]:
        candidates = [(f"trial{number}", trial.options) for number, trial in group]
        try:
            made = self._call(_KERNELS, tvm.ir.save_json(group[0][1].func), target, json.dumps(candidates))
        except RemoteFailure as failure:
            if len(group) == 1:
                return {group[0][0]: Outcome(failure.status, reason=failure.reason)}
            return {number: made for one in group for number, made in self._group([one], target).items()}
        if made is None:
            return {}
        found: dict[int, CompiledTrial | Outcome] = {}
        for (number, trial), result in zip(group, made, strict=True):
            if len(result) == 1:
                found[number] = Outcome("error", reason=result[0])
            else:
                found[number] = CompiledTrial(replace(trial, func=None), base64.b64decode(result[0]), tuple(result[1]))
        return found

    def _all(self, task: Callable[[Any], T], subjects: Sequence[Any]) -> list[T]:
        with ThreadPoolExecutor(max(1, len(self._boards.servers()))) as executor:
            return list(executor.map(task, subjects))

    def _call(self, function: str, *arguments: str) -> Any:
        """What a builder answers; None where none is left.

        Raises:
            RemoteFailure: The compiler failed, crashed, or took too long.
        """

        def task(board: Board) -> str:
            try:
                call = board.session.get_function(function)
            except AttributeError:
                raise UserError(f"the server at {board.address} compiles nothing; start {__name__} there") from None
            return str(call(*arguments))

        try:
            answer = json.loads(self._boards.do(task, "compiling a candidate"))
        except (BoardsLostError, NoBoardError) as error:
            if self._boards.servers():
                raise RemoteFailure("crash", str(error)) from error
            return None
        if answer["version"] != package_version():
            raise UserError(f"a builder has version {answer['version']} of tvmcompress; install {package_version()} on it")
        return answer["made"]


def main() -> None:
    """Serve as a builder until the process is ended."""
    from tvm.rpc.server import PopenRPCServerState

    host, port = Tracker(sys.argv[1] if len(sys.argv) == 2 else "").place
    PopenRPCServerState("0.0.0.0", 9090, 9199, tracker_addr=(host, port), key=KEY).thread.join()


if __name__ == "__main__":
    main()
