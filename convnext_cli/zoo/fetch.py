"""Download one file over HTTP(S): resume after a cut, check the publisher's checksum, and rename it into place.

Bytes go to a hidden ``.part`` file beside the target, whose name holds the version that the server announced, so that a
resumed download never mixes two versions.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import socket
import ssl
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from convnext_cli.base.errors import NetworkError, OutputError
from convnext_cli.base.retry import Patience
from convnext_cli.storage.addresses import scrub
from convnext_cli.zoo import http_client, record
from convnext_cli.zoo.http_client import BadAnswerError, open_url

T = TypeVar("T")
CHUNK = 1 << 18
_MISTRUST = "run the same command again; if that does not help, check the mirror or proxy that you use"
_DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# File name, bytes so far, bytes in all (None when the server does not say).
Progress = Callable[[str, int, int | None], None]


class Absent(NetworkError):
    """The server answers, but does not have the file; ``code`` is the hub's own reason, if it gives one."""

    def __init__(self, url: str, status: int, code: str) -> None:
        shown = scrub(url)
        super().__init__(f"{urlsplit(shown).netloc} answers {status} to {shown}", "check the address in a browser")
        self.status, self.code = status, code


class _Cut(Exception):
    """The download was cut; a retry may succeed."""


@dataclass(frozen=True)
class Remote:
    """A file on a server, as its headers describe it.

    Args:
        url: its address.
        size: in bytes; None when unknown.
        version: a text that changes whenever the bytes do; "" when the server gives none.
        sha256: in hexadecimal, complete or only its start; "" when the publisher gives none.
        git: the sha1 of the git blob; "" when the publisher gives none.
        etag: the ETag of a server that is not a hub, to resume only the same version; "" for a weak one.
        revision: the repository's commit.
        token: the access token, which is sent to this host only.
    """

    url: str
    size: int | None = None
    version: str = ""
    sha256: str = ""
    git: str = ""
    etag: str = ""
    revision: str = ""
    token: str = ""


def head(url: str, *, token: str = "", hub: bool = False) -> Remote:
    """Ask for a file's size, version and checksum without its bytes.

    Args:
        url: of the file.
        token: the access token; "" for none.
        hub: the server is a Hugging Face hub: its own headers count, not those of the storage that it redirects to.

    Raises:
        Absent: the server does not have the file.
        NetworkError: the server cannot be reached, after retries.
    """
    answer, size = _retry(url, lambda: _headers(url, token, hub))
    full_etag = answer.get("X-Linked-Etag") or answer.get("ETag") or ""
    etag = full_etag.removeprefix("W/").strip('"')
    revision = answer.get("X-Repo-Commit") or ""
    return Remote(
        url=url,
        size=size,
        version=etag or answer.get("Last-Modified") or "",
        sha256=etag if hub and _is_hex(etag, 64) else "",
        git=etag if hub and _is_hex(etag, 40) else "",
        etag=full_etag if not hub and full_etag.startswith('"') else "",
        revision=revision if _is_hex(revision, 40) else "",
        token=token,
    )


def _headers(url: str, token: str, hub: bool) -> tuple[Message, int | None]:
    """The headers of a file, and the size that they announce."""
    try:
        with open_url(url, "HEAD", token=token, stay=hub) as answer:
            headers: Message = answer.headers
    except urllib.error.HTTPError as error:
        if hub and 300 <= error.code < 400:
            headers = error.headers
        elif not hub and error.code in (403, 405, 501):  # some servers only answer GET
            return Message(), None
        else:
            raise
    size = http_client.number(headers, "X-Linked-Size")
    if size is None and not headers.get("Location"):
        size = http_client.number(headers, "Content-Length")
    return headers, size


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and all(c in "0123456789abcdef" for c in text)


