"""What lies in a store, found page by page: of a bucket with 10^8 keys only the page at hand is in memory.

S3 is listed flat, by ``list_objects_v2``: a thousand keys a request, in the order of their bytes. Other stores have no
such call in common; they are walked folder by folder, so that memory is that of the largest folder.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from convnext_cli.storage import retry
from convnext_cli.storage.filesystems import READERS, Place

T = TypeVar("T")
R = TypeVar("R")
_MAGIC = re.compile(r"[*?[]")
# Under these names stores say what stands for an object's bytes, and when it was changed.
_TAGS = ("ETag", "etag", "md5Hash", "blob_id", "CRC")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")


@dataclass(frozen=True, slots=True)
class Seen:
    """What tells an object from what it was before, as far as its store says it.

    size: in bytes. mtime_ns: time of change; None where there is a tag, which says more. tag: an ETag or checksum.
    """

    size: int | None
    mtime_ns: int | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """An object. name: as its file system calls it."""

    name: str
    seen: Seen


def look(place: Place) -> Item | None:
    """The object of this URL; None where it is a folder. Raises what the file system raises."""
    info = retry.first_contact(partial(place.fs.info, place.path))
    return None if info["type"] == "directory" or place.url.endswith("/") else Item(place.path, seen(info))


def below(place: Place, *, prefix: str = "", deep: bool = True) -> Iterator[Item]:
    """The objects below a folder, each page tried again by itself; folders' own empty objects are left out.

    prefix: with which their names begin. deep: also those in folders below. Raises what the file system raises.
    """
    if hasattr(place.fs, "call_s3"):
        return _pages_of_s3(place, prefix, deep)
    return _walk(place, prefix, deep)


def _pages_of_s3(place: Place, prefix: str, deep: bool) -> Iterator[Item]:
    bucket, _, key = place.path.partition("/")
    wanted: dict[str, Any] = {"Bucket": bucket, "Prefix": (f"{key}/" if key else "") + prefix}
    if not deep:
        wanted["Delimiter"] = "/"
    while True:
        page = retry.patience(partial(place.fs.call_s3, "list_objects_v2", **wanted))
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):
                yield Item(f"{bucket}/{entry['Key']}", seen(entry | {"size": entry["Size"]}))
        if not page.get("IsTruncated"):
            return
        wanted["ContinuationToken"] = page["NextContinuationToken"]


def _walk(place: Place, prefix: str, deep: bool) -> Iterator[Item]:
    """Depth first, by name."""

    def entries(path: str) -> list[dict[str, Any]]:
        found = retry.patience(partial(place.fs.ls, path, detail=True))
        return sorted(found, key=lambda info: str(info["name"]).rstrip("/"))

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
    found = []
    parts = pattern.split("/")
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if part == "**":
            found.append(".*" if last else "(?:.*/)?")
            continue
        found.append(_part(part) + ("" if last else "/"))
    return "(?s:" + "".join(found) + ")"


def _part(part: str) -> str:
    made, at = "", 0
    while at < len(part):
        sign = part[at]
        at += 1
        if sign == "*":
            made += "[^/]*"
        elif sign == "?":
            made += "[^/]"
        elif sign == "[" and (end := part.find("]", at + 1)) > 0:
            inside = part[at:end].replace("\\", r"\\").replace("[", r"\[")
            made += f"[{'^' + inside[1:] if inside.startswith('!') else inside}]"
            at = end + 1
        else:
            made += re.escape(sign)
    return made


def seen(info: dict[str, Any]) -> Seen:
    """What a file system's description says of an object's state."""
    size = info.get("size")
    tag = next((str(info[name]) for name in _TAGS if info.get(name)), None)
    when = None if tag else next((_nanoseconds(info[name]) for name in _TIMES if info.get(name)), None)
    return Seen(None if size is None else int(size), when, tag)


def _nanoseconds(when: Any) -> int | None:
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            return None
    if isinstance(when, datetime):
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    return int(when * 1_000_000_000) if isinstance(when, int | float) else None


def overlapped(work: Callable[[T], R], items: Iterable[T], wanted: Callable[[T], bool]) -> Iterator[R]:
    """``work`` on each item, in order; on those that are ``wanted`` by threads, ahead of the others."""
    ahead: deque[tuple[T, Future[R] | None]] = deque()
    pool: ThreadPoolExecutor | None = None

    def first() -> R:
        item, future = ahead.popleft()
        return work(item) if future is None else future.result()

    try:
        for item in items:
            if wanted(item):
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
