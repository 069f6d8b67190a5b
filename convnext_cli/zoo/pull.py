"""Fetch a checkpoint into the user's weights folder, and check later that it has not changed.

A pulled model is a folder of the checkpoint's name: the weights, the JSON files that its repository keeps beside
them, and ``pulled.json``, which is written last and makes the pull complete.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from urllib.parse import urlsplit

from convnext_cli import zoo
from convnext_cli.base.errors import ModelError, NetworkError, OutputError, UsageError
from convnext_cli.base.files import unwritten
from convnext_cli.base.listener import SILENT, Listener
from convnext_cli.storage.addresses import scrub
from convnext_cli.zoo import fetch, local_files, record
from convnext_cli.zoo.catalogue import Entry, sha256_prefix
from convnext_cli.zoo.settings import folders

HUB = "https://huggingface.co"
BESIDE = ("config.json", "preprocessor_config.json", "open_clip_config.json")
LARGEST_TEXT = 16 << 20  # bytes of a JSON file; configs that name 21,841 classes take 3 MB
_TRUE = {"1", "on", "yes", "true"}


def forbidden() -> bool:
    """Whether the environment forbids connections: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE."""
    return any(os.environ.get(v, "").casefold() in _TRUE for v in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def pull(
    entry: Entry,
    *,
    folder: Path | None = None,
    progress: fetch.Progress | None = None,
    offline: bool = False,
    origin: bool = False,
    force: bool = False,
) -> Path:
    """Fetch a checkpoint, and return its weights file. For one that is already here, no connection is opened.

    Args:
        entry: the checkpoint.
        folder: the folder for models; None for the user's weights folder.
        progress: called with the bytes that have arrived.
        offline: forbid connections.
        origin: fetch the publisher's own file instead of the hub's.
        force: check the local files against the publisher's checksums, and fetch those that differ; without it only
            files that were written since their pull are checked.

    Raises:
        NetworkError: connections are forbidden, or the server cannot be reached after retries, denies access or sends
            damaged bytes.
        OutputError: the files cannot be written.
    """
    place = (folder or folders().weights) / entry.name
    if not force and (here := pulled(entry, folder=folder, origin=origin)):
        return here
    if offline or forbidden():
        state = "cannot be fetched again" if record.complete(place) else "is not on this machine"
        raise NetworkError(
            f"{entry.name} {state}, and connections are forbidden",
            f"run convnext models pull {entry.name} without --offline and HF_HUB_OFFLINE",
        )
    if (origin or not entry.hub) and not entry.url:
        raise NetworkError(
            f"the publisher of {entry.name} offers no file to download", f"convnext models pull {entry.name}"
        )
    with FolderLock(place):
        if origin or not entry.hub:
            files = {entry.files[0]: _download(entry, _publisher(entry), place / entry.files[0], progress)}
        else:
            files = _from_hub(entry, place, progress)
        weights = next(iter(files))
        record.write(place, entry, files)
    return place / weights


def pull_missing(
    model: str | Path | None,
    *,
    agree: Callable[[Entry], None],
    progress: Callable[[], AbstractContextManager[fetch.Progress | None]] = nullcontext,
    offline: bool = False,
    listener: Listener = SILENT,
) -> Path:
    """Fetch the checkpoint that a name means if it is not on this machine, and return its weights.

    Args:
        model: a name or a path; None for the user's default. Paths, and weights that are here, cost no connection.
        agree: called with the checkpoint before a connection is opened; raises UsageError if its licence is declined.
        progress: opens a callback for the bytes that have arrived.
        offline: forbid connections.
        listener: receives the note that the publisher gives no checksum.

    Raises:
        ModelError: nothing is known under the name.
        UsageError: the licence was declined.
        NetworkError, OutputError: as for ``pull``.
    """
    try:
        return zoo.resolve(model)
    except ModelError:
        entry = zoo.find(str(model or zoo.default_model()))
        if entry is None:
            raise
    if connects(entry, offline=offline):
        agree(entry)
    with progress() as bar:
        path = pull(entry, progress=bar, offline=offline)
    if remark := checksum_remark(path):
        listener.note(remark)
    return path


def checksum_remark(path: Path) -> str:
    """A note on a pulled file whose publisher gives no checksum; "" for others."""
    files = (record.read(path.parent) or {"files": {}})["files"]
    if files.get(path.name, {}).get("checked") != "none":
        return ""
    return "its publisher gives no checksum; `models verify` will compare it with what arrived now"


def connects(entry: Entry, *, offline: bool = False, origin: bool = False, force: bool = False) -> bool:
    """Whether ``pull`` with the same arguments would open a connection."""
    return not (offline or forbidden()) and (force or pulled(entry, origin=origin) is None)


def pulled(entry: Entry, *, folder: Path | None = None, origin: bool = False) -> Path | None:
    """The weights file of a complete, unchanged pull; None when ``pull`` would open a connection."""
    here = record.intact((folder or folders().weights) / entry.name)
    return here if here and (not origin or here.name in entry.files) else None


def _publisher(entry: Entry) -> fetch.Remote:
    return dataclasses.replace(fetch.head(entry.url), sha256=sha256_prefix(entry.url))


def _from_hub(entry: Entry, place: Path, progress: fetch.Progress | None) -> dict[str, record.FileRecord]:
    from huggingface_hub import get_token

    base = f"{_endpoint()}/{entry.hub}/resolve"
    token = get_token() or ""
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError(
            "the access token for the hub contains characters that a token cannot have",
            "set HF_TOKEN to the token exactly as the hub shows it, or unset it",
        )
    weights = _weights_on_hub(entry, base, token)
    files = {}
    # The small files come first, all from one revision: a folder with weights but no config would be a trap.
    for name in BESIDE:
        try:
            remote = fetch.head(f"{base}/{weights.revision or 'main'}/{name}", token=token, hub=True)
        except fetch.Absent:
            continue
        files[name] = _download(entry, remote, place / name, progress)
    name = weights.url.rpartition("/")[2]
    return {name: _download(entry, weights, place / name, progress), **files}


def _endpoint() -> str:
    """The hub's address, or that of a mirror.

    Raises:
        UsageError: HF_ENDPOINT is not a valid address.
    """
    url = os.environ.get("HF_ENDPOINT") or HUB
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:
        is_address = False
    if not is_address or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(
            f"HF_ENDPOINT is not the address of a hub: {scrub(url)!r}", "unset HF_ENDPOINT, or set it to https://HOST"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            f"HF_ENDPOINT must not contain a password or a query: {scrub(url)}",
            "set it to https://HOST alone, and HF_TOKEN to the access token",
        )
    return url.rstrip("/")


def _weights_on_hub(entry: Entry, base: str, token: str) -> fetch.Remote:
    """The first of the usual weights files that the repository has."""
    for name in local_files.WEIGHT_FILES:
        if name.endswith(".index.json"):  # none of the known repositories is sharded
            continue
        try:
            remote = fetch.head(f"{base}/main/{name}", token=token, hub=True)
        except fetch.Absent as error:
            if error.status == 404 and error.code in ("", "EntryNotFound"):
                continue
            raise _refused(entry, error, bool(token)) from error
        return dataclasses.replace(remote, url=f"{base}/{remote.revision or 'main'}/{name}")
    raise NetworkError(f"the hub's repository {entry.hub} has no weights", _elsewhere(entry))


def _refused(entry: Entry, error: fetch.Absent, token: bool) -> NetworkError:
    page = f"{HUB}/{entry.hub}"
    if error.code == "GatedRepo":
        sign_in = "" if token else ", then set HF_TOKEN to your access token"
        return NetworkError(f"{entry.hub} is gated: you must accept its terms first", f"accept them on {page}{sign_in}")
    if error.code == "RepoNotFound" or error.status == 404:
        return NetworkError(f"the hub has no public repository {entry.hub}", _elsewhere(entry))
    why = "your access token is not valid" if token and error.status == 401 else f"it answers {error.status}"
    return NetworkError(f"the hub denies access to {entry.hub}: {why}", f"open {page} in a browser")


def _elsewhere(entry: Entry) -> str:
    if entry.url:
        return f"fetch the publisher's file: convnext models pull {entry.name} --origin"
    return f"open {HUB}/{entry.hub} in a browser; a mirror in HF_ENDPOINT may lack it"


def _download(entry: Entry, remote: fetch.Remote, target: Path, progress: fetch.Progress | None) -> record.FileRecord:
    limit = LARGEST_TEXT if target.name in BESIDE else _largest_weights(entry)
    sha256 = fetch.download(remote, target, progress, limit=limit)
    checked = "whole" if len(remote.sha256) == 64 or remote.git else "start" if remote.sha256 else "none"
    return {
        "sha256": sha256,
        "size": target.stat().st_size,
        "checked": checked,
        "source": scrub(remote.url),
    }


def _largest_weights(entry: Entry) -> int:
    """The largest plausible file in bytes: four times float32, for a text tower, averages and an optimiser's state."""
    return max(16 * entry.config.num_parameters, LARGEST_TEXT)


class FolderLock:
    """Admits one process at a time to a model's folder.

    Raises:
        OutputError: another process is pulling into the folder.
    """

    def __init__(self, place: Path) -> None:
        from filelock import FileLock

        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritten(place, error) from error
        self._place = place
        self._lock = FileLock(place / ".lock", timeout=0)

    def __enter__(self) -> None:
        from filelock import Timeout

        try:
            self._lock.acquire()
        except Timeout as error:
            raise OutputError("another process is pulling this model", "wait until it has ended") from error
        except OSError as error:
            raise unwritten(self._place, error) from error

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        with suppress(OSError):  # the folder is removed if it is empty and no other pull has started
            (self._place / ".lock").unlink()
            self._place.rmdir()
