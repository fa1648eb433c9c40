"""What the routines for cores without the DSP extension are given, and where they keep it on the stack."""

from __future__ import annotations

GIVEN = 5
"""Counts behind the places of outputs: bytes of the panel, or from a row of the strip to the next one; bytes of the stream;
twice the zero point and one; limits."""
PANEL, OUT, END, STREAM_END, ZERO, LEAST, MOST, PLACES = 0, 4, 8, 12, 16, 20, 24, 28
"""Places at sp of a block's routine: where the panel, the outputs and the ends are, twice the zero point and one, limits, and
the offsets of the pixels' outputs."""
