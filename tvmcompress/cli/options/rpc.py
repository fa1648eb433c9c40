"""The options that say on which boards of a TVM RPC tracker models run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ...targets.remote.boards import BoardPool

_boards = partial(typer.Option, rich_help_panel="Boards")


@dataclass(frozen=True)
class RpcOptions:
    """Where it runs."""

    rpc: Annotated[
        str | None,
        _boards("--rpc", metavar="HOST:PORT", help="Run on boards of the TVM RPC tracker at this address (x86, Cortex-A)."),
    ] = None
    key: Annotated[str | None, _boards("--key", help="The boards' key at the tracker.", show_default="the target's name")] = (
        None
    )
    rpc_timeout: Annotated[
        float | None, _boards("--rpc-timeout", min=1, help="Seconds that one task may take on a board.", show_default="60")
    ] = None

    def pool(self, targets: Sequence[str]) -> BoardPool | None:
        """The boards, which must be there for each of the targets that boards can serve; None where none are asked for.

        Raises:
            UserError: Options that say nothing, an address that is none, no tracker there, no board with the key, or none of
                the targets runs on boards.
        """
        from ...errors import UserError

        if self.rpc is None:
            for option, given in (("--key", self.key), ("--rpc-timeout", self.rpc_timeout)):
                if given is not None:
                    raise UserError(f"{option} is about boards of a tracker; name it with --rpc HOST:PORT")
            return None
        from ...targets.registry import get_target
        from ...targets.remote.boards import TIMEOUT, BoardPool
        from ...targets.remote.tracker import Tracker

        pool = BoardPool(Tracker(self.rpc), self.key, self.rpc_timeout or TIMEOUT)
        served = [target for target in map(get_target, targets) if target.remote]
        if not served:
            raise UserError("--rpc runs models on x86 and 64-bit Cortex-A; add one, as in --target raspberry-pi-4")
        for target in served:
            pool.of(target.description).require()
        return pool
