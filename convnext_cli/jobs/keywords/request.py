"""Writing a job's labels as keywords, as ``label`` is asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from convnext_cli.base.errors import UsageError
from convnext_cli.jobs.keywords import xmp
from convnext_cli.jobs.keywords.words import ROOT, root_of

if TYPE_CHECKING:
    from convnext_cli.jobs.store import Store

Place = Literal["sidecar", "embed"]
_PHRASES = {"sidecar": "write keywords beside photos", "embed": "write keywords into photos"}


@dataclass(frozen=True, kw_only=True)
class KeywordsRequest:
    """Labels as keywords, beside or in the photos.

    Args:
        place: a sidecar, or the photo itself.
        naming: of sidecars: "append" for photo.jpg.xmp, "replace" for photo.xmp; None for "append".
        root: the keyword that ours stand below.
        tree: whether they stand in the tree of WordNet; None for yes.
        remove: take our keywords out again, and write none.

    Raises:
        UsageError: a value is out of range, or cannot take effect.
    """

    place: Place
    naming: xmp.Naming | None = None
    root: str = ROOT
    tree: bool | None = None
    remove: bool = False

    def __post_init__(self) -> None:
        if self.place not in get_args(Place):
            raise UsageError(f"place must be one of {', '.join(get_args(Place))}, not {self.place!r}")
        if self.naming not in (None, *get_args(xmp.Naming)):
            raise UsageError(f"naming must be one of {', '.join(get_args(xmp.Naming))}, not {self.naming!r}")
        if self.place == "embed" and self.naming is not None:
            raise UsageError(
                "--xmp-naming is for --xmp sidecar: embedded keywords have no file of their own", "leave it out"
            )
        without = [
            name for name, value in (("--xmp-naming", self.naming), ("--no-xmp-tree", self.tree)) if value is not None
        ]
        if self.remove and without:
            raise UsageError("--xmp-remove writes no keywords", f"leave {' and '.join(without)} out")
        root_of(self.root)

    @property
    def phrase(self) -> str:
        """In words, how it changes photos or the files beside them; "" if it only removes keywords."""
        return "" if self.remove else _PHRASES[self.place]

    def check(self) -> None:
        """Raises UnavailableError where keywords are embedded, and there is no program for it."""
        if self.place == "embed":
            from convnext_cli.jobs.keywords.exiftool import ExifTool

            ExifTool().close()


def write_keywords(store: Store, request: KeywordsRequest) -> xmp.Written:
    """Write the keywords of the photos that the last walk found, or take them out.

    Args:
        store: their rows; the new state of photos that this changes is noted there.
        request: where to, and how.

    Raises:
        UnavailableError: keywords are embedded, and there is no program for it.
        OutputError: the disk is full.
    """
    entries, root = store.entries(looked_at=True), request.root
    if request.remove and request.place == "sidecar":
        written = xmp.remove_sidecars(entries, root=root)
    elif request.remove:
        written = xmp.remove_embedded(entries, root=root, touched=store.touched)
    elif request.place == "sidecar":
        naming = request.naming or "append"
        written = xmp.write_sidecars(entries, naming=naming, root=root, tree=request.tree is not False)
    else:
        written = xmp.embed(entries, root=root, tree=request.tree is not False, touched=store.touched)
    store.commit()
    return written
