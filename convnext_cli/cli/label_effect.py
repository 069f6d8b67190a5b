"""Options of ``convnext label`` that cannot take effect together; each is refused before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import click

_WALKING = ("include", "exclude", "hidden", "follow", "depth")
_SORTING = ("by", "mode", "dry_run")
_KEYWORDS = ("xmp_naming", "xmp_root", "no_xmp_tree", "xmp_remove")


def check(given: dict[str, Any], typed: set[str]) -> None:
    """typed: the parameters that stand on the command line. Raises UsageError."""
    from convnext_cli.base.errors import UsageError

    if given["undo"]:
        if others := sorted(typed - {"undo", "quiet", "verbose"}):
            raise click.UsageError(f"--undo does nothing else: leave {_names(others)} out.")
        return
    if given["rewrite"] and not given["paths"] and given["files_from"] is None:
        if others := sorted(typed - {"rewrite", "output", "form", "quiet", "verbose"}):
            raise click.UsageError(
                f"--rewrite without a folder only writes the output: leave {_names(others)} out, or name the folder."
            )
        return
    if "-" in given["paths"]:
        raise UsageError(
            "standard input holds one photo, and a durable job is for files", "label it with: convnext classify -"
        )
    if given["null"] and given["files_from"] is None:
        raise click.UsageError("-0 belongs to --files-from.")
    walking = [name for name in _WALKING if name in typed]
    if walking and given["files_from"] is None and given["paths"] and not any(map(_is_walked, given["paths"])):
        raise click.UsageError(f"{_names(walking)} is for folders, and no folder is named.")
    sorting = [name for name in _SORTING if name in typed]
    if sorting and not given["sort_into"]:
        raise click.UsageError(f"{_names(sorting)} is for --sort-into.")
    _check_keywords(given, typed)
    if given["yes"]:
        _check_yes(given)


def _check_keywords(given: dict[str, Any], typed: set[str]) -> None:
    named = [name for name in _KEYWORDS if name in typed]
    if named and not given["xmp"]:
        raise click.UsageError(f"{_names(named)} is for --xmp sidecar or --xmp embed.")
    if given["xmp"] == "embed" and "xmp_naming" in typed:
        raise click.UsageError("--xmp-naming is for --xmp sidecar: embedded keywords have no file of their own.")
    if given["xmp_remove"] and (without := [name for name in ("xmp_naming", "no_xmp_tree") if name in typed]):
        raise click.UsageError(f"--xmp-remove writes no keywords: leave {_names(without)} out.")
    if given["dry_run"] and given["xmp"]:
        raise click.UsageError("--dry-run touches no photo, and --xmp would write keywords: leave one of them out.")


def _check_yes(given: dict[str, Any]) -> None:
    if not (given["sort_into"] or given["xmp"]):
        raise click.UsageError("--yes is for --sort-into and --xmp.")
    if given["dry_run"]:
        raise click.UsageError("--dry-run touches no photo, and asks nothing: leave --yes out.")
    if given["xmp_remove"] and not given["sort_into"]:
        raise click.UsageError("--xmp-remove asks nothing: leave --yes out.")


def _is_walked(path: str) -> bool:
    from convnext_cli.photos.containers.shards import is_container
    from convnext_cli.storage.addresses import is_url

    # a name that is not a file may be a glob of folders
    return is_url(path) or is_container(path) or not os.path.isfile(path)  # noqa: PTH113 - surrogates


def _names(names: Iterable[str]) -> str:
    return " and ".join("the paths" if name == "paths" else f"--{name.replace('_', '-')}" for name in names)
