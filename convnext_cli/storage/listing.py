"""Listings of a store, page by page: of a bucket with 10^8 keys only one page is in memory.

S3 is listed flat, by ``list_objects_v2``: a thousand keys a request, in the order of their bytes. Other stores are
walked folder by folder, so memory holds no more than the largest folder.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeAlias, TypeVar

from convnext_cli.storage import retry
from convnext_cli.storage.filesystems import READERS, Place

Info: TypeAlias = dict[str, Any]  # how a file system of fsspec describes an object; each in its own words
T = TypeVar("T")
R = TypeVar("R")
_MAGIC = re.compile(r"[*?[]")
# The names under which stores give an object's checksum or tag, and the time of its last change.
_TAGS = ("ETag", "etag", "md5Hash", "blob_id", "CRC")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")


@dataclass(frozen=True, slots=True)
class Seen:
    """The state of an object, to detect that it has changed, as far as its store reports it.

    Args:
        size: in bytes.
        mtime_ns: time of the last change; None where there is a tag, which is more reliable.
        tag: an ETag or checksum.
    """

    size: int | None
    mtime_ns: int | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """An object in a store.

    Args:
        name: its path in the file system.
        seen: its state when it was listed.
    """

    name: str
    seen: Seen


def look(place: Place) -> Item | None:
    """The object of this URL; None where it is a folder. Raises what the file system raises."""
    info = retry.first_contact(partial(place.fs.info, place.path))
    return None if info["type"] == "directory" or place.url.endswith("/") else Item(place.path, seen(info))


def below(place: Place, *, prefix: str = "", deep: bool = True) -> Iterator[Item]:
    """The objects below a folder. Each page is retried by itself. Empty objects that stand for folders are left out.

    Errors of the file system are passed on.

    Args:
        place: the folder.
        prefix: only names that begin with it.
        deep: include the folders below.
    """
    if hasattr(place.fs, "call_s3"):
        return _pages_of_s3(place, prefix, deep)
    return _walk(place, prefix, deep)


def _pages_of_s3(place: Place, prefix: str, deep: bool) -> Iterator[Item]:
    bucket, _, key = place.path.partition("/")
    request: dict[str, str] = {"Bucket": bucket, "Prefix": (f"{key}/" if key else "") + prefix}
    if not deep:
        request["Delimiter"] = "/"
    while True:
        page = retry.patience(partial(place.fs.call_s3, "list_objects_v2", **request))
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):
                yield Item(f"{bucket}/{entry['Key']}", seen(entry | {"size": entry["Size"]}))
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _walk(place: Place, prefix: str, deep: bool) -> Iterator[Item]:
    """Walk depth first, by name."""

    def entries(path: str) -> list[Info]:
        infos = retry.patience(partial(place.fs.ls, path, detail=True))
        return sorted(infos, key=lambda info: str(info["name"]).rstrip("/"))

    stack = [iter(entries(place.path))]
    while stack:
        info = next(stack[-1], None)
        if info is None:
            stack.pop()
            continue
        name = str(info["name"]).rstrip("/")
        if len(stack) == 1 and not place.below(name).startswith(prefix):
            continue
        if info["type"] == "directory":
            if deep and name != place.path:
                stack.append(iter(entries(name)))
        elif place.below(name):
            yield Item(name, seen(info))


def is_glob(url: str) -> bool:
    """Whether a URL has wildcards."""
    return _MAGIC.search(url.partition("://")[2]) is not None


def split_glob(url: str) -> tuple[str, str]:
    """The folder before the first wildcard, and the pattern below it; an archive around it stays with the folder."""
    from convnext_cli.storage.addresses import links

    first, *outer = links(url)
    name, _, rest = first.partition("://")
    parts = rest.split("/")
    plain = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    return "::".join([f"{name}://{'/'.join(parts[:plain])}", *outer]), "/".join(parts[plain:])


def matching(place: Place, pattern: str) -> Iterator[Item]:
    """The objects below a folder that a glob matches.

    As in a shell, a wildcard matches no slash and no hidden name, and ``**`` any number of folders; a pattern with a
    dot in front of a part matches hidden names too.
    """
    matches = re.compile(_translated(pattern)).fullmatch
    lead = _MAGIC.split(pattern, maxsplit=1)[0]
    dots = any(part.startswith(".") for part in pattern.split("/"))
    for item in below(place, prefix=lead, deep="/" in pattern or "**" in pattern):
        name = place.below(item.name)
        if matches(name) and (dots or not any(part.startswith(".") for part in name.split("/"))):
            yield item


def _translated(pattern: str) -> str:
    """A glob as a regular expression; ``**`` stands for folders only where it is a whole part."""
    expressions = []
    parts = pattern.split("/")
    for level, part in enumerate(parts):
        last = level == len(parts) - 1
        if part == "**":
            expressions.append(".*" if last else "(?:.*/)?")
            continue
        expressions.append(_part(part) + ("" if last else "/"))
    return "(?s:" + "".join(expressions) + ")"


def _part(part: str) -> str:
    """One part of a glob, between slashes, as a regular expression."""
    expression, at = "", 0
    while at < len(part):
        sign = part[at]
        at += 1
        if sign == "*":
            expression += "[^/]*"
        elif sign == "?":
            expression += "[^/]"
        elif sign == "[" and (end := part.find("]", at + 1)) > 0:
            inside = part[at:end].replace("\\", r"\\").replace("[", r"\[")
            expression += f"[{'^' + inside[1:] if inside.startswith('!') else inside}]"
            at = end + 1
        else:
            expression += re.escape(sign)
    return expression


def seen(info: Info) -> Seen:
    """The state of an object, from the file system's description."""
    size = info.get("size")
    tag = next((str(info[name]) for name in _TAGS if info.get(name)), None)
    when = None if tag else next((_nanoseconds(info[name]) for name in _TIMES if info.get(name)), None)
    return Seen(None if size is None else int(size), when, tag)


def _nanoseconds(when: object) -> int | None:
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            return None
    if isinstance(when, datetime):
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    return int(when * 1_000_000_000) if isinstance(when, int | float) else None


def overlapped(work: Callable[[T], R], items: Iterable[T], in_thread: Callable[[T], bool]) -> Iterator[R]:
    """Call ``work`` on each item, and yield the results in order.

    Args:
        work: the function.
        items: its arguments.
        in_thread: whether an item is worked on in a thread, ahead of the others.
    """
    ahead: deque[tuple[T, Future[R] | None]] = deque()
    pool: ThreadPoolExecutor | None = None

    def first() -> R:
        item, future = ahead.popleft()
        return work(item) if future is None else future.result()

    try:
        for item in items:
            if in_thread(item):
                pool = pool or ThreadPoolExecutor(READERS, "look")
                ahead.append((item, pool.submit(work, item)))
            elif ahead:
                ahead.append((item, None))
            else:
                yield work(item)
            if len(ahead) > 2 * READERS:
                yield first()
        while ahead:
            yield first()
    finally:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
