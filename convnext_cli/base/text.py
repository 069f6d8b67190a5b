"""Text of others: characters that every output can hold, and JSON and TOML with one kind of error."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import Any


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


def json_value(text: str | bytes, **options: Any) -> Any:
    """As json.loads reads it. Raises ValueError even for a text that is nested deeper than Python can follow."""
    return _shallow(lambda: json.loads(text, **options), "JSON")


def toml_values(text: str) -> dict[str, Any]:
    """As tomllib reads it. Raises ValueError even for a text that is nested deeper than Python can follow."""
    values: dict[str, Any] = _shallow(lambda: tomllib.loads(text), "TOML")
    return values


def _shallow(parse: Callable[[], Any], language: str) -> Any:
    try:
        return parse()
    except RecursionError:
        raise ValueError(f"this {language} is nested too deeply") from None