def download(remote: Remote, target: Path, progress: Progress | None = None, *, limit: int) -> str:
    """Download a file to ``target``, and return its sha256.

    The bytes that arrived before a cut stay in the ``.part`` file and are not fetched again.

    Args:
        remote: the file.
        target: where to put it.
        progress: called with the bytes that have arrived.
        limit: the most bytes that such a file may have; if the server announces or sends more, the download fails.

    Raises:
        NetworkError: all retries failed, the server sends too much or too slowly, or the checksum is wrong, in which
            case nothing is kept.
        OutputError: the disk is full or not writable.
    """
    if remote.size is not None and remote.size > limit:
        raise NetworkError(
            f"{scrub(remote.url)} would be {remote.size:,} bytes; such a file may have at most {limit:,}",
            _MISTRUST,
        )
    if (sha256 := _sha256_if_present(remote, target)) is not None:
        return sha256
    name = target.name
    key = hashlib.sha256(f"{remote.version} {remote.sha256} {remote.git} {remote.size}".encode()).hexdigest()[:12]
    part = target.with_name(f".{name}.{key}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in target.parent.glob(f".{name}.*.part"):
            if stale != part or not (remote.version or remote.sha256 or remote.git):
                stale.unlink()
        part.touch()
        if remote.size is not None and _size(part) > remote.size:
            part.unlink()
    except OSError as error:
        raise _unwritable(part, error) from error
    _check_room(remote, part)
    if remote.size is None or _size(part) != remote.size:
        _retry(remote.url, lambda: _append(remote, part, progress, limit), lambda: _size(part))
    sha256 = _verify(remote, part)
    try:
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise _unwritable(part, error) from error
    return sha256


def _append(remote: Remote, part: Path, progress: Progress | None, limit: int) -> None:
    """Fetch the rest of a part.

    Raises:
        _Cut: the response is too short.
        BadAnswerError: the response is too long.
    """
    start = _size(part)
    try:
        answer = open_url(remote.url, "GET", token=remote.token, start=start, unless_changed=remote.etag)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        part.unlink(missing_ok=True)  # longer than the file is
        raise _Cut("the server has no more bytes than have arrived") from error
    with answer:
        resumed = answer.status == 206
        if resumed and not (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            raise _Cut("the server sent another range than the requested one")
        done = start if resumed else 0
        total = _total(remote, answer.headers, done)
        most = limit if total is None else min(total, limit)
        answer.expect(most)
        try:
            file = part.open("ab" if resumed else "wb", buffering=0)
        except OSError as error:
            raise _unwritable(part, error) from error
        with file:
            while chunk := answer.read1(CHUNK):
                if done + len(chunk) > most:
                    part.unlink(missing_ok=True)
                    raise BadAnswerError(f"the server sends more than {most:,} bytes, the most that this file may have")
                try:
                    left = memoryview(chunk)
                    while left:
                        left = left[file.write(left) :]
                except OSError as error:
                    raise _unwritable(part, error) from error
                done += len(chunk)
                if progress:
                    progress(remote.url.rpartition("/")[2], done, total)
    if total is not None and done < total:
        raise _Cut(f"the connection was cut after {done:,} of {total:,} bytes")


def _total(remote: Remote, headers: Message, done: int) -> int | None:
    """The size of the complete file in bytes; None when unknown.

    Raises:
        BadAnswerError: the length of the response is not the announced one.
    """
    length = http_client.number(headers, "Content-Length")
    total = None if length is None else done + length
    if remote.size is not None and total is not None and total != remote.size:
        raise BadAnswerError(
            f"the server announced {remote.size:,} bytes and now sends {total:,}: the file has changed since, "
            "or a proxy serves an old copy"
        )
    return total if remote.size is None else remote.size


def _is_passing(error: Exception) -> bool:
    """Whether a retry may succeed: after a cut, a timeout or a busy server."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (408, 425, 429) or error.code >= 500
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, ssl.SSLCertVerificationError):
        return False
    return isinstance(error, _Cut | http.client.HTTPException | OSError) and not isinstance(error, BadAnswerError)


patience = Patience(_is_passing, tries=4, first=2.0, enough=30_000)  # bytes


def _retry(url: str, attempt: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
    """The result of ``attempt``, after retries where they may help.

    Raises:
        Absent: the server does not have the file.
        NetworkError: any other failure.
    """
    try:
        return patience(attempt, progress)
    except BadAnswerError as error:
        raise NetworkError(f"cannot fetch {scrub(url)}: {scrub(str(error))}", _MISTRUST) from error
    except urllib.error.HTTPError as error:
        if not _is_passing(error):
            raise Absent(url, error.code, error.headers.get("X-Error-Code") or "") from error
        raise _gone(url, f"the server answers {error.code} {error.reason}") from error
    except (_Cut, http.client.HTTPException, OSError) as error:
        raise _gone(url, _reason(url, error)) from error


def _gone(url: str, reason: str) -> NetworkError:
    return NetworkError(
        f"cannot fetch {scrub(url)}: {scrub(reason)}",
        "run the same command again to resume; set HTTPS_PROXY for a proxy, or HF_ENDPOINT for a mirror",
    )


def _reason(url: str, error: Exception) -> str:
    """Why a connection failed, in words.

    Raises:
        NetworkError: the server's certificate cannot be verified.
    """
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    if not isinstance(error, urllib.error.URLError):
        return " ".join(str(error).split()) or type(error).__name__  # one line of whatever the server sent
    if isinstance(error.reason, ssl.SSLCertVerificationError):
        raise NetworkError(
            f"the certificate of {urlsplit(scrub(url)).netloc} cannot be verified: {error.reason.verify_message}",
            "behind a company proxy, name its certificates: SSL_CERT_FILE=/path/to/bundle.pem",
        ) from error
    if isinstance(error.reason, socket.gaierror):
        return f"the host name {urlsplit(url).hostname} cannot be resolved"
    return str(getattr(error.reason, "strerror", None) or error.reason)


def _sha256_if_present(remote: Remote, target: Path) -> str | None:
    """The sha256 of a target that already holds the publisher's bytes; None if it does not, or that is unknown."""
    if not (remote.sha256 or remote.git) or not target.is_file() or remote.size not in (None, _size(target)):
        return None
    sha256, actual, expected = _digests(remote, target)
    return sha256 if actual == expected else None


def _digests(remote: Remote, path: Path) -> tuple[str, str, str]:
    """The sha256 of a file, then its actual and its expected checksum of the kind that the publisher gives."""
    sha256 = record.sha256(path)
    if remote.git:
        blob = hashlib.sha1(b"blob %d\0" % _size(path), usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                blob.update(chunk)
        return sha256, blob.hexdigest(), remote.git
    return sha256, sha256[: len(remote.sha256)], remote.sha256


def _verify(remote: Remote, part: Path) -> str:
    """The sha256 of a complete part, which is deleted if the publisher's checksum differs.

    Raises:
        NetworkError: the publisher's checksum differs.
    """
    sha256, actual, expected = _digests(remote, part)
    if actual != expected:
        part.unlink()
        raise NetworkError(
            f"{scrub(remote.url)} arrived damaged: its checksum is {actual}, and should be {expected}",
            f"nothing was kept; {_MISTRUST}",
        )
    return sha256


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _check_room(remote: Remote, part: Path) -> None:
    if remote.size is None:
        return
    free, needed = shutil.disk_usage(part.parent).free, remote.size - _size(part)
    if needed > free:
        raise OutputError(
            f"{part.parent} has {free / 1e6:,.0f} MB free, and the download needs {needed / 1e6:,.0f} MB more",
            "free some space, or put the weights elsewhere with CONVNEXT_HOME",
        )


def _unwritable(part: Path, error: OSError) -> OutputError:
    if error.errno in _DISK_IS_FULL:
        return OutputError(
            f"the disk is full: {_size(part):,} bytes of the download are kept in {part}",
            "free some space and run the same command again, or put the weights elsewhere with CONVNEXT_HOME",
        )
    return OutputError(
        f"cannot write {part}: {error.strerror}",
        "check its permissions, or put the weights elsewhere with CONVNEXT_HOME",
    )
