"""No secret in anything that the program prints or writes: secrets by places."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from convnext_cli.storage.addresses import scrub
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES

SECRET = "s3cr3tPassw0rd"
URLS = [
    f"https://user:{SECRET}@host.example/x.jpg",
    f"https://{SECRET}@host.example/x.jpg",
    f"https://host.example/x.jpg?token={SECRET}",
    f"https://host.example/x.jpg?X-Amz-Signature={SECRET}&a=1",
    f"s3://user:{SECRET}/more@bucket/x.jpg",
    f"s3://{SECRET}@bucket/x.jpg",
    f"gs://user:{SECRET}@bucket/x.jpg",
    f"ftp://user:{SECRET}@host.example/x.jpg",
    f"zip://a.jpg::s3://user:{SECRET}@bucket/x.zip",
]
# Each place is a command; URL stands for the secret one.
PLACES = {
    "photo": ["classify", "URL"],
    "photo after another": ["classify", SAMPLES[0], "URL", "-f", "jsonl"],
    "short form": ["URL"],
    "offline": ["classify", "--offline", "URL"],
    "debug": ["classify", "-vv", "URL"],
    "model": ["classify", SAMPLES[0], "-m", "URL"],
    "model, debug": ["classify", SAMPLES[0], "-m", "URL", "-vv"],
    "labels": ["classify", SAMPLES[0], "--labels", "URL"],
    "classes": ["classify", SAMPLES[0], "--classes", "URL"],
    "floors": ["classify", SAMPLES[0], "--floors", "URL"],
    "output": ["classify", SAMPLES[0], "-o", "URL"],
    "list": ["classify", "--files-from", "LIST", "-f", "jsonl", "-o", "rows.jsonl"],
    "list, csv": ["classify", "--files-from", "LIST", "-f", "csv"],
    "label": ["label", "URL", "-o", "rows.jsonl", "--report", "page.html"],
    "label, list": ["label", "--files-from", "LIST", "-o", "rows.jsonl", "--report", "page.html"],
    "label, output": ["label", "photos", "-o", "URL"],
    "label, sort": ["label", "photos", "-o", "rows.jsonl", "--sort-into", "URL"],
    "label, report": ["label", "photos", "-o", "rows.jsonl", "--report", "URL"],
    "evaluate": ["evaluate", "URL"],
    "evaluate, output": ["evaluate", "photos", "-o", "URL"],
    "train": ["train", "URL", "-o", "run"],
    "train, from": ["train", "photos", "-o", "run", "--from", "URL"],
    "train, setting": ["train", "photos", "-o", "run", "--set", "URL"],
    "train, output": ["train", "photos", "-o", "URL"],
    "export": ["export", "-m", "URL", "-o", "x.onnx"],
    "export, output": ["export", "-o", "URL"],
    "convert": ["convert", "URL", "x.safetensors"],
    "convert, output": ["convert", "default", "URL", "--to", "hf"],
    "info": ["models", "info", "URL"],
    "info, json": ["models", "info", "URL", "--json"],
    "verify": ["models", "verify", "URL"],
    "use": ["models", "use", "URL"],
    "pull": ["models", "pull", "URL"],
    "search": ["models", "list", "URL", "--json"],
    "prepare": ["prepare", "-m", "URL"],
    "bench": ["bench", "--compare", "URL"],
    "unknown option": ["classify", "--URL"],
    "unknown command": ["urls", "URL"],
}


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_is_printed_or_written(
    place: str, convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(Path(SAMPLES[0]).parent, "photos", ignore=shutil.ignore_patterns("*.md", "__pycache__"))
    for number, url in enumerate(URLS):
        Path("list.txt").write_text(f"{url}\n")
        done = convnext(*(word.replace("URL", url).replace("LIST", "list.txt") for word in PLACES[place]))
        assert done.status in (1, 2, 3, 4, 5) or place == "search", (url, done)
        assert SECRET not in done.out + done.err, url
        Path("list.txt").unlink()
        for path in Path().rglob("*"):
            assert SECRET not in str(path), url
            assert path.is_dir() or SECRET.encode() not in path.read_bytes(), (url, path)
        assert number < len(URLS)


def test_no_secret_of_the_environment_is_printed(convnext: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for endpoint in (f"http://user:{SECRET}@127.0.0.1:9", f"http://127.0.0.1:9/?token={SECRET}", f"http://{SECRET}@h"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        for debug in ([], ["-vv"]):
            done = convnext("models", "pull", "convnext_tiny.fb_in1k", *debug)
            assert SECRET not in done.out + done.err
            assert done.status in (2, 5)


@pytest.mark.parametrize("text", ["a/b=1/c.jpg", "s3://bucket/key=5/a@2x.jpg", "photos/name@host:1.jpg", "C:/x@y.jpg"])
def test_what_is_not_a_secret_stays(text: str) -> None:
    assert scrub(text) == text


def test_outputs_are_never_urls(convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before the work, not after it."""
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["label", SAMPLES[0], "-o", "rows.jsonl", "--sort-into", "s3://bucket/sorted"],
        ["label", SAMPLES[0], "-o", "rows.jsonl", "--report", "s3://bucket/page.html"],
        ["evaluate", SAMPLES[0], "-o", "s3://bucket/x"],
        ["train", ".", "-o", "s3://bucket/run"],
        ["export", "-o", "s3://bucket/x.onnx"],
        ["convert", "default", "s3://bucket/x", "--to", "hf"],
    ):
        done = convnext(*arguments)
        assert done.status == 2, (arguments, done)
        assert "is a URL" in done.err
        assert not list(tmp_path.iterdir())
