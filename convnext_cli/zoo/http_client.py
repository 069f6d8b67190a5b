"""One HTTP(S) request to a server that may be slow, broken or hostile.

The standard library's client: it obeys HTTP_PROXY, HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE. Three limits are added: a
minimum rate at which bytes arrive, a limit for everything that is not the file itself (headers, bodies of redirects),
and redirects to HTTP(S) only.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from typing import IO, Any, cast
from urllib.parse import urlsplit

from convnext_cli import __version__

TIMEOUT = 30.0  # seconds without a byte
WINDOW = 30.0  # seconds of waiting over which the rate is measured
FLOOR = 1000  # bytes a second; a slower download fails
MOST_AROUND = 1 << 20  # bytes of headers, and of the body of a redirect or an error


class BadAnswerError(Exception):
    """The server breaks the rules in a way that a retry would not change."""


class _WatchedSocket(io.RawIOBase):
    """The bytes of a connection.

    Raises:
        BadAnswerError: the bytes arrive too slowly, or exceed ``limit``.
    """

    def __init__(self, raw: socket.SocketIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._raw, self._clock = raw, clock
        self._total, self._in_window, self._waited = 0, 0, 0.0
        self.limit = MOST_AROUND

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        start = self._clock()
        count = self._raw.readinto(memoryview(buffer))
        waited = self._clock() - start
        self._total += count or 0
        if self._total > self.limit:
            raise BadAnswerError("the server sends headers without end")
        self._in_window += count or 0
        # Only waiting for the server counts, not for a disk; a wait beyond the timeout is a stopped process
        self._waited += waited if waited <= TIMEOUT else 0.0
        if self._waited >= WINDOW:
            if count and self._in_window < FLOOR * WINDOW:
                raise BadAnswerError(
                    f"the server is too slow: it sent {self._in_window:,} bytes in {self._waited:.0f} seconds"
                )
            self._in_window, self._waited = 0, 0.0
        return count

    def allow(self, more: int) -> None:
        """Allow this many more bytes."""
        self.limit = self._total + more

    def close(self) -> None:
        self._raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    """A response whose bytes are limited and timed."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp.close()
        self._watched = _WatchedSocket(sock.makefile("rb", buffering=0))
        self.fp = io.BufferedReader(self._watched)

    def begin(self) -> None:
        super().begin()  # reads the headers, and before them as many "100 Continue" as come
        self._watched.allow(MOST_AROUND)

    def expect(self, most: int) -> None:
        """Allow a body of this many bytes, and the overhead of its encoding: sizes of chunks, a trailer."""
        self._watched.allow(2 * most + MOST_AROUND)


class _Connection(http.client.HTTPConnection):
    response_class = Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = Response


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def __init__(self) -> None:
        urllib.request.HTTPHandler.__init__(self)

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req, context=_tls())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but sends the token to no other host, and refuses to leave https for http, or HTTP(S)."""

    def __init__(self, stay: bool) -> None:
        self.stay = stay

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if self.stay and old.netloc != new.netloc:
            return None
        if old.scheme == "https" and new.scheme == "http":
            raise BadAnswerError("it redirects from https to http; refused")
        if new.scheme not in ("http", "https"):
            raise BadAnswerError(f"it redirects to {new.scheme}://; refused")
        request = urllib.request.Request(newurl, headers=dict(req.header_items()), method=req.get_method())
        if old.netloc != new.netloc:
            request.remove_header("Authorization")
        request.remove_header("Host")
        return request


def open_url(
    url: str, method: str, *, token: str = "", start: int = 0, unless_changed: str = "", stay: bool = False
) -> Response:
    """Send a request, follow its redirects, and return the answer with its body unread.

    ``expect`` must be called before a body of more than a megabyte is read.

    Args:
        url: the address.
        method: "GET" or "HEAD".
        token: the access token; "" for none.
        start: the first byte to request.
        unless_changed: the strong ETag for which ``start`` is valid; a changed file is sent from its beginning.
        stay: do not follow redirects to other hosts.

    Raises:
        BadAnswerError: the server breaks the rules.
        urllib.error.HTTPError: a status other than success.
        OSError, http.client.HTTPException: the connection failed.
    """
    headers = {"User-Agent": f"convnext/{__version__}", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if start:
        headers["Range"] = f"bytes={start}-"
        if unless_changed:
            headers["If-Range"] = unless_changed
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Handler(),
        _Redirects(stay),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    try:
        request = urllib.request.Request(url, headers=headers, method=method)
        return cast("Response", opener.open(request, timeout=TIMEOUT))
    except (ValueError, http.client.InvalidURL) as error:  # no such host name, no such port, not a URL
        raise BadAnswerError(f"the address is not valid: {error}") from error


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if bundle := os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE"):
        context.load_verify_locations(bundle)
    return context


def number(headers: Message, name: str) -> int | None:
    """The value of a header that counts bytes; None when it is missing.

    Raises:
        BadAnswerError: the value is not a number of bytes.
    """
    text = headers.get(name)
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise BadAnswerError(f"its {name} is {shown!r}, which is not a number of bytes")
    return int(text)
