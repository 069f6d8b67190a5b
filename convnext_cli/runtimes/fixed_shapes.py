"""What a model file has decided about its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Fixed:
    """Of a network from weights nothing is fixed.

    size: (height, width) in pixels, None for any. batch: photos in one call, None for any number. ends: the function of
    the logits that the file ends with; "" where it gives logits.
    """

    size: tuple[int | None, int | None] = (None, None)
    batch: int | None = None
    ends: Literal["", "softmax", "sigmoid"] = ""

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether photos of (height, width) pixels go in."""
        return all(edge in (None, asked) for edge, asked in zip(self.size, size, strict=True))
