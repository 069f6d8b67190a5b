"""The report of a job, as ``label`` is asked for it."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import OutputError, UsageError
from convnext_cli.jobs.report.maps import map_maker
from convnext_cli.jobs.report.page import Summary, write
from convnext_cli.jobs.report.pictures import small_jpeg
from convnext_cli.storage.addresses import check_output

if TYPE_CHECKING:
    from convnext_cli.jobs.store import Store
    from convnext_cli.predict.options import ModelOptions
    from convnext_cli.predict.predictor import Predictor

_OURS = b'<meta name="generator" content="convnext">'


def check_report(name: str | Path, output: Path) -> None:
    """Refuse a page that cannot be written.

    Args:
        name: its file.
        output: the result of the job, which it must not replace.

    Raises:
        UsageError: it is not a page's name, or something else has this name.
        OutputError: its folder does not exist.
    """
    check_output(str(name))  # as it was typed: a Path takes a slash out of a URL
    page = Path(name)
    if page.is_dir() or page.absolute() == output.absolute():
        raise UsageError(f"{page} cannot be the report", "choose another name, for example report.html")
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{page} is not a page's name", "choose one that ends in .html")
    if page.exists() and not _is_report(page):
        raise UsageError(f"{page} already exists, and is not a report of convnext", "choose another name")
    if not page.absolute().parent.is_dir():
        raise OutputError(f"the folder of {page} does not exist", f"mkdir -p {page.parent}")


def write_report(
    store: Store,
    predictor: Predictor,
    page: Path,
    *,
    title: str,
    rate: float | None,
    explained: ModelOptions | None = None,
) -> None:
    """Write the page of a job's rows.

    Args:
        store: the rows.
        predictor: what labelled them.
        page: the file; an older page stays until the new one is complete.
        title: of the page.
        rate: photos a second; None where nothing was labelled.
        explained: the model of the predictor, for a page with maps of what speaks for each label; None for none.

    Raises:
        ModelError: the model is an exported file, and a page with maps was asked for.
        OutputError: it cannot be written.
    """
    date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    with ExitStack() as stack:
        maps = None if explained is None else stack.enter_context(map_maker(predictor, explained))
        write(
            store.entries(),
            page,
            title=title,
            summary=Summary(store.statuses(), predictor.model, date, rate, predictor.scores),
            picture=partial(small_jpeg, max_pixels=predictor.preprocessor.max_pixels),
            maps=maps,
            threads=predictor.threads,
            timeout=predictor.preprocessor.timeout,
        )


def _is_report(page: Path) -> bool:
    with page.open("rb") as file:
        return _OURS in file.read(4096)
