"""The verb ``explain``: for each photo and guess, what speaks for and against it, and where."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli import zoo
from convnext_cli.base.listener import SILENT, Listener
from convnext_cli.base.threads import Budget
from convnext_cli.explanation import picture
from convnext_cli.explanation.mapping import explanation_of, open_feature_engine
from convnext_cli.explanation.maps import Explanation
from convnext_cli.explanation.picture_files import PictureFiles
from convnext_cli.explanation.request import ExplainRequest
from convnext_cli.photos.containers.shards import is_container
from convnext_cli.photos.photo import Photo
from convnext_cli.photos.selection import PhotoSelection
from convnext_cli.predict.open import build_predictor, remarks
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.preprocess import InFlight

if TYPE_CHECKING:
    from convnext_cli.explanation.feature_engine import FeatureEngine

_AHEAD = 4  # photos that are decoded while one is explained


@dataclass(frozen=True)
class ExplainResult:
    """The result of ``explain``.

    Args:
        explanations: one a photo, in their order.
        model: its name.
        linearised: whether the classifier has a hidden layer, so that the maps are linearisations around each photo;
            other maps are exact.
    """

    explanations: tuple[Explanation, ...]
    model: str
    linearised: bool

    @property
    def failed(self) -> int:
        """How many photos could not be explained."""
        return sum(explanation.row.error is not None for explanation in self.explanations)


@dataclass(frozen=True)
class Explaining:
    """A model that is open, and the explanations to come.

    Args:
        predictor: the model; its ``times`` count the photos.
        explanations: one a photo, in their order; each is computed, and its pictures are written, when it is asked for.
        passed_over: counts, by type, the files that are not photos.
        linearised: as for ``ExplainResult``.
    """

    predictor: Predictor
    explanations: Iterator[Explanation]
    passed_over: Mapping[str, int]
    linearised: bool


def explain(request: ExplainRequest, listener: Listener = SILENT) -> ExplainResult:
    """Explain the best guesses for photos.

    Args:
        request: what to do.
        listener: receives notes.

    Returns:
        One explanation a photo, with a small copy of the photo. A photo that cannot be read is a row that says so.

    Raises:
        ModelError: the model cannot be used: it has no classifier, or is an exported file.
        UsageError: no photo is found, an option has no effect, or a picture exists.
        OutputError: a picture cannot be written.
        UnavailableError: the device is missing.
    """
    with open_explanations(request, listener) as explaining:
        return ExplainResult(tuple(explaining.explanations), explaining.predictor.model, explaining.linearised)


@contextmanager
def open_explanations(
    request: ExplainRequest,
    listener: Listener = SILENT,
    *,
    in_flight: Callable[[], AbstractContextManager[InFlight | None]] = nullcontext,
    fetch: Callable[[str | Path | None], object] | None = None,
) -> Iterator[Explaining]:
    """Do what ``explain`` does, but yield each explanation as soon as it is there, for any number of photos.

    Args:
        request: what to do.
        listener: receives notes.
        in_flight: entered while photos are explained; yields where these are recorded.
        fetch: called with the model's name before it is opened, to fetch it where it is missing.

    Raises:
        ConvNextError: as for ``explain``.
    """
    files = None if request.output is None else PictureFiles(request.output, overwrite=request.overwrite)
    if files is not None:
        _check_names(files, request.photos)
    photos, passed_over = _photos(request.photos, listener)
    options = request.predictor
    if fetch is not None:
        fetch(options.model.model)
    with ExitStack() as stack:
        engine = open_feature_engine(
            zoo.resolve(options.model.model), device=options.model.device, threads=options.model.threads
        )
        stack.callback(engine.close)
        predictor = build_predictor(engine, options, thumbnail=picture.EDGE, say=listener.note)
        for remark in remarks(predictor, options):
            listener.note(remark)
        predictor = predictor.noting(stack.enter_context(in_flight()))
        explanations = _explanations(predictor, engine, photos, files)
        yield Explaining(predictor, explanations, passed_over, engine.card.config.head_hidden_size is not None)


def _photos(
    selection: PhotoSelection | Sequence[str | Path | bytes], listener: Listener
) -> tuple[Iterator[Photo], Mapping[str, int]]:
    """The photos to come, and the counts of the files that are not photos."""
    if not isinstance(selection, PhotoSelection):
        return (Photo("-", one) if isinstance(one, bytes) else Photo(os.fspath(one)) for one in selection), {}
    finder = selection.finder(shards="opened")
    photos = selection.photos(finder)
    if finder.looked_into and not selection.recursive:
        more = f" and {len(finder.looked_into) - 1} more" if finder.looked_into[1:] else ""
        listener.note(f"searching the folder {finder.looked_into[0]}{more}")
    return photos, finder.passed_over


def _check_names(files: PictureFiles, photos: PhotoSelection | Sequence[str | Path | bytes]) -> None:
    """Raise UsageError for a picture that exists, before a model is loaded. Photos in folders are checked later."""
    for photo in photos.paths if isinstance(photos, PhotoSelection) else photos:
        if not isinstance(photo, bytes) and os.path.isfile(photo) and not is_container(os.fspath(photo)):  # noqa: PTH113
            files.check_free(os.fspath(photo))


def _explanations(
    predictor: Predictor, engine: FeatureEngine, photos: Iterator[Photo], files: PictureFiles | None
) -> Iterator[Explanation]:
    budget = Budget(predictor.threads)
    for ready in predictor.preprocessor.prepared(photos, budget, _AHEAD):
        size = None if ready.tensor is None else ready.tensor.shape[-2:]
        (row,) = predictor.answer([ready], budget)
        explanation = Explanation(row)
        if row.error is None and size is not None:
            explanation = explanation_of(engine, predictor, row, size)
        if files is not None and explanation.maps:
            paths = files.paths(row.path, len(explanation.maps))
            maps = tuple(replace(one, file=path) for one, path in zip(explanation.maps, paths, strict=True))
            explanation = replace(explanation, maps=maps)
            for one in maps:
                files.write(picture.draw(explanation, one), one)
        yield explanation
