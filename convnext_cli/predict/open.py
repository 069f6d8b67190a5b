"""From options to a predictor: find the model, open its engine, and refuse options that contradict it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from convnext_cli import labels as label_sets
from convnext_cli import zoo
from convnext_cli.base.errors import ModelError
from convnext_cli.base.text import well_formed
from convnext_cli.base.threads import usable_threads
from convnext_cli.model.preprocessing_changes import PreprocessingChanges
from convnext_cli.photos.decode import DEFAULT_MAX_PIXELS
from convnext_cli.predict import option_effects
from convnext_cli.predict.calibrated import open_decider
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.preprocess import Preprocessor
from convnext_cli.predict.scoring import SCORES
from convnext_cli.runtimes.protocol import BATCH_SIZE, Engine, Job
from convnext_cli.runtimes.select import open_engine


def open_predictor(
    options: PredictorOptions,
    *,
    job: Job = "latency",
    photos: int | None = None,
    prepare: bool = False,
    thumbnail: int = 0,
    say: Callable[[str], None] = lambda _: None,
    stage: Callable[[str], None] = lambda _: None,
) -> Predictor:
    """Open the predictor that the options describe.

    Args:
        options: model, scoring, preprocessing and decoding.
        job: "latency" for few photos, "throughput" for many.
        photos: how many photos will come, where that is known.
        prepare: make an engine for this machine first where none is prepared.
        thumbnail: edge in pixels of the small picture that a row keeps; 0 for none.
        say: called with each note for the user.
        stage: called with the name of each part of preparing an engine, as it begins.

    Raises:
        ModelError: the model or its labels cannot be used, or it names no classes.
        UnavailableError: the device or a library is missing.
        UsageError: an option is out of range, or has no effect on this model.
    """
    model = options.model
    engine = open_engine(
        zoo.resolve(model.model),
        engine=model.engine,
        device=model.device,
        dtype=model.dtype,
        threads=model.threads or usable_threads(),
        job=job,
        batch_size=min(photos or BATCH_SIZE, model.batch_size or BATCH_SIZE),
        compiled=model.compiled,
        prepare=prepare,
        say=say,
        stage=stage,
    )
    return build_predictor(engine, options, thumbnail=thumbnail, say=say)


def build_predictor(
    engine: Engine, options: PredictorOptions, *, thumbnail: int = 0, say: Callable[[str], None] = lambda _: None
) -> Predictor:
    """The predictor that the options describe, with an engine that is open.

    Args:
        engine: runs the model of the options.
        options, thumbnail, say: as for ``open_predictor``.

    Raises:
        ModelError: the model's labels cannot be used, or it names no classes.
        UsageError: an option is out of range, or has no effect on this model.
    """
    model, scoring, changes, decoding = options.model, options.scoring, options.preprocessing, options.decoding
    name = zoo.default_model() if model.model is None else model.model
    threads = model.threads or usable_threads()
    card = engine.card
    if card.task != "classification":
        what = "gives an embedding" if card.task == "embedding" else "is a backbone without a classifier"
        raise ModelError(
            f"{card.name or name} {what}, so it cannot label photos", "convnext models list --task classification"
        )
    labels = card.named(model.labels)
    scores = scoring.scores or SCORES[card.problem]
    if scoring.classes is not None:
        labels = label_sets.select(scoring.classes.split(","), labels)
    floors = scoring.floors
    if isinstance(floors, str | Path):
        floors = label_sets.floors(Path(floors), labels, logits=scores == "logits")
    option_effects.check_changes(changes, engine)
    option_effects.check_batch(model.batch_size, engine)
    if isinstance(changes, PreprocessingChanges):
        preprocessing = changes.apply(card.preprocessing, stride=card.config.stride)
    else:
        preprocessing = changes
    preprocessor = Preprocessor(
        preprocessing=preprocessing,
        as_photos=engine.photos,
        workers=min(decoding.workers or threads, threads),
        max_pixels=decoding.max_pixels or DEFAULT_MAX_PIXELS,
        pixels=decoding.pixels,
        timeout=decoding.timeout,
        thumbnail=thumbnail,
    )
    decider = open_decider(scoring, model.model, engine, labels, preprocessing, scores, say)
    return Predictor(
        engine=engine,
        preprocessor=preprocessor,
        labels=labels,
        k=scoring.k,
        scores=scores,
        min_score=scoring.min_score,
        floors=floors,
        temperature=decider.temperature if decider is not None else card.temperature or 1.0,
        decider=decider,
        batch_size=model.batch_size or (BATCH_SIZE if engine.device == "cpu" else 64),
        threads=threads,
        model=card.name or well_formed(str(name)),
        say=say,
    )


def remarks(predictor: Predictor, options: PredictorOptions) -> list[str]:
    """Notes for the user on an open predictor: those of its engine, and on the options.

    Args:
        predictor: the result of ``open_predictor``.
        options: the options that it was opened with.
    """
    workers = predictor.preprocessor.workers
    fewer = (options.decoding.workers or 0) > workers
    return [*([f"{workers} threads decode, as many as --threads allows"] if fewer else []), *predictor.engine.notes]
