"""The verb ``classify``: photos, and a row for each as soon as it is labelled."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from convnext_cli.base.errors import UsageError
from convnext_cli.base.listener import SILENT, Listener
from convnext_cli.photos.containers.shards import is_container
from convnext_cli.photos.photo import Photo
from convnext_cli.photos.selection import PhotoSelection
from convnext_cli.predict.open import open_predictor, remarks
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.preprocess import InFlight
from convnext_cli.predict.rows import Row
from convnext_cli.storage.addresses import is_url
from convnext_cli.storage.listing import is_glob

Photos = str | Path | bytes | PhotoSelection | Iterable[str | Path | bytes]
FEW = 16  # photos that any engine labels at once: preparing a faster one would take longer


@dataclass(frozen=True, kw_only=True)
class ClassifyRequest:
    """The request of ``classify``.

    Args:
        photos: a selection; or paths of photos, and the bytes of files.
        predictor: the model, and how it answers.
        thumbnail: edge in pixels of the small picture that each row keeps; 0 for none.
    """

    photos: PhotoSelection | tuple[str | Path | bytes, ...]
    predictor: PredictorOptions = field(default_factory=PredictorOptions)
    thumbnail: int = 0


@dataclass(frozen=True)
class Classification:
    """A model that is open, and the rows to come.

    Args:
        predictor: the model; its ``times`` count the photos.
        rows: one row a photo, in their order; each is computed when it is asked for.
        passed_over: counts, by type, the files that are not photos.
    """

    predictor: Predictor
    rows: Iterator[Row]
    passed_over: Mapping[str, int]


def classify(request: ClassifyRequest | Photos, listener: Listener = SILENT, **options: object) -> list[Row]:
    """Label photos, and return their rows.

    Args:
        request: what to do; or photos: a selection, one path, the bytes of one file, or several of these two.
        listener: receives notes.
        options: with photos, the fields of ``PredictorOptions``: ``classify("photo.jpg", model="tiny", k=3)``.

    Returns:
        One row a photo, in their order. A photo that cannot be read is a row that says so.

    Raises:
        ConvNextError: the model cannot be used, no photo is found, or an option has no effect.
    """
    if not isinstance(request, ClassifyRequest):
        request = ClassifyRequest(photos=_selected(request), predictor=PredictorOptions.of(**options))
    elif options:
        raise UsageError("a ClassifyRequest already holds all options", "pass the request alone")
    with open_classification(request, listener) as classification:
        return list(classification.rows)


@contextmanager
def open_classification(
    request: ClassifyRequest,
    listener: Listener = SILENT,
    *,
    in_flight: Callable[[], AbstractContextManager[InFlight | None]] = nullcontext,
    fetch: Callable[[str | Path | None], None] | None = None,
) -> Iterator[Classification]:
    """Do what ``classify`` does, but yield each row as soon as it is there, for any number of photos.

    Args:
        request: what to do.
        listener: receives notes.
        in_flight: entered while photos are labelled; yields where these are recorded.
        fetch: called with the model's name before it is opened, to fetch it where it is missing.

    Raises:
        ConvNextError: as for ``classify``.
    """
    selection, options = request.photos, request.predictor
    passed_over: Mapping[str, int] = {}
    if isinstance(selection, PhotoSelection):
        finder = selection.finder(shards="opened")
        photos, passed_over = selection.photos(finder), finder.passed_over
        if finder.looked_into and not selection.recursive:
            more = f" and {len(finder.looked_into) - 1} more" if finder.looked_into[1:] else ""
            listener.note(f"searching the folder {finder.looked_into[0]}{more}")
        few = len(selection.paths) if _is_few(selection) else None
    else:
        photos = (Photo("-", photo) if isinstance(photo, bytes) else Photo(os.fspath(photo)) for photo in selection)
        few = len(selection)
    if fetch is not None:
        fetch(options.model.model)
    with ExitStack() as stack:
        predictor = open_predictor(
            options,
            job="throughput" if few is None else "latency",
            photos=few,
            prepare=few is None or (options.model.engine != "auto" and isinstance(selection, PhotoSelection)),
            thumbnail=request.thumbnail,
            say=listener.note,
        )
        stack.callback(predictor.engine.close)
        for remark in remarks(predictor, options):
            listener.note(remark)
        noting = predictor.noting(stack.enter_context(in_flight()))
        yield Classification(noting, noting.rows(photos), passed_over)


def _selected(photos: Photos) -> PhotoSelection | tuple[str | Path | bytes, ...]:
    if isinstance(photos, PhotoSelection):
        return photos
    if isinstance(photos, str | Path | bytes):
        return (photos,)
    if isinstance(photos, io.IOBase) or not isinstance(photos, Iterable):  # the lines of a file are not photos
        raise UsageError(f"photos are paths or the bytes of files, not {type(photos).__name__}", "pass a list of them")
    return tuple(photos)


def is_one(photos: PhotoSelection) -> bool:
    """Whether a selection names one photo."""
    if len(photos.paths) != 1 or photos.files_from is not None:
        return False
    (path,) = photos.paths
    return os.path.isfile(path) and not _holds_many(path)  # noqa: PTH113


def _is_few(photos: PhotoSelection) -> bool:
    few = not photos.recursive and photos.files_from is None and len(photos.paths) <= FEW
    return few and not any(map(_holds_many, photos.paths))


def _holds_many(path: str) -> bool:
    """Whether one path stands for many photos."""
    # only a request would show whether a URL without a suffix is a photo
    return is_container(path) or os.path.isdir(path) or (is_url(path) and (is_glob(path) or path.endswith("/")))  # noqa: PTH112
