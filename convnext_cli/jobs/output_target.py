"""Where a job's labels go: the output's name and format, and one run at a time for it."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import OutputError, UsageError
from convnext_cli.base.libraries import needs
from convnext_cli.jobs import output
from convnext_cli.jobs.output_pair import Pair
from convnext_cli.storage.addresses import is_url, scrub

if TYPE_CHECKING:
    from convnext_cli.jobs.listener import LabelListener
    from convnext_cli.jobs.request import LabelRequest


def choose(request: LabelRequest, listener: LabelListener) -> Pair:
    """The output of a request and its format, before anything is loaded.

    Args:
        request: what to do.
        listener: receives the name, if one was chosen for the output.

    Raises:
        UsageError: the output cannot be a file of labels.
        OutputError: its folder does not exist.
        UnavailableError: its format needs a missing library.
    """
    name = request.output
    if name is None:
        name = _default(request)
        if name is None:
            raise UsageError(
                "the output has no name",
                "name it with -o, for example -o labels.jsonl: a later run resumes from it",
            )
        listener.output_chosen(Path(name))
    if str(name) == "-":
        raise UsageError("a durable job needs a file", "name one with -o, or use convnext classify -r for a stream")
    if is_url(str(name)):
        raise UsageError(
            f"{scrub(str(name))} is a URL; without --cluster, results go into a file on this machine",
            "copy it there afterwards, or have --cluster auto write a folder there",
        )
    target = Path(name)
    if target.is_dir() or (target.exists() and not target.is_file()):
        raise UsageError(f"{target} is not a file", "choose another name for the output")
    if not target.absolute().parent.is_dir():
        raise OutputError(f"the folder of {target} does not exist", f"mkdir -p {target.parent}")
    if target.exists() and _is_image(target):
        raise UsageError(f"{target} is an image", "choose another name for the output")
    form = output.format_of(target, request.format)
    if form == "parquet":
        needs("pyarrow")
    return Pair(target, form)


@contextmanager
def locked(pair: Pair) -> Iterator[None]:
    """One run at a time for an output. Raises UsageError while another one writes it, OutputError."""
    from filelock import FileLock, Timeout

    target = pair.target
    path = pair.job.with_name(f".{pair.job.name}.lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"another run is writing {target}", "wait until it has ended, or choose another name for the output"
        ) from None
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {error.strerror or error}", "choose a folder that you may write to"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def source_of(path: str) -> str:
    """The photos behind a path, as an output that is named after them notes them."""
    return scrub(path) if is_url(path) else os.path.abspath(path)  # noqa: PTH100 - surrogates


def _default(request: LabelRequest) -> str | None:
    """FOLDER-labels.csv in the current folder; None where it would have no plain name, or lie among the photos."""
    if len(request.photos.paths) != 1 or request.photos.files_from is not None:
        return None
    (path,) = request.photos.paths
    if is_url(path):
        name = path.partition("://")[2].partition("?")[0].rstrip("/").rpartition("/")[2]
    elif os.path.isdir(path):  # noqa: PTH112 - surrogates
        folder, here = os.path.realpath(path), os.path.realpath(".")
        if os.path.commonpath([folder, here]) == folder:  # nothing is written beside photos without being asked
            return None
        name = os.path.basename(folder)  # noqa: PTH119
    else:
        name = os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122
    if not name or (glob.has_magic(name) and not os.path.lexists(path)):
        return None
    return f"{name}-labels.{request.format or 'csv'}"


def _is_image(path: Path) -> bool:
    from convnext_cli.photos.decode import looks_like_image

    with path.open("rb") as file:
        return looks_like_image(file.read(64))
