"""From a URL to the file system that it names, and from what that lists back to URLs."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from convnext_cli.storage.addresses import check, is_url, links, plain, scheme
from convnext_cli.storage.failures import command_error, missing_library
from convnext_cli.storage.ranges import opened

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

READERS = 32  # parallel requests: they wait for the network, not for a processor
_lock = threading.Lock()


@dataclass(frozen=True)
class Place:
    """The location that a URL names.

    Args:
        url: the URL as the user typed it.
        fs: the file system.
        path: the path in that file system.
        head, tail: the text before and after a name in the URLs of this location.
    """

    url: str
    fs: AbstractFileSystem
    path: str
    head: str
    tail: str

    def url_of(self, name: str) -> str:
        """The URL of a name that the file system lists below this place."""
        return f"{self.head}{name[len(self.path) :] if self.path else name.lstrip('/')}{self.tail}"

    def below(self, name: str) -> str:
        """The part of a listed name below this place, without a leading slash."""
        return name[len(self.path) :].lstrip("/")


def locate(url: str) -> Place:
    """The place of a URL. No connection is opened, unless it is in an archive behind another URL.

    Raises:
        UsageError: the URL is not accepted.
        UnavailableError: a library is missing.
        ConvNextError: an archive cannot be opened (see ``command_error``).
    """
    check(url)
    first, *outer = links(url)
    archive = "::".join(outer)
    try:
        with _lock:  # one of each for all threads, so that connections are shared
            fs = _file_system(scheme(first), archive)
    except ImportError as error:
        raise missing_library(error, url) from error
    except Exception as error:
        raise command_error(error, archive or url) from error
    path = str(fs._strip_protocol(first)).rstrip("/")
    head = first.rstrip("/") if path else first.partition("://")[0] + "://"
    return Place(url, fs, path, head, f"::{archive}" if archive else "")


@lru_cache(maxsize=64)
def _file_system(name: str, archive: str) -> AbstractFileSystem:
    """The file system of a scheme.

    Args:
        name: the scheme.
        archive: the URL or path of the archive that is the file system; empty for none.
    """
    import fsspec

    if not archive:
        fs = fsspec.filesystem(name, **_options(name))
        if hasattr(fs, "call_s3"):
            fs.retries = 1
        return fs
    if is_url(plain(archive)):
        first, *outer = links(archive)
        around = _file_system(scheme(first), "::".join(outer))
        file: IO[bytes] = opened(around, str(around._strip_protocol(first)))
    else:
        file = Path(plain(archive)).open("rb")  # noqa: SIM115 - the file system keeps it open
    fs = fsspec.filesystem(name, fo=file, skip_instance_cache=True)
    fs.ls("")  # it reads its directory at the first request, and other threads would see half of it
    return fs


def _options(name: str) -> dict[str, object]:
    """Options that open a file system: without a cache of listings, which would hold a whole bucket."""
    options: dict[str, object] = {"use_listings_cache": False, "skip_instance_cache": True}
    if name in ("s3", "s3a"):
        import fsspec.config

        configured = {**fsspec.config.conf.get("s3", {}), **fsspec.config.conf.get("s3a", {})}
        # retries are ours (``retry``): the library's own retries within each of them would take minutes
        own = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "max_pool_connections": 2 * READERS}
        options["config_kwargs"] = own | configured.get("config_kwargs", {})
    return options


def forget() -> None:
    """Open file systems again from now on, so that changed settings take effect. Nothing is closed."""
    _file_system.cache_clear()
