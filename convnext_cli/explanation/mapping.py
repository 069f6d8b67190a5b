"""From a photo that the network has seen to its explanation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import ModelError
from convnext_cli.base.threads import usable_threads
from convnext_cli.explanation.maps import Explanation, GuessMap
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.resize import apply_preprocessing, tensor_box
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.rows import Row
from convnext_cli.runtimes.registry import format_of

if TYPE_CHECKING:
    from convnext_cli.explanation.feature_engine import FeatureEngine
    from convnext_cli.photos.photo import Decoded


def check_weights(path: Path) -> None:
    """Raise ModelError for an exported file, in which the last feature map cannot be seen."""
    if format_of(path) is not None:
        raise ModelError(
            f"{path.name} is an exported file, and a map needs the weights themselves",
            "name the weights that it was exported from with -m",
        )


def open_feature_engine(path: Path, *, device: str, threads: int | None) -> FeatureEngine:
    """The engine for weights.

    Args:
        path: a file or folder.
        device: "auto", or a name of torch's.
        threads: processor threads; None for all that this process may use.

    Raises:
        ModelError: the weights cannot be used.
        UnavailableError: the device is missing.
    """
    check_weights(path)
    from convnext_cli import checkpoints
    from convnext_cli.explanation.feature_engine import FeatureEngine

    return FeatureEngine(checkpoints.load(path), device=device, threads=threads or usable_threads())


def explanation_of(engine: FeatureEngine, predictor: Predictor, row: Row, size: tuple[int, ...]) -> Explanation:
    """The maps of the photo that the engine has seen last.

    Args:
        engine: whose last call was for this photo alone.
        predictor: that labelled it.
        row: the photo's, with the guesses to explain.
        size: (height, width) of the photo's tensor.
    """
    from convnext_cli.explanation.evidence import evidence_for

    assert row.height is not None and row.width is not None
    classes = [prediction.index for prediction in row.predictions]
    compared = predictor.scores == "softmax" and engine.card.config.num_labels > 1
    evidence = evidence_for(engine.network, engine.feature_map, classes, compared=compared)
    maps = tuple(
        GuessMap(prediction, one.places, one.constant, one.mean_logit)
        for prediction, one in zip(row.predictions, evidence, strict=True)
    )
    left, top, right, bottom = crop = tensor_box(predictor.preprocessor.preprocessing, row.height, row.width)
    # the stem leaves out the last pixels of a tensor whose edge is not a multiple of the stride
    height, width = size
    rows, columns = engine.feature_map.shape[-2:]
    stride = engine.card.config.stride
    box = (left, top, left + (right - left) * columns * stride / width, top + (bottom - top) * rows * stride / height)
    return Explanation(row, maps, crop=crop, box=box, linearised=engine.card.config.head_hidden_size is not None)


def explain_decoded(engine: FeatureEngine, predictor: Predictor, row: Row, photo: Decoded) -> Explanation:
    """The maps of guesses that were made earlier.

    Args:
        engine: runs the photo again.
        predictor: that labelled it.
        row: the photo's, with the guesses to explain.
        photo: decoded.

    Raises:
        MemoryError: the device's memory does not hold the photo.
    """
    preprocessing: Preprocessing = predictor.preprocessor.preprocessing
    tensor = apply_preprocessing(preprocessing, photo)
    engine(tensor[None])
    return explanation_of(engine, predictor, row, tensor.shape[-2:])
