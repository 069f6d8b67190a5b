"""Whose process this is: the command's own, or that of a program which runs a command within it."""

from __future__ import annotations

_is_owned = False


def own() -> None:
    """The process is there for the command alone."""
    global _is_owned
    _is_owned = True


def is_owned() -> bool:
    """Whether the process is there for the command alone."""
    return _is_owned
