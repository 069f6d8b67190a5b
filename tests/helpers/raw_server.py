"""A server on the loopback that answers with whatever bytes a test yields, honest HTTP or not."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """headers: their names in small letters."""

    method: str
    path: str
    headers: dict[str, str]


def _nothing(request: Request) -> Iterator[bytes]:
    yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class RawServer:
    """answer: the pieces that are sent for a request, until the client hangs up; the connection is closed after them.

    pieces: 0, or the bytes that are sent at once. requests: all that came, in order.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Request], Iterator[bytes]] = _nothing
        self.requests: list[Request] = []
        self.url = ""

    @property
    def gets(self) -> list[Request]:
        return [request for request in self.requests if request.method == "GET"]

    def __enter__(self) -> RawServer:
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line = self.rfile.readline().decode("latin-1").split()
                if len(line) != 3:
                    return
                headers = {}
                while (header := self.rfile.readline().decode("latin-1").strip()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                request = Request(line[0], line[1], headers)
                outer.requests.append(request)
                try:
                    for piece in outer.answer(request):
                        self.wfile.write(piece)
                except OSError:  # the client hung up
                    pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
