"""The format of a file, by its first bytes, never by its suffix.

Sources of the signatures: the formats' own specifications (JFIF, PNG, RIFF, ISO 14496-12 brands, TIFF 6.0, DNG 1.7).
"""

from __future__ import annotations

import struct

# Formats that are decoded, by the name that ``sniff`` gives, and how a message names them.
READABLE = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WebP",
    "gif": "GIF",
    "tiff": "TIFF",
    "bmp": "BMP",
    "avif": "AVIF",
    "heic": "HEIC",
    "raw": "camera raw",
}
# Raster images that are recognised and refused.
REFUSED = {
    "psd": "Photoshop",
    "ico": "icon",
    "jp2": "JPEG 2000",
    "jxl": "JPEG XL",
    "dds": "DDS texture",
    "exr": "OpenEXR",
    "hdr": "Radiance HDR",
    "pnm": "PNM",
    "qoi": "QOI",
    "fits": "FITS",
    "dicom": "DICOM",
    "icns": "Apple icon",
    "xcf": "GIMP",
    "sgi": "SGI",
    "pcx": "PCX",
    "djvu": "DjVu",
    "mng": "MNG",
    "fli": "FLIC animation",
    "blp": "BLP texture",
    "sun": "Sun raster",
    "tga": "Targa",
}
# Documents, drawings and videos are not photos, whatever pictures they hold. A walk over a folder skips them.
NOT_PHOTOS = {
    "pdf": "PDF document",
    "eps": "PostScript document",
    "svg": "SVG drawing",
    "wmf": "Windows metafile",
    "video": "video",
    "html": "web page",
    "lfs": "Git LFS pointer",
}

_RAW = (
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl "
    ".sr2 .srf .srw .x3f"
)
_IMAGES = (
    ".jpg .jpeg .jpe .jfif .jif .mpo .png .apng .webp .gif .tif .tiff .bmp .dib .avif .avifs .heic .heics .heif .heifs "
    ".hif .jp2 .j2k .j2c .jpx .jpf .jxl .psd .ico .tga .ppm .pgm .pbm .pnm .qoi .exr .hdr .dds "
    # old formats: a failed row says that they cannot be read
    ".cur .dcx .eps .fpx .icns .msp .pcd .pcx .ras .sgi .sun .xbm .xpm"
)
# Bytes from a file's beginning that say which format it is.
HEAD = 4096
# Suffixes that say "image", in lower case with the dot.
IMAGE_SUFFIXES = frozenset((_RAW + " " + _IMAGES).split())

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"IIRO", "raw"),  # Olympus
    (b"IIRS", "raw"),
    (b"MMOR", "raw"),
    (b"IIU\0", "raw"),  # Panasonic, Leica
    (b"FUJIFILMCCD-RAW", "raw"),
    (b"FOVb", "raw"),  # Sigma
    (b"\0MRM", "raw"),  # Minolta
    (b"II\x1a\0\0\0HEAPCCDR", "raw"),  # Canon CRW
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),  # BigTIFF
    (b"MM\0+", "tiff"),
    (b"8BPS", "psd"),
    (b"\0\0\0\x0cjP  ", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
    (b"\0\0\0\x0cJXL ", "jxl"),
    (b"\xff\x0a", "jxl"),
    (b"DDS ", "dds"),
    (b"v/1\x01", "exr"),
    (b"#?RADIANCE", "hdr"),
    (b"#?RGBE", "hdr"),
    (b"qoif", "qoi"),
    (b"SIMPLE  =", "fits"),
    (b"icns", "icns"),
    (b"gimp xcf", "xcf"),
    (b"\x01\xda\0\1", "sgi"),
    (b"\x01\xda\1\1", "sgi"),
    (b"AT&TFORM", "djvu"),
    (b"\x8aMNG", "mng"),
    (b"BLP1", "blp"),
    (b"BLP2", "blp"),
    (b"\x59\xa6\x6a\x95", "sun"),
    (b"%PDF-", "pdf"),
    (b"%!PS", "eps"),
    (b"\xc5\xd0\xd3\xc6", "eps"),
    (b"\xd7\xcd\xc6\x9a", "wmf"),
    (b"\x1aE\xdf\xa3", "video"),
    (b"version https://git-lfs", "lfs"),
)

_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"}
_RAW_MAKERS = (b"NIKON", b"SONY", b"PENTAX", b"SAMSUNG", b"Hasselblad", b"Phase One", b"Leaf", b"Mamiya", b"KODAK")


