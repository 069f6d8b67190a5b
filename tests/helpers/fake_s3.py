"""An S3 server on the loopback, moto's, and a proxy before it with the faults of real ones."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

KEY, SECRET = "AKIA4TESTTESTTESTKEY", "wJalrTESTsecretTESTsecretTESTsecret99"
BUCKET = "photos"


@dataclass
class Fault:
    """What happens to requests whose method and path hold ``where``.

    times: of them, or all. status, code: answered in the store's place. cut: the body ends after so many bytes.
    """

    where: str
    times: int = 1 << 30
    status: int = 0
    code: str = ""
    cut: int | None = None


@dataclass
class Store:
    """target: of the real server. url: of the proxy. log: method and path of each request.

    before, after: called with that before it is answered, and when it was.
    """

    target: str
    faults: list[Fault] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda _: None
    after: Callable[[str], None] = lambda _: None
    url: str = ""

    def __enter__(self) -> Store:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.client = boto3.client(
            "s3",
            endpoint_url=self.target,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        self.client.create_bucket(Bucket=BUCKET)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.clear()
        self.client.delete_bucket(Bucket=BUCKET)

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=key)

    def clear(self) -> None:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            keys = [{"Key": entry["Key"]} for entry in page.get("Contents", ())]
            if keys:
                self.client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})

    def asked(self, word: str) -> list[str]:
        return [line for line in self.log if word in line]


def _handler(store: Store) -> type[BaseHTTPRequestHandler]:
    host = urlsplit(store.target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def answer(self) -> None:
            line = f"{self.command} {self.path}"
            store.log.append(line)
            store.before(line)
            length = int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(length) if length else None
            fault = next((fault for fault in store.faults if fault.where in line and fault.times > 0), None)
            if fault is not None:
                fault.times -= 1
            if fault is not None and fault.status:
                body = f"<Error><Code>{fault.code}</Code><Message>as you asked, {KEY}</Message></Error>".encode()
                self.send(fault.status, {"Content-Type": "application/xml"}, body)
                return
            connection = http.client.HTTPConnection(host)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request(self.command, self.path, sent, headers)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            kept = {
                n: v for n, v in answer.getheaders() if n.lower() not in ("connection", "transfer-encoding", "date")
            }
            self.send(answer.status, kept, body, None if fault is None else fault.cut)
            store.after(line)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

        def send(self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "server"):
                    self.send_header(name, value)
            length = headers.get("Content-Length") or headers.get("content-length") or str(len(body))
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[:cut])
            if cut is not None:
                self.close_connection = True

    return Handler
