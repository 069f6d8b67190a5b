"""Errors of the stores' libraries: whether to retry, and the photo error or command error that each becomes.

Each library has its own exceptions. They are recognised by what they share along the chain of causes: Python's own
exception types, the status of an HTTP response, and the names of exception types.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from convnext_cli.base.errors import ConvNextError, NetworkError, PhotoError, UnavailableError, UsageError
from convnext_cli.storage.addresses import check, install_command, links, scheme, scrub

_BUSY = (408, 425, 429, 500, 502, 503, 504)
_BUSY_WORDS = ("SlowDown", "ServiceUnavailable", "Throttl", "RequestTimeout", "TooManyRequests", "reduce your request")


def _kinds(names: str) -> frozenset[str]:
    """Names of exception types: none of the libraries has to be installed."""
    return frozenset(names.split())


_TIMEOUTS = _kinds(
    "ConnectTimeoutError ReadTimeoutError FSTimeoutError ServerTimeoutError ConnectTimeout ReadTimeout "
    "SocketTimeoutError ConnectionTimeoutError"
)
_BROKEN = _kinds(
    "ClientPayloadError IncompleteRead IncompleteReadError ServerDisconnectedError HTTPClientError ClientOSError "
    "ConnectionClosedError ResponseStreamingError ContentLengthError ChunkedEncodingError ProtocolError "
    "ResponseParserError RemoteProtocolError ServiceResponseError "
    "EndpointConnectionError ClientConnectorError ServiceRequestError ConnectError ProxyConnectionError"
)
_NO_CREDENTIALS = _kinds(
    "NoCredentialsError PartialCredentialsError DefaultCredentialsError ProfileNotFound CredentialRetrievalError "
    "TokenRetrievalError UnauthorizedSSOTokenError RefreshError ClientAuthenticationError LocalTokenNotFoundError "
    "GatedRepoError"
)
_GONE = _kinds("NoSuchKey NoSuchBucket ResourceNotFoundError RepositoryNotFoundError EntryNotFoundError")
_CREDENTIALS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; a public bucket takes "
    "FSSPEC_S3='{\"anon\": true}'",
    "gs": "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or az login",
    "hf": "hf auth login, or set HF_TOKEN",
}
_ALIASES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, then its causes."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for cause in causes(error) for kind in type(cause).__mro__}


def _status(error: BaseException) -> int | None:
    """The status of the HTTP response behind an exception."""
    for cause in causes(error):
        response = getattr(cause, "response", None)
        values = [getattr(cause, name, None) for name in ("status", "status_code", "code")]
        if isinstance(response, dict):  # botocore's
            values.append(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
        elif response is not None:
            values.append(getattr(response, "status_code", None))
        for value in values:
            if str(value).isdecimal() and 400 <= int(str(value)) < 600:
                return int(str(value))
    return None


def is_throttled(error: BaseException) -> bool:
    """Whether the store asks for fewer requests."""
    if _status(error) in _BUSY:
        return True
    busy = any(isinstance(cause, OSError) and cause.errno == errno.EBUSY for cause in causes(error))
    return busy or any(word in str(cause) for cause in causes(error) for word in _BUSY_WORDS)


def is_timeout(error: BaseException) -> bool:
    """Whether the store did not answer in time."""
    return bool(_names(error) & _TIMEOUTS) or any(isinstance(cause, TimeoutError) for cause in causes(error))


def is_unknown_host(error: BaseException) -> bool:
    """Whether the store's host name cannot be resolved."""
    return any(isinstance(cause, socket.gaierror) for cause in causes(error)) or "ClientConnectorDNSError" in _names(
        error
    )


def is_broken(error: BaseException) -> bool:
    """Whether the connection failed or broke."""
    kinds = (ConnectionError, socket.gaierror, EOFError)
    return bool(_names(error) & _BROKEN) or any(isinstance(cause, kinds) for cause in causes(error))


def is_missing(error: BaseException) -> bool:
    """Whether the object, the bucket or the repository does not exist."""
    return (
        isinstance(error, FileNotFoundError | NotADirectoryError)
        or bool(_names(error) & _GONE)
        or _status(error) == 404
    )


