"""A font that has the characters of a label: Pillow's own, or one of the system's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from unicodedata import normalize

from PIL import ImageFont

# Fonts of Linux, Windows and macOS, in the order in which they are tried. Pillow searches the folders of the system.
_SYSTEM = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "segoeui.ttf", "arial.ttf", "Arial Unicode.ttf"),
    *("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "msyh.ttc", "msgothic.ttc", "malgun.ttf", "PingFang.ttc"),
)
_NO_CHARACTER = "\uffff"  # whose glyph is that of a missing character


def font_for(text: str, size: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """A font, and the text as it can draw it.

    Args:
        text: one line.
        size: in pixels.

    Returns:
        The first font that has all characters; if none does, Pillow's own, and the text without accents, with "?" for
        what it still lacks.
    """
    for font in _fonts(size):
        if all(_has(font, character) for character in set(text)):
            return font, text
    font = next(_fonts(size))
    letters = (character for character in normalize("NFKD", text) if not "\u0300" <= character <= "\u036f")
    return font, "".join(character if _has(font, character) else "?" for character in letters)


def _fonts(size: int) -> Iterator[ImageFont.FreeTypeFont]:
    for name in ("", *_SYSTEM):
        if (font := _font(name, size)) is not None:
            yield font


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    """A font by the name of its file, "" for Pillow's own; None where it is missing."""
    if not name:
        own = ImageFont.load_default(size)
        assert isinstance(own, ImageFont.FreeTypeFont)
        return own
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@cache
def _has(font: ImageFont.FreeTypeFont, character: str) -> bool:
    return character.isspace() or _glyph(font, character) != _glyph(font, _NO_CHARACTER)


def _glyph(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)
