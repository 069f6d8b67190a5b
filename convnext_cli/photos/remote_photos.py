"""Photos behind URLs: what a URL that the user named stands for, and the photos of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from convnext_cli.base.errors import ConvNextError, NetworkError, PhotoError, UnavailableError, UsageError
from convnext_cli.photos.containers.shards import is_container, is_shard
from convnext_cli.photos.local_photos import in_any_case
from convnext_cli.photos.photo import Photo, Shard
from convnext_cli.storage.addresses import check, opens_connection, scrub
from convnext_cli.storage.failures import command_error, is_denied
from convnext_cli.storage.filesystems import Place, locate
from convnext_cli.storage.listing import Item, below, is_glob, look, matching, overlapped, split_glob
from convnext_cli.storage.reading import read

_HEAD = 64  # bytes that say whether something is an image
Way = Callable[[str, list[str]], tuple[int, str] | None]


@dataclass
class Named:
    """A URL. shown: without secrets. there: whether it exists. error: why it cannot be looked at.

    photo: where it is an object. folder: where it is a folder. items: of these or of a glob, as they are listed.
    """

    shown: str
    there: bool = True
    error: ConvNextError | None = None
    photo: Photo | None = None
    folder: Place | None = None
    place: Place | None = None
    items: Iterator[Item] | None = None

    def __str__(self) -> str:
        return self.shown

    def photos(self, way: Way, passed_over: Counter[str], *, with_shards: bool) -> Iterator[Photo]:
        """Its photos, at least one row for what the user named.

        way: which part of a way is not wanted, and why. passed_over: counts it. Raises NetworkError when a listing
        breaks off: what is not listed must not look as if it were not there.
        """
        if self.error is not None:
            denied = self.error.__cause__ is not None and is_denied(self.error.__cause__)
            told = self.error.message.removeprefix(self.shown).removeprefix(": ").strip()
            yield Photo(self.shown, problem=PhotoError("permission" if denied else "missing", told))
        elif self.photo is not None:
            shard = Shard.NAMED if with_shards and is_container(self.photo.path) else Shard.NONE
            yield Photo(self.photo.path, seen=self.photo.seen, shard=shard)
        elif self.items is not None and self.place is not None:
            try:
                yield from _listed(self.place, self.items, way, passed_over, with_shards, glob=self.folder is None)
            except Exception as error:
                if not is_denied(error):
                    raise
                yield Photo(self.shown, problem=PhotoError("permission", "the folder cannot be listed"))


def looked_at(urls: list[str]) -> Iterator[Named]:
    """What each URL is, several asked side by side.

    Raises UnavailableError where a library is missing, and NetworkError where no store answers.
    """
    return overlapped(_look, urls, lambda _: len(urls) > 1)


def _look(url: str) -> Named:
    shown = scrub(url)
    try:
        place = locate(url)
        try:
            item = look(place)
        except Exception as error:
            if is_glob(url):
                return _glob(url, shown)
            raise command_error(error, url) from error
        if item is not None:
            return Named(shown, photo=Photo(url, seen=item.seen))
        return _folder(place, shown)
    except UsageError as error:
        return Named(shown, there=False, error=error)


def _folder(place: Place, shown: str) -> Named:
    """A folder, of which the first page is looked at: one that may not be listed is an error at once."""
    items = below(place)
    try:
        first = next(items, None)
    except Exception as error:
        raise command_error(error, place.url) from error
    return Named(shown, folder=place, place=place, items=chain([] if first is None else [first], items))


def _glob(url: str, shown: str) -> Named:
    folder, pattern = split_glob(url)
    place = locate(folder)
    items = matching(place, in_any_case(pattern))
    try:
        first = next(items, None)
    except Exception as error:
        raise command_error(error, folder) from error
    if first is None:
        raise UsageError(f"no file matches '{shown}'", "check the pattern; ** goes into folders")
    return Named(shown, place=place, items=chain([first], items))


def listed(url: str, *, offline: bool = False) -> Named:
    """A URL of a list: it is read without having been looked at, unless it is a folder or a glob."""
    if offline and opens_connection(url):
        return Named(scrub(url), error=UsageError("it is not on this machine, and --offline forbids to fetch it"))
    if is_glob(url) or url.endswith("/"):
        return _look(url)
    try:
        check(url)
        locate(url)  # a missing library is said at once
    except UsageError as error:
        return Named(scrub(url), error=error)
    return Named(url, photo=Photo(url))


def _listed(
    place: Place, items: Iterator[Item], way: Way, passed_over: Counter[str], with_shards: bool, *, glob: bool
) -> Iterator[Photo]:
    """The photos among the objects of a listing.

    Of objects without a suffix the first bytes are read, many side by side; those with another suffix than photos have
    are passed over unread.
    """
    from convnext_cli.photos.decode import IMAGE_SUFFIXES, looks_like_image

    root = place.url_of(f"{place.path}/" if place.path else "").removesuffix(place.tail)
    left: list[str] = []  # the folder that was last left out: it counts once

    def suffix(item: Item) -> str:
        return os.path.splitext(place.below(item.name).rpartition("/")[2])[1].lower()  # noqa: PTH122

    def judged(item: Item) -> tuple[Photo | None, str]:
        url, found = place.url_of(item.name), suffix(item)
        shard = Shard.FOUND if with_shards and is_shard(item.name) else Shard.NONE
        if shard or found in IMAGE_SUFFIXES or (glob and found):
            return Photo(url, seen=item.seen, shard=shard), ""
        if found:
            return None, found
        try:
            return (Photo(url, seen=item.seen), "") if looks_like_image(read(url, _HEAD)) else (None, "no suffix")
        except PhotoError:
            return None, "unreadable"

    def wanted() -> Iterator[Item]:
        for item in items:
            parts = place.below(item.name).split("/")
            unwanted = None if glob else way(root, parts)
            if unwanted is None:
                yield item
                continue
            level, why = unwanted
            if level == len(parts) or parts[:level] != left:
                passed_over[why] += 1
            if level < len(parts):
                left[:] = parts[:level]

    for photo, why in overlapped(judged, _told_in_ours(wanted(), place), lambda item: not suffix(item)):
        if photo is None:
            passed_over[why] += 1
        else:
            yield photo


def _told_in_ours(items: Iterator[Item], place: Place) -> Iterator[Item]:
    try:
        yield from items
    except Exception as error:
        if is_denied(error):
            raise
        found = command_error(error, place.url)
        if isinstance(found, NetworkError | UnavailableError):
            raise found from error
        raise NetworkError(f"the listing of {scrub(place.url)} broke off: {found.message}", found.hint) from error
