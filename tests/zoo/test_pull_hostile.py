"""Pulling from servers that are slow, broken or hostile: it ends, with the network's status and words of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convnext_cli import zoo
from convnext_cli.base.errors import ConvNextError, NetworkError, UsageError
from convnext_cli.zoo import fetch, http_client
from convnext_cli.zoo import pull as puller
from convnext_cli.zoo.catalogue import Entry
from tests.helpers.raw_server import RawServer, Request

BODY = bytes(range(256)) * 400
SHA256 = hashlib.sha256(BODY).hexdigest()
NAME = "convnext_tiny.fb_in1k"


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    """A server that sends a test's own bytes, in the place of the hub; retries do not wait."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(fetch, "patience", dataclasses.replace(fetch.patience, first=0.0))
    with RawServer() as started:
        monkeypatch.setenv("HF_ENDPOINT", started.url)
        yield started


def entry() -> Entry:
    known = zoo.find(NAME)
    assert known is not None
    return known


def head(**changes: str) -> bytes:
    """What an honest hub answers to HEAD, with some headers changed; underscores stand for dashes."""
    headers = {"X-Linked-Etag": f'"{SHA256}"', "X-Linked-Size": str(len(BODY)), "Content-Length": str(len(BODY))}
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode("latin-1")


MISSING = b"HTTP/1.1 404 Not Found\r\nX-Error-Code: EntryNotFound\r\nContent-Length: 0\r\n\r\n"
Answer = Callable[[Request], Iterator[bytes]]


def hub(get: Answer, **changes: str) -> Answer:
    """A hub with one weights file, whose GET is answered by ``get``."""

    def answer(request: Request) -> Iterator[bytes]:
        if not request.path.endswith("/model.safetensors"):
            yield MISSING
        elif request.method == "HEAD":
            yield head(**changes)
        else:
            yield from get(request)

    return answer


def honest(request: Request) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


def chunked_without_end(request: Request) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + bytes(65536) + b"\r\n"


def until_closed_without_end(request: Request) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    while True:
        yield bytes(65536)


def longer(request: Request) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(BODY) + 1000) + BODY + bytes(1000)


def shorter(request: Request) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + BODY[:1000]


def length(text: str) -> Answer:
    def answer(request: Request) -> Iterator[bytes]:
        yield f"HTTP/1.1 200 OK\r\nContent-Length: {text}\r\n\r\n".encode() + BODY

    return answer


