"""Photos behind URLs: whether a URL is an object, a folder or a glob, and its photos."""

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
class RemoteLocation:
    """One remote location.

    Args:
        shown: the URL without secrets.
        exists: whether it exists.
        error: why it cannot be read.
        photo: the photo, if it is an object.
        folder: the folder, if it is one.
        place: the place below which ``items`` are listed.
        items: the objects in the folder, or those that match the glob, as they are listed.
    """

    shown: str
    exists: bool = True
    error: ConvNextError | None = None
    photo: Photo | None = None
    folder: Place | None = None
    place: Place | None = None
    items: Iterator[Item] | None = None

    def __str__(self) -> str:
        return self.shown

    def photos(self, way: Way, passed_over: Counter[str], *, with_shards: bool) -> Iterator[Photo]:
        """Its photos: at least one, if need be a failed one.

        Args:
            way: returns the part of a path that is skipped, and why.
            passed_over: counts the skipped files by type.
            with_shards: whether shards are recognised.

        Raises:
            NetworkError: a listing breaks off; the objects that were not listed must not look as if they did not exist.
        """
        if self.error is not None:
            denied = self.error.__cause__ is not None and is_denied(self.error.__cause__)
            reason = self.error.message.removeprefix(self.shown).removeprefix(": ").strip()
            yield Photo(self.shown, problem=PhotoError("permission" if denied else "missing", reason))
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


def looked_at(urls: list[str]) -> Iterator[RemoteLocation]:
    """The location that each URL names; several are looked up in parallel.

    Raises:
        UnavailableError: a library is missing.
        NetworkError: no store answers.
    """
    return overlapped(_look, urls, lambda _: len(urls) > 1)


def _look(url: str) -> RemoteLocation:
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
            return RemoteLocation(shown, photo=Photo(url, seen=item.seen))
        return _folder(place, shown)
    except UsageError as error:
        return RemoteLocation(shown, exists=False, error=error)


def _folder(place: Place, shown: str) -> RemoteLocation:
    """A folder. Its first page is requested, so that a folder that may not be listed is an error at once."""
    items = below(place)
    try:
        first = next(items, None)
    except Exception as error:
        raise command_error(error, place.url) from error
    return RemoteLocation(shown, folder=place, place=place, items=chain([] if first is None else [first], items))


def _glob(url: str, shown: str) -> RemoteLocation:
    folder, pattern = split_glob(url)
    place = locate(folder)
    items = matching(place, in_any_case(pattern))
    try:
        first = next(items, None)
    except Exception as error:
        raise command_error(error, folder) from error
    if first is None:
        raise UsageError(f"no file matches '{shown}'", "check the pattern; ** matches folders at any depth")
    return RemoteLocation(shown, place=place, items=chain([first], items))


def listed(url: str, *, offline: bool = False) -> RemoteLocation:
    """A URL from a list. It is read without a look-up, unless it is a folder or a glob."""
    if offline and opens_connection(url):
        return RemoteLocation(
            scrub(url), error=UsageError("it is not on this machine, and --offline forbids connections")
        )
    if is_glob(url) or url.endswith("/"):
        return _look(url)
    try:
        check(url)
        locate(url)  # a missing library is reported at once
    except UsageError as error:
        return RemoteLocation(scrub(url), error=error)
    return RemoteLocation(url, photo=Photo(url))


def _listed(
    place: Place, items: Iterator[Item], way: Way, passed_over: Counter[str], with_shards: bool, *, glob: bool
) -> Iterator[Photo]:
    """The photos among the objects of a listing.

    The first bytes of objects without a suffix are read, many in parallel; objects with a suffix that no photo has are
    skipped unread.
    """
    from convnext_cli.photos.decode import IMAGE_SUFFIXES, looks_like_image

    root = place.url_of(f"{place.path}/" if place.path else "").removesuffix(place.tail)
    left: list[str] = []  # the folder that was skipped last: it counts once

    def suffix(item: Item) -> str:
        return os.path.splitext(place.below(item.name).rpartition("/")[2])[1].lower()  # noqa: PTH122

    def recognise(item: Item) -> tuple[Photo | None, str]:
        url, ending = place.url_of(item.name), suffix(item)
        shard = Shard.FOUND if with_shards and is_shard(item.name) else Shard.NONE
        if shard or ending in IMAGE_SUFFIXES or (glob and ending):
            return Photo(url, seen=item.seen, shard=shard), ""
        if ending:
            return None, ending
        try:
            return (Photo(url, seen=item.seen), "") if looks_like_image(read(url, _HEAD)) else (None, "no suffix")
        except PhotoError:
            return None, "unreadable"

    def without_skipped() -> Iterator[Item]:
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

    for photo, why in overlapped(recognise, _with_our_errors(without_skipped(), place), lambda item: not suffix(item)):
        if photo is None:
            passed_over[why] += 1
        else:
            yield photo


def _with_our_errors(items: Iterator[Item], place: Place) -> Iterator[Item]:
    """The items of a listing; errors of the store's library become ours."""
    try:
        yield from items
    except Exception as error:
        if is_denied(error):
            raise
        failure = command_error(error, place.url)
        if isinstance(failure, NetworkError | UnavailableError):
            raise failure from error
        raise NetworkError(f"the listing of {scrub(place.url)} broke off: {failure.message}", failure.hint) from error
