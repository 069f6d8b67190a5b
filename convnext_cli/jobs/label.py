"""The verb ``label``: all photos below a folder, durably."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from convnext_cli.base.errors import UsageError
from convnext_cli.base.libraries import needs
from convnext_cli.jobs import output_target
from convnext_cli.jobs.listener import SILENT, LabelListener, LabelResult
from convnext_cli.jobs.output_pair import Pair
from convnext_cli.jobs.request import LabelRequest
from convnext_cli.jobs.session import Session
from convnext_cli.jobs.store import Store
from convnext_cli.photos import pillow_check
from convnext_cli.photos.containers.shards import is_container
from convnext_cli.photos.find import Finder
from convnext_cli.predict.open import open_predictor, remarks
from convnext_cli.predict.predictor import Predictor
from convnext_cli.storage.addresses import is_url
from convnext_cli.storage.listing import is_glob
from convnext_cli.zoo import demonstration


def label(request: LabelRequest, *, listener: LabelListener = SILENT) -> LabelResult:
    """Label photos into an output that is resumed: the same request again does only what is missing.

    Args:
        request: what to do.
        listener: receives the progress, and answers questions.

    Returns:
        The content of the output, and the work that was done; under ``watch``, those of the last round.

    Raises:
        ConvNextError: it cannot be done; what was labelled until then is kept.
    """
    if request.cluster is not None:
        from convnext_cli.jobs.cluster.label import label_on_cluster

        return label_on_cluster(request, request.cluster, listener)
    pair = output_target.choose(request, listener)
    check_options(request, pair.target)
    if request.nice is not None and hasattr(os, "nice"):
        os.nice(request.nice)
    with ExitStack() as stack:
        stack.enter_context(output_target.locked(pair))
        pair.tidy()
        if request.only_rewrites:
            return _rewrite(pair)
        finder = request.photos.finder(shards="kept")
        photos = request.photos.photos(finder)
        # what cannot be done is refused before there is a new job, and before an old one is touched
        earlier = None if request.overwrite else pair.existing(rewrite=request.rewrite)
        if earlier is not None:
            stack.callback(earlier.close)
        if request.output is None and earlier is not None:
            _refuse_other_source(earlier, pair, request)
        if request.actions and not request.yes and demonstration.is_used(request.predictor.model.model):
            listener.allow(request.actions)
        predictor = _open(request, listener)
        stack.callback(predictor.engine.close)
        session = _session(pair, earlier, predictor, finder, request, listener)
        stack.callback(session.close)
        if request.output is None:
            session.store.note(source=_source(request))
        result = session.round(photos, _roots(request.photos.paths))
        if request.watch:
            result = session.watch([path for path in request.photos.paths if os.path.isdir(path)]) or result  # noqa: PTH112
        return result


def check_options(request: LabelRequest, target: Path) -> None:
    """Refuse, before anything is opened, what cannot take effect with these photos or this output.

    Args:
        request: what to do.
        target: the output.

    Raises:
        UsageError: an option cannot take effect.
        UnavailableError: a library or a program is missing.
        OutputError: a folder to write to does not exist.
    """
    photos = request.photos
    photos.check_walking()
    if any(map(is_url, photos.paths)):
        local = {"--sort-into": request.sort, "--xmp": request.keywords, "--watch": request.watch}
        for name in (name for name, value in local.items() if value):
            raise UsageError(f"{name} is for photos on this machine", "leave it out, or copy the photos here first")
    if request.watch:
        needs("watchfiles")
        if not any(os.path.isdir(path) for path in photos.paths):  # noqa: PTH112 - surrogates
            raise UsageError("--watch needs a folder to watch", "name one, or leave --watch out")
    photos.check_list()
    if request.sort is not None:
        request.sort.check()
    if request.keywords is not None:
        request.keywords.check()
    if request.report is not None:
        from convnext_cli.jobs.report.request import check_report

        check_report(request.report, target)
    if request.explain and request.predictor.model.model is not None:
        from convnext_cli.explanation.mapping import check_weights

        check_weights(Path(request.predictor.model.model))


def _rewrite(pair: Pair) -> LabelResult:
    store = pair.rewrite()
    try:
        return LabelResult(output=str(pair.target), statuses=store.statuses())
    finally:
        store.close()


def _open(request: LabelRequest, listener: LabelListener) -> Predictor:
    listener.opening(request.predictor)
    predictor = open_predictor(
        request.predictor, job="throughput", prepare=True, say=listener.note, stage=listener.stage
    )
    try:
        listener.opened(predictor, remarks(predictor, request.predictor))
        if not pillow_check.resizes_exactly():
            listener.note(f"{pillow_check.DIFFERS}: scores may differ slightly from those of other machines")
    except BaseException:
        predictor.engine.close()
        raise
    return predictor


def _session(
    pair: Pair,
    earlier: Store | None,
    predictor: Predictor,
    finder: Finder,
    request: LabelRequest,
    listener: LabelListener,
) -> Session:
    """The job of this run: an earlier one, a new one, or one that takes the place of an earlier one."""
    store, replaces = earlier, False
    if request.overwrite:
        store = pair.interrupted()
        replaces = store is None and pair.is_there
    if store is None:
        store = pair.unfinished() if replaces else pair.first(overwrite=request.overwrite)
    try:
        # copies that this run or an earlier one has sorted are not photos to label again
        into = [] if request.sort is None else [str(Path(request.sort.into).absolute())]
        finder.skip = frozenset([*into, *(store.value("sorted") or [])])
        return Session(store, predictor, finder, pair, request, listener, replaces=replaces)
    except BaseException:
        store.close()
        raise


def _source(request: LabelRequest) -> str:
    """The photos that an output without a name is named after."""
    return output_target.source_of(request.photos.paths[0])


def _refuse_other_source(store: Store, pair: Pair, request: LabelRequest) -> None:
    """Raises UsageError for an output of that name that another folder of the same name has."""
    other = store.value("source")
    if other not in (None, _source(request)):
        raise UsageError(f"{pair.target} has the labels of {other}", "name another output with -o")


def _roots(paths: Iterable[str]) -> list[str]:
    """Folders of which all is seen, so that what is missing has vanished."""
    return [
        path
        for path in paths
        if (not is_glob(path) if is_url(path) else os.path.isdir(path) or is_container(path))  # noqa: PTH112 - surrogates
    ]
