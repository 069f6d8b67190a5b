"""Text: other people's characters made safe, counts and durations in words, JSON and TOML with one kind of error."""

from __future__ import annotations

import html
import json
import re
import tomllib
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

# What JSON and TOML hold, before anything has checked it.
JsonValue: TypeAlias = Any
JsonObject: TypeAlias = dict[str, JsonValue]

# Control characters, marks of direction, line separators, and bytes that are not UTF-8.
_HIDING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def well_formed(text: str) -> str:
    """The text with lone surrogates written out: a byte that is not UTF-8 as ``\\xfc``, others as ``\\ud800``.

    Nothing that holds one can be written as UTF-8, into Parquet or into SQLite.
    """
    if is_well_formed(text):
        return text
    return "".join(escaped(character) if "\ud800" <= character <= "\udfff" else character for character in text)


def is_well_formed(text: str) -> bool:
    """Whether a text is free of lone surrogates, so that it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escaped(character: str) -> str:
    """One character as Python writes it in a string; a byte that is not UTF-8 (PEP 383) as that byte."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def html_text(text: str) -> str:
    """Escape text for an HTML page: markup, and characters that hide or reverse other text."""
    return html.escape(_HIDING.sub(lambda match: escaped(match[0]), text))


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 row, 2 rows."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """A duration as people say it: 3 s, 12 min, 5 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def json_value(text: str | bytes) -> JsonValue:
    """The value that json.loads reads.

    Raises:
        ValueError: the text is not valid, or is nested deeper than Python can follow.
    """
    return _shallow(lambda: json.loads(text), "JSON")


def toml_values(text: str) -> JsonObject:
    """The values that tomllib reads.

    Raises:
        ValueError: the text is not valid, or is nested deeper than Python can follow.
    """
    return _shallow(lambda: tomllib.loads(text), "TOML")


def _shallow(parse: Callable[[], T], language: str) -> T:
    try:
        return parse()
    except RecursionError:
        raise ValueError(f"this {language} is nested too deeply") from None
