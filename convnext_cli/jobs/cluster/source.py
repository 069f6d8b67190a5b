"""Source: what is to be labelled, in a form that can go to another machine and be walked there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from glob import has_magic
from io import BytesIO
from itertools import chain

from convnext_cli.photos.find import Finder
from convnext_cli.photos.photo import Photo


@dataclass(frozen=True)
class Source:
    """paths: as the user named them. listed: a list of more, None for none; null: its paths end with NUL bytes."""

    finder: Finder
    paths: tuple[str, ...]
    listed: bytes | None = None
    null: bool = False

    def photos(self) -> Iterator[Photo]:
        """Walk. Raises at once what ``Finder.named`` raises."""
        named = self.finder.named(self.paths)
        if self.listed is None:
            return named
        return chain(named, self.finder.listed(BytesIO(self.listed), null=self.null))

    @property
    def names(self) -> list[str]:
        """What tells sources apart."""
        return [*(path.rstrip("/") or path for path in self.paths), *(["a list"] if self.listed is not None else [])]

    @property
    def may_repeat(self) -> bool:
        """Whether a photo may be reached twice."""
        return len(self.paths) > 1 or self.listed is not None or has_magic(self.paths[0])
