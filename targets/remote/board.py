"""One session with a board."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tvm import rpc

from ...passes._tvm import TVM_VERSION, tvm
from ...passes.errors import MissingToolError, UserError
from .errors import OtherVersionError
from .facts import Facts, helper, parse_facts
from .tracker import Place

_FACTS = "facts"
_HELPER = "tvmcompress_board.so"


class Board:
    """A board while it serves us.

    Args:
        place: Where it is.
        timeout: Seconds that the session may take; then the board's server ends it.

    Attributes:
        address: HOST:PORT.
        triple: What the board is, as a target triple.
        protected: Whether a crash ends the session alone; without a compiler for the board it may end its server.
        facts: As the session begins.

    Raises:
        OtherVersionError: Its server is of another TVM.
        Exception: As TVM raises them, where it is lost.
    """

    def __init__(self, place: Place, timeout: float) -> None:
        self.address = place.address
        try:
            self.session = rpc.connect(place.host, place.port, place.match, math.ceil(timeout))
        except Exception as error:
            if "protocol version" in str(error):
                raise OtherVersionError(other_version(self.address, None)) from None
            raise
        self.protected = False
        self._helper: Any = None
        try:
            self.triple = str(self.session.get_function("target.llvm_get_system_triple")())
            self.facts = Facts(cpu=str(self.session.get_function("target.llvm_get_system_cpu")()))
            with contextlib.suppress(MissingToolError):
                self._protect(math.ceil(timeout))
            if self.facts.tvm not in (None, TVM_VERSION):
                raise OtherVersionError(other_version(self.address, self.facts.tvm))
        except BaseException:
            self.close()
            raise

    def _protect(self, seconds: int) -> None:
        """Send what watches over the session, and ask it what the board is."""
        self.session.upload(bytearray(helper(self.architecture)), _HELPER)
        self._helper = self.session.load_module(_HELPER)
        # The alarm is for servers that were told no time limit, or have lost theirs.
        self.protected = self._helper["protect"](seconds + 1) == 0
        self.facts = self.read_facts()

    @property
    def architecture(self) -> str:
        """The first part of the triple: x86_64, aarch64."""
        return self.triple.partition("-")[0]

    @property
    def device(self) -> Any:
        """Its processor, as TVM names devices."""
        return self.session.cpu(0)

    def read_facts(self) -> Facts:
        """What it says of itself now."""
        if self._helper is None or self._helper["facts"]() != 0:
            return self.facts
        return parse_facts(bytes(self.session.download(_FACTS)).decode("utf-8", "replace"), self.facts.cpu)

    @property
    def meter(self) -> Any | None:
        """What counts its energy, see `energy.energy_of`; None where it cannot be sent."""
        return self._helper

    def load(self, library: Path) -> Any:
        """Send a library and load it there."""
        self.session.upload(str(library), library.name)
        return self.session.load_module(library.name)

    def tensor(self, value: np.ndarray) -> Any:
        """An array in its memory."""
        return tvm.runtime.tensor(np.asarray(value, order="C"), self.device)

    def close(self) -> None:
        """End the session, so that the board is free at once; otherwise it is when the last of its objects is collected."""
        if self._helper is None:
            del self.session
            gc.collect()
            return
        with contextlib.suppress(Exception):  # that the session has ended
            self._helper["leave"]()

    def require(self, lacking: Sequence[str], target: str) -> None:
        """Refuse code that needs what the board lacks.

        Args:
            lacking: What that is.
            target: Name of the target that the code is for.

        Raises:
            UserError: Something is lacking.
        """
        if lacking:
            raise UserError(
                f"the board at {self.address} ({self.facts.model or self.facts.cpu or self.triple}) lacks "
                f"{', '.join(lacking)}, which code for {target} needs; build for the board's core"
            )

    def answers(self) -> bool:
        """Whether the session is still there."""
        try:
            return bool(self.session.get_function("target.llvm_get_system_triple")())
        except Exception:  # of many kinds, TVM's and the system's
            return False


def other_version(address: str, found: str | None) -> str:
    """The sentence for a server of another TVM."""
    serves = f"TVM {found}" if found else "another version of TVM's protocol"
    return f"the board at {address} serves {serves}; install apache-tvm=={TVM_VERSION} on it, and start its server again"
