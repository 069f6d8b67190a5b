"""Damaged model files of every kind end with words and a status of their own, never as a defect of the program."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from convnext_cli.checkpoints.layouts.registry import LAYOUTS
from convnext_cli.checkpoints.rename import to_layout
from convnext_cli.runtimes.onnx import graph
from tests.helpers.command import Run
from tests.helpers.exports import Plan as ExportPlan
from tests.helpers.exports import checkpoint, written
from tests.helpers.paths import ROOT
from tests.helpers.weights import SMALL, random_tensors, write_model

SECONDS = 6  # for each kind of file
EXPECTED = {0, 1, 2, 3, 4}


def _pth(path: Path, *, legacy: bool) -> None:
    torch.save({"model": random_tensors(SMALL), "epoch": 3}, path, _use_new_zipfile_serialization=not legacy)


def _timm(path: Path) -> None:
    torch.save(to_layout(random_tensors(SMALL), LAYOUTS["timm"]), path)


def _exported(form: str) -> Callable[[Path], None]:
    return lambda path: void(written(form, checkpoint(path.parent), ExportPlan(size=(64, 64)), path))


def void(_: object) -> None:
    """Forget a result."""


def _onnx(path: Path) -> None:
    graph.save(graph.graph(SMALL, {k: t.numpy() for k, t in random_tensors(SMALL).items()}), path)


KINDS: dict[str, Callable[[Path], None]] = {
    "a.safetensors": lambda path: void(write_model(path)),
    "zip.pth": lambda path: _pth(path, legacy=False),
    "legacy.pth": lambda path: _pth(path, legacy=True),
    "timm.bin": _timm,
    "a.onnx": _exported("onnx"),
    "bare.onnx": _onnx,
    "a.ts": _exported("torchscript"),
    "a.pt2": _exported("torch-export"),
    "a.tflite": _exported("tflite"),
    "a.xml": _exported("openvino"),
}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few changes: mostly in what describes the tensors, which stands at the beginning or at the end."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        if not found:
            break
        zone = rng.choice([min(len(found), 400), min(len(found), 6000), len(found)])
        at = rng.randrange(zone) if rng.random() < 0.6 else len(found) - 1 - rng.randrange(zone)
        change = rng.randrange(6)
        if change == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            found[at] = rng.choice([0, 1, 0x2E, 0x7F, 0x80, 0xFF])
        elif change == 2:
            del found[at : at + rng.choice([1, 4, 64])]
        elif change == 3:
            found[at:at] = rng.randbytes(rng.choice([1, 4, 64]))
        elif change == 4:
            found[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, rng.randbytes(8)])
        else:
            other = rng.randrange(len(found))
            found[at : at + 32] = found[other : other + 32]
    return bytes(found[: rng.randrange(len(found))] if found and rng.random() < 0.1 else found)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_mutated_files_end_in_words(name: str, convnext: Run, tmp_path: Path) -> None:
    KINDS[name](tmp_path / name)
    sound = (tmp_path / name).read_bytes()
    rng, ends = random.Random(name), time.monotonic() + SECONDS
    count = 0
    while time.monotonic() < ends or count < 20:
        data = mutated(sound, rng)
        (tmp_path / name).write_bytes(data)
        done = convnext("models", "info", tmp_path / name)
        count += 1
        if done.status not in EXPECTED or (done.status and "error: " not in done.err):
            kept = tmp_path / f"failing-{name}"
            kept.write_bytes(data)
            pytest.fail(f"mutation {count} of {name} ended with {done.status}: {done.err} (kept: {kept})")
        assert "Traceback" not in done.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bare.onnx", "a.xml", "a.tflite", "zip.pth"])
def test_mutated_files_are_classified_or_end_in_words(name: str, convnext: Run, tmp_path: Path) -> None:
    KINDS[name](tmp_path / name)
    sound = (tmp_path / name).read_bytes()
    rng = random.Random(f"{name} again")
    for count in range(12):
        (tmp_path / name).write_bytes(mutated(sound, rng))
        done = convnext("classify", "-m", tmp_path / name, ROOT / "samples/cat.jpg", "-e", "auto", "-f", "jsonl")
        assert done.status in EXPECTED, f"mutation {count}: {done.err}"


@pytest.mark.parametrize("name", KINDS)
def test_cut_off_files_end_in_words(name: str, convnext: Run, tmp_path: Path) -> None:
    KINDS[name](tmp_path / name)
    sound = (tmp_path / name).read_bytes()
    for length in (0, 1, 9, 100, len(sound) // 2):
        (tmp_path / name).write_bytes(sound[:length])
        done = convnext("models", "info", tmp_path / name)
        assert done.status == 3 and "error: " in done.err and "hint: " in done.err, (length, done.err)