def sniff(head: bytes) -> str | None:
    """The format that the first bytes (4096 are plenty) belong to: a key of the tables above, or None."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return _tiff_or_raw(head) if name == "tiff" else name
    if head[:4] in (b"RIFF", b"RIFX"):
        return {b"WEBP": "webp", b"AVI ": "video"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _brand(head)
    if head[:2] == b"BM" and _u32(head, 14) in (12, 16, 40, 52, 56, 64, 108, 124):
        return "bmp"
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3].isspace():
        return "pnm"
    if head[128:132] == b"DICM":
        return "dicom"
    if head[:1] == b"\x0a" and head[1:2] in b"\0\2\3\4\5" and head[2:3] == b"\1" and head[3:4] in b"\1\2\4\x08":
        return "pcx"
    if head[:4] in (b"\0\0\1\0", b"\0\0\2\0") and head[4:6] != b"\0\0":  # the kind, and how many pictures
        return "ico"
    if _is_targa(head):
        return "tga"
    if head[4:6] in (b"\x11\xaf", b"\x12\xaf"):
        return "fli"
    return _markup(head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower())


def looks_like_image(head: bytes) -> bool:
    """Whether a file with these first bytes is an image, whether it can be read or not."""
    return sniff(head) not in (None, *NOT_PHOTOS)


def is_readable(head: bytes) -> bool:
    """Whether these first bytes (``HEAD`` of them, or the whole file) are those of a photo that can be decoded."""
    return sniff(head) in READABLE


def describe(name: str) -> str:
    """The name of a format in messages: ``describe("jp2")`` is "JPEG 2000"."""
    return READABLE.get(name) or REFUSED.get(name) or NOT_PHOTOS.get(name, name)


def cut_short(name: str, data: bytes) -> bool:
    """Whether a file of this format ends before its own structure says that it does.

    Called only after decoding has failed, to distinguish a truncated file from a corrupt one.
    """
    if name == "jpeg":
        return b"\xff\xd9" not in data[-1024:]
    if name == "png":
        return b"IEND" not in data[-64:]
    if name == "gif":
        return b";" not in data[-16:]
    if name == "webp":
        return len(data) < 12 or len(data) < _u32(data, 4) + 8
    if name == "bmp":
        return len(data) < 26 or len(data) < _u32(data, 2)
    if name in ("avif", "heic"):
        return _boxes_end_beyond(data)
    return name == "tiff" and _strips_end_beyond(data)


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _is_targa(head: bytes) -> bool:
    """Whether this is Targa, which has no signature: all of its 18 bytes must make sense."""
    if len(head) < 18 or head[1] > 1:
        return False
    palette, kind, depth, size = head[1], head[2] & 7, head[16], head[12:16]
    if kind not in (1, 2, 3) or head[2] & ~0xB or (kind == 1) != bool(palette):
        return False
    depths_of_colour = (15, 16, 24, 32)
    colours = head[7] in depths_of_colour if palette else head[3:8] == bytes(5)
    depths = {1: (8, 16), 2: depths_of_colour, 3: (8, 16)}[kind]
    return colours and depth in depths and b"\0\0" not in (size[:2], size[2:]) and not head[17] & 0xC0


def _brand(head: bytes) -> str | None:
    """The kind of an ISO base media file, from its major brand, then from its compatible ones."""
    size = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, min(size, len(head), 256), 4))]
    if brands[0] == b"crx ":
        return "raw"  # Canon CR3
    if _AVIF_BRANDS & {brands[0]} or (brands[0] in (b"mif1", b"msf1", b"miaf") and _AVIF_BRANDS & set(brands)):
        return "avif"
    if _HEIC_BRANDS & set(brands):
        return "heic"
    if brands[0] == b"jxl ":
        return "jxl"
    return "video" if brands[0].strip() else None


def _tiff_or_raw(head: bytes) -> str:
    """TIFF, or a camera's raw file in the form of a TIFF (DNG, CR2, NEF, ARW and others)."""
    if head[8:10] == b"CR":
        return "raw"
    order, tags = _first_directory(head)
    if 0xC612 in tags:  # DNGVersion
        return "raw"
    if 0x10F in tags and 0x14A in tags:  # a camera's name, and further images in SubIFDs: the first one is a thumbnail
        _, number, value = tags[0x10F]
        where = _place(order, value)
        if head[where : where + number].startswith(_RAW_MAKERS):
            return "raw"
    return "tiff"


def _first_directory(data: bytes) -> tuple[str, dict[int, tuple[int, int, bytes]]]:
    """The byte order for ``struct``, and type, number and value (or offset) of each tag of a TIFF's first directory.

    Empty when it begins beyond the data, and for BigTIFF.
    """
    order = "<" if data[:2] == b"II" else ">"
    try:
        magic, at = struct.unpack_from(f"{order}HL", data, 2)
        (count,) = struct.unpack_from(f"{order}H", data, at if magic == 42 else len(data))
        entries = [struct.unpack_from(f"{order}HHL4s", data, at + 2 + 12 * i) for i in range(count)]
    except struct.error:
        return order, {}
    return order, {tag: (kind, number, value) for tag, kind, number, value in entries}


def _strips_end_beyond(data: bytes) -> bool:
    """Whether the directory, or one of the strips or tiles that it points to, ends beyond the end of a TIFF."""
    order, tags = _first_directory(data)

    def numbers(tag: int) -> tuple[int, ...]:
        kind, number, value = tags.get(tag, (0, 0, b""))
        letter = {3: "H", 4: "L"}.get(kind)
        if letter is None:
            return ()
        layout = struct.Struct(f"{order}{number}{letter}")
        return layout.unpack_from(value if layout.size <= 4 else data, 0 if layout.size <= 4 else _place(order, value))

    try:
        starts, lengths = numbers(0x111) or numbers(0x144), numbers(0x117) or numbers(0x145)
    except (struct.error, OverflowError, MemoryError):
        return True
    return not tags or any(a + b > len(data) for a, b in zip(starts, lengths, strict=False))


def _place(order: str, value: bytes) -> int:
    return int(struct.unpack(f"{order}L", value)[0])


def _markup(text: bytes) -> str | None:
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in text):
        return "svg"
    return "html" if text.startswith((b"<!doctype html", b"<html")) else None


def _boxes_end_beyond(data: bytes) -> bool:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size == 0:  # to the end of the file
            return False
        if size < 8:
            return False
        at += size
    return at != len(data)
