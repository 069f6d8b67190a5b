"""Texts as names of files and folders, good on any system."""

from __future__ import annotations

from hashlib import blake2b
from unicodedata import normalize

LONGEST = 200  # bytes; with a checksum or a number behind it below the 255 that file systems take
_FORBIDDEN = frozenset('/\\:*?"<>|')  # on one system or another
# Windows takes these for devices, whatever follows a dot.
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"}
_DEVICES |= {f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"}


def safe_name(text: str) -> str:
    """The text as one component of a path. Different texts can have the same name; ``checksum`` tells them apart."""
    text = "".join(c if c.isprintable() and c not in _FORBIDDEN else "_" for c in normalize("NFC", text))
    text = text.encode()[:LONGEST].decode("utf-8", "ignore").strip(". ")  # a dot in front would hide it
    return f"_{text}" if not text or text.partition(".")[0].rstrip().casefold() in _DEVICES else text


def name_key(text: str) -> str:
    """A key that is the same for names that some file system takes for one: capitals and composition do not count."""
    return normalize("NFC", normalize("NFD", text).casefold())


def checksum(data: bytes) -> str:
    """Eight characters that tell texts apart."""
    return blake2b(data, digest_size=4).hexdigest()
