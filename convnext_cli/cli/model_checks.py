"""Checks that weights files have not changed since they were pulled or written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from convnext_cli.base.text import JsonObject
from convnext_cli.zoo.record import RECORD
from convnext_cli.zoo.record import read as read_record

ELSEWHERE = "download it again from its source"


def checks(name: str) -> Iterator[dict[str, str]]:
    """One check for each file: ok, changed, missing, or unknown without a checksum; and how to repair it."""
    from convnext_cli import zoo

    path = Path(name)
    if not (path / RECORD).is_file():
        path = zoo.resolve(name)
    place = path if path.is_dir() else path.parent
    record = read_record(place)
    if record and (path == place or path.name in record["files"]):
        yield from _verify_pull(place, record)
        return
    files = [file for file in sorted(path.iterdir()) if zoo.local_files.stem(file)] if path.is_dir() else [path]
    for file in zoo.local_files.shards(path) if path.name.endswith(".index.json") else files:
        yield _verify_file(file)


def _verify_pull(place: Path, record: JsonObject) -> Iterator[dict[str, str]]:
    from convnext_cli import zoo

    entry = zoo.find(str(record.get("name", "")))
    origin = " --origin" if entry and next(iter(record["files"])) in entry.files and entry.hub else ""
    repair = f"convnext models pull {entry.name} --force{origin}" if entry else ELSEWHERE
    for file, noted in record["files"].items():
        why = f"as pulled on {record.get('date', '?')}"
        yield _compare(place / file, str(noted.get("sha256", "")), why, repair)


def _verify_file(path: Path) -> dict[str, str]:
    from convnext_cli import zoo
    from convnext_cli.base.errors import ModelError
    from convnext_cli.zoo.catalogue import sha256_prefix

    entry = zoo.entry_for_file(path)
    repair = f"convnext models pull {entry.name}" if entry and entry.source else ELSEWHERE
    blob = path.resolve().name  # in a hub cache the file is a link to a blob whose name is its sha256
    if path.is_symlink() and len(blob) == 64:
        return _compare(path, blob, "as the hub's cache names it", repair)
    try:
        card = zoo.local_files.embedded_card(path)
    except ModelError as error:
        return _check(path, "changed", "", error.message, repair)
    if card and card.sha256:
        return _verify_tensors(path, repair)
    # other names may end in eight digits too; only in the publishers' own names these are a checksum
    prefix = sha256_prefix(path.name) if entry and path.name in entry.files else ""
    return _compare(path, prefix, "as the file's name says", repair)


def _verify_tensors(path: Path, repair: str) -> dict[str, str]:
    """Check one of the project's own files, whose card has the fingerprint of its tensors."""
    from convnext_cli import checkpoints, zoo
    from convnext_cli.base.errors import ModelError
    from convnext_cli.checkpoints import calibration_file

    try:
        digest = checkpoints.load(path, dtype="stored", verify=True).card.sha256
        calibration_file.read_calibration(path)
    except ModelError as error:
        repair = "install convnext-cli again" if path == zoo.local_files.bundled() else repair
        return _check(path, "changed", "", error.message, repair)
    return _check(path, "ok", digest, "its tensors match its card")


def _compare(path: Path, expected: str, why: str, repair: str) -> dict[str, str]:
    from convnext_cli.zoo.record import sha256

    if not path.is_file():
        return _check(path, "missing", "", "it was deleted after it was pulled", repair)
    actual = sha256(path)
    if not expected:
        return _check(path, "unknown", actual, f"no checksum is known to compare with its sha256, {actual}")
    if actual.startswith(expected):
        return _check(path, "ok", actual, why)
    return _check(path, "changed", actual, f"sha256 is {actual}, and should be {expected} ({why})", repair)


def _check(path: Path, status: str, sha256: str, why: str, repair: str = "") -> dict[str, str]:
    return {"path": str(path), "status": status, "sha256": sha256, "why": why, "repair": repair}
