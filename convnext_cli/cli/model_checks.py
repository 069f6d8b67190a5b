"""Is a file of weights still what was pulled, or what its maker wrote?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def checks(name: str) -> Iterator[dict[str, str]]:
    """One check a file: ok, changed, missing, or unknown when nobody noted its checksum."""
    from convnext_cli import zoo
    from convnext_cli.zoo import pull as puller

    place = Path(name) if Path(name).is_dir() else None
    if place is None or puller.record(place) is None:
        place = zoo.resolve(name)
        place = place.parent if place.is_file() and puller.record(place.parent) else place
    if place.is_dir() and (record := puller.record(place)):
        for file, noted in record["files"].items():
            yield _compare(place / file, str(noted.get("sha256", "")), f"as pulled on {record.get('date', '?')}")
        return
    files = [place] if place.is_file() else sorted(p for p in place.iterdir() if p.suffix in zoo.local.SUFFIXES)
    for path in files:
        yield _verify_file(path)


def _verify_file(path: Path) -> dict[str, str]:
    from convnext_cli import zoo
    from convnext_cli.zoo.entry import sha256_prefix

    blob = path.resolve().name  # in a hub cache the file is a link to a blob that is called by its sha256
    if path.is_symlink() and len(blob) == 64:
        return _compare(path, blob, "as the hub's cache names it")
    if prefix := sha256_prefix(path.name):
        return _compare(path, prefix, "as the file's name says")
    if path.suffix == ".safetensors" and (card := zoo.local.embedded_card(path)) and card.sha256:
        return _verify_tensors(path)
    return _compare(path, "", "")


def _verify_tensors(path: Path) -> dict[str, str]:
    """One of the project's own files: its card holds the fingerprint of its tensors."""
    from convnext_cli import checkpoints
    from convnext_cli.errors import ModelError

    try:
        found = checkpoints.load(path, dtype="stored", verify=True).card.sha256
    except ModelError as error:
        return {"path": str(path), "status": "changed", "sha256": "", "why": error.message}
    return {"path": str(path), "status": "ok", "sha256": found, "why": "its tensors are those of its card"}


def _compare(path: Path, wanted: str, why: str) -> dict[str, str]:
    from convnext_cli.zoo.fetch import file_sha256

    if not path.is_file():
        return {"path": str(path), "status": "missing", "sha256": "", "why": "it was here when it was pulled"}
    found = file_sha256(path)
    if not wanted:
        why = f"nothing to compare its sha256 with: {found}"
        return {"path": str(path), "status": "unknown", "sha256": found, "why": why}
    if found.startswith(wanted):
        return {"path": str(path), "status": "ok", "sha256": found, "why": why}
    return {
        "path": str(path),
        "status": "changed",
        "sha256": found,
        "why": f"sha256 is {found}, it should be {wanted} ({why})",
    }
