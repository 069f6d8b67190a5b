"""The picture of a map: the photo, the photo with its map, and a caption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from convnext_cli.explanation.fonts import font_for
from convnext_cli.explanation.maps import Explanation, GuessMap

if TYPE_CHECKING:
    Floats = np.ndarray[Any, np.dtype[np.float64]]

EDGE = 512  # pixels of the photo's longer edge in a picture
_LEAST_EDGE = 320  # a smaller photo is enlarged to this
# Orange and blue of Okabe and Ito (jfly.uni-koeln.de/color), which people of any colour vision tell apart.
FOR, AGAINST = (230, 159, 0), (0, 114, 178)
_STRONGEST = 0.85  # opacity of full colour
# Beside orange a neutral grey looks blue.
_WARM = np.array([76.0, 71.0, 62.0])
_PAD, _GAP, _TEXT, _SMALL = 14, 10, 19, 14
_INK, _FAINT, _PAPER = (20, 20, 20), (90, 90, 90), (255, 255, 255)
_LEAST_WIDTH = 560  # of the caption


def draw(explanation: Explanation, guess: GuessMap) -> Image.Image:
    """The picture of one guess.

    Args:
        explanation: of a photo, with its thumbnail.
        guess: one of its maps.
    """
    photo = explanation.row.thumbnail
    assert photo is not None
    photo = _enlarged(photo)
    panels = [photo.copy(), draw_map(photo, explanation, guess)]
    draw_frame(panels[0], explanation)
    lines = _caption(explanation, guess)
    width = max(2 * photo.width + _GAP, _LEAST_WIDTH) + 2 * _PAD
    height = photo.height + 2 * _PAD + _TEXT + 8 + len(lines) * (_SMALL + 7)
    page = Image.new("RGB", (width, height), _PAPER)
    left = (width - 2 * photo.width - _GAP) // 2
    for place, panel in enumerate(panels):
        page.paste(panel, (left + place * (photo.width + _GAP), _PAD))
    pen, x, y = ImageDraw.Draw(page), min(left, _PAD + 60), photo.height + _PAD + 8
    font, score = font_for(f"{guess.prediction.score:.4f}", _TEXT)
    pen.text((width - x, y), score, _INK, font, anchor="ra")
    room = width - 2 * x - font.getlength(score) - 14
    font, title = font_for(f"{guess.prediction.rank}. {guess.prediction.label}", _TEXT)
    pen.text((x, y), _shortened(title, font, room), _INK, font)
    y += _TEXT + 8
    for colour, text in lines:
        if colour is not None:
            pen.rectangle((x, y + 2, x + _SMALL - 3, y + _SMALL - 1), colour)
        pen.text((x + (_SMALL + 4 if colour is not None else 0), y), text, _FAINT, font_for(text, _SMALL)[0])
        y += _SMALL + 7
    return page


def draw_map(photo: Image.Image, explanation: Explanation, guess: GuessMap, *, line: int = 2) -> Image.Image:
    """The photo in grey, with the map on it and the frame of the crop.

    Args:
        photo: mode RGB, the photo at any size.
        explanation: of the photo.
        guess: one of its maps. Full colour is the largest evidence over all maps of the explanation.
        line: width of the frame, in pixels.
    """
    values = values_on(photo.size, explanation, guess)
    scale = explanation.scale or 1.0
    grey = np.asarray(photo.convert("L"), np.float64)[..., None] * 0.6 + _WARM
    colour = np.where(values[..., None] > 0, np.array(FOR, np.float64), np.array(AGAINST, np.float64))
    opacity = _STRONGEST * (np.abs(values) / scale).clip(0, 1)[..., None]
    image = Image.fromarray((grey * (1 - opacity) + colour * opacity).round().astype(np.uint8))
    draw_frame(image, explanation, line=line)
    return image


def draw_frame(image: Image.Image, explanation: Explanation, *, line: int = 2) -> None:
    """Draw the edge of what the network saw, where it is inside the photo.

    Args:
        image: the photo at any size; it is changed.
        explanation: of the photo.
        line: width in pixels.
    """
    width, height = explanation.row.width, explanation.row.height
    assert width is not None and height is not None
    left, top, right, bottom = explanation.crop
    across, down = image.width / width, image.height / height
    box = (
        max(0, round(left * across)),
        max(0, round(top * down)),
        min(image.width, round(right * across)) - 1,
        min(image.height, round(bottom * down)) - 1,
    )
    if box[2] - box[0] < 2 * line or box[3] - box[1] < 2 * line:
        return
    pen = ImageDraw.Draw(image)
    pen.rectangle(box, outline=(255, 255, 255), width=line)
    if line > 1:  # a dark edge, so that the frame is seen on a white wall too
        inner = (box[0] + line, box[1] + line, box[2] - line, box[3] - line)
        pen.rectangle(inner, outline=_INK, width=1)


def values_on(size: tuple[int, int], explanation: Explanation, guess: GuessMap) -> Floats:
    """The evidence at each pixel of the photo, between the places by bilinear interpolation; 0 outside them.

    Args:
        size: (width, height) of the photo in pixels, at any scale.
        explanation: of the photo.
        guess: one of its maps.

    Returns:
        float64 (height, width).
    """
    row, (left, top, right, bottom) = explanation.row, explanation.box
    assert row.width is not None and row.height is not None
    rows, columns = guess.evidence.shape
    down = _interpolation(size[1], row.height, (top, bottom), rows)
    across = _interpolation(size[0], row.width, (left, right), columns)
    values: Floats = down @ guess.evidence @ across.T
    return values


def _interpolation(pixels: int, edge: int, span: tuple[float, float], places: int) -> Floats:
    """The weight of each place in each pixel along one edge, (pixels, places).

    Args:
        pixels: of the drawn edge.
        edge: the same edge of the photo in its own pixels.
        span: the part of it that the places cover.
        places: their number.
    """
    position = ((np.arange(pixels) + 0.5) * edge / pixels - span[0]) / (span[1] - span[0]) * places
    between = (position - 0.5).clip(0, places - 1)
    first = np.floor(between).astype(int)
    weights = np.zeros((pixels, places))
    weights[np.arange(pixels), first] = 1 - (between - first)
    weights[np.arange(pixels), np.minimum(first + 1, places - 1)] += between - first
    weights[(position < 0) | (position > places)] = 0
    return weights


def _caption(explanation: Explanation, guess: GuessMap) -> list[tuple[tuple[int, int, int] | None, str]]:
    """Lines below the label, each with the colour that it explains, or None."""
    lines: list[tuple[tuple[int, int, int] | None, str]] = [
        (FOR, f"speaks for it: {guess.speaks_for:+.2f}"),
        (AGAINST, f"speaks against it: {guess.speaks_against:z.2f}   (full colour: {explanation.scale:.2f})"),
    ]
    if explanation.linearised:
        lines.append((None, "The classifier has a hidden layer: the map is a linearisation around this photo."))
    return lines


def _enlarged(photo: Image.Image) -> Image.Image:
    factor = _LEAST_EDGE / max(photo.size)
    if factor <= 1:
        return photo
    return photo.resize((max(1, round(photo.width * factor)), max(1, round(photo.height * factor))))


def _shortened(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text, without its end where it is wider than this many pixels."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"
