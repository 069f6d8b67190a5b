"""From a URL to the file system that it names, and from what that lists back to URLs."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_cli.storage.addresses import check, is_url, links, plain, scheme
from convnext_cli.storage.failures import command_error, missing_library
from convnext_cli.storage.ranges import opened

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

READERS = 32  # objects that are read or looked at side by side: they wait for the network, not for a processor
_lock = threading.Lock()


@dataclass(frozen=True)
class Place:
    """A URL. fs: where it is. path: as the file system calls it. head, tail: what stands around names in URLs."""

    url: str
    fs: AbstractFileSystem
    path: str
    head: str
    tail: str

    def url_of(self, name: str) -> str:
        """The URL of what the file system lists below this place."""
        return f"{self.head}{name[len(self.path) :] if self.path else name.lstrip('/')}{self.tail}"

    def below(self, name: str) -> str:
        """What of a listed name lies below this place, without a slash in front."""
        return name[len(self.path) :].lstrip("/")


def locate(url: str) -> Place:
    """The place of a URL. No connection is opened, unless it lies in an archive behind another URL.

    Raises UsageError for URLs that are not taken, UnavailableError where a library is missing, and what
    ``command_error`` makes of an archive that cannot be opened.
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
    """archive: the URL or path of the file that it is in, or nothing."""
    import fsspec

    if not archive:
        fs = fsspec.filesystem(name, **_options(name))
        if hasattr(fs, "call_s3"):
            fs.retries = 1
        return fs
    if is_url(plain(archive)):
        first, *outer = links(archive)
        around = _file_system(scheme(first), "::".join(outer))
        file: Any = opened(around, str(around._strip_protocol(first)))
    else:
        file = Path(plain(archive)).open("rb")  # noqa: SIM115 - the file system has it
    fs = fsspec.filesystem(name, fo=file, skip_instance_cache=True)
    fs.ls("")  # it reads its directory when first asked, and threads that ask meanwhile would find half of it
    return fs


def _options(name: str) -> dict[str, Any]:
    """How a file system is opened: without a memory for listings, which would hold a whole bucket."""
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if name in ("s3", "s3a"):
        import fsspec.config

        given = {**fsspec.config.conf.get("s3", {}), **fsspec.config.conf.get("s3a", {})}
        # trying again is ours (patience); the library's own tries within each of them would make minutes of it
        own = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "max_pool_connections": 2 * READERS}
        options["config_kwargs"] = own | given.get("config_kwargs", {})
    return options


def forget() -> None:
    """Close nothing, but open anew what is asked for next: for other settings in the same process."""
    _file_system.cache_clear()
