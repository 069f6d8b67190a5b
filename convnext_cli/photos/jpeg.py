"""The segments of a JPEG, read before it is decoded (ITU-T T.81, annex B), to refuse files that no encoder writes.

A scan of a few bytes costs as much as one of a whole photo, and there may be thousands; so may segments, each of which
Pillow handles in Python.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from convnext_cli.base.errors import PhotoError

# Pixels that all scans together may have: a hundred scans for a photo of 80 megapixels. Encoders write about ten.
MOST_IN_SCANS = 8_000_000_000
_FEWEST_IN_SCAN = 1 << 14  # the cost of starting a scan
# Segments before the first scan, and bytes between them that belong to none. A profile takes up to 255 segments, and
# depth maps in XMP some hundred.
_MOST_SEGMENTS, _MOST_JUNK = 2000, 1 << 16
_PROGRESSIVE = frozenset(b"\xc2\xc6\xca\xce")
_FRAMES = frozenset(range(0xC0, 0xD0)) - frozenset(b"\xc4\xc8\xcc")
_ALONE = frozenset((0x01, *range(0xD0, 0xDA)))  # markers without a segment
_SCAN, _END = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[^\xff\x00]")
_SCANS = re.compile(rb"\xff\xda")  # faster than bytes.count
_SHORTEST_SCAN = 11  # bytes
_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not a stuffed zero, and not a restart marker


@dataclass(slots=True)
class Header:
    """The part of a JPEG before the data of its first scan.

    Args:
        frame: height, width, the number of components, and three bytes for each component; empty without a frame.
        scans_follow: whether the decoder keeps all coefficients until the last scan.
        at: index at which the data of the first scan begin.
    """

    frame: bytes = b""
    scans_follow: bool = False
    at: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return int.from_bytes(self.frame[2:4], "big"), int.from_bytes(self.frame[0:2], "big")

    @property
    def coefficients(self) -> float:
        """Bytes of the coefficients for each pixel: two for each value; subsampled components have fewer values."""
        samplings = [(byte >> 4, byte & 15) for byte in self.frame[6::3]]
        blocks = sum(across * down for across, down in samplings)
        most = max((across for across, _ in samplings), default=1) * max((down for _, down in samplings), default=1)
        return 2 * blocks / max(1, most)


def read_header(data: bytes) -> Header:
    """The header of a JPEG; of a truncated or damaged one the part that can be read.

    Raises:
        PhotoError: there are far too many segments, or too many bytes between them.
    """
    at, junk, segments, length = 2, 0, 0, len(data) - 4
    frame, progressive = b"", False
    while at <= length:
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0x00 or marker == 0xFF:
            match = _MARKER.search(data, at)
            end = match.start() if match else len(data)
            junk += end - at
            if junk > _MOST_JUNK:
                raise PhotoError("corrupt", "the JPEG file has no picture after its first bytes")
            at = end
            continue
        segments += 1
        if segments > _MOST_SEGMENTS:
            raise PhotoError("corrupt", f"the JPEG file has more than {_MOST_SEGMENTS:,} segments before its picture")
        if marker in _ALONE:
            at += 2
            continue
        size = data[at + 2] << 8 | data[at + 3]
        if marker == _SCAN:
            several = progressive or (len(frame) > 4 and at < length and data[at + 4] < frame[4])
            return Header(frame, several, at + 2 + size)
        if marker in _FRAMES:
            frame, progressive = data[at + 5 : at + 2 + size], marker in _PROGRESSIVE
        at += 2 + max(2, size)
    return Header(frame, progressive)


def check_scans(data: bytes, header: Header) -> None:
    """Raise PhotoError, too_large, for more scans than any encoder writes."""
    if not header.scans_follow:
        return
    width, height = header.size
    cost = max(width * height, _FEWEST_IN_SCAN)
    # counted at once, with those of thumbnails and of appended data; one by one only if there are many
    if (len(data) - header.at) // _SHORTEST_SCAN * cost <= MOST_IN_SCANS:
        return
    if len(_SCANS.findall(data, header.at)) * cost <= MOST_IN_SCANS:
        return
    scans, at = 1, header.at
    while match := _IN_SCAN.search(data, at):
        marker = data[match.end() - 1]
        if marker == _END:
            break
        scans += marker == _SCAN
        if scans * cost > MOST_IN_SCANS:
            raise PhotoError("too_large", f"the JPEG file has more than {scans - 1:,} scans; encoders write about ten")
        at = match.end() + (0 if marker in _ALONE else int.from_bytes(data[match.end() : match.end() + 2], "big"))
