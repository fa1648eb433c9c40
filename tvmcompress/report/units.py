"""Numbers for people."""

from __future__ import annotations

from ..targets.measurement import Energy


def count(value: float) -> str:
    """A count with three significant digits: 950, 26.7 k, 1.31 M."""
    for limit, divisor, unit in ((1e9, 1e9, " G"), (1e6, 1e6, " M"), (1e4, 1e3, " k")):
        if abs(value) >= limit * 0.9995:
            return f"{_three(value / divisor)}{unit}"
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes, a KB being 1024 of them: 950 B, 12.3 KB, 1.20 MB."""
    for divisor, unit in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if abs(value) >= divisor:
            return f"{_three(value / divisor)} {unit}"
    return f"{value:,.0f} B"


def duration(milliseconds: float) -> str:
    """A time: 850 ns, 12.3 us, 4.56 ms, 1.20 s."""
    for divisor, unit in ((1e3, "s"), (1.0, "ms"), (1e-3, "us")):
        if milliseconds >= divisor:
            return f"{_three(milliseconds / divisor)} {unit}"
    return f"{milliseconds * 1e6:.0f} ns"


def energy(millijoules: float) -> str:
    """An energy: 850 nJ, 12.3 uJ, 4.56 mJ, 1.20 J."""
    for divisor, unit in ((1e3, "J"), (1.0, "mJ"), (1e-3, "uJ")):
        if millijoules >= divisor:
            return f"{_three(millijoules / divisor)} {unit}"
    return f"{millijoules * 1e6:.0f} nJ"


def energy_place(found: Energy) -> str:
    """What reports an energy, and how long it was watched."""
    return f"{found.sensor}, idle included, {found.runs:,} runs in {found.seconds:.1f} s"


def percent(share: float, digits: int = 2) -> str:
    """A share of one as a percentage."""
    return f"{share * 100:.{digits}f} %"


def factor(value: float) -> str:
    """How many times."""
    return f"{value:.2f}x" if value < 9.95 else f"{value:.1f}x"


def shape(dims: tuple[int, ...] | list[int]) -> str:
    """A shape: 1x3x32x32."""
    return "x".join(map(str, dims)) or "scalar"


def _three(value: float) -> str:
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:,.{digits}f}"
