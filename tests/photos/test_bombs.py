"""Small photos that would take gigabytes or minutes: refused from their headers, and sound ones are not."""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image, ImageCms

from convnext_cli.base.errors import PhotoError
from convnext_cli.photos import colour, jpeg
from convnext_cli.photos.decode import decode
from tests.helpers.photos import encoded, exif_orientation, picture

_BEGUN = re.compile("damaged|ends too early")  # what is said of files that are let through, and have no picture
EDGE = 14_100  # 199 megapixels, just below the limit


def refused(data: bytes, words: str, kind: str = "too_large") -> None:
    with pytest.raises(PhotoError, match=words) as error:
        decode(data)
    assert error.value.kind == kind


def progressive(width: int, height: int, scans: int, mode: str = "L", behind: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan is there so many times more. behind: what is hung on."""
    data = encoded(Image.new(mode, (width, height), 90), "JPEG", progressive=True, quality=50)
    scan = data[max(data.rfind(b"\xff\xda"), 0) : -2]
    return data[:-2] + scan * scans + b"\xff\xd9" + behind


class TestScans:
    def test_thousands_are_refused(self) -> None:
        refused(progressive(3000, 2000, 1400), "more than 1,333 scans")
        refused(progressive(3000, 2000, 1400, behind=b"\xff\xda" * 99), "more than 1,333 scans")

    def test_thousands_of_a_tiny_photo_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jpeg, "MOST_IN_SCANS", 2000 * (1 << 14))
        refused(progressive(8, 8, 2100), "more than 2,000 scans")
        assert decode(progressive(8, 8, 1900)).width == 8

    def test_many_are_not(self) -> None:
        assert decode(progressive(300, 200, 200)).width == 300

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_what_is_hung_on_and_thumbnails_do_not_count(self, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jpeg, "MOST_IN_SCANS", 40 * 300 * 200)
        hung_on = random.Random(0).randbytes(1000) + b"\xff\xda" * 5000  # a film, further pictures
        assert decode(progressive(300, 200, 3, mode, hung_on)).width == 300
        thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 6 + 200) + b"Exif\0\0" + b"\xff\xda" * 100
        data = progressive(300, 200, 3, mode)
        assert decode(data[:2] + thumbnail + data[2:]).width == 300

    def test_sequential_photos_may_have_several(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jpeg, "MOST_IN_SCANS", 10 * (1 << 14))
        data = encoded(picture(64, 64), "JPEG")
        at = data.index(b"\xff\xda")
        one = data[:at] + b"\xff\xda\0\x08\x01\x01\x00\0\x3f\0" + b"\0" * 9
        refused(one + b"\xff\xda\0\x08\x01\x01\x00\0\x3f\0\0" * 20 + b"\xff\xd9", "more than 10 scans")

    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "progressive": True}])
    def test_the_header_of_a_sound_photo(self, options: dict[str, object]) -> None:
        data = encoded(picture(90, 70), "JPEG", exif=exif_orientation(3), **options)
        header = jpeg.read_header(data)
        assert header.size == (90, 70) and header.scans_follow == bool(options)
        assert header.coefficients == (6 if "subsampling" in options else 3)
        assert data[header.at - 3 : header.at][:1] == b"\0" and header.at > data.index(b"\xff\xda")


@pytest.mark.parametrize("junk", [b"\0", b"\xff", b"\xff\0", b"\xff\xff\0"])
def test_a_jpeg_of_junk(junk: bytes) -> None:
    refused(b"\xff\xd8\xff" + junk * 3_000_000, "no picture after its first bytes", "corrupt")
    # a little is passed over, as decoders do
    data = encoded(picture(20, 20), "JPEG")
    assert decode(data[:2] + b"\xff" * 500 + data[2:]).width == 20


def test_a_jpeg_of_segments() -> None:
    data = encoded(picture(20, 20), "JPEG")
    part = b"\xff\xe1\0\x48Exif\0\0" + bytes(64)
    refused(data[:2] + part * 50_000 + data[2:], "more than 2,000 segments", "corrupt")
    assert decode(data[:2] + b"\xff\xe5\0\x04ab" * 1500 + data[2:]).width == 20


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, colour: int, depth: int = 8, more: bytes = b"") -> bytes:
    """A header, and data that are not looked at."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


class TestMemory:
    def test_modes_that_need_a_second_picture(self) -> None:
        for data in (
            png(EDGE, EDGE, 6),
            png(EDGE, EDGE, 0, 16),
            png(EDGE, EDGE, 4),
            png(EDGE, EDGE, 2, more=chunk(b"eXIf", exif_orientation(6)[6:])),
        ):
            refused(data, "bytes would take 1.[2-6] GB of memory to decode")
            with pytest.raises(PhotoError, match=_BEGUN):
                decode(data.replace(struct.pack(">II", EDGE, EDGE), struct.pack(">II", 900, 900)))

    def test_more_may_be_allowed(self) -> None:
        with pytest.raises(PhotoError, match="of memory to decode"):
            decode(png(30_000, 30_000, 6), max_pixels=1_000_000_000)
        with pytest.raises(PhotoError, match=_BEGUN):
            decode(png(12_000, 12_000, 6), max_pixels=400_000_000)

    def test_files_that_are_not_small_are_not_held_to_it(self) -> None:
        data = png(12_000, 12_000, 6)
        refused(data, "of memory to decode")
        # 10 MB, as a photo of so many pixels has
        with pytest.raises(PhotoError, match=_BEGUN):
            decode(data + bytes(10_000_000))

    def test_coefficients_that_wait_for_all_scans(self) -> None:
        frame = struct.pack(">BHHB", 8, 11_500, 11_500, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
        data = encoded(picture(64, 64), "JPEG", progressive=True, subsampling=0)
        at = data.index(b"\xff\xc2\0\x11")
        refused(data[: at + 4] + frame + data[at + 4 + len(frame) :], "1.3 GB of memory to decode")


def tiff(width: int, height: int, big: bool, **tags: int) -> bytes:
    """A TIFF with a header alone, deflated, of four samples. tags: by number, as ``t322=…``."""
    values = {256: width, 257: height, 258: 8, 259: 8, 262: 2, 277: 4, 338: 2} | {
        int(k[1:]): v for k, v in tags.items()
    }
    values |= {279: 10, 273: 8} if 322 not in values else {324: 8, 325: 10}
    form, counts = ("<HHQQ", "<Q") if big else ("<HHLL", "<H")
    entries = b"".join(struct.pack(form, tag, 4, 1, value) for tag, value in sorted(values.items()))
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHL", b"II", 42, 8)
    return head + struct.pack(counts, len(values)) + entries + bytes(8) + bytes(64)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        lambda big: tiff(1, 1, big, t322=22_000, t323=22_000),
        lambda big: tiff(1, 140_000, big, t322=14_000, t323=14_000),
        lambda big: tiff(100_000, 10, big, t322=16, t323=1_000_000),
    ],
)
def test_tiles_beyond_the_picture(big: bool, data: Callable[[bool], bytes]) -> None:
    refused(data(big), "far larger than its")


@pytest.mark.parametrize("big", [False, True])
def test_a_strip_of_the_whole_picture(big: bool) -> None:
    refused(tiff(EDGE, EDGE, big, t278=EDGE), "2.4 GB of memory to decode")
    refused(tiff(EDGE, EDGE, big, t278=2**32 - 1), "2.4 GB of memory to decode")


@pytest.mark.parametrize("tile", [16, 256, 1024])
def test_ordinary_tiles(tile: int) -> None:
    image = Image.new("RGB", (300, 200), "red")
    assert decode(encoded(image, "TIFF", compression="tiff_deflate")).width == 300
    data = encoded(image, "TIFF", tiffinfo={322: tile, 323: tile}, compression="tiff_deflate")
    assert decode(data).width == 300


def test_profiles_of_megabytes_are_used_and_not_kept() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for size in (0, 2 << 20):
        data = encoded(picture(20, 20), "JPEG", icc_profile=profile + bytes(size))
        colour._transform.cache_clear()
        assert decode(data).image.tobytes() == decode(encoded(picture(20, 20), "JPEG")).image.tobytes()
        assert colour._transform.cache_info().currsize == (not size)
