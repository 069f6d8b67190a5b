"""Colour profiles (ICC.1:2022, version 4) as bytes: Display P3, Adobe RGB (1998), and a grey one of gamma 2.2.

Made from their primaries, so that the benchmarks bring no profile of somebody else.
"""

from __future__ import annotations

import struct

import numpy as np

_D50 = np.array([0.9642, 1.0, 0.8249])
_D65 = (0.3127, 0.3290)
# Bradford's matrix, which ICC.1 annex E takes for the adaptation of white
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB_CURVE = (3, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))


def display_p3() -> bytes:
    """Display P3, as phones write it: primaries of DCI-P3, white D65, the curve of sRGB."""
    return _rgb("Display P3", ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), _SRGB_CURVE)


def adobe_rgb() -> bytes:
    """Adobe RGB (1998), as cameras write it."""
    return _rgb("Adobe RGB (1998)", ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), (0, (563 / 256,)))


def grey_gamma() -> bytes:
    """A grey device of gamma 2.2."""
    return _profile(b"GRAY", {b"desc": _text("Grey, gamma 2.2"), b"wtpt": _xyz(_D50), b"kTRC": _curve(0, (2.2,))})


def _rgb(name: str, primaries: tuple[tuple[float, float], ...], curve: tuple[int, tuple[float, ...]]) -> bytes:
    columns = np.array([_from_xy(*xy) for xy in primaries]).T
    white = _from_xy(*_D65)
    columns = columns * np.linalg.solve(columns, white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white)) @ _BRADFORD @ columns
    tags = {b"desc": _text(name), b"wtpt": _xyz(_D50)}
    for letter, column in zip(b"rgb", adapted.T, strict=True):
        tags[bytes([letter]) + b"XYZ"] = _xyz(column)
        tags[bytes([letter]) + b"TRC"] = _curve(*curve)
    return _profile(b"RGB ", tags)


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    place, table, body = 132 + 12 * len(tags), struct.pack(">L", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4s2L", name, place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">L4xL4s4s4s12x4s28x", place + len(body), 0x04400000, b"mntr", space, b"XYZ ", b"acsp")
    return head + _xyz(_D50)[8:] + bytes(48) + table + body


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3l", *(round(65536 * float(v)) for v in values))


def _curve(kind: int, parameters: tuple[float, ...]) -> bytes:
    return struct.pack(f">4s4xHxx{len(parameters)}l", b"para", kind, *(round(65536 * p) for p in parameters))


def _text(words: str) -> bytes:
    data = words.encode("utf-16-be")
    return struct.pack(">4s4xLL2s2sLL", b"mluc", 1, 12, b"en", b"US", len(data), 28) + data


def _from_xy(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1.0, (1 - x - y) / y])
