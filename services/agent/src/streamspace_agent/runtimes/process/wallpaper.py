"""The desktop's background: a calm vertical gradient that survives every resize.

A picture of the screen's size would show its edge once the viewer makes the screen
larger. A narrow strip, taller than any screen, tiles sideways without a seam.
"""

import functools
import itertools
import struct

WIDTH = 16
HEIGHT = 2304
_STOPS = ((0.0, (30, 41, 82)), (0.32, (33, 62, 110)), (0.62, (27, 92, 122)), (1.0, (22, 120, 116)))
_FADE = 1440
"""Rows over which the colours pass; below, the last one stays."""
_ORDERED_NOISE = (0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5)
"""A 4x4 threshold pattern: without it, so slow a gradient shows its steps as bands."""


@functools.cache
def strip() -> bytes:
    """`WIDTH` x `HEIGHT` pixels of 32 bits, blue first, as X servers here want them."""
    rows = bytearray()
    for y in range(HEIGHT):
        colour = _colour(min(y / _FADE, 1.0))
        pattern = [_pixel(colour, _ORDERED_NOISE[(y % 4) * 4 + x] / 16) for x in range(4)]
        rows += b"".join(pattern) * (WIDTH // 4)
    return bytes(rows)


def _colour(position: float) -> tuple[float, float, float]:
    for (start, first), (end, second) in itertools.pairwise(_STOPS):
        if position <= end:
            part = (position - start) / (end - start)
            mixed = [a + (b - a) * part for a, b in zip(first, second, strict=True)]
            return mixed[0], mixed[1], mixed[2]
    red, green, blue = _STOPS[-1][1]
    return float(red), float(green), float(blue)


def _pixel(colour: tuple[float, float, float], threshold: float) -> bytes:
    red, green, blue = (min(int(channel + threshold), 255) for channel in colour)
    return struct.pack("<BBBx", blue, green, red)
