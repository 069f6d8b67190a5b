"""Exit status 70 is for defects of the program: odd environments, texts and paths have their own."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convnext_cli.base import text
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS
from tests.helpers.command import Done, Run
from tests.helpers.paths import ROOT, SAMPLES
from tests.helpers.weights import write_model

CAT = SAMPLES[0]
DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


def assert_handled(done: Done, *statuses: int) -> None:
    assert done.status in statuses, done.err
    assert "Traceback" not in done.err
    assert "unexpected" not in done.err
    if done.status not in (0, 1):
        assert done.err.count("error: ") == 1 and "hint: " in done.err, done.err


# Texts


@pytest.mark.parametrize("read", [text.json_value, text.toml_values])
def test_deep_text_is_a_value_error(read: object) -> None:
    deep = DEEP if read is text.json_value else "a = " + "[" * 100_000
    with pytest.raises(ValueError, match="nested too deeply"):
        read(deep)  # type: ignore[operator]


def test_lone_surrogates_are_written_out() -> None:
    assert text.well_formed("caf\udce9 \ud800 é😀") == "caf\\xe9 \\ud800 é😀"


def test_labels_and_cards_are_well_formed_text() -> None:
    labels = LabelSet.from_names("\ud800", ["caf\udce9", "b"], ["\udfff", None])
    assert (labels.name, labels.names, labels.ids) == ("\\ud800", ("caf\\xe9", "b"), ("\\udfff", None))
    card = Card(VARIANTS["convnext_atto"], name="\udce9", source="\ud800", metrics={"a\ud800": 1.0})
    assert (card.name, card.source, card.metrics) == ("\\xe9", "\\ud800", {"a\\ud800": 1.0})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Weights of seven classes."""
    return write_model(tmp_path / "model.safetensors")


@pytest.fixture
def odd_labels(tmp_path: Path) -> Path:
    """Seven labels, each with lone surrogates."""
    file = tmp_path / "labels.json"
    file.write_text(json.dumps([f"caf\udce9 \ud800 {number}" for number in range(7)]))
    return file


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "tsv", "parquet"])
def test_results_hold_any_label(form: str, convnext: Run, model: Path, odd_labels: Path, tmp_path: Path) -> None:
    target = tmp_path / f"rows.{form}"
    assert_handled(convnext("classify", CAT, "-o", target, "-m", model, "--labels", odd_labels), 0)
    assert rb"caf\xe9 \ud800" in target.read_bytes().replace(rb"\\", b"\\")
    done = convnext("label", ROOT / "samples", "-o", tmp_path / f"job.{form}", "-m", model, "--labels", odd_labels)
    assert_handled(done, 0)


def test_a_card_with_surrogates_is_shown_and_used(convnext: Run, model: Path, tmp_path: Path) -> None:
    odd = rewritten(model, lambda card: card | {"name": "caf\udce9", "metrics": {"\ud800 \x1b[31m": 1.0}})
    for arguments in (["models", "info", odd], ["models", "info", odd, "--json"], ["models", "verify", odd]):
        done = convnext(*arguments)
        assert_handled(done, 0)
        assert "\x1b" not in done.out + done.err
    assert_handled(convnext("classify", CAT, "-m", odd, "-f", "jsonl"), 0)
    assert_handled(convnext("label", ROOT / "samples", "-m", odd, "-o", tmp_path / "x.jsonl"), 0)
    assert_handled(convnext("export", "-m", odd, "-o", tmp_path / "x.onnx"), 0, 4)


# Deep JSON


