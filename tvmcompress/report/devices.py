"""Boards and serial ports as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from .tables import plain_table

if TYPE_CHECKING:
    from ..targets.micro.serial import PortInfo
    from ..targets.remote.devices import Device


def devices_table(devices: Sequence[Device]) -> Table:
    """The boards of a tracker."""
    table = plain_table()
    for name in ("key", "board", "state", "what it is", "TVM", "at the moment"):
        table.add_column(name, overflow="fold")
    for device in devices:
        facts = device.facts
        waiting = f", {device.pending} waiting" if device.pending else ""
        what = device.problem or "not asked"
        if facts is not None:
            parts = (facts.model, facts.cpu, (device.triple or "").partition("-")[0])
            what = ", ".join(dict.fromkeys(part for part in parts if part))
        table.add_row(
            Text(device.key),
            Text(device.address),
            Text(("free" if device.free else "busy") + waiting),
            Text(what),
            Text("" if facts is None else facts.tvm or "unknown"),
            Text("" if facts is None else facts.state()),
        )
    return table


def ports_table(ports: Sequence[PortInfo]) -> Table:
    """The serial ports of this machine."""
    table = plain_table()
    for name in ("serial port", "what it is"):
        table.add_column(name, overflow="fold")
    for port in ports:
        table.add_row(Text(port.name), Text(port.description))
    return table
