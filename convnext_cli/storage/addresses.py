"""URLs as users type them: which schemes are accepted, what each needs, and which parts are secret."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from urllib.parse import unquote

from convnext_cli.base.errors import UsageError

# Scheme: the extra that brings its library, or None where fsspec alone is enough.
SCHEMES: dict[str, str | None] = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "abfs": "az",
    "abfss": "az",
    "hf": "hf",
    "file": None,
    "local": None,
    "memory": None,
    "zip": None,
}
# These schemes open no connection.
LOCAL = frozenset({"file", "local", "memory", "zip"})

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DRIVE = re.compile(r"/[A-Za-z]:")
# Between :// (:/ after Path) and @: a user and a password, which may hold slashes (an ARN has colons, too); or a lone
# token, except in schemes where a container or a repository is named there.
_USER = re.compile(
    r"""(:/{1,2})(?!arn:)[^/@\s"<>]*:[^\s"<>]*@
    |(?<![a-z0-9+.])(?!(?:az|abfss?|hf|zip|memory|file|local):)([a-z][a-z0-9+.-]+:/{1,2})[^/\s"<>]*@""",
    re.IGNORECASE | re.VERBOSE,
)
_SECRETS = r"(?:x-amz-\w+|x-goog-\w+|sig|signature|awsaccesskeyid|googleaccessid|\w*token|\w*secret|\w*key|password)"
_QUERY = re.compile(rf"(?<![\w/-])({_SECRETS})=[^&\s\"'<>]+", re.IGNORECASE)
# Keys that look like nothing else: of AWS and of the hub.
_KEYS = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{12,}\b|\bhf_[A-Za-z0-9]{16,}\b")
_ENVIRONMENT = re.compile(
    r"^(AWS|AZURE|GOOGLE|GCLOUD|HF|HUGGING_FACE|FSSPEC)_\w*(KEY|SECRET|TOKEN|PASSWORD|STRING|SAS)"
)
_JSON = re.compile(r'"([^"]*)"\s*:\s*"([^"]*)"')
_SECRET_NAME = re.compile(r"key|secret|token|password|sas|string", re.IGNORECASE)
_SHORTEST = 8  # characters; shorter text is not a secret, and may be part of any word


def is_url(path: str) -> bool:
    """Whether this is a URL of any scheme; no system has paths that begin like one."""
    return _URL.match(path) is not None


def links(url: str) -> list[str]:
    """The parts of a chained URL, the inner one first: ``zip://a.jpg::s3://b/c.zip`` has two; the last may be a path.

    Only archives are chained: elsewhere two colons are part of a key.
    """
    inner, colons, outer = url.partition("::")
    return [inner, *links(outer)] if colons and scheme(url) == "zip" else [url]


def scheme(url: str) -> str:
    """The scheme in lower case; "file" for a path."""
    return url.partition("://")[0].lower() if is_url(url) else "file"


def plain(path: str) -> str:
    """The path that a ``file://`` URL stands for; anything else unchanged."""
    if scheme(path) not in ("file", "local") or not is_url(path):
        return path
    name = path.partition("://")[2].removeprefix("localhost/" if path.startswith("file://localhost/") else "")
    if path.startswith("file://localhost/"):
        name = f"/{name}"
    if os.name == "nt" and _DRIVE.match(name):
        name = name[1:]
    decoded = unquote(name, errors="surrogateescape")
    return decoded if not os.path.lexists(name) and os.path.lexists(decoded) else name


def suffix(url: str) -> str:
    """The suffix of the file that a URL or a path names, in lower case with the dot."""
    return os.path.splitext(links(url)[0])[1].lower()  # noqa: PTH122 - URLs


def opens_connection(url: str) -> bool:
    """Whether reading this URL opens a connection."""
    return any(scheme(link) not in LOCAL for link in links(url))


def check(url: str) -> None:
    """Raise UsageError for a URL that is not accepted: from the web, of an unknown scheme, or with a password."""
    for link in links(url):
        name = scheme(link)
        if name in ("http", "https"):
            raise UsageError(
                f"{scrub(url)} is a web address, and photos are not fetched from the web",
                "download it first, or pipe it: curl URL | convnext classify -",
            )
        if _USER.search(link) or _QUERY.search(link.partition("?")[2]):
            raise UsageError(
                f"{scrub(url)} contains a password or a key, which would appear in every row",
                "remove it: credentials are read from where the store's own tools look for them (docs/remote.md)",
            )
        if name not in SCHEMES:
            schemes = ", ".join(f"{name}://" for name in SCHEMES)
            raise UsageError(f"URLs that begin with {name}:// are not supported", f"use one of {schemes}")


def scrub(text: str) -> str:
    """Remove passwords, keys and signatures from a text: those in URLs, and those in the environment."""
    for secret in _in_environment():
        text = text.replace(secret, "…")
    text = _USER.sub(r"\1\2…@", text)
    text = _QUERY.sub(r"\1=…", text)
    return _KEYS.sub("…", text)


def _in_environment() -> list[str]:
    """The secrets in the environment, the longest first, since one may contain another."""
    secrets = {value for name, value in os.environ.items() if _ENVIRONMENT.match(name)}
    for name, value in os.environ.items():
        if name.startswith("FSSPEC_") and value.startswith("{"):  # options of a library, as JSON
            secrets |= {inner for key, inner in _JSON.findall(value) if _SECRET_NAME.search(key)}
    return sorted((value for value in secrets if len(value) >= _SHORTEST), key=len, reverse=True)


_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST = 100_000  # names that one pattern may stand for


def expanded(path: str) -> list[str]:
    """Expand ``shard-{000..041}.tar`` as a shell does; other names are returned unchanged.

    Raises:
        UsageError: the pattern stands for too many names.
    """
    match = _RANGE.search(path)
    if match is None:
        return [path]
    first, last = match[1], match[2]
    width = len(first) if first.startswith("0") or last.startswith("0") else 0
    step = 1 if int(first) <= int(last) else -1
    numbers = range(int(first), int(last) + step, step)
    rest = expanded(path[match.end() :]) if len(numbers) <= _MOST else []
    if len(numbers) * len(rest) > _MOST or not rest:
        raise UsageError(
            f"{scrub(path)} stands for more than {_MOST:,} names", "name a folder, or use a glob such as shard-*.tar"
        )
    return [f"{path[: match.start()]}{number:0{width}d}{tail}" for number in numbers for tail in rest]


def places(paths: Iterable[str | os.PathLike[str]], *, offline: bool) -> tuple[str, ...]:
    """Paths and URLs as a user named them, with ``file://`` URLs as the paths that they stand for.

    Args:
        paths: of photos or of data.
        offline: whether connections are forbidden.

    Raises:
        UsageError: a URL needs a connection while these are forbidden.
    """
    plain_paths = tuple(plain(os.fspath(path)) for path in paths)
    for path in plain_paths:
        if offline and is_url(path) and opens_connection(path):
            raise UsageError(
                f"{scrub(path)} is not on this machine, and --offline forbids connections",
                "run the command without --offline, or copy the photos to this machine",
            )
    return plain_paths


def check_output(target: str) -> None:
    """Raise UsageError for a URL: results are written to this machine only."""
    if is_url(target):
        raise UsageError(
            f"{scrub(target)} is a URL, and results can only be written to this machine",
            "write to a path on this machine, and copy the result afterwards",
        )


@cache
def install_command(name: str) -> str:
    """The pip command that installs the library for a scheme."""
    extra = SCHEMES.get(name)
    return f"pip install 'convnext-cli[{extra or 'remote'}]'"
