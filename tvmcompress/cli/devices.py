"""`tvmcompress devices`: the boards that can be measured on."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import JsonOption, output, print_json


def devices(
    rpc: Annotated[
        str | None, typer.Option("--rpc", metavar="HOST:PORT", help="Also the boards of the TVM RPC tracker at this address.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the boards of a TVM RPC tracker, each that is free with what it is, and the serial ports of this machine."""
    from ..report.devices import devices_table, ports_table
    from ..targets.micro.serial import serial_ports

    found = None
    if rpc is not None:
        from ..targets.remote.devices import devices as ask
        from ..targets.remote.tracker import Tracker

        found = ask(Tracker(rpc))
    ports = serial_ports()
    if json:
        boards = None if found is None else [device.model_dump(mode="json") for device in found]
        print_json({"boards": boards, "serial_ports": None if ports is None else [port.model_dump() for port in ports]})
        return
    console = output()
    if found is not None:
        console.print(devices_table(found) if found else f"The tracker at {rpc} has no boards.")
        console.print()
    if ports is None:
        console.print("Serial ports are not listed: that needs pyserial (pip install 'tvmcompress[serial]').")
    else:
        console.print(ports_table(ports) if ports else "This machine has no serial ports.")
