"""Mutated files, settings, environments and options: the exit status is never 70, and no traceback is printed."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.helpers.paths import SAMPLES
from tests.helpers.weights import write_model

pytestmark = pytest.mark.slow
CAT = SAMPLES[0]
bounded = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
odd = st.sampled_from(
    [
        "",
        "\0",
        "\ud800",
        "\udcff",
        "\x1b[31m",
        "²",
        "9" * 5000,
        "-1",
        "nan",
        "inf",
        "1e999",
        "[" * 3000,
        "~x/y",
        "://",
        "é",
    ]
)
texts = odd | st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | texts | st.just(10**400)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


def assert_handled(*arguments: str, environment: dict[str, str] | None = None) -> None:
    from convnext_cli.cli import render, run

    render.reset()
    out, err = io.TextIOWrapper(io.BytesIO(), errors="replace"), io.TextIOWrapper(io.BytesIO(), errors="replace")
    with mock.patch.dict(os.environ, environment or {}), redirect_stdout(out), redirect_stderr(err):
        try:
            status = run([*arguments])
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
    err.flush()
    words = err.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]
    assert status in (0, 1, 2, 3, 4, 5, 74), (arguments, words)
    assert "Traceback" not in words, words


def mutated(data: bytes, places: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for place, byte in places:
        if changed:
            changed[place % len(changed)] = byte
    return bytes(changed)


places = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8)


@pytest.fixture
def corner(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small model, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model.safetensors")
    return tmp_path


LABELS = {
    "txt": b"a\nb\nc\nd\ne\nf\ng\n",
    "json": b'{"0": "a", "1": "b", "2": "c", "3": "d", "4": "e", "5": "f", "6": "g"}',
    "csv": b'class,name\n0,a\n1,"b"\n2,c\n3,d\n4,e\n5,f\n6,g\n',
    "tsv": b"0\ta\n1\tb\n2\tc\n3\td\n4\te\n5\tf\n6\tg\n",
}


@pytest.mark.parametrize("suffix", LABELS)
@pytest.mark.parametrize("option", ["--labels", "--floors"])
def test_label_files(suffix: str, option: str, corner: Path) -> None:
    @seed(1)
    @bounded
    @given(places, st.binary(max_size=30))
    def check(where: list[tuple[int, int]], tail: bytes) -> None:
        file = corner / f"labels.{suffix}"
        file.write_bytes(mutated(LABELS[suffix], where) + tail)
        assert_handled("classify", CAT, "-m", "model.safetensors", option, str(file), "-f", "jsonl")

    check()


def test_label_files_of_any_json(corner: Path) -> None:
    @seed(2)
    @bounded
    @given(values)
    def check(value: Any) -> None:
        (corner / "labels.json").write_text(json.dumps(value))
        assert_handled("classify", CAT, "-m", "model.safetensors", "--labels", "labels.json", "-f", "jsonl")

    check()


def changed_card(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    card = json.loads(header["__metadata__"]["convnext"])
    change(card)
    header["__metadata__"]["convnext"] = json.dumps(card)
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data[8 + length :]


def test_cards(corner: Path) -> None:
    data = (corner / "model.safetensors").read_bytes()
    inner = st.sampled_from(["config", "recipe", None])

    @seed(3)
    @bounded
    @given(inner, st.integers(0, 30), values)
    def check(part: str | None, number: int, value: Any) -> None:
        def change(card: dict[str, Any]) -> None:
            target = card[part] if part else card
            target[sorted(target)[number % len(target)]] = value

        (corner / "odd.safetensors").write_bytes(changed_card(data, change))
        assert_handled("models", "info", "odd.safetensors")
        assert_handled("classify", CAT, "-m", "odd.safetensors", "-f", "jsonl", "--max-pixels", "1000000")

    check()


def test_job_settings(corner: Path) -> None:
    """What a former run left beside the output."""
    assert_handled("label", CAT, "-m", "model.safetensors", "-o", "rows.jsonl", "-q")
    job = next(path for path in corner.iterdir() if path.name.startswith((".rows", "rows.jsonl.")))
    assert job.is_file()
    data = job.read_bytes()

    @seed(4)
    @bounded
    @given(places)
    def check(where: list[tuple[int, int]]) -> None:
        for path in corner.glob(f"{job.name}*"):
            path.unlink()
        job.write_bytes(mutated(data, where))
        assert_handled("label", CAT, "-m", "model.safetensors", "-o", "rows.jsonl", "-q")

    check()


@bounded
@seed(5)
@given(places, st.text(max_size=10))
def test_recipes(where: list[tuple[int, int]], tail: str) -> None:
    import tempfile

    text = b'size = 64\nepochs = 1\nmixup = 0.2\nlearning_rate = 0.001\nseed = 1\noptimizer = "adamw"\n'
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.toml"
        recipe.write_bytes(mutated(text, where) + tail.encode("utf-8", "replace"))
        assert_handled("train", f"{folder}/none", "-o", f"{folder}/run", "--recipe", str(recipe))


@bounded
@seed(6)
@given(st.sampled_from(["mixup", "size", "epochs", "seed", "batch_size", "optimizer"]), values)
def test_settings_of_training(name: str, value: Any) -> None:
    assert_handled("train", "/nonexistent/x", "-o", "/nonexistent/run", "--set", f"{name}={value}")


VARIABLES = ["CONVNEXT_HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "TORCH_HOME"]
VARIABLES += ["COLUMNS", "LINES", "LANG", "TERM", "TMPDIR", "HOME", "NO_COLOR", "FORCE_COLOR", "FSSPEC_S3", "RANK"]


@settings(bounded, max_examples=12)
@seed(7)
@given(st.dictionaries(st.sampled_from(VARIABLES), texts, max_size=3))
def test_environments(environment: dict[str, str]) -> None:
    usable = {}
    for name, value in environment.items():
        encoded = value.encode(sys.getfilesystemencoding(), "replace" if "\udcff" not in value else "surrogateescape")
        usable[name] = encoded.replace(b"\0", b"").decode(sys.getfilesystemencoding(), "surrogateescape")
    assert_handled("models", "list", environment=usable)
    assert_handled(
        "classify", CAT, "-f", "csv", environment=usable | {"CONVNEXT_HOME": usable.get("CONVNEXT_HOME", "")}
    )


OPTIONS = ["-k", "--min-score", "--batch-size", "--size", "--crop-pct", "--interpolation", "--mean", "--std", "--dtype"]
OPTIONS += ["--device", "--engine", "--threads", "--timeout", "--max-pixels", "--classes", "--labels", "--floors", "-m"]
OPTIONS += ["--resize-mode", "-f", "--include", "--exclude", "--files-from", "--workers"]


@settings(bounded, max_examples=60)
@seed(8)
@given(
    st.lists(
        st.tuples(st.sampled_from(OPTIONS), texts | st.integers().map(str) | st.floats(allow_subnormal=False).map(str)),
        max_size=3,
    )
)
def test_options(pairs: list[tuple[str, str]]) -> None:
    words = [word.replace("\0", "") for pair in pairs for word in pair]
    assert_handled("classify", "nowhere.jpg", *words)
