"""One file over HTTP(S): resumed where it was cut, checked against its publisher's checksum, put in place at once.

The standard library's client: it obeys HTTP_PROXY, HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE. Bytes go to a hidden
``.part`` file beside the target, whose name holds the version that the server announced, so that a resumed download
never mixes two versions.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from convnext_cli import __version__
from convnext_cli.errors import NetworkError, OutputError
from convnext_cli.zoo import record

RETRIES = 3
PAUSE = 1.0  # seconds before the first retry; doubled before each further one
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20
_DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# File name, bytes so far, bytes in all (None when the server does not say).
Progress = Callable[[str, int, int | None], None]


class Absent(NetworkError):
    """The server answers, but has no such file; ``code`` is the hub's own word for the reason, if it gives one."""

    def __init__(self, url: str, status: int, code: str) -> None:
        super().__init__(f"{urlsplit(url).netloc} answers {status} to {url}", "check the address in a browser")
        self.status, self.code = status, code


class _Cut(Exception):
    """Worth another try."""


@dataclass(frozen=True)
class Remote:
    """A file on a server, as its headers describe it.

    size: in bytes, None when unknown. version: changes whenever the bytes do, "" when the server does not say.
    sha256: in hexadecimal, whole or only its start; git: sha1 of the git blob; "" when the publisher gives none.
    revision: the repository's commit. token: sent to this host alone.
    """

    url: str
    size: int | None = None
    version: str = ""
    sha256: str = ""
    git: str = ""
    revision: str = ""
    token: str = ""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but takes the token to no other host, and never leaves https for http."""

    def __init__(self, stay: bool) -> None:
        self.stay = stay

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if self.stay and old.netloc != new.netloc:
            return None
        if old.scheme == "https" and new.scheme != "https":
            raise urllib.error.HTTPError(newurl, 495, "redirected from https to http", headers, fp)
        request = urllib.request.Request(newurl, headers=dict(req.header_items()), method=req.get_method())
        if old.netloc != new.netloc:
            request.remove_header("Authorization")
        request.remove_header("Host")
        return request


def _open(url: str, method: str, token: str, *, start: int = 0, stay: bool = False) -> Any:
    headers = {"User-Agent": f"convnext/{__version__}", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if start:
        headers["Range"] = f"bytes={start}-"
    opener = urllib.request.build_opener(_Redirects(stay), urllib.request.HTTPSHandler(context=_tls()))
    return opener.open(urllib.request.Request(url, headers=headers, method=method), timeout=TIMEOUT)


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if bundle := os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE"):
        context.load_verify_locations(bundle)
    return context


def head(url: str, *, token: str = "", hub: bool = False) -> Remote:
    """Ask for a file's size, version and checksum without its bytes.

    hub: the server speaks as the Hugging Face hub does; what it says counts, not the storage it redirects to.
    Raises Absent when the server has no such file, NetworkError when it cannot be reached after retries.
    """
    answer = _retry(url, lambda: _headers(url, token, hub))
    etag = (answer.get("X-Linked-Etag") or answer.get("ETag") or "").removeprefix("W/").strip('"')
    size = answer.get("X-Linked-Size") or (None if answer.get("Location") else answer.get("Content-Length"))
    return Remote(
        url=url,
        size=int(size) if size and size.isdigit() else None,
        version=etag or answer.get("Last-Modified") or "",
        sha256=etag if hub and _is_hex(etag, 64) else "",
        git=etag if hub and _is_hex(etag, 40) else "",
        revision=answer.get("X-Repo-Commit") or "",
        token=token,
    )


def _headers(url: str, token: str, hub: bool) -> Message:
    try:
        with _open(url, "HEAD", token, stay=hub) as answer:
            found: Message = answer.headers
            return found
    except urllib.error.HTTPError as error:
        if hub and 300 <= error.code < 400:
            return error.headers
        if not hub and error.code in (403, 405, 501):  # some servers only answer GET
            return Message()
        raise


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and all(c in "0123456789abcdef" for c in text)


def download(remote: Remote, target: Path, progress: Progress | None = None) -> str:
    """Bring a file to ``target`` and return its sha256.

    What arrived before a cut stays in the ``.part`` file and is not fetched again. Raises NetworkError after the
    retries, or when the checksum is wrong (then nothing stays); OutputError when the disk is full or not writable.
    """
    if (sha256 := _already(remote, target)) is not None:
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
    except OSError as error:
        raise _unwritable(part, error) from error
    _check_room(remote, part)
    while remote.size is None or _size(part) != remote.size:
        if remote.size is not None and _size(part) > remote.size:
            part.unlink()
        _retry(remote.url, lambda: _append(remote, part, progress), lambda: _size(part))
        if remote.size is None:
            break
    sha256 = _check(remote, part)
    try:
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise _unwritable(part, error) from error
    return sha256


def _append(remote: Remote, part: Path, progress: Progress | None) -> None:
    """Fetch from where the part ends. Raises _Cut when the answer ends too early."""
    start = _size(part)
    try:
        answer = _open(remote.url, "GET", remote.token, start=start)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        part.unlink()  # longer than the file is
        raise _Cut("the server has no more bytes than are here") from error
    with answer:
        resumed = answer.status == 206
        if resumed and not (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            raise _Cut("the server sent another range than asked for")
        try:
            file = part.open("ab" if resumed else "wb", buffering=0)
        except OSError as error:
            raise _unwritable(part, error) from error
        with file:
            done = file.tell()
            length = answer.headers.get("Content-Length")
            total = remote.size if remote.size is not None else done + int(length) if length else None
            while chunk := answer.read(CHUNK):
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


def _retry(url: str, attempt: Callable[[], Any], progress: Callable[[], int] = lambda: 0) -> Any:
    """Try again after what may pass: a cut, a time-out, a busy server. Tries that got further do not count."""
    failures, furthest = 0, progress()
    while True:
        try:
            return attempt()
        except urllib.error.HTTPError as error:
            if error.code == 495:
                raise NetworkError(f"{url} leads from https to http", "refused; tell the server's keeper") from error
            if error.code not in (408, 425, 429) and error.code < 500:
                raise Absent(url, error.code, error.headers.get("X-Error-Code") or "") from error
            reason = f"the server answers {error.code} {error.reason}"
            cause: Exception = error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise NetworkError(
                    f"the certificate of {urlsplit(url).netloc} cannot be verified: {error.reason.verify_message}",
                    "behind a company's proxy, name its certificates: SSL_CERT_FILE=/path/to/bundle.pem",
                ) from error
            if isinstance(error.reason, socket.gaierror):
                reason = f"the name {urlsplit(url).hostname} cannot be looked up"
            else:
                reason = str(getattr(error.reason, "strerror", None) or error.reason)
            cause = error
        except (_Cut, http.client.HTTPException, OSError) as error:
            reason, cause = str(error) or type(error).__name__, error
        got = progress()
        failures = 0 if got > furthest else failures + 1
        furthest = max(furthest, got)
        if failures > RETRIES:
            raise NetworkError(
                f"cannot fetch {url}: {reason}",
                "run the same command again to go on from where it stopped; HTTPS_PROXY and HF_ENDPOINT are obeyed",
            ) from cause
        time.sleep(PAUSE * 2 ** max(failures - 1, 0))


def _already(remote: Remote, target: Path) -> str | None:
    """The sha256 of a target that holds the publisher's bytes, None when it does not or nobody can know."""
    if not (remote.sha256 or remote.git) or not target.is_file() or remote.size not in (None, _size(target)):
        return None
    sha256, found, wanted = _digests(remote, target)
    return sha256 if found == wanted else None


