"""The options that say which microcontroller kernels are tuned on, and how programs get onto it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ...targets.base import Target
    from ...targets.micro.trial_board import CortexMBoard

_board = partial(typer.Option, rich_help_panel="Microcontroller")


@dataclass(frozen=True)
class MicrocontrollerOptions:
    """A board at a serial port."""

    port: Annotated[
        str | None,
        _board("--port", help="Count the cycles of the board at this serial port (/dev/ttyACM0) in place of instructions."),
    ] = None
    baud: Annotated[int | None, _board("--baud", min=1, help="Bits a second of the port.", show_default="115200")] = None
    flash_command: Annotated[
        str | None,
        _board("--flash-command", metavar="COMMAND", help="Flashes and resets the board; {elf} or {bin} is the program."),
    ] = None
    board_source: Annotated[
        Path | None, _board("--board-source", help="C file with the board's uart_init, uart_putc and uart_getc.")
    ] = None

    def board(self, targets: list[Target]) -> CortexMBoard | None:
        """The board; None where none is asked for.

        Args:
            targets: What is to be tuned for: the board alone.

        Raises:
            UserError: Options that say nothing or are missing, or a target that is no microcontroller's board.
        """
        from ...errors import UserError

        needed = {"--flash-command": self.flash_command, "--board-source": self.board_source}
        if self.port is None:
            for option, given in {**needed, "--baud": self.baud}.items():
                if given is not None:
                    raise UserError(f"{option} is about a board at a serial port; name it with --port")
            return None
        from ...targets.micro.serial import BAUD
        from ...targets.micro.trial_board import CortexMBoard, FlashedBoard

        description, *others = (target.description for target in targets)
        if others or description.family != "cortex-m" or description.name == description.core:
            raise UserError("--port counts the cycles of one microcontroller's board; name it, as in -t nucleo-f446re")
        if self.flash_command is None or self.board_source is None:
            missing = next(option for option, given in needed.items() if given is None)
            raise UserError(f"--port flashes programs that answer over the port; say how with {missing}")
        if not self.board_source.is_file():
            raise UserError(f"there is no file {self.board_source}; give the board's C source")
        return CortexMBoard(description, self.board_source, FlashedBoard(self.port, self.flash_command, self.baud or BAUD))
