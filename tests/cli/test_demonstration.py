"""The bundled model says that it is a demonstration, and its answers move, sort or tag no photo without a yes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convnext_cli import zoo
from convnext_cli.model.card import Card
from convnext_cli.zoo import demonstration
from convnext_cli.zoo.recommendation import for_real_work
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES

SORT = ("--sort-into", "sorted")
SENTENCE = "the bundled model is a small demonstration"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder "photos" in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    shutil.copy(SAMPLES[1], tmp_path / "photos" / "coffee.jpg")
    return tmp_path / "photos"


@pytest.fixture
def other(home: Path) -> str:
    """The name of a model of the user's own: the same weights under another name."""
    bundled = zoo.local_files.bundled()
    assert bundled is not None
    (home / "weights").mkdir()
    shutil.copy(bundled, home / "weights" / "mine.safetensors")
    return "mine"


def bundled_card() -> Card:
    bundled = zoo.local_files.bundled()
    assert bundled is not None
    card = zoo.local_files.embedded_card(bundled)
    assert card is not None
    return card


def test_its_figures_are_those_of_its_card(convnext: Run) -> None:
    card = bundled_card()
    lines = [line for line in convnext("classify", SAMPLES[0]).err.splitlines() if line.startswith(SENTENCE)]
    (numbers,) = [tuple(map(int, re.findall(r"\d+", line.partition(";")[0]))) for line in lines]
    tenths = round(card.metrics["tiny-imagenet-200 top-1"] / 10)
    assert numbers == (card.config.num_labels, tenths, 10)


def test_without_figures_it_says_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convnext_cli.checkpoints import canonical
    from tests.helpers.weights import SMALL, random_tensors

    canonical.write(tmp_path / "default.safetensors", random_tensors(SMALL), Card(SMALL, name="default"))
    monkeypatch.setattr(zoo.local_files, "bundled", lambda: tmp_path / "default.safetensors")
    assert demonstration.sentence().startswith(f"{SENTENCE}: it knows {SMALL.num_labels} everyday classes; for real")


def test_the_model_for_real_work_exists_and_is_recommended(convnext: Run, home: Path) -> None:
    err = convnext("classify", SAMPLES[0]).err
    (name,) = re.findall(r"for real work: convnext models pull (\S+)$", err, re.M)
    entry = zoo.find(name)
    assert entry is not None and entry.name == name == for_real_work() and (entry.hub or entry.url)
    assert f"+ accurate: convnext models pull {name} " in convnext("models", "list").err
    bundled = zoo.local_files.bundled()
    assert bundled is not None
    (home / "weights").mkdir(exist_ok=True)
    (home / "weights" / f"{name}.safetensors").symlink_to(bundled)
    assert f"for real work: convnext models use {name}\n" in convnext("classify", SAMPLES[0]).err, "it is here"


@pytest.mark.parametrize("command", [("classify", "-f", "json"), ("classify", "-f", "table"), ("label", "-o", "l.csv")])
def test_it_says_so_once(convnext: Run, photos: Path, command: tuple[str, ...]) -> None:
    done = convnext(*command, *[photos] * (1 + (command[0] == "classify")))
    assert done.status == 0
    assert done.err.count(SENTENCE) == 1 and SENTENCE not in done.out
    assert SENTENCE not in convnext(*command, photos, "-q").err


def test_other_models_say_nothing(convnext: Run, photos: Path, other: str) -> None:
    assert SENTENCE not in convnext("classify", "-m", other, photos).err
    assert convnext("models", "use", other).status == 0
    assert SENTENCE not in convnext("classify", photos).err
    assert SENTENCE in convnext("classify", "-m", "default", photos).err


