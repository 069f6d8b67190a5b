"""Files of every kind, whole and damaged, become upright RGB or a failure of the right kind."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngImageFile

from convnext_cli.base.errors import PhotoError
from convnext_cli.photos import decode as decode_module
from convnext_cli.photos import large_photos
from convnext_cli.photos.decode import decode, looks_like_image, read_file, sniff
from tests.helpers import photos as made
from tests.helpers.photos import encoded, exif_orientation, picture


def heic(image: Image.Image, **options: Any) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif has no wheel for this machine")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, **options)
    return file.getvalue()


def failure(data: bytes, **options: Any) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        decode(data, **options)
    return caught.value


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    image = decode(data).image
    assert image.mode == "RGB"
    return np.asarray(image)


FORMATS: dict[str, bytes] = {
    "jpeg": encoded(picture(60, 40), "JPEG"),
    "png": encoded(picture(60, 40), "PNG"),
    "webp": encoded(picture(60, 40), "WEBP"),
    "gif": encoded(picture(60, 40), "GIF"),
    "tiff": encoded(picture(60, 40), "TIFF"),
    "bmp": encoded(picture(60, 40), "BMP"),
    "avif": encoded(picture(60, 40), "AVIF"),
}


@pytest.mark.parametrize("name", [*FORMATS, "heic"])
def test_every_format_is_told_by_its_bytes_and_read(name: str) -> None:
    data = FORMATS.get(name) or heic(picture(60, 40))
    decoded = decode(data)
    assert (decoded.format, decoded.width, decoded.height) == (name, 60, 40)
    assert decoded.image.mode == "RGB" and decoded.image.size == (60, 40)
    near = np.abs(np.asarray(decoded.image).astype(int) - np.asarray(picture(60, 40)).astype(int)).mean()
    assert near < 40
    assert sniff(data[:64]) == name and looks_like_image(data[:64])


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("compression", [None, "tga_rle"])
def test_targa_is_no_icon(mode: str, compression: str | None) -> None:
    """It has no signature, and an uncompressed one begins with the bytes of a cursor."""
    buffer = io.BytesIO()
    picture(30, 20, "RGBA").convert(mode).save(buffer, "TGA", compression=compression)
    assert sniff(buffer.getvalue()) == "tga"
    with pytest.raises(PhotoError, match="Targa") as error:
        decode(buffer.getvalue())
    assert error.value.kind == "unsupported"


@pytest.mark.parametrize("name", ["png", "bmp", "tiff"])
def test_lossless_formats_keep_every_pixel(name: str) -> None:
    assert np.array_equal(pixels(FORMATS[name]), np.asarray(picture(60, 40)))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"%PDF-1.7\n", "pdf"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "eps"),
        (b"\xc5\xd0\xd3\xc6", "eps"),
        (b"<?xml version='1.0'?><svg xmlns='x'>", "svg"),
        (b"\xef\xbb\xbf  <svg>", "svg"),
        (b"<!DOCTYPE html><html>", "html"),
        (b"8BPS\0\1", "psd"),
        (b"\0\0\1\0\1\0", "ico"),
        (b"\0\0\2\0\1\0\x20\x20\0\0", "ico"),  # a cursor
        (bytes(64), None),
        (b"\0\0\0\x0cjP  \r\n", "jp2"),
        (b"\xff\x0a", "jxl"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "avif"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", "heic"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw"),
        (b"II*\0\x10\0\0\0CR\2\0", "raw"),
        (b"FUJIFILMCCD-RAW 0201", "raw"),
        (b"P6\n3 3\n255\n", "pnm"),
        (b"version https://git-lfs.github.com/spec/v1\n", "lfs"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"BMW is a car maker, and this is a text", None),
        (b"Plain text", None),
        (b"", None),
        (b"\xff", None),
        (b"\0" * 64, None),
    ],
)
def test_signatures(head: bytes, name: str | None) -> None:
    assert sniff(head) == name


def dng(order: str = "<") -> bytes:
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HLHHHL4s", 42, 8, 1, 0xC612, 1, 4, b"\1\4\0\0")


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_dng_is_raw_though_it_is_a_tiff_outside(order: str) -> None:
    assert sniff(dng(order)) == "raw"


def test_a_nikon_raw_is_told_by_maker_and_sub_images() -> None:
    entries = struct.pack("<HHLL", 0x10F, 2, 6, 100) + struct.pack("<HHLL", 0x14A, 4, 1, 200)
    head = b"II*\0" + struct.pack("<LH", 8, 2) + entries
    assert sniff(head.ljust(100, b"\0") + b"NIKON\0") == "raw"
    assert sniff(head.ljust(100, b"\0") + b"Adobe\0") == "tiff"


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", "empty", "empty"),
        (b"hello, world", "not_an_image", "not those of a known image format"),
        (b"<html><body>404 not found", "not_an_image", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "not_an_image", "Git LFS"),
        (b"%PDF-1.4", "unsupported", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported", "PostScript"),
        (b"8BPS\0\1", "unsupported", "Photoshop"),
        (b"\0\0\1\0\1\0", "unsupported", "an icon"),
        (b"\xff\xd8\xff\xe0", "truncated", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "truncated", "PNG"),
        (b"BM" + bytes(12) + b"\x28\0\0\0" + bytes(36), "unsupported", "BMP"),
        (FORMATS["png"].replace(b"IHDR", b"IHDX"), "corrupt", "PNG"),
        (FORMATS["jpeg"].replace(b"\xff\xc0", b"\xff\xc3"), "corrupt", "JPEG"),
    ],
)
def test_failures_are_named(data: bytes, kind: str, words: str) -> None:
    error = failure(data)
    assert error.kind == kind
    assert words in error.message
    assert "0x" not in error.message and "BytesIO" not in error.message


def test_ghostscript_and_other_decoders_are_never_loaded() -> None:
    script = (
        "import sys; from convnext_cli.photos.decode import decode; from convnext_cli.base.errors import PhotoError\n"
        "for data in (b'%!PS-Adobe-3.0 EPSF-3.0\\n%%BoundingBox: 0 0 9 9\\n', b'8BPS', sys.stdin.buffer.read()):\n"
        "    try: decode(data)\n"
        "    except PhotoError: pass\n"
        "print(sorted(m for m in sys.modules if m.endswith('ImagePlugin')))"
    )
    done = subprocess.run([sys.executable, "-c", script], input=FORMATS["png"], capture_output=True, check=True)
    assert done.stdout.decode().split() == ["['PIL.PngImagePlugin']"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_is_applied(form: str, value: int) -> None:
    straight = picture(48, 32)
    turns = Image.Transpose
    # What a camera held so would have stored: the inverse of what a viewer must do.
    stored = {
        1: straight,
        2: straight.transpose(turns.FLIP_LEFT_RIGHT),
        3: straight.transpose(turns.ROTATE_180),
        4: straight.transpose(turns.FLIP_TOP_BOTTOM),
        5: straight.transpose(turns.TRANSPOSE),
        6: straight.transpose(turns.ROTATE_90),
        7: straight.transpose(turns.TRANSVERSE),
        8: straight.transpose(turns.ROTATE_270),
    }[value]
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}, "AVIF": {"quality": 100}}.get(
        form, {}
    )
    data = encoded(stored, form, exif=exif_orientation(value), **options)
    decoded = decode(data)
    assert (decoded.width, decoded.height) == decoded.image.size == (48, 32)
    away = np.abs(np.asarray(decoded.image).astype(int) - np.asarray(straight).astype(int)).mean()
    assert away < (1e-9 if form in ("PNG", "WEBP", "TIFF") else 25)
    unturned = np.abs(np.asarray(straight).astype(int) - np.asarray(stored.resize((48, 32))).astype(int)).mean()
    assert value == 1 or unturned > 30  # so the limit above can fail


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage", b"Exif\0\0", b"\0" * 30])
def test_damaged_exif_costs_nothing(exif: bytes) -> None:
    data = encoded(picture(60, 40), "JPEG", exif=exif)
    assert np.array_equal(pixels(data), pixels(FORMATS["jpeg"]))


def test_orientation_that_is_no_turn_is_ignored() -> None:
    data = encoded(picture(60, 40), "PNG", exif=exif_orientation(99))
    assert np.array_equal(pixels(data), np.asarray(picture(60, 40)))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LAB"])
def test_modes_become_rgb(mode: str) -> None:
    if mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        image = transform.apply(picture(60, 40))
    else:
        image = picture(60, 40, mode)
    data = encoded(image, "TIFF" if mode in ("CMYK", "YCbCr", "LAB") else "PNG")
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pixels(data).astype(int) - expected).max() <= (2 if mode in ("YCbCr", "LAB") else 0)


def test_cmyk_jpeg_of_adobe_is_not_inverted() -> None:
    image = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    assert pixels(encoded(image, "JPEG")).min() > 250


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA", "P-transparent", "L-transparent", "RGB-transparent"])
def test_alpha_is_laid_over_white(mode: str) -> None:
    size = (8, 4)
    if mode == "LA":
        data = encoded(Image.new("LA", size, (0, 128)))
        expected = (127, 127, 127)
    elif mode == "RGBA":
        data = encoded(Image.new("RGBA", size, (200, 0, 0, 0)))
        expected = (255, 255, 255)
    elif mode == "PA":
        data = encoded(Image.new("RGBA", size, (200, 0, 0, 0)).quantize(4))
        expected = (255, 255, 255)
    elif mode == "P-transparent":
        palette = Image.new("P", size, 1)
        palette.putpalette([10, 20, 30, 40, 50, 60])
        data = encoded(palette, transparency=1)
        expected = (255, 255, 255)
    elif mode == "L-transparent":
        data = encoded(Image.new("L", size, 7), transparency=7)
        expected = (255, 255, 255)
    else:
        data = encoded(Image.new("RGB", size, (1, 2, 3)), transparency=(1, 2, 3))
        expected = (255, 255, 255)
    assert np.abs(pixels(data).astype(int) - expected).max() <= 1


def test_opaque_alpha_changes_nothing() -> None:
    image = picture(30, 20)
    image.putalpha(255)
    assert np.array_equal(pixels(encoded(image)), np.asarray(picture(30, 20)))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.array([[0, 257, 128 * 257, 65535, 300]], np.uint16)
    for form in ("PNG", "TIFF"):
        assert pixels(encoded(Image.fromarray(ramp), form))[0, :, 0].tolist() == [0, 1, 128, 255, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([1000.0, 1500.0, 2000.0], [0, 128, 255]),
        ([float("nan"), 0.0, 1.0], [0, 0, 255]),
        ([float("-inf"), 0.0, float("inf")], [0, 0, 255]),
        ([float("nan")] * 3, [0, 0, 0]),
    ],
)
def test_floats(values: list[float], expected: list[int]) -> None:
    data = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert pixels(data)[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 100, 255], [0, 100, 255]), ([0, 257, 65535], [0, 1, 255]), ([-100, 0, 100], [0, 128, 255])],
)
def test_integers_of_32_bits(values: list[int], expected: list[int]) -> None:
    data = encoded(Image.fromarray(np.array([values], np.int32)), "TIFF")
    assert pixels(data)[0, :, 0].tolist() == expected


def wide_profile() -> bytes:
    """A profile with sRGB's curve and red and green exchanged, so that a photo through it is told at once."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">L", profile[128:132])[0]
    tags = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = (struct.unpack(">L", profile[tags[t] + 4 : tags[t] + 8])[0] for t in (b"rXYZ", b"gXYZ"))
    profile[red : red + 20], profile[green : green + 20] = profile[green : green + 20], profile[red : red + 20]
    return bytes(profile)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_an_embedded_profile_is_applied(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    photo = picture(40, 30)
    found = pixels(encoded(photo, form, icc_profile=wide_profile(), **options)).astype(int)
    exchanged = np.asarray(photo)[..., [1, 0, 2]].astype(int)
    assert np.abs(found - exchanged).max() <= 3


def test_srgb_by_any_name_changes_no_pixel() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(pixels(encoded(picture(40, 30), icc_profile=profile)), np.asarray(picture(40, 30)))


@pytest.mark.parametrize(
    "profile", [b"", b"no profile at all", wide_profile()[:200], wide_profile()[:140] + bytes(400)]
)
def test_a_damaged_profile_is_taken_as_srgb(profile: bytes) -> None:
    assert np.array_equal(pixels(encoded(picture(40, 30), icc_profile=profile)), np.asarray(picture(40, 30)))


def test_a_profile_of_other_pixels_is_not_applied() -> None:
    grey = picture(40, 30, "L")
    found = pixels(encoded(grey, "TIFF", icc_profile=wide_profile()))
    assert np.array_equal(found, np.asarray(grey.convert("RGB")))


def test_a_profile_works_under_alpha() -> None:
    photo = picture(40, 30)
    photo.putalpha(255)
    found = pixels(encoded(photo, icc_profile=wide_profile())).astype(int)
    assert np.abs(found - np.asarray(picture(40, 30))[..., [1, 0, 2]].astype(int)).max() <= 3


def test_of_moving_and_multipage_files_the_first_image_counts() -> None:
    first, second = picture(20, 10, seed=1), picture(20, 10, seed=2)
    for form in ("PNG", "TIFF"):
        data = encoded(first, form, save_all=True, append_images=[second])
        assert np.array_equal(pixels(data), np.asarray(first))
    for form in ("WEBP", "GIF", "MPO"):
        data = encoded(first, form, save_all=True, append_images=[second])
        near, far = (np.abs(pixels(data).astype(int) - np.asarray(p).astype(int)).mean() for p in (first, second))
        assert near < far


@pytest.mark.parametrize("name", [*FORMATS, "heic", "tiff-lzw", "jpeg-progressive"])
def test_every_truncation_is_a_failure_never_a_picture(name: str) -> None:
    photo = picture(300, 200)
    data = {
        "heic": lambda: heic(photo),
        "tiff-lzw": lambda: encoded(photo, "TIFF", compression="tiff_lzw"),
        "jpeg-progressive": lambda: encoded(photo, "JPEG", progressive=True),
    }.get(name, lambda: encoded(photo, name))()
    for length in range(64, len(data) - 16, max(1024, len(data) // 40)):
        assert failure(data[:length]).kind == "truncated"


def test_a_bomb_is_refused_from_its_header() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))

    header = struct.pack(">LLBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    error = failure(data)
    assert error.kind == "too_large"
    assert "100,000 × 100,000" in error.message and "--max-pixels" in error.message


def runs(width: int, height: int, data: bytes) -> bytes:
    """A run-length coded BMP of 256 colours, all of them black."""
    start = 14 + 40 + 1024
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + bytes(1024) + data


def test_a_bmp_of_runs_that_would_take_gigabytes_is_refused() -> None:
    """Its decoder holds the pixels several times, and takes seconds for the end of a long line."""
    assert decode(runs(200, 3, b"\xc8\0\0\0" * 3 + b"\0\1")).image.size == (200, 3)
    for width, height in ((190_000_000, 1), (14_000, 14_000)):
        error = failure(runs(width, height, b"\1\1\0\0"))
        assert error.kind == "too_large" and "GB of memory" in error.message


def test_max_pixels_is_exact() -> None:
    assert decode(FORMATS["png"], max_pixels=2400).image.size == (60, 40)
    assert failure(FORMATS["png"], max_pixels=2399).kind == "too_large"
    assert failure(FORMATS["webp"], max_pixels=2400 * 4 - 1).kind == "too_large"
    assert decode(FORMATS["webp"], max_pixels=2400 * 4).image.size == (60, 40)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "F", "L", "P"])
