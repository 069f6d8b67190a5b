"""The pictures in the folder that ``-o`` names: a safe name for each, and no other file is ever replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import OutputError, UsageError
from convnext_cli.base.file_names import checksum, name_key, safe_name
from convnext_cli.base.files import replacing, unwritten
from convnext_cli.base.text import well_formed
from convnext_cli.storage.addresses import check_output

if TYPE_CHECKING:
    from PIL.Image import Image

    from convnext_cli.explanation.maps import GuessMap

_MARK = b"convnext explain"  # in a text of the PNG, near its beginning
_LONGEST_STEM = 150  # bytes
STANDARD_INPUT = "-"  # the path of a photo that came as bytes


class PictureFiles:
    """Writes pictures as ``cat-1.png``, ``cat-2.png`` …: the name of the photo, and the rank of the guess.

    A second photo of the same name gets a checksum of its path: ``cat~1a2b3c4d-1.png``.

    Args:
        folder: where they go; created if it is missing.
        overwrite: whether older pictures of this program may be replaced.

    Raises:
        UsageError: it is a URL or a file.
        OutputError: the folder above it does not exist.
    """

    def __init__(self, folder: str | Path, *, overwrite: bool) -> None:
        check_output(str(folder))  # as it was typed: a Path takes a slash out of a URL
        folder = Path(folder)
        if folder.suffix.lower() == ".png" or (folder.exists() and not folder.is_dir()):
            raise UsageError(f"{folder} is not a folder", "-o names a folder for the pictures, such as -o maps")
        if not folder.absolute().parent.is_dir():
            raise OutputError(f"the folder of {folder} does not exist", f"mkdir -p {folder.parent}")
        self._folder, self._overwrite = folder, overwrite
        self._stems: dict[str, str] = {}  # the path of the photo that has a name, by the name's key
        self._written: set[Path] = set()
        self._without_name = 0  # photos so far that came as bytes

    def check_free(self, photo: str) -> None:
        """Raise UsageError if the first picture of a photo exists and may not be replaced.

        Args:
            photo: its path.
        """
        self._check(self._folder / f"{_stem(photo)}-1.png")

    def paths(self, photo: str, count: int) -> list[Path]:
        """The files for the pictures of a photo.

        Args:
            photo: its path.
            count: how many pictures there are.

        Raises:
            UsageError: one exists, and may not be replaced.
        """
        stem = _stem(photo)
        self._without_name += photo == STANDARD_INPUT
        if photo == STANDARD_INPUT and self._without_name > 1:
            stem = f"{stem}~{self._without_name}"
        elif self._stems.setdefault(name_key(stem), photo) != photo:
            stem = f"{stem}~{checksum(os.fsencode(photo))}"
        paths = [self._folder / f"{stem}-{rank}.png" for rank in range(1, count + 1)]
        for path in paths:
            self._check(path)
        return paths

    def write(self, image: Image, guess: GuessMap) -> None:
        """Write a picture under the name that it has, with the label as text inside.

        Raises:
            OutputError: it cannot be written.
        """
        from PIL.PngImagePlugin import PngInfo

        assert guess.file is not None
        texts, prediction = PngInfo(), guess.prediction
        texts.add_text("Software", _MARK.decode())
        texts.add_itxt("Title", well_formed(prediction.label))
        texts.add_itxt("Description", f"rank {prediction.rank}, score {prediction.score:.4f}")
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritten(self._folder, error) from error
        with replacing(guess.file) as stream:
            image.save(stream, "PNG", pnginfo=texts)
        self._written.add(guess.file)

    def _check(self, path: Path) -> None:
        if path in self._written or not (path.exists() or path.is_symlink()):
            return
        if not self._overwrite:
            raise UsageError(f"{path} already exists", "choose another folder, or replace it with --overwrite")
        if not _is_ours(path):
            raise UsageError(f"{path} is not a picture of convnext explain", "choose another folder")


def _stem(photo: str) -> str:
    """The name of a photo without its folder and type, as a safe name."""
    name = photo.rstrip("/").rpartition("/")[2]
    stem, _, suffix = name.rpartition(".")
    if not stem or len(suffix) > 32:
        stem = name
    short = safe_name(stem).encode()[:_LONGEST_STEM].decode("utf-8", "ignore").rstrip()
    return "photo" if photo == STANDARD_INPUT else short


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return _MARK in stream.read(4096)
    except OSError:
        return False
