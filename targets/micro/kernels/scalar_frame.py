"""Places on the stack of the routines for cores without the DSP extension."""

from __future__ import annotations

PANEL, OUT, END, STREAM_END, ZERO, LEAST, MOST, PLACES = 0, 4, 8, 12, 16, 20, 24, 28
"""Places at sp of a block's routine: where the panel, the outputs and the ends are, twice the zero point and one, limits, and
the offsets of the pixels' outputs."""