def test_huge_photos_are_converted_band_by_band(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands save memory and change no pixel."""
    grey = np.asarray(picture(301, 203, "L"))
    if mode == "I;16":
        photo = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "F":
        photo = Image.fromarray(grey.astype(np.float32) / 255)
    else:
        photo = picture(301, 203, mode if mode != "RGBA" else "RGB")
        if mode == "RGBA":
            photo.putalpha(Image.fromarray(grey))
    data = encoded(photo, "TIFF" if mode == "F" else "PNG")
    whole = decode(data).image
    monkeypatch.setattr("convnext_cli.photos.colour.WHOLE_BELOW", 100)
    monkeypatch.setattr("convnext_cli.photos.colour.BAND_PIXELS", 2_000)
    assert np.array_equal(np.asarray(whole), np.asarray(decode(data).image))


def test_without_pillow_heif_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(picture(60, 40))
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    error = failure(data)
    assert error.kind == "unsupported" and "pip install pillow-heif" in error.message


@pytest.mark.parametrize(("orientation", "size"), [(1, (400, 300)), (6, (300, 400)), (3, (400, 300)), (8, (300, 400))])
def test_camera_raw_is_developed_upright(orientation: int, size: tuple[int, int]) -> None:
    pytest.importorskip("rawpy", reason="the extra raw is not installed")
    decoded = decode(made.dng(orientation))
    assert (decoded.width, decoded.height) == decoded.image.size == size
    assert decoded.format == "raw" and decoded.image.mode == "RGB"
    grey = np.asarray(decoded.image.convert("L")).astype(int)
    across, down = grey[:, -1].mean() - grey[:, 0].mean(), grey[-1].mean() - grey[0].mean()
    assert {1: across, 6: down, 3: -across, 8: -down}[orientation] > 100


class TestFastRaw:
    """A preview that is red on its left and blue on its right: it shows which way it was turned."""

    def preview(self, width: int = 200, height: int = 150, **options: Any) -> bytes:
        image = Image.new("RGB", (width, height), "blue")
        image.paste("red", (0, 0, width // 2, height))
        return encoded(image, "JPEG", **options)

    def with_exif(self, orientation: int) -> bytes:
        """One that begins with EXIF, to which LibRaw adds none."""
        data = self.preview(exif=made.exif_orientation(orientation))
        return data[:2] + data[data.index(b"\xff\xe1") :]

    def corner(self, data: bytes, enough: int | None) -> str:
        """The colour of the first pixel, once the sizes are checked."""
        pytest.importorskip("rawpy", reason="the extra raw is not installed")
        decoded = decode(data, enough=enough)
        whole = decode(data)
        assert (decoded.width, decoded.height) == whole.image.size == (whole.width, whole.height)
        assert min(decoded.image.size) >= (enough or 300) and decoded.format == "raw"
        red, _, blue = np.asarray(decoded.image)[5, 5].astype(int)
        return "red" if red > blue + 99 else "blue" if blue > red + 99 else "grey"

    @pytest.mark.parametrize(("orientation", "corner"), [(1, "red"), (6, "red"), (3, "blue"), (8, "blue")])
    def test_the_preview_is_taken_upright(self, orientation: int, corner: str) -> None:
        data = made.dng_with_preview(self.preview(), orientation)
        assert self.corner(data, 150) == self.corner(data, 60) == corner
        assert self.corner(data, None) == "grey"

    def test_one_that_is_too_small_is_not(self) -> None:
        data = made.dng_with_preview(self.preview())
        assert self.corner(data, 151) == "grey"

    def test_one_of_another_shape_is_not(self) -> None:
        assert self.corner(made.dng_with_preview(self.preview(200, 112)), 60) == "grey"
        # turned on its side, and by its own EXIF not to be turned
        assert self.corner(made.dng_with_preview(self.with_exif(1), 6), 60) == "grey"

    def test_one_that_may_be_upside_down_is_not(self) -> None:
        assert self.corner(made.dng_with_preview(self.with_exif(1), 3), 60) == "grey"
        assert self.corner(made.dng_with_preview(self.with_exif(3), 3), 60) == "blue"

    def test_a_damaged_one_is_not(self) -> None:
        data = made.dng_with_preview(self.preview())
        assert self.corner(data[:-200], 60) == "grey"

    @pytest.mark.parametrize(("enough", "height"), [(150, 150), (151, 300), (40, 150)])
    def test_half_the_size_without_a_preview(self, enough: int, height: int) -> None:
        pytest.importorskip("rawpy", reason="the extra raw is not installed")
        decoded = decode(made.dng(), enough=enough)
        assert decoded.image.size == (height * 4 // 3, height) and (decoded.width, decoded.height) == (400, 300)
        turned = decode(made.dng(6), enough=enough)
        assert turned.image.size == (height, height * 4 // 3) and (turned.width, turned.height) == (300, 400)


def test_cut_camera_raw_is_truncated() -> None:
    pytest.importorskip("rawpy", reason="the extra raw is not installed")
    data = made.dng()
    assert {failure(data[:length]).kind for length in (300, 2000, len(data) // 2)} == {"truncated"}


def test_without_rawpy_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    error = failure(dng())
    assert error.kind == "unsupported" and "pip install rawpy" in error.message


def test_many_threads_decode_the_same_pixels() -> None:
    files = [*FORMATS.values(), encoded(picture(60, 40), icc_profile=wide_profile())] * 8
    alone = [decode(data).image.tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        assert [decoded.image.tobytes() for decoded in pool.map(decode, files)] == alone


def test_large_photos_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    def held_while_loading(photo: Any) -> None:
        held.append(large_photos._one_large.locked())
        load(photo)

    held: list[bool] = []
    load = PngImageFile.load
    monkeypatch.setattr(PngImageFile, "load", held_while_loading)
    decode(FORMATS["png"])
    monkeypatch.setattr(large_photos, "ONE_AT_A_TIME", 100)
    decode(FORMATS["png"])
    assert held[0] is False and held[-1] is True
    assert not large_photos._one_large.locked()


@settings(max_examples=150)
@given(st.sampled_from(sorted(FORMATS)), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8))
def test_flipped_bytes_end_as_a_picture_or_a_photo_error(name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(FORMATS[name])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        assert decode(bytes(data), max_pixels=1_000_000).image.mode == "RGB"
    except PhotoError as error:
        assert "0x" not in error.message and "object at" not in error.message


@given(st.binary(max_size=300))
def test_any_bytes_can_be_sniffed(data: bytes) -> None:
    assert sniff(data) is None or isinstance(sniff(data), str)


def test_nothing_is_printed_or_warned(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\0\0\0\6\0\0\0" * 3
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(picture(60, 40), "JPEG", exif=exif))
    command = [sys.executable, "-W", "default", "-m", "convnext_cli", "classify", "-q", "-k", "1", str(file)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.startswith(bytes(file)) and done.stderr == b""


class TestReadFile:
    def kind(self, path: str | Path) -> str:
        with pytest.raises(PhotoError) as caught:
            read_file(str(path))
        return caught.value.kind

    def test_bytes(self, tmp_path: Path) -> None:
        file = tmp_path / os.fsdecode(b"a\xfc\n'[red].jpg")
        file.write_bytes(b"abc")
        assert read_file(str(file)) == b"abc"

    def test_missing(self, tmp_path: Path) -> None:
        assert self.kind(tmp_path / "none.jpg") == "missing"
        assert self.kind("a\0b.jpg") == "missing"
        assert self.kind(tmp_path / ("x" * 5000)) == "missing"

    def test_links(self, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "dangling").symlink_to("nowhere")
        assert self.kind(tmp_path / "loop") == "missing"
        assert self.kind(tmp_path / "dangling") == "missing"

    def test_a_file_taken_for_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x")
        assert self.kind(tmp_path / "file" / "a.jpg") == "missing"

    def test_not_a_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert self.kind(tmp_path / "pipe") == "not_a_file"
        assert self.kind(tmp_path) == "not_a_file"
        assert self.kind("/dev/zero") == "not_a_file"

    def test_a_socket(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # a socket's path must be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s")
            assert self.kind("s") == "not_a_file"

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").touch()
        assert self.kind(tmp_path / "a.jpg") == "empty"

    def test_too_large(self, tmp_path: Path) -> None:
        with (tmp_path / "a.jpg").open("wb") as file:
            file.truncate(decode_module.MAX_FILE_BYTES + 1)  # sparse
        assert self.kind(tmp_path / "a.jpg") == "too_large"

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_permission(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"x")
        (tmp_path / "a.jpg").chmod(0)
        assert self.kind(tmp_path / "a.jpg") == "permission"


def test_a_decoder_that_wants_to_end_the_program_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def gives_up(*_: object) -> None:
        raise SystemExit(3)

    monkeypatch.setattr("convnext_cli.photos.decode._decode", gives_up)
    with pytest.raises(PhotoError) as error:
        decode(encoded(picture(60, 40), "JPEG"))
    assert error.value.kind == "corrupt"
