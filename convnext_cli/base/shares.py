"""Shares and scores as people write them: 0.5 or 50%."""

from __future__ import annotations


def parse(text: str) -> float:
    """A number, or a percentage as a share of 1: "0.5" and "50%" are 0.5.

    Raises:
        ValueError: the text is neither.
    """
    if is_percentage(text):
        return float(text.strip()[:-1]) / 100
    return float(text)


def is_percentage(text: str) -> bool:
    """Whether a number is written with a percent sign."""
    return text.strip().endswith("%")
