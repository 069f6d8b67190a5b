"""Colour profiles (ICC.1:2022, version 4) as bytes: Display P3, Adobe RGB (1998), a grey one of gamma 2.2, and CMYK.

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


def printed_cmyk() -> bytes:
    """Four inks on white paper: Neugebauer's equations with the correction of Yule and Nielsen (n = 2)."""
    inks = np.array([[0.04, 0.34, 0.74], [0.66, 0.05, 0.24], [0.88, 0.74, 0.03], [0.02, 0.02, 0.02]])  # linear sRGB
    paper, points = np.array([0.90, 0.90, 0.88]), 7
    covered = np.stack(np.meshgrid(*[np.linspace(0, 1, points)] * 4, indexing="ij"), -1).reshape(-1, 4)
    covered = covered + 0.6 * covered * (1 - covered)  # dot gain: 15 % at half
    light = np.zeros((len(covered), 3))
    for number in range(16):
        on = np.array([bool(number >> ink & 1) for ink in range(4)])
        share = np.where(on, covered, 1 - covered).prod(axis=1)
        light += share[:, None] * np.sqrt(paper * inks[on].prod(axis=0))
    to_xyz = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])  # sRGB, D50
    ratio = light**2 @ to_xyz.T / _D50
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    table = np.round((lab * [652.8, 256, 256] + [0, 32768, 32768]).clip(0, 65535)).astype(">u2").tobytes()
    line = struct.pack(">2H", 0, 65535)
    data = struct.pack(">4s4x4B", b"mft2", 4, 3, points, 0) + struct.pack(
        ">9l", *(np.eye(3, dtype=int).ravel() * 65536)
    )
    data += struct.pack(">2H", 2, 2) + 4 * line + table + 3 * line
    return _profile(
        b"CMYK", {b"desc": _text("Four inks"), b"wtpt": _xyz(_D50), b"A2B0": data}, kind=b"prtr", space=b"Lab "
    )


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


def _profile(device: bytes, tags: dict[bytes, bytes], *, kind: bytes = b"mntr", space: bytes = b"XYZ ") -> bytes:
    place, table, body = 132 + 12 * len(tags), struct.pack(">L", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4s2L", name, place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">L4xL4s4s4s12x4s28x", place + len(body), 0x04400000, kind, device, space, b"acsp")
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
