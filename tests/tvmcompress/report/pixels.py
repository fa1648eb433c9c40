"""Pictures as arrays, as far as screenshots need it: eight bits, not interlaced (PNG, ISO/IEC 15948)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

_MAGIC = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 6: 4}


def read_grey(path: Path) -> np.ndarray:
    """Grey values, float64 from 0 to 255, height x width; what is transparent is taken as it is."""
    data = path.read_bytes()
    assert data.startswith(_MAGIC)
    at, packed, header = len(_MAGIC), b"", b""
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        header, packed = (body, packed) if kind == b"IHDR" else (header, packed + body * (kind == b"IDAT"))
        at += size + 12
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    assert (depth, interlaced) == (8, 0)
    channels = _CHANNELS[color]
    raw = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * channels)
    lines = np.zeros((height + 1, width + 1, channels), np.int64)
    for row, (kind, *_) in enumerate(raw):
        coded = raw[row, 1:].reshape(width, channels).astype(np.int64)
        up = lines[row]
        if kind in (0, 2):
            lines[row + 1, 1:] = (coded + (up[1:] if kind == 2 else 0)) % 256
            continue
        if kind == 1:
            lines[row + 1, 1:] = np.cumsum(coded, 0) % 256
            continue
        own = lines[row + 1]
        for x in range(1, width + 1):
            left, above, corner = own[x - 1], up[x], up[x - 1]
            if kind == 3:
                guess = (left + above) // 2
            else:
                near = left + above - corner
                a, b, c = abs(near - left), abs(near - above), abs(near - corner)
                guess = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
            own[x] = (coded[x - 1] + guess) % 256
    return lines[1:, 1:, : min(channels, 3)].mean(-1)


def write_grey(path: Path, grey: np.ndarray) -> None:
    """Write grey values from 0 to 255."""
    rows = np.rint(grey).astype(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = ((b"IHDR", struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(raw, 9)))
    out = _MAGIC
    for kind, body in (*parts, (b"IEND", b"")):
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(out)


def smaller(grey: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of so many pixels; what is left at the edges is cut off."""
    height, width = (size // factor for size in grey.shape)
    return grey[: height * factor, : width * factor].reshape(height, factor, width, factor).mean((1, 3))
