"""Positions of a row that no good tile divides, such as 197 tokens or 17 columns: some more are computed, and left out."""

from __future__ import annotations

_TILES = range(4, 15)
"""Positions of a good tile."""
_PADDED_TILES = range(6, 15)


def padded_width(width: int) -> int:
    """How many positions are computed: `width` where a tile of 4 to 14 divides it, otherwise the least above that one of 6
    to 14 does."""
    if width <= _TILES[-1] or any(width % tile == 0 for tile in _TILES):
        return width
    return min(-(-width // tile) * tile for tile in _PADDED_TILES)