@pytest.mark.parametrize(
    "arguments",
    [
        ["classify", CAT, "--labels", "deep.json"],
        ["classify", CAT, "--floors", "deep.json"],
        ["classify", CAT, "-m", "hf"],
        ["classify", CAT, "-m", "card.safetensors"],
        ["models", "info", "index"],
        ["models", "list"],
        ["evaluate", "data.tar"],
        ["evaluate", "data", "--real", "deep.json"],
        ["bench", "--compare", "deep.json"],
        ["train", "data", "-o", "run", "--recipe", "deep.toml"],
        ["train", "data", "-o", "run", "--set", "mixup=" + "[" * 100_000],
        ["label", "samples", "--undo", "deep.json"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_deep_json(
    arguments: list[str], convnext: Run, model: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deep.json").write_text(DEEP)
    Path("deep.toml").write_text("a = " + "[" * 100_000)
    for folder in ("hf", "index", "data/a", "data/b", "samples"):
        Path(folder).mkdir(parents=True)
    for place in ("data/a/a.jpg", "data/b/b.jpg", "samples/a.jpg"):
        Path(place).write_bytes(Path(CAT).read_bytes())
    Path("hf/config.json").write_text(DEEP)
    Path("hf/model.safetensors").write_bytes(model.read_bytes())
    Path("index/model.safetensors.index.json").write_text(DEEP)
    rewritten(model, lambda card: card, text=DEEP).rename("card.safetensors")
    with tarfile.open("data.tar", "w") as tar:
        for name, data in (("a.jpg", Path(CAT).read_bytes()), ("a.json", DEEP.encode()[:90_000])):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    pulled = home / "weights" / "convnext_tiny.fb_in1k"
    pulled.mkdir(parents=True)
    (pulled / "pulled.json").write_text(DEEP)
    assert_handled(convnext(*arguments), 0, 2, 3)


def test_a_tar_with_a_bad_sparse_map(convnext: Run, tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.jpg")
    entry.size = 512
    entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    target = tmp_path / "x.tar"
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry, io.BytesIO(b"not a number\n".ljust(512, b"\0")))
    for command in ("evaluate", "classify"):
        assert_handled(convnext(command, target), 1, 2, 3)
    assert_handled(convnext("label", target, "-o", tmp_path / "x.csv"), 1, 2, 3)


# Paths that are not UTF-8


def test_paths_that_are_not_utf8(convnext: Run, model: Path, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "caf\udce9"
    for name in ("a", "b"):
        (folder / "data" / name).mkdir(parents=True)
        for number in range(3):
            (folder / "data" / name / f"\udcff{number}.jpg").write_bytes(Path(CAT).read_bytes())
    assert_handled(convnext("classify", folder / "data" / "a" / "\udcff0.jpg", "-m", model), 0)
    for form in ("jsonl", "csv", "parquet"):
        done = convnext("label", folder / "data", "-m", model, "-o", folder / f"out.{form}")
        assert_handled(done, 0)
    assert_handled(convnext("evaluate", folder / "data", "-m", model, "-o", folder / "judged"), 0, 2, 3)
    assert_handled(convnext("convert", model, folder / "hf", "--to", "hf"), 0)
    assert_handled(convnext("convert", model, folder / "x.safetensors", "--to", "timm"), 0)
    assert_handled(convnext("export", "-m", model, "-o", folder / "x.onnx"), 2)
    assert_handled(convnext("export", "-m", model, "-o", folder / "ov.xml"), 2)
    assert_handled(convnext("classify", CAT, "--labels", folder / "gone.txt", "-m", model), 2, 3)


def test_weights_under_a_path_that_is_not_utf8(convnext: Run, model: Path, home: Path, tmp_path: Path) -> None:
    """No library that reads weights opens them: the path is the problem, not the file."""
    weights = tmp_path / "mod\udce8le.safetensors"
    weights.write_bytes(model.read_bytes())
    for arguments in (
        ["models", "use", weights],
        ["models", "info", weights],
        ["models", "verify", weights],
        ["classify", CAT, "-m", weights],
        ["label", ROOT / "samples", "-o", tmp_path / "x.csv", "-m", weights],
        ["evaluate", tmp_path, "-m", weights],
        ["convert", weights, tmp_path / "hf", "--to", "hf"],
        ["export", "-m", weights, "-o", tmp_path / "x.onnx"],
        ["prepare", "-m", weights],
        ["train", tmp_path, "-o", tmp_path / "run", "--set", "mixup=0", "-m", weights],
    ):
        done = convnext(*arguments)
        assert_handled(done, 2, 3)
        assert "damaged" not in done.err, done.err


def test_training_under_a_path_that_is_not_utf8(convnext: Run, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "caf\udce9"
    for name in ("a\udce9", "b"):
        (folder / "data" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (40, 40), (40 * number, 0, 0)).save(folder / "data" / name / f"\udcff{number}.png")
    arguments = ["train", folder / "data", "--from", model, "--freeze", "--size", "32"]
    assert_handled(convnext(*arguments, "-o", folder / "run"), 2)
    done = convnext(*arguments, "-o", tmp_path / "run")
    assert_handled(done, 0)
    assert "2 classes" in done.err
    # the class of the folder is the label of the model
    done = convnext("evaluate", folder / "data", "-m", tmp_path / "run" / "model.safetensors")
    assert_handled(done, 0)
    assert "no label" not in done.err


# The environment


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("CONVNEXT_HOME", "~nosuchuser/x", 2),
        ("CONVNEXT_HOME", "/dev/null/x", 0),
        ("CONVNEXT_HOME", "\udcff", 0),
        ("XDG_CACHE_HOME", "~nosuchuser", 0),
        ("HF_HOME", "~nosuchuser", 0),
        ("HF_HUB_CACHE", "~nosuchuser", 0),
        ("TORCH_HOME", "~nosuchuser", 0),
        ("COLUMNS", "abc", 0),
        ("COLUMNS", "-5", 0),
        ("LINES", "\u00b2", 0),
        ("LANG", "xx_YY.nonsense", 0),
        ("LC_ALL", "\udcff", 0),
        ("TERM", "\udcff", 0),
        ("OMP_NUM_THREADS", "abc", 0),
        ("TMPDIR", "/nonexistent", 0),
        ("CONVNEXT_DEBUG", "\udcff", 0),
        ("FORCE_COLOR", "\udcff", 0),
        ("HOME", "/nonexistent", 0),
        ("HF_HUB_OFFLINE", "\udcff", 0),
        ("PILLOW_BLOCK_SIZE", "abc", 0),
        ("FSSPEC_S3", "{", 0),
        ("RANK", "abc", 0),
    ],
)
@pytest.mark.parametrize("command", ["classify", "models list"])
def test_odd_environments(
    command: str, name: str, value: str, status: int, convnext: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    arguments = [*command.split(), *([CAT] if command == "classify" else [])]
    done = convnext(*arguments)
    assert_handled(done, status)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"])
@pytest.mark.parametrize("value", ["abc", "-1", "\u00b2", "9" * 5000])
def test_odd_environments_of_training(name: str, value: str, convnext: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert_handled(convnext("train", "nowhere", "-o", "run"), 2)


# The start


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")
@pytest.mark.parametrize("megabytes", [20, 60, 120])
def test_too_little_memory_to_start(megabytes: int) -> None:
    command = f"ulimit -v {megabytes * 1000}; exec {sys.executable} -m convnext_cli classify {CAT}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, errors="replace")
    assert done.returncode != 70
    assert "unexpected" not in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems set no such limit")
@pytest.mark.parametrize("kilobytes", [150_000, 160_000, 170_000, 180_000, 200_000, 220_000, 360_000])
def test_too_little_memory_has_words(kilobytes: int) -> None:
    """Also where the library behind NumPy would end the process, or raise the signal of Ctrl-C."""
    command = f"ulimit -v {kilobytes}; exec {sys.executable} -m convnext_cli classify {CAT}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, errors="replace")
    assert done.returncode == 4, done.stderr
    assert "error: there is not enough memory" in done.stderr and "hint: " in done.stderr


@pytest.mark.parametrize("module", ["click", "convnext_cli.cli", "convnext_cli.cli.classify"])
@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        ("KeyboardInterrupt", 130, "interrupted"),
        ("MemoryError", 4, "error: there is not enough memory"),
        ("RuntimeError('plugin.cpp:921: Resource temporarily unavailable')", 4, "error: there is not enough memory"),
        ("ImportError('x.so: failed to map segment from shared object')", 4, "error: there is not enough memory"),
    ],
)
def test_failures_while_libraries_are_imported(module: str, error: str, status: int, words: str) -> None:
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: raise {error}\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"sys.argv = ['convnext', 'classify', {CAT!r}]\n"
        "from convnext_cli.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("error", "command", "status", "words"),
    [
        (
            "ModelError('default.safetensors is damaged')",
            "convert",
            130,
            "interrupted\nhint: the same command starts again\n",
        ),
        ("RuntimeError('no shape')", "label", 130, "interrupted\n"),
        ("ValueError", "models pull", 130, "interrupted\nhint: the same command continues with the rest\n"),
        ("OutputError('the disk is full')", "label", 74, "error: the disk is full\n"),
    ],
)
def test_an_interruption_that_a_library_turned_into_an_error(error: str, command: str, status: int, words: str) -> None:
    """A library in C may lose the exception, and raise its own."""
    code = (
        "import os, signal, sys\n"
        "from convnext_cli import cli\n"
        "from convnext_cli.base import interruption\n"
        "from convnext_cli.base.errors import ModelError, OutputError\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "interruption.guard()\n"
        "def call(*_, **__):\n"
        "    try: os.kill(os.getpid(), signal.SIGINT)\n"
        f"    except KeyboardInterrupt: raise {error} from None\n"
        "cli.convnext.main = call\n"
        f"sys.exit(cli.run({command.split()!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, words)


def test_the_script_starts_where_failures_are_caught() -> None:
    assert "    convnext = convnext_cli.__main__:main\n" in (ROOT / "setup.cfg").read_text()


def rewritten(model: Path, change: Callable[[dict[str, Any]], dict[str, Any]], text: str = "") -> Path:
    """A copy of a weights file beside it, whose card was changed, or is another text."""
    data = model.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    card = json.loads(header["__metadata__"]["convnext"])
    header["__metadata__"]["convnext"] = text or json.dumps(change(card))
    encoded = json.dumps(header).encode()
    path = model.with_name("rewritten.safetensors")
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[8 + length :])
    return path
