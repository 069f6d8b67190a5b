"""A server on the loopback that speaks as the Hugging Face hub and its storage do, with the faults of real networks."""

from __future__ import annotations

import hashlib
import random
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

NAME = "convnext_tiny.fb_in1k"
REPOSITORY = f"timm/{NAME}"
WEIGHTS = random.Random(0).randbytes(3_000_000)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """files: repository/name to bytes; those in ``large`` are stored elsewhere, as the hub does with weights.

    plain: paths of a publisher's ordinary server.
    cut: the next answers to GET, each ended after so many bytes. statuses: the next answers to GET with these instead.
    lie: GET sends other bytes than HEAD announced. ranges: whether Range is obeyed. gated: repositories that want a
    token. log: method, path, Range and Authorization of every request, the storage's too.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    plain: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    lie: bool = False
    ranges: bool = True
    head: bool = True
    gated: set[str] = field(default_factory=set)
    log: list[tuple[str, str, str, str]] = field(default_factory=list)
    url: str = ""
    storage: str = ""

    def add(self, repository: str, name: str, content: bytes, *, large: bool = False) -> None:
        self.files[f"{repository}/{name}"] = content
        if large:
            self.large.add(f"{repository}/{name}")

    def gets(self, ending: str = "") -> list[str]:
        """The Range headers of the GETs for a file that sent bytes."""
        return [r for method, path, r, _ in self.log if method == "GET" and path.endswith(ending)]

    def __enter__(self) -> Hub:
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(self)) for _ in range(2)]
        self.url, self.storage = (f"http://127.0.0.1:{s.server_address[1]}" for s in self._servers)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            asked = urlsplit(self.path)  # a proxy is asked for whole addresses
            path = unquote(asked.path).lstrip("/")
            token = self.headers.get("Authorization", "")
            hub.log.append((self.command, path, self.headers.get("Range", ""), token))
            if path.startswith("storage/"):
                self.body(hub.files[path.removeprefix("storage/")], {})
            elif path in hub.plain:
                if self.command == "HEAD" and not hub.head:
                    self.plainly(405)
                else:
                    tag = hashlib.md5(hub.plain[path]).hexdigest()
                    self.body(hub.plain[path], {"ETag": f'"{tag}"'})
            else:
                self.resolve(path, token)

        def resolve(self, path: str, token: str) -> None:
            parts = path.split("/")
            if len(parts) < 5 or parts[2] != "resolve":
                return self.plainly(404)
            repository, name = "/".join(parts[:2]), "/".join(parts[4:])
            if repository in hub.gated and token != "Bearer hf_good":
                return self.plainly(401, {"X-Error-Code": "GatedRepo"})
            if not any(key.startswith(f"{repository}/") for key in hub.files):
                return self.plainly(401, {"X-Error-Code": "RepoNotFound"})
            if parts[3] not in ("main", COMMIT) or f"{repository}/{name}" not in hub.files:
                return self.plainly(404, {"X-Error-Code": "EntryNotFound"})
            content = hub.files[f"{repository}/{name}"]
            if f"{repository}/{name}" not in hub.large:
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                return self.body(content, {"X-Repo-Commit": COMMIT, "ETag": f'"{blob}"'})
            return self.plainly(
                302,
                {
                    "X-Repo-Commit": COMMIT,
                    "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                    "X-Linked-Size": str(len(content)),
                    "ETag": '"of the redirect"',
                    "Location": f"{hub.storage}/storage/{repository}/{name}",
                },
            )

        def plainly(self, status: int, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def body(self, content: bytes, headers: dict[str, str]) -> None:
            if self.command == "GET" and hub.statuses:
                return self.plainly(hub.statuses.pop(0))
            start, asked = 0, self.headers.get("Range", "")
            if asked and hub.ranges:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    return self.plainly(416)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            sent = content[start:]
            for name, value in {**headers, "Content-Length": str(len(sent))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return None
            if hub.lie:
                sent = bytes(b ^ 1 for b in sent)
            if hub.cut:
                sent = sent[: hub.cut.pop(0)]
                self.close_connection = True
            self.wfile.write(sent)
            return None

    return Handler
