"""Small weights files that would take all memory or no end: each is refused in words, before anything is made of it."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints import canonical
from convnext_cli.model.card import Card
from convnext_cli.model.config import MOST_LABELS
from convnext_cli.model.preprocessing import MOST
from tests.helpers.command import Run
from tests.helpers.weights import SMALL, random_tensors, write_model


def saved(value: Any, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def rezipped(data: bytes, change: Callable[[str, bytes], bytes] = lambda _, content: content) -> bytes:
    """The archive again, with compression."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return stream.getvalue()


def pickled(opcodes: bytes, *, legacy: bool = False) -> bytes:
    """A checkpoint whose description is this pickle."""
    if legacy:
        return saved({}, legacy=True).replace(b"}q\x00.", opcodes.removeprefix(b"\x80\x02"), 1)

    def put(name: str, content: bytes) -> bytes:
        return opcodes if name.endswith("data.pkl") else content

    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({}))) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, put(entry.filename, old.read(entry)))
    return stream.getvalue()


def wide(rows: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A classifier of many classes over one number."""
    tensors = random_tensors(SMALL)
    tensors["head.weight"] = torch.zeros(1, dtype=dtype).expand(rows, 32)
    tensors["head.bias"] = torch.zeros(1, dtype=dtype).expand(rows)
    return tensors


def nested_key() -> bytes:
    """A key of pairs of pairs of …: its hash takes 2^60 steps."""
    steps = b"\x80\x02}q\x00()q\x01"
    for at in range(1, 61):
        steps += b"h" + bytes([at]) + b"h" + bytes([at]) + b"\x86q" + bytes([at + 1])
        steps += b"0" if at < 60 else b""
    return steps + b"K\x01u."


def header(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


COSTLY: dict[str, tuple[Callable[[], bytes], str]] = {
    "rows over one number": (lambda: saved(wide(10**7)), "has only 1 values"),
    "rows in half precision": (lambda: saved(wide(10**7, torch.float16)), "has only 1 values"),
    "rows in a file that is no zip": (lambda: saved(wide(10**7), legacy=True), "has only 1 values"),
    "a list of millions, compressed": (
        lambda: rezipped(saved({}), lambda n, c: c + bytes(100 << 20) if n.endswith("data.pkl") else c),
        "the description of its tensors has",
    ),
    "zeros, compressed": (
        lambda: rezipped(saved({"a": torch.zeros(10 << 20)})),
        "unpacks to",
    ),
    "a nested key": (lambda: pickled(nested_key()), "tuples are nested"),
    "a nested key, no zip": (lambda: pickled(nested_key(), legacy=True), "tuples are nested"),
    "memory by a number": (
        lambda: pickled(b"\x80\x02}(K\x01cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85Ru."),
        "asks for memory by a number",
    ),
    "a tensor of a size": (
        lambda: pickled(b"\x80\x02}(K\x01ctorch\nFloatTensor\n\x8a\x05\x00\x00\x00\x00\x10\x85Ru."),
        "values that are not in the file",
    ),
    "millions of steps": (lambda: pickled(b"\x80\x02}" + b"N0" * 600_000 + b"."), "more than 1,000,000 steps"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_costly_pickles_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, words = COSTLY[name]
    path = tmp_path / "costly.pth"
    path.write_bytes(make())
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(ModelError, match=words) as found:
        checkpoints.load(path)
    assert found.value.hint and found.value.message.startswith("costly.pth")


COSTLY_HEADERS: dict[str, tuple[Callable[[], str], str]] = {
    "thousands of edges": (
        lambda: '{"a":{"dtype":"F32","shape":[' + ",".join(["9" * 4000] * 500) + '],"data_offsets":[0,0]}}',
        "500 dimensions",
    ),
    "an edge without end": (
        lambda: '{"a":{"dtype":"F32","shape":[' + "9" * 4000 + ',0],"data_offsets":[0,0]}}',
        r"2\^63",
    ),
    "a dimension below 0": (lambda: '{"a":{"dtype":"F32","shape":[-1,0],"data_offsets":[0,0]}}', "below 0"),
    "a header of many MB": (lambda: '{"a":"' + "x" * 11_000_000 + '"}', "at most 10 MB"),
    "tens of thousands of tensors": (
        lambda: (
            "{" + ",".join(f'"{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(30_000)) + "}"
        ),
        "30,000 tensors",
    ),
    "a deep header": (lambda: '{"__metadata__":' + "[" * 100_000 + "]" * 100_000 + "}", "not readable"),
}


@pytest.mark.parametrize("name", COSTLY_HEADERS)
def test_costly_headers_are_refused(name: str, convnext: Run, tmp_path: Path) -> None:
    make, words = COSTLY_HEADERS[name]
    path = tmp_path / "costly.safetensors"
    path.write_bytes(header(make()))
    with pytest.raises(ModelError, match=words):
        checkpoints.load(path)
    done = convnext("models", "info", path)
    assert done.status == 3 and done.err.startswith("error: costly.safetensors")


def _card(**changes: Any) -> str:
    values = json.loads(Card(SMALL).to_json())
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) and values.get(name) else value
    return json.dumps(values)


CARDS: dict[str, tuple[str, str]] = {
    "photos as large as no memory": (_card(recipe={"size": [8192, 8192]}), f"from 1 to {MOST}"),
    "photos below the stride": (_card(recipe={"size": [8, 8]}), "below the network's stride, 32"),
    "classes without end": (_card(config={"num_labels": 10**9}), "at most 1,000,000"),
    "more labels than classes": (
        _card(labels={"name": "own", "names": list(map(str, range(50))), "lemmas": list(map(str, range(50)))}),
        "7 classes, but the label set 'own' has 50 names",
    ),
}


@pytest.mark.parametrize("name", CARDS)
def test_cards_that_cost_or_crash_are_refused(name: str, convnext: Run, tmp_path: Path) -> None:
    text, words = CARDS[name]
    path = write_model(tmp_path / "odd.safetensors")
    tensors = random_tensors(SMALL)

    class Text:
        def to_json(self) -> str:
            return text

    with path.open("wb") as stream:
        canonical.dump(stream, tensors, Text())  # type: ignore[arg-type]
    done = convnext("classify", "-m", path, "samples/cat.jpg", "-f", "jsonl")
    assert done.status == 3 and words in done.err, done.err


def test_a_million_classes_are_the_most(tmp_path: Path) -> None:
    tensors = random_tensors(SMALL.replace(num_labels=1))
    tensors["head.weight"], tensors["head.bias"] = torch.zeros(MOST_LABELS + 1, 32), torch.zeros(MOST_LABELS + 1)
    torch.save(tensors, tmp_path / "many.pth")
    with pytest.raises(ModelError, match="num_labels must be at most 1,000,000"):
        checkpoints.load(tmp_path / "many.pth")


@pytest.mark.parametrize("text", ['{"a":' + "[" * 100_000, '{"a": "' + "x" * (17 << 20) + '"}'], ids=["deep", "large"])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors.index.json"])
def test_json_beside_weights_that_is_no_use(name: str, text: str, convnext: Run, tmp_path: Path) -> None:
    if "index" not in name:
        write_model(tmp_path / "model.safetensors")
    (tmp_path / name).write_text(text)
    path = tmp_path / name if "index" in name else tmp_path
    done = convnext("models", "info", path)
    assert done.status == 3 and name in done.err, done.err


# What is sound is read -----------------------------------------------------------------------------------------------


def equal(path: Path) -> None:
    found, right = checkpoints.load(path).tensors, random_tensors(SMALL)
    assert found.keys() == right.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in right.items())


def test_a_checkpoint_that_was_zipped_again_is_read(tmp_path: Path) -> None:
    path = tmp_path / "again.pth"
    path.write_bytes(rezipped(saved(random_tensors(SMALL))))
    equal(path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("legacy", [False, True])
def test_a_path_that_is_not_utf_8(legacy: bool, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "sound.pth").write_bytes(saved(random_tensors(SMALL), legacy=legacy))
    equal(folder / "sound.pth")
    write_model(folder / "sound.safetensors")
    equal(folder / "sound.safetensors")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_training_checkpoint_is_read(legacy: bool, tmp_path: Path) -> None:
    """With its optimizer's state, views, parameters and shared tensors."""
    network = torch.nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors = random_tensors(SMALL)
    block = torch.randn(64, 64)
    extra = {
        "optimizer": optimizer.state_dict(),
        "view": block[3:5, ::2].t(),
        "shared": [block, block],
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 5),
        "parameter": torch.nn.Parameter(block),
        "args": {"betas": (0.9, 0.999), "sizes": tuple(range(20))},
        "seed": 2**63 + 5,
    }
    path = tmp_path / "run.pth"
    path.write_bytes(saved({"model": tensors, **extra}, legacy=legacy))
    equal(path)


def test_old_pickles_of_python_are_refused_in_words(tmp_path: Path) -> None:
    for protocol in range(2, 6):
        path = tmp_path / f"{protocol}.pth"
        path.write_bytes(pickle.dumps({"a": (1, 2), "b": [(), {"c": 1}]}, protocol))
        with pytest.raises(ModelError):
            checkpoints.load(path)
