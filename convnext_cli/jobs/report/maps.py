"""Maps of a report: what speaks for the best guesses, small enough for thousands of photos."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from convnext_cli import zoo
from convnext_cli.base.text import JsonObject
from convnext_cli.explanation.mapping import explain_decoded, open_feature_engine
from convnext_cli.jobs.entry import Entry
from convnext_cli.jobs.report.pictures import Drawn, MakeMaps
from convnext_cli.photos.decode import decode, read_file
from convnext_cli.predict.decode_threads import Task

if TYPE_CHECKING:
    import numpy as np

    from convnext_cli.explanation.maps import Box, Explanation
    from convnext_cli.predict.options import ModelOptions
    from convnext_cli.predict.predictor import Predictor

GUESSES = 3  # of a photo that have a map
MOST_PLACES = 16  # along an edge of a map; more are averaged


@contextmanager
def map_maker(predictor: Predictor, options: ModelOptions) -> Iterator[MakeMaps]:
    """A function that makes the maps of entries, from any thread.

    Args:
        predictor: that labelled them.
        options: the model that it runs.

    Raises:
        ModelError: the model is an exported file.
    """
    device = "auto" if options.device == "cuda:all" else options.device
    engine = open_feature_engine(zoo.resolve(options.model), device=device, threads=predictor.threads)
    one_at_a_time = threading.Lock()

    def make(entry: Entry, task: Task[tuple[Entry, bool], Drawn]) -> JsonObject | None:
        if entry.row.model_sha256 != engine.card.sha256:  # another model labelled it
            return None
        row = replace(entry.row, predictions=entry.row.predictions[:GUESSES])
        photo = decode(read_file(entry.file), max_pixels=predictor.preprocessor.max_pixels)
        if row.width is None or not row.predictions or (photo.width, photo.height) != (row.width, row.height):
            return None
        with task.hold(one_at_a_time):
            return compact(explain_decoded(engine, predictor, row, photo))

    try:
        yield make
    finally:
        engine.close()


def compact(explanation: Explanation) -> JsonObject:
    """The maps of a photo as the page reads them.

    ``size`` is [rows, columns] of a map; ``box`` and ``crop`` are shares of the photo's edges, from its left upper
    corner; each of ``values`` is base64 of signed bytes, of which 127 is the strongest place of all maps.
    """
    scale = explanation.scale or 1.0
    values = [_at_most(guess.evidence / scale) for guess in explanation.maps]
    return {
        "size": list(values[0].shape),
        "box": _shares(explanation.box, explanation),
        "crop": _shares(explanation.crop, explanation),
        "linearised": explanation.linearised,
        "values": [base64.b64encode((127 * one).round().astype("int8").tobytes()).decode() for one in values],
    }


def _at_most(evidence: np.ndarray) -> np.ndarray:
    """The evidence, averaged to at most ``MOST_PLACES`` along each edge."""
    import numpy as np
    from PIL import Image

    rows, columns = (min(edge, MOST_PLACES) for edge in evidence.shape)
    if (rows, columns) == evidence.shape:
        return evidence
    averaged = Image.fromarray(evidence.astype(np.float32)).resize((columns, rows), Image.Resampling.BOX)
    return np.asarray(averaged, np.float64)


def _shares(box: Box, explanation: Explanation) -> list[float]:
    width, height = explanation.row.width, explanation.row.height
    assert width is not None and height is not None
    return [round(value / edge, 4) for value, edge in zip(box, (width, height) * 2, strict=True)]