def is_denied(error: BaseException) -> bool:
    """Whether access is denied, or credentials are missing."""
    return (
        isinstance(error, PermissionError)
        or bool(_names(error) & _NO_CREDENTIALS)
        or _status(error) in (401, 403)
        or any("Unable to locate credentials" in str(cause) for cause in causes(error))
    )


def is_past_end(error: BaseException) -> bool:
    """Whether the requested range is beyond the end of the object."""
    return _status(error) == 416 or any("InvalidRange" in str(cause) for cause in causes(error))


def is_passing(error: BaseException) -> bool:
    """Whether a retry may succeed."""
    if is_missing(error) or is_denied(error) or is_past_end(error) or is_unknown_host(error):
        return False
    return is_throttled(error) or is_timeout(error) or is_broken(error)


def photo_error(error: BaseException) -> PhotoError:
    """The error of a photo that could not be read, after the last try."""
    if isinstance(error, PhotoError):
        return error
    if is_missing(error):
        return PhotoError("missing", "the store has no such object")
    if is_denied(error):
        return PhotoError("permission", "the store denies access to it")
    if is_past_end(error):
        return PhotoError("empty", "the file is empty")
    if is_throttled(error):
        return PhotoError("timeout", f"the store was too busy at every try ({_one_line(error)})")
    if is_timeout(error):
        return PhotoError("timeout", "the store did not answer in time at any try")
    if is_broken(error):
        return PhotoError("timeout", f"the connection to the store failed at every try ({_one_line(error)})")
    if isinstance(error, IsADirectoryError):
        return PhotoError("not_a_file", "it is a folder, not a file")
    return PhotoError("corrupt", f"it cannot be read: {_one_line(error)}")


def command_error(error: BaseException, url: str, *, writing: bool = False) -> ConvNextError:
    """The error of a command that could not read a URL, or not write to it.

    Args:
        error: the exception of the store's library.
        url: the URL; its secrets are removed from the message.
        writing: whether the command wanted to write there.
    """
    shown = scrub(url)
    if isinstance(error, ConvNextError):
        return error
    if is_missing(error):
        return UsageError(f"{shown} does not exist", "check the spelling of the bucket and of the path in it")
    if is_denied(error):
        name = scheme(links(url)[-1])
        how = _CREDENTIALS.get(_ALIASES.get(name, name), "")
        done, may = ("write to", "write or delete there") if writing else ("read", "list or read it")
        hint = "log in first" if _names(error) & _NO_CREDENTIALS else f"use an account that may {may}"
        return UsageError(f"no permission to {done} {shown}: {_one_line(error)}", f"{hint}: {how}" if how else hint)
    if is_unknown_host(error):
        return NetworkError(
            f"{shown}: the name of the store's host cannot be resolved",
            "check the endpoint's address and the connection",
        )
    if is_throttled(error):
        return NetworkError(f"{shown}: the store was too busy: {_one_line(error)}", "run the same command again later")
    if is_broken(error) or is_timeout(error):
        return NetworkError(
            f"{shown}: the store cannot be reached: {_one_line(error)}",
            "check the connection and, where one is set, the endpoint's address (AWS_ENDPOINT_URL)",
        )
    return UsageError(f"{shown} cannot be read: {_one_line(error)}", "check the URL")


def missing_library(error: ImportError, url: str) -> UnavailableError:
    """The error for a URL whose library is not installed, with the command that installs it."""
    check(url)
    try:
        import fsspec  # noqa: F401
    except ImportError:
        return UnavailableError("reading from URLs needs fsspec", "pip install fsspec")
    name = next((scheme(link) for link in links(url) if scheme(link) in str(error)), scheme(links(url)[-1]))
    return UnavailableError(f"reading {name}:// needs another library: {scrub(str(error))}", install_command(name))


def _one_line(error: BaseException) -> str:
    """The message of an exception on one line, without secrets."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(scrub(str(words)).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"