def redirect(location: bytes) -> Answer:
    def answer(request: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"

    return answer


def redirect_with_endless_body(request: Request) -> Iterator[bytes]:
    yield b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n"
    while True:
        yield bytes(65536)


def continue_without_end(request: Request) -> Iterator[bytes]:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n" * 1000


def trailer_without_end(request: Request) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    while True:
        yield b"X: x\r\n" * 10_000


def few_bytes_each_time(request: Request) -> Iterator[bytes]:
    start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    status = f"206 Partial Content\r\nContent-Range: bytes {start}-{len(BODY) - 1}/{len(BODY)}" if start else "200 OK"
    yield f"HTTP/1.1 {status}\r\nContent-Length: {len(BODY) - start}\r\n\r\n".encode() + BODY[start : start + 10]


def drips(request: Request) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    while True:
        yield b"x"


def refused(server: RawServer, answer: Answer, limit: int = 40) -> str:
    """The words with which a pull ends, after at most so many requests. The pull may leave no weights."""
    server.answer = answer
    with pytest.raises(NetworkError) as error:
        puller.pull(entry())
    assert len(server.requests) <= limit, "asked again and again"
    assert error.value.hint
    assert zoo.local_files.find(entry()) == []
    return error.value.message


def test_an_honest_answer_is_taken(server: RawServer) -> None:
    server.answer = hub(honest)
    assert puller.pull(entry()).read_bytes() == BODY


@pytest.mark.parametrize("get", [chunked_without_end, until_closed_without_end])
def test_a_body_without_end_is_cut_at_the_announced_size(get: Answer, server: RawServer) -> None:
    words = refused(server, hub(get))
    assert f"more than {len(BODY):,} bytes" in words
    assert len(server.gets) == 1


@pytest.mark.parametrize("get", [longer, shorter])
def test_a_file_that_changed_between_head_and_get_is_reported_at_once(get: Answer, server: RawServer) -> None:
    words = refused(server, hub(get))
    assert "the file has changed since" in words
    assert len(server.gets) == 1
    server.answer = hub(honest)
    assert puller.pull(entry()).read_bytes() == BODY, "the same command again takes the new file"


def test_a_resumed_file_that_changed_is_fetched_whole(server: RawServer, home: Path) -> None:
    """A publisher's own server gives no checksum: halves of two versions would be glued unseen."""
    first, second = b"1" * 100_000, b"2" * 100_000

    def answer(request: Request) -> Iterator[bytes]:
        if request.method == "HEAD":
            yield b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nETag: "first"\r\n\r\n'
        elif len(server.gets) == 1:
            yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + first[:60_000]
        elif request.headers["if-range"] == '"first"':  # it is "second" by now
            yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + second

    server.answer = answer
    published = dataclasses.replace(entry(), hub="", url=f"{server.url}/x.pth", files=("x.pth",))
    assert puller.pull(published).read_bytes() == second


def test_an_absurd_size_is_refused_before_the_first_byte(server: RawServer) -> None:
    words = refused(server, hub(honest, X_Linked_Size="9" * 15))
    assert "would be 999,999,999,999,999 bytes" in words
    assert not server.gets


def test_a_body_of_unknown_length_has_a_limit(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puller, "_largest_weights", lambda entry: 1_000_000)
    words = refused(server, hub(chunked_without_end, X_Linked_Size="", Content_Length=""))
    assert "more than 1,000,000 bytes" in words


def test_a_giant_json_is_refused(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puller, "LARGEST_TEXT", 200_000)

    def answer(request: Request) -> Iterator[bytes]:
        if request.path.endswith("/config.json"):
            if request.method == "HEAD":
                yield b'HTTP/1.1 200 OK\r\nETag: "x"\r\n\r\n'
            else:
                yield from chunked_without_end(request)
        else:
            yield from hub(honest)(request)

    words = refused(server, answer)
    assert "config.json" in words
    assert "more than 200,000 bytes" in words


@pytest.mark.parametrize("size", ["\u00b2", "9" * 400, "9" * 5000, "-5", "12abc", "0x10", "1_000", "1e3", " 5 5"])
def test_a_size_that_is_not_a_number(size: str, server: RawServer) -> None:
    words = refused(server, hub(honest, X_Linked_Size=size))
    assert "X-Linked-Size" in words
    assert len(words) < 400


@pytest.mark.parametrize("text", ["12abc", "-5", "9" * 5000])
def test_a_length_that_is_not_a_number(text: str, server: RawServer) -> None:
    words = refused(server, hub(length(text), X_Linked_Size="", Content_Length=""))
    assert "Content-Length" in words


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (b"http://[::1", "address is not valid"),
        (b"http://" + b"a" * 70 + b".invalid/x", "address is not valid"),
        ("http://\u00e9".encode() + "\u00e9".encode() * 70 + b"/x", "address is not valid"),
        (b"http://127.0.0.1:port/x", "address is not valid"),
        (b"ftp://127.0.0.1/x", "redirects to ftp://"),
    ],
    ids=["ipv6", "label", "idn", "port", "ftp"],
)
def test_a_redirect_to_nowhere(location: bytes, words: str, server: RawServer) -> None:
    assert words in refused(server, hub(redirect(location)))
    assert len(server.gets) == 1


def test_headers_without_end(server: RawServer) -> None:
    assert "without end" in refused(server, continue_without_end)
    assert "without end" in refused(server, hub(redirect_with_endless_body))
    assert "without end" in refused(server, hub(trailer_without_end), limit=100)


