"""What a JPEG's segments say before a decoder sees it (ITU-T T.81, annex B), and files that no encoder writes.

A scan of a few bytes costs as much as one of a whole photo, and there may be thousands; so may segments, each of which
Pillow handles in Python.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from convnext_cli.base.errors import PhotoError

# Pixels that all scans together may have: a hundred for a photo of 80 megapixels. Encoders write some ten.
MOST_IN_SCANS = 8_000_000_000
_FEWEST_IN_SCAN = 1 << 14  # what it costs to begin one
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
_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # no zero that is stuffed in, no restart


@dataclass(slots=True)
class Header:
    """What stands before the first scan's data.

    frame: height, width, the number of components, and three bytes for each of them; empty where there is no frame.
    scans_follow: whether all coefficients are kept until the last scan has come. at: where the first scan's data begin.
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
        """Their bytes for each pixel: two for each value, of which components that are sampled have fewer."""
        samplings = [(byte >> 4, byte & 15) for byte in self.frame[6::3]]
        blocks = sum(across * down for across, down in samplings)
        most = max((across for across, _ in samplings), default=1) * max((down for _, down in samplings), default=1)
        return 2 * blocks / max(1, most)


def read_header(data: bytes) -> Header:
    """The header of a JPEG; as far as it goes where it is cut or damaged. Raises PhotoError for what is endless."""
    at, junk, segments, length = 2, 0, 0, len(data) - 4
    frame, progressive = b"", False
    while at <= length:
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0x00 or marker == 0xFF:
            found = _MARKER.search(data, at)
            end = found.start() if found else len(data)
            junk += end - at
            if junk > _MOST_JUNK:
                raise PhotoError("corrupt", "the JPEG file has no picture behind its first bytes")
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
    """Raises PhotoError, too_large, for more scans than any encoder writes."""
    if not header.scans_follow:
        return
    width, height = header.size
    cost = max(width * height, _FEWEST_IN_SCAN)
    # counted at once, with those of thumbnails and of what is hung on; one by one only if there are many
    if (len(data) - header.at) // _SHORTEST_SCAN * cost <= MOST_IN_SCANS:
        return
    if len(_SCANS.findall(data, header.at)) * cost <= MOST_IN_SCANS:
        return
    scans, at = 1, header.at
    while found := _IN_SCAN.search(data, at):
        marker = data[found.end() - 1]
        if marker == _END:
            break
        scans += marker == _SCAN
        if scans * cost > MOST_IN_SCANS:
            raise PhotoError("too_large", f"the JPEG file has more than {scans - 1:,} scans; encoders write about ten")
        at = found.end() + (0 if marker in _ALONE else int.from_bytes(data[found.end() : found.end() + 2], "big"))
