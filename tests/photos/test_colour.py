"""Colour profiles of pictures that are not plainly RGB."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from convnext_cli.photos.colour import to_srgb


def linear_grey() -> bytes:
    """An ICC profile (version 2) of a grey device whose values are proportional to light."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3l", 63190, 65536, 54061)
    curve = b"curv" + bytes(8)
    tags = struct.pack(">L", 2)
    tags += struct.pack(">4s2L", b"wtpt", 156, len(white)) + struct.pack(">4s2L", b"kTRC", 176, len(curve))
    head = struct.pack(">L4xL4s4s4s", 188, 0x02100000, b"mntr", b"GRAY", b"XYZ ") + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3l", 63190, 65536, 54061) + bytes(48)
    return head + tags + white + curve


@pytest.mark.parametrize("form", ["L", "LA", "transparency"])
def test_a_grey_profile_is_applied_to_the_grey_channel(form: str) -> None:
    photo = Image.new("L", (4, 4), 128)
    if form == "LA":
        photo.putalpha(255)
    elif form == "transparency":
        photo.info["transparency"] = 3
    photo.info["icc_profile"] = linear_grey()
    # half of the light is 188 of 255 in sRGB (IEC 61966-2-1)
    assert np.abs(np.asarray(to_srgb(photo)).astype(int) - 188).max() <= 1


def test_grey_under_alpha_is_laid_over_white() -> None:
    photo = Image.new("LA", (4, 4), (128, 0))
    photo.info["icc_profile"] = linear_grey()
    assert np.asarray(to_srgb(photo)).min() == 255