@pytest.mark.parametrize(
    ("options", "action"),
    [
        (SORT, "would copy photos into folders below sorted"),
        ((*SORT, "--mode", "move"), "would move photos into folders below sorted"),
        ((*SORT, "--mode", "link", "-m", "default"), "would link photos into folders below sorted"),
        (("--xmp", "sidecar"), "would write keywords beside photos"),
        ((*SORT, "--xmp", "sidecar", "-q"), "would copy photos into folders below sorted and write keywords beside"),
        ((*SORT, "--xmp", "sidecar", "--xmp-remove"), "would copy photos into folders below sorted\n"),
    ],
)
def test_without_a_terminal_it_needs_a_yes(convnext: Run, photos: Path, options: tuple[str, ...], action: str) -> None:
    command = ("label", "photos", "-o", "labels.csv", *options)
    done = convnext(*command)
    assert (done.status, done.out) == (2, "")
    error, hint = done.err.splitlines()
    assert error.startswith("error: the bundled model, a small demonstration, would ") and action in f"{error}\n"
    assert hint == f"hint: add --yes to let it, or use a stronger model: convnext models pull {for_real_work()}"
    assert sorted(path.name for path in photos.parent.iterdir()) == ["photos"], "nothing was begun"
    assert [path.name for path in photos.iterdir()] == ["coffee.jpg"]
    done = convnext(*command, "--yes")
    assert done.status == 0, done.err
    assert (photos.parent / "sorted" / "espresso" / "coffee.jpg").exists() == ("--sort-into" in options)


@pytest.mark.parametrize(
    "options", [(*SORT, "--dry-run"), ("--xmp", "sidecar", "--xmp-remove"), ("--report", "r.html")]
)
def test_what_is_harmless_needs_none(convnext: Run, photos: Path, options: tuple[str, ...]) -> None:
    done = convnext("label", "photos", "-o", "labels.csv", *options)
    assert done.status == 0, done.err


def test_undo_needs_none(convnext: Run, photos: Path) -> None:
    convnext("label", "photos", "-o", "labels.csv", *SORT, "--mode", "move", "-y")
    assert not (photos / "coffee.jpg").exists()
    assert convnext("label", "--undo", "sorted.log").status == 0
    assert (photos / "coffee.jpg").exists()


def test_a_job_that_goes_on_needs_a_yes_again(convnext: Run, photos: Path) -> None:
    command = ("label", "photos", "-o", "labels.csv", *SORT)
    assert convnext(*command, "--yes").status == 0
    shutil.copy(SAMPLES[2], photos / "rocket.jpg")
    assert convnext(*command).status == 2
    assert not list((photos.parent / "sorted").rglob("rocket.jpg"))
    assert convnext(*command, "--yes").status == 0
    assert list((photos.parent / "sorted").rglob("rocket.jpg"))


def test_a_model_that_the_user_chose_needs_none(convnext: Run, photos: Path, other: str) -> None:
    assert convnext("label", "photos", "-o", "a.csv", *SORT, "-m", other).status == 0
    assert convnext("models", "use", other).status == 0
    done = convnext("label", "photos", "-o", "a.csv", "--sort-into", "again", "--mode", "link")
    assert done.status == 0, done.err
    assert convnext("label", "photos", "-o", "b.csv", *SORT, "-m", "default").status == 2


def test_a_missing_model_is_what_is_reported(convnext: Run, photos: Path) -> None:
    done = convnext("label", "photos", "-o", "a.csv", *SORT, "-m", "tiny")
    assert done.status == 3 and "convnext models pull convnext_tiny.fb_in1k" in done.err


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [(b"y\n", 0, b"moved"), (b"\n", 2, b"no photo was touched"), (b"\x04", 130, b"interrupted")],
    ids=["yes", "enter", "end of input"],
)
@pytest.mark.parametrize("quiet", [False, True], ids=["", "-q"])
def test_on_a_terminal_it_asks(home: Path, photos: Path, answer: bytes, status: int, told: bytes, quiet: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = ["label", "photos", "-o", "labels.csv", *SORT, "--mode", "move", *["-q"] * quiet]
    process = subprocess.Popen(
        [sys.executable, "-m", "convnext_cli", *command],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "300"},
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            if b"[y/N]" in chunk:
                os.write(ours, answer)
            seen += chunk
    except OSError:  # how Linux tells that the other end has been closed
        pass
    os.close(ours)
    assert process.wait() == status, seen
    assert seen.count(SENTENCE.encode()) == 1, "before the question, and not again"
    assert b"Let it move photos into folders below sorted? [y/N]" in seen
    assert (photos.parent / "sorted" / "espresso" / "coffee.jpg").exists() == (status == 0)
    assert (photos / "coffee.jpg").exists() == (status != 0)
    assert (photos.parent / "labels.csv").exists() == (status == 0)
    if status:
        assert told in seen