def _digests(remote: Remote, path: Path) -> tuple[str, str, str]:
    """The sha256 of a file, and the checksum that its publisher gives as it was found and as it should be."""
    sha256 = record.sha256(path)
    if remote.git:
        blob = hashlib.sha1(b"blob %d\0" % _size(path), usedforsecurity=False)
        blob.update(path.read_bytes())
        return sha256, blob.hexdigest(), remote.git
    return sha256, sha256[: len(remote.sha256)], remote.sha256


def _check(remote: Remote, part: Path) -> str:
    """The sha256 of a whole part. Raises NetworkError, and deletes it, when the publisher's checksum is another."""
    sha256, found, wanted = _digests(remote, part)
    if found != wanted:
        part.unlink()
        raise NetworkError(
            f"{remote.url} arrived damaged: its checksum is {found}, its publisher says {wanted}",
            "nothing was kept; pull again, and if it happens again, mistrust the mirror or proxy in between",
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
            f"{part.parent} has {free / 1e6:,.0f} MB free, but {needed / 1e6:,.0f} MB are still to come",
            "free some space, or put the weights elsewhere with CONVNEXT_HOME",
        )


def _unwritable(part: Path, error: OSError) -> OutputError:
    if error.errno in _DISK_IS_FULL:
        return OutputError(
            f"the disk is full: {_size(part):,} bytes of the download are kept in {part}",
            "free some space and run the same command again, or put the weights elsewhere with CONVNEXT_HOME",
        )
    return OutputError(
        f"cannot write {part}: {error.strerror}", "check its permissions, or put the weights elsewhere: CONVNEXT_HOME"
    )
