"""Colour profiles: of pictures that are not plainly RGB, and applied to what the resize and the crop leave."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from benchmarks.profiles import display_p3, printed_cmyk
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos import resampling
from convnext_cli.photos.colour import in_srgb, to_eight_bits
from convnext_cli.photos.decode import decode
from convnext_cli.photos.resize import apply_preprocessing
from tests.helpers.photos import encoded, exif_orientation, picture


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
    assert np.abs(np.asarray(in_srgb(*to_eight_bits(photo))).astype(int) - 188).max() <= 1


def test_grey_under_alpha_is_laid_over_white() -> None:
    photo = Image.new("LA", (4, 4), (128, 0))
    photo.info["icc_profile"] = linear_grey()
    assert np.asarray(in_srgb(*to_eight_bits(photo))).min() == 255


PREPROCESSING = Preprocessing(size=(40, 40), resize_to=(50, 50))


def through(profile: bytes, pixels: Image.Image) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(pixels, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    return converted


def stored(kind: str) -> tuple[Image.Image, bytes, str]:
    """A picture, its profile, and the format of its file."""
    if kind == "CMYK":
        rgb = picture(300, 200)
        return Image.merge("CMYK", [*rgb.split(), rgb.getchannel("G")]), printed_cmyk(), "TIFF"
    if kind == "grey":
        return picture(300, 200, "L"), linear_grey(), "PNG"
    image = picture(300, 200)
    if kind == "alpha":
        image.putalpha(picture(300, 200, "L"))
    return image, display_p3(), "PNG"


@pytest.mark.parametrize("below", [0, 10**6])
@pytest.mark.parametrize("kind", ["RGB", "grey"])
def test_a_profile_is_applied_to_resized_pixels(kind: str, below: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, profile, form = stored(kind)
    monkeypatch.setattr(resampling, "WHOLE_UP_TO", below)
    small = image.transpose(Image.Transpose.ROTATE_270).resize((50, 75), Image.Resampling.BICUBIC)
    unresized = PREPROCESSING.changed(resize="none")
    expected = apply_preprocessing(unresized, through(profile, small.crop((5, 18, 45, 58))))
    data = encoded(image, form, icc_profile=profile, exif=exif_orientation(6))
    assert np.array_equal(apply_preprocessing(PREPROCESSING, decode(data)), expected)
    assert not np.array_equal(apply_preprocessing(PREPROCESSING, decode(data).image), expected)


@pytest.mark.parametrize("kind", ["CMYK", "alpha"])
def test_profiles_of_inks_and_under_alpha_are_applied_to_all_pixels(kind: str) -> None:
    image, profile, form = stored(kind)
    if kind == "CMYK":
        whole = through(profile, image)
    else:
        whole = Image.new("RGB", image.size, "white")
        whole.paste(through(profile, image.convert("RGB")), mask=image.getchannel("A"))
    tensor = apply_preprocessing(PREPROCESSING, decode(encoded(image, form, icc_profile=profile)))
    assert np.array_equal(tensor, apply_preprocessing(PREPROCESSING, whole))


@pytest.mark.parametrize(
    "preprocessing", [Preprocessing(resize="none"), Preprocessing(size=(40, 40), resize="squash", float_resize=True)]
)
def test_a_profile_is_applied_to_all_pixels_where_no_bytes_are_resized(preprocessing: Preprocessing) -> None:
    image, profile, form = stored("RGB")
    tensor = apply_preprocessing(preprocessing, decode(encoded(image, form, icc_profile=profile)))
    assert np.array_equal(tensor, apply_preprocessing(preprocessing, through(profile, image)))


def test_the_order_of_earlier_versions() -> None:
    image, profile, form = stored("RGB")
    photo = decode(encoded(image, form, icc_profile=profile))
    photo.apply_profile()
    expected = apply_preprocessing(PREPROCESSING, through(profile, image))
    assert np.array_equal(apply_preprocessing(PREPROCESSING, photo), expected)