@pytest.mark.parametrize("answer", [b"no\tstatus at all \r\n\r\n", b"HTTP/1.1 99999999999 x\r\n\r\n"])
def test_an_answer_that_is_not_http_is_reported_in_one_line(answer: bytes, server: RawServer) -> None:
    assert "\n" not in refused(server, hub(lambda _: iter([answer])))


def test_a_server_that_gives_a_few_bytes_at_each_try_is_given_up(server: RawServer) -> None:
    assert "cut after" in refused(server, hub(few_bytes_each_time))
    assert len(server.gets) == fetch.patience.tries


def drip_headers(request: Request) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X"


@pytest.mark.parametrize("answer", [hub(drips), drip_headers], ids=["body", "headers"])
def test_a_server_that_drips_is_given_up(answer: Answer, server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # as if the window were over after each piece, and no rate were enough: nobody waits
    monkeypatch.setattr(http_client, "WINDOW", 1e-9)
    monkeypatch.setattr(http_client, "FLOOR", 1e18)
    assert "too slow" in refused(server, answer, limit=5)


@pytest.mark.parametrize(("size", "ends"), [(1, True), (900, True), (1100, False)])
def test_the_rate_is_taken_over_a_window(size: int, ends: bool) -> None:
    """One piece a second, by the clock of the test."""
    clock = (seconds for second in range(10**6) for seconds in (float(second), float(second + 1)))
    ours, theirs = socket.socketpair()
    raw = ours.makefile("rb", buffering=0)
    with ours, theirs, contextlib.closing(http_client._WatchedSocket(raw, lambda: next(clock))) as watched:
        watched.allow(10**9)

        def receive(pieces: int) -> None:
            for _ in range(pieces):
                theirs.sendall(bytes(size))
                assert watched.readinto(bytearray(size)) == size

        receive(29)
        with pytest.raises(http_client.BadAnswerError, match="too slow") if ends else contextlib.nullcontext():
            receive(100)


def test_a_process_that_was_stopped_is_not_a_slow_server() -> None:
    clock = iter([0.0, 3600.0, 3600.0, 3601.0])
    ours, theirs = socket.socketpair()
    raw = ours.makefile("rb", buffering=0)
    with ours, theirs, contextlib.closing(http_client._WatchedSocket(raw, lambda: next(clock))) as watched:
        theirs.sendall(bytes(200))
        assert [watched.readinto(bytearray(100)) for _ in range(2)] == [100, 100]


def test_a_file_of_git_is_hashed_in_pieces(server: RawServer, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(20_000_000))
    digest = hashlib.sha1(b"blob 20000000\0" + bytes(20_000_000)).hexdigest()
    tracemalloc.start()
    _, computed, published = fetch._digests(fetch.Remote("x", git=digest), path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert computed == published == digest
    assert peak < 5_000_000


def test_a_commit_that_is_not_one_is_not_used(server: RawServer) -> None:
    server.answer = hub(honest, X_Repo_Commit="../../evil")
    puller.pull(entry())
    assert not any("evil" in request.path for request in server.requests)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "https://",
        "ftp://mirror.example",
        "http://[::1",
        "http://host:99999999",
        "http://" + "a" * 70 + ".example",
        "http://a b",
        "http://h\u00f4te\udcff",
    ],
)
def test_an_endpoint_that_is_not_an_address(url: str, server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(UsageError, match="HF_ENDPOINT"):
        puller.pull(entry())


@pytest.mark.parametrize("url", ["http://user:PASSWORD@{}", "http://PASSWORD@{}", "http://{}/?token=PASSWORD"])
def test_an_endpoint_with_a_secret_is_refused_without_it(
    url: str, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url.format(server.url.removeprefix("http://")))
    with pytest.raises(ConvNextError) as error:
        puller.pull(entry())
    assert "PASSWORD" not in error.value.message
    assert not server.requests


@pytest.mark.parametrize("token", ["hf_\u20ac", "hf_a b\n c", "hf_\x07"])
def test_a_token_that_cannot_be_sent(token: str, server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UsageError, match="access token") as error:
        puller.pull(entry())
    assert token not in error.value.message
