"""What ``convnext label`` does with its rows: keywords, the report, sorted folders, and taking a sort back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import label_view, options, render
from convnext_cli.storage.addresses import check_output

if TYPE_CHECKING:
    from convnext_cli.jobs.actions.sort import Plan
    from convnext_cli.jobs.store import Store
    from convnext_cli.jobs.view import View
    from convnext_cli.predict.predictor import Predictor

MOST_SHOWN = 1000  # steps of a plan; a table of more is read by nobody

sorting = options.together(
    click.option(
        "--sort-into", type=options.PathName(), metavar="DIR", help="Put the photos into a folder a label, below DIR."
    ),
    click.option(
        "--by", type=click.Choice(["label", "id"]), default="label", show_default=True, help="Names of folders."
    ),
    click.option(
        "--mode",
        type=click.Choice(["copy", "link", "hardlink", "move"]),
        default="copy",
        show_default=True,
        help="How photos come into the folders.",
    ),
    click.option("--dry-run", is_flag=True, help="Print what a sort would do, and touch no photo."),
    click.option("--undo", type=options.PathName(), metavar="LOG", help="Take a sort back, and do nothing else."),
)
yes = click.option(
    "-y", "--yes", is_flag=True, help="Sort and write keywords without a question even with the bundled model."
)
keywords = options.together(
    click.option("--xmp", type=click.Choice(["sidecar", "embed"]), help="Labels as keywords, beside or in the photos."),
    click.option(
        "--xmp-naming",
        type=click.Choice(["append", "replace"]),
        default="append",
        show_default=True,
        help="photo.jpg.xmp or photo.xmp.",
    ),
    click.option("--xmp-root", default="AI", show_default=True, metavar="NAME", help="What our keywords stand below."),
    click.option("--no-xmp-tree", is_flag=True, help="Flat keywords alone."),
    click.option("--xmp-remove", is_flag=True, help="Take our keywords out again, and write none."),
)
report = click.option(
    "--report", type=options.PathName(), metavar="FILE.html", help="A page with thumbnails to look through."
)


def check(given: dict[str, Any], target: Path) -> None:
    """Refuse what cannot be done before a model is loaded. Raises UsageError, UnavailableError and OutputError."""
    from convnext_cli.base.errors import OutputError, UsageError

    for name in ("sort_into", "report"):
        if given[name]:
            check_output(given[name])
    if given["xmp_remove"] and not given["xmp"]:
        raise click.UsageError("--xmp-remove wants --xmp sidecar or --xmp embed: where the keywords are.")
    if given["xmp"]:
        from convnext_cli.jobs.keywords.words import root_of

        root_of(given["xmp_root"])
    if given["xmp"] == "embed":
        from convnext_cli.jobs.keywords.exiftool import ExifTool

        ExifTool().close()
    if given["report"]:
        page = Path(given["report"])
        if page.is_dir() or page.absolute() == target.absolute():
            raise UsageError(f"{page} cannot be the report", "choose another name, for example report.html")
        if page.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"{page} is no name for a page", "choose one that ends in .html")
        if page.exists() and not _is_report(page):
            raise UsageError(f"{page} is there already, and is no report of ours", "choose another name")
        if not page.absolute().parent.is_dir():
            raise OutputError(f"the folder of {page} does not exist", f"mkdir -p {page.parent}")
    into = Path(given["sort_into"]) if given["sort_into"] else None
    if into and into.exists() and not into.is_dir():
        raise UsageError(f"{into} is no folder", "photos are sorted into a folder, new or old")


def check_places(given: dict[str, Any]) -> None:
    """Refuse what cannot be done with photos behind URLs. Raises UsageError."""
    from convnext_cli.base.errors import UsageError
    from convnext_cli.storage.addresses import is_url

    if not any(is_url(path) for path in given["paths"]):
        return
    for name in ("sort_into", "xmp", "watch"):
        if given[name]:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is for photos on this machine", "leave it out, or copy the photos here first")


def _is_report(page: Path) -> bool:
    with page.open("rb") as file:
        return b'<meta name="generator" content="convnext">' in file.read(4096)


def act(
    store: Store, predictor: Predictor, view: View, given: dict[str, Any], rate: float | None, *, whole: bool
) -> int:
    """Do what was asked for with the photos that this round looked at; how many of them it failed with.

    whole: the first round, and not what arrived under --watch.
    """
    failed = 0
    if given["xmp"]:
        failed += _keywords(store, given)
    if given["report"]:
        _report(store, predictor, given, rate)
    if given["sort_into"]:
        failed += _sort(store, view, given, whole=whole)
    return failed


def undo(log: str) -> int:
    """The exit status of ``--undo LOG``."""
    from convnext_cli.jobs.actions import undo as taking_back

    done = taking_back.undo(Path(log))
    for kept in done.kept[:MOST_SHOWN]:
        render.note(f"left as it is: {kept.path}: {kept.why}")
    if done == taking_back.Undone():
        render.note(f"nothing to take back: {log} was taken back before")
        return 0
    render.note(
        f"taken back: {done.removed:,} copies and links, {label_view.counted(done.moved_back, 'photo')} moved back, "
        f"{label_view.counted(done.folders, 'folder')} removed"
        + (f"; {len(done.kept):,} left as they are" if done.kept else "")
    )
    return 1 if done.kept else 0


def _keywords(store: Store, given: dict[str, Any]) -> int:
    from convnext_cli.jobs.keywords import xmp

    entries, root, sidecars = store.entries(looked_at=True), given["xmp_root"], given["xmp"] == "sidecar"
    if given["xmp_remove"]:
        if sidecars:
            written = xmp.remove_sidecars(entries, root=root)
        else:
            written = xmp.remove_embedded(entries, root=root, touched=store.touched)
    elif sidecars:
        written = xmp.write_sidecars(entries, naming=given["xmp_naming"], root=root, tree=not given["no_xmp_tree"])
    else:
        written = xmp.embed(entries, root=root, tree=not given["no_xmp_tree"], touched=store.touched)
    store.commit()
    for failure in written.failures:
        render.note(f"no keywords: {failure.file}: {failure.message}")
    render.note("keywords: " + (", ".join(f"{n:,} {what}" for what, n in written.counts.items()) or "no photos"))
    return written.counts["failed"]


def _report(store: Store, predictor: Predictor, given: dict[str, Any], rate: float | None) -> None:
    from convnext_cli.jobs.report import Summary, small_jpeg, write

    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    names = ", ".join(given["paths"]) or "photos"
    write(
        store.entries(),
        Path(given["report"]),
        title=names,
        summary=Summary(store.statuses(), predictor.model, made, rate, predictor.scores),
        picture=partial(small_jpeg, max_pixels=predictor.preprocessor.max_pixels),
        threads=predictor.threads,
        timeout=predictor.preprocessor.timeout,
    )
    render.note(f"report: {given['report']}")


def _sort(store: Store, view: View, given: dict[str, Any], *, whole: bool) -> int:
    from convnext_cli.jobs.actions import sort

    into, mode = Path(given["sort_into"]), given["mode"]
    plan = sort.plan(store.entries(looked_at=True), into, mode=mode, by=given["by"], labels=view.labels.names)
    if given["dry_run"]:
        _show(plan)
        return 0
    store.note(sorted=sorted({*(store.value("sorted") or []), str(into.absolute())}))
    store.commit()
    log = next(path for path in _logs(into) if not path.exists())
    folder = store.common_folder()
    done = sort.apply(plan, log, mode, roots=[] if folder is None else [folder])
    left = ", ".join(f"{n:,} {why}" for why, n in plan.left.items())
    if whole or done.placed:
        render.note(
            f"sorted into {into}: {label_view.counted(done.placed.total(), 'photo')} ({mode})"
            + (f"; left: {left}" if left else "")
        )
    for why, n in done.failed.items():
        render.note(f"not sorted: {n:,}: {why}")
    if done.placed:
        render.note(f"take it back with: convnext label --undo {log}")
    return done.failed.total()


def _logs(into: Path) -> Iterator[Path]:
    """sorted.log, sorted-2.log, … beside the folder."""
    place = Path(into.absolute())
    for number in count(1):
        yield place.with_name(f"{place.name}{'' if number == 1 else f'-{number}'}.log")


def _show(plan: Plan) -> None:
    """The plan on standard output; it is what was asked for."""
    table = render.table("photo", "label", "to")
    for column in table.columns:
        column.overflow = "fold"  # a path is never cut
    steps = 0
    for step in plan:
        steps += 1
        if steps <= MOST_SHOWN:
            table.add_row(
                *(
                    render.clean(str(cell))
                    for cell in (step.source, step.label, step.target.relative_to(plan.into.parent))
                )
            )
    render.out().print(table)
    more = f" (the first {MOST_SHOWN:,} are shown)" if steps > MOST_SHOWN else ""
    left = "".join(f"; {n:,} {why}" for why, n in plan.left.items())
    render.note(f"{label_view.counted(steps, 'photo')} would be sorted{more}{left}; nothing was touched")
