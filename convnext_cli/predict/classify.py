"""The verb ``classify``: photos that are named one by one, and their rows at once."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convnext_cli.base.errors import UsageError
from convnext_cli.photos.photo import Photo
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.rows import Row

Photos = str | Path | bytes | Iterable[str | Path | bytes]


@dataclass(frozen=True, kw_only=True)
class ClassifyRequest:
    """The request of ``classify``.

    Args:
        photos: paths, or the bytes of files.
        predictor: the model, and how it answers.
    """

    photos: tuple[str | Path | bytes, ...]
    predictor: PredictorOptions = field(default_factory=PredictorOptions)


def classify(request: ClassifyRequest | Photos, **options: Any) -> list[Row]:
    """Label photos, and return their rows.

    Args:
        request: what to do; or photos, as one path, the bytes of one file, or several of these.
        options: with photos, the fields of ``PredictorOptions``: ``classify("photo.jpg", model="tiny", k=3)``.

    Returns:
        One row a photo, in their order. A photo that cannot be read is a row that says so.

    Raises:
        ConvNextError: the model cannot be used, or an option has no effect.
    """
    if not isinstance(request, ClassifyRequest):
        request = ClassifyRequest(photos=_listed(request), predictor=PredictorOptions.of(**options))
    elif options:
        raise UsageError("a ClassifyRequest already holds all options", "pass the request alone")
    photos = [Photo("-", photo) if isinstance(photo, bytes) else Photo(os.fspath(photo)) for photo in request.photos]
    predictor = open_predictor(request.predictor, photos=len(photos))
    try:
        return list(predictor.rows(photos))
    finally:
        predictor.engine.close()


def _listed(photos: Photos) -> tuple[str | Path | bytes, ...]:
    if isinstance(photos, str | Path | bytes):
        return (photos,)
    if isinstance(photos, io.IOBase) or not isinstance(photos, Iterable):  # the lines of a file are not photos
        raise UsageError(f"photos are paths or the bytes of files, not {type(photos).__name__}", "pass a list of them")
    return tuple(photos)
