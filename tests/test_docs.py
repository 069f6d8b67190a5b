"""README and docs are true: their examples run, their tables are current."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from configparser import ConfigParser
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet

from convnext_cli import labels, zoo
from convnext_cli.base.errors import FAILURE_KINDS
from convnext_cli.jobs.actions import folder_names
from convnext_cli.predict.writers import arrow_table
from convnext_cli.runtimes.onnx import graph
from tests.helpers.command import Done, Run
from tests.helpers.doc_examples import BLOCKS, PAGES, Block, agrees
from tests.helpers.foreign_classifier import write_foreign
from tests.helpers.paths import ROOT, SAMPLES
from tests.helpers.photos import encoded, picture
from tests.helpers.weights import SMALL, random_tensors, write_model

sys.path.insert(0, str(ROOT / "tools"))
# Commands that a test must not run, by their first words
NOT_RUN = {
    "make run": "installs",
    "make test": "installs, and runs this test",
    "source .venv/bin/activate": "make run has installed nothing here",
    "pip install": "installs",
    "convnext models pull": "needs the network",
    "eval ": "changes the shell that it is typed into; tests/cli/test_completion.py does this in real shells",
    "convnext completion fish": "is for another shell; tests/cli/test_completion.py does this in real shells",
    "srun ": "needs Slurm",
    "sleep ": "waits for Slurm",
    "head=": "needs Slurm",
    "RAY_ADDRESS=": "needs the cluster that Slurm started",
}
# Blocks that are neither commands to be run nor answers to be compared, by page and first words
NOT_CHECKED = {
    ("bench.md", "╭─"): "figures of one machine; the columns are compared in test_the_table_of_bench",
    ("bench.md", "convnext bench -m tiny,base"): "needs weights that are pulled, and minutes",
    ("bench.md", "convnext bench --json"): "takes minutes; tests/benchmarking/test_bench.py runs these options",
    ("convert.md", "timm            "): "code for other libraries; tests/peers run it",
    ("evaluate.md", "default on validation"): "needs the validation photos of Tiny ImageNet",
    ("label.md", "sqlite3 "): "another program; the query is run in test_the_query_of_the_label_page",
    ("label.md", "until convnext label"): "a loop around a command that other examples run",
    ("label.md", "convnext label photos/ -o labels.csv --watch"): "never ends by itself",
    ("labels.md", "class,name"): "a file of labels, which is read in test_the_label_file_of_the_labels_page",
    ("labels.md", "class,parent"): "a file of labels; tests/labels/test_labels.py reads such files",
    ("reference.md", "Usage: "): "made from --help; compared in test_reference_is_current",
    ("remote.md", "pip install"): "needs a bucket; tests/storage/test_remote_s3.py runs such commands",
    ("remote.md", "AWS_PROFILE="): "needs a bucket; tests/storage/test_remote_s3.py runs such commands",
    ("scale.md", "pip install"): "needs a bucket and a cluster; tests/jobs/cluster/test_ray.py runs such commands",
    ("scale.md", "apiVersion:"): "a file for Kubernetes",
    ("sorting.md", '{"log"'): "paths and date of another machine; the keys are compared in test_the_log_of_a_sort",
    ("train.md", "torchrun "): "needs several GPUs; tests/training/test_cut.py runs several processes",
}
# Commands of README that need photos of the reader's
OWN_DATA = {"Train with your own labels"}
# A budget is spent in any case, and what is left to choice is minutes
SHORTER = (("--time 15m", "--time 10s"), ("train clothes -o run &&", "train clothes -o run --time 10s &&"))

# Commands that train, measure or start a cluster
SLOW = re.compile(r"convnext (bench|doctor|prepare|train) | --cluster |convnext doctor$")
SLOW_CODE = re.compile(r"benchmarking|BenchRequest|PrepareRequest")
# What a shell does with a command, apart from quoted words
SHELL = re.compile(r"[|;&<>$*]")


def is_in_checkout(block: Block) -> bool:
    """Whether a block is an example of README for the files of a fresh checkout."""
    return block.page == "README.md" and block.heading not in OWN_DATA


def commands(*, in_checkout: bool) -> list[tuple[str, str]]:
    return [
        (block.page, reduce(lambda text, pair: text.replace(*pair), SHORTER, command))
        for block in BLOCKS
        if block.language == "sh" and is_in_checkout(block) == in_checkout
        for command in together(block)
        if not command.startswith(tuple(NOT_RUN))
    ]


def together(block: Block) -> list[str]:
    """The commands of a block. README's for your own data go on from one another."""
    return [" && ".join(block.commands())] if block.heading in OWN_DATA else block.commands()


def tiered(command: tuple[str, str]) -> tuple[str, str] | ParameterSet:
    return pytest.param(*command, marks=pytest.mark.slow) if SLOW.search(command[1]) else command


def run_in(folder: Path, command: str, *, merged: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        text=True,
    )


def run_here(folder: Path, command: str, convnext: Run, monkeypatch: pytest.MonkeyPatch) -> Done:
    """Run a command in this process, or in a shell where it needs one.

    Long ones get a process of their own too: Ray, once it is started in a process, may end it later.
    """
    parts = [part.strip() for part in command.split("&&")]
    if SLOW.search(command) or any(
        not part.startswith("convnext ") or SHELL.search(re.sub(r"'[^']*'", "", part)) for part in parts
    ):
        process = run_in(folder, command)
        return Done(process.returncode, process.stdout, process.stderr)
    monkeypatch.chdir(folder)
    for part in parts:
        done = convnext(*shlex.split(part)[1:])
        if done.status:
            break
    return done


def check_answers(block: Block, folder: Path) -> None:
    for command, answer in block.answers():
        output = run_in(folder, command, merged=True).stdout
        assert agrees(answer, output), f"{block.page}: {command}\nprints\n{output}\nand not\n{answer}"


class Untrusted:
    """What a pickle of it does when it is opened: it calls `os.system`."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the examples name."""
    folder = tmp_path_factory.mktemp("files")
    photo = (ROOT / "samples" / "cat.jpg").read_bytes()
    for name in ("photo.jpg", "my_photo.jpg", "holiday/beach.jpg", "holiday/day two/IMG_1.heic"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
    (folder / "samples").symlink_to(ROOT / "samples")
    (folder / "my_checkpoint.pth").symlink_to(ROOT / "weights" / "default.safetensors")
    (folder / "onnx_ten_lines.py").symlink_to(ROOT / "docs" / "onnx_ten_lines.py")
    (folder / "photos").mkdir()
    for i in range(40):
        (folder / "photos" / f"{i}.jpg").write_bytes(Path(SAMPLES[i % 3]).read_bytes())
    for sample, name in zip(SAMPLES, ("tabby", "espresso", "obelisk"), strict=True):
        (folder / "labelled" / name).mkdir(parents=True)
        (folder / "labelled" / name / "1.jpg").symlink_to(sample)
    for place, name in enumerate(("dress", "hat", "shoes")):
        for i in range(8):
            path = folder / "clothes" / name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(picture(90, 90, seed=8 * place + i)))
    shutil.make_archive(str(folder / "clothes"), "zip", folder / "clothes")
    shutil.make_archive(str(folder / "photos"), "zip", folder / "photos")
    (folder / "my_photos").symlink_to("clothes")
    write_model(folder / "gelu_tanh.safetensors", SMALL.replace(hidden_act="gelu_tanh"))
    torch.save({"model": Untrusted()}, folder / "untrusted.pth")
    for number in range(2):
        with tarfile.open(folder / f"shard-{number:03d}.tar", "w") as tar:
            for sample, name in zip(SAMPLES, ("tabby", "espresso", "obelisk"), strict=True):
                (folder / "label").write_text(name)
                tar.add(sample, f"{name}.jpg")
                tar.add(folder / "label", f"{name}.cls")
    tensors = {name: tensor.numpy() for name, tensor in random_tensors(SMALL).items()}
    graph.save(graph.graph(SMALL, tensors), folder / "model.onnx")
    write_foreign(folder / "teacher.onnx", np.random.default_rng(0).standard_normal((3, 4)), np.zeros(4))
    (folder / "teacher-classes.txt").write_text("shoes\nscarf\ndress\nhat")
    (folder / "names.txt").write_text("\n".join(f"name {i}" for i in range(200)))
    parquet = pytest.importorskip("pyarrow.parquet")
    (folder / "labels").mkdir()
    parquet.write_table(arrow_table([]), folder / "labels" / "part-1.parquet")
    return folder


@pytest.fixture
def place(files: Path, tmp_path: Path, home: Path) -> Path:
    """A folder with the files that the examples name, and the models that they name among the user's weights."""
    for name in ("convnext_tiny.fb_in1k", "convnext_tiny.in12k_ft_in1k"):
        (home / "weights" / name).mkdir(parents=True)
        (home / "weights" / name / "model.safetensors").symlink_to(ROOT / "weights" / "default.safetensors")
    return shutil.copytree(files, tmp_path / "place", symlinks=True)


@pytest.mark.parametrize(
    ("page", "command"), [tiered(pair) for pair in commands(in_checkout=False)], ids=lambda value: value[:60]
)
def test_commands_run(page: str, command: str, place: Path, convnext: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_here(place, command, convnext, monkeypatch)
    assert done.status == 0, f"{page}: {command}\n{done.err}"
    # some write files alone
    assert done.out or "-o" in shlex.split(command) or command.startswith(("convnext convert ", "convnext models use"))


def test_readme_runs_from_top_to_bottom(
    tmp_path: Path, home: Path, convnext: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "convnext"
    shutil.copytree(ROOT / "samples", checkout / "samples")
    pulled = home / "weights" / "convnext_tiny.in12k_ft_in1k"
    pulled.mkdir(parents=True)
    (pulled / "model.safetensors").symlink_to(ROOT / "weights" / "default.safetensors")
    for block in filter(is_in_checkout, BLOCKS):
        check_answers(block, checkout)
        for command in block.commands() if block.language == "sh" else []:
            if not command.startswith(tuple(NOT_RUN)):
                done = run_here(checkout, command, convnext, monkeypatch)
                assert done.status == 0, f"{command}\n{done.err}"


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.answers() and not is_in_checkout(block)], ids=lambda block: block.name
)
def test_answers_are_those_of_the_program(block: Block, place: Path) -> None:
    check_answers(block, place)


def test_every_block_is_checked_or_has_a_reason() -> None:
    keys = dict.fromkeys(NOT_CHECKED, 0)
    for block in BLOCKS:
        assert block.language in {"sh", "python", "console", "text", "json", "csv", "yaml"}, block.name
        assert block.language != "console" or block.answers(), f"{block.name}: no command"
        listed = [key for key in keys if key[0] == block.page and block.code.startswith(key[1])]
        for key in listed:
            keys[key] += 1
        assert block.language in {"sh", "python", "console"} or listed, f"{block.name}: who checks this?"
    assert 0 not in keys.values(), [key for key, count in keys.items() if not count]
    typed = [command for block in BLOCKS if block.language == "sh" for command in block.commands()]
    assert all(any(command.startswith(words) for command in typed) for words in NOT_RUN)


@pytest.mark.parametrize(
    ("answer", "output", "same"),
    [
        ("a  b\n", "a b", True),
        ("a … d", "a b c d", True),
        ("in ... s", "in 1.5 s", True),
        ("tabby 0.81", "pretzel 0.40", False),
        ("0.4", "0x4", False),
        ("a", "a b", False),
        ("…", "", True),
    ],
)
def test_answers_are_compared(answer: str, output: str, same: bool) -> None:
    assert agrees(answer, output) == same


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, marks=[pytest.mark.slow] * bool(SLOW_CODE.search(block.code)))
        for block in BLOCKS
        if block.language == "python"
    ],
    ids=lambda block: block.name,
)
def test_python_runs(
    block: Block, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], torch_threads: None
) -> None:
    if SLOW_CODE.search(block.code):
        process = subprocess.run([sys.executable, "-c", block.code], cwd=place, capture_output=True, text=True)
        assert process.returncode == 0, f"{block.page}\n{process.stderr}"
        output = process.stdout
    else:
        monkeypatch.chdir(place)
        exec(compile(block.code, block.name, "exec"), {"__name__": "__main__"})
        output = capfd.readouterr().out
    answers = re.findall(r"^ *print\(.*\)  # (.*)$", block.code, re.M)
    printed = output.splitlines()
    assert not answers or len(answers) == len(printed)
    for answer, line in zip(answers, printed, strict=False):
        assert agrees(answer, line), f"{block.page}: prints {line} and not {answer}"


def only_block(page: str, start: str) -> str:
    (code,) = [block.code for block in BLOCKS if block.page == page and block.code.startswith(start)]
    return code


@pytest.mark.slow
def test_the_table_of_bench(place: Path) -> None:
    table = only_block("bench.md", "╭─").splitlines()
    output = run_in(place, "convnext bench --seconds 0.1 -b 1").stdout
    assert [cell.strip() for cell in table[1].split("│")] == [
        cell.strip() for cell in next(line for line in output.splitlines() if "batch" in line).split("│")
    ]
    setting = re.sub(r"[\d.]+", "N", table[-1])
    assert setting in [re.sub(r"[\d.]+", "N", line) for line in output.splitlines()]


def test_the_query_of_the_label_page(place: Path) -> None:
    assert run_in(place, "convnext label samples -o labels.sqlite").returncode == 0
    query = shlex.split(only_block("label.md", "sqlite3 "))[2].replace("tabby", "Egyptian cat")
    with sqlite3.connect(place / "labels.sqlite") as database:
        ((path, score),) = database.execute(query)
    assert path == "samples/cat.jpg"
    assert score == pytest.approx(0.1292, abs=1e-4)


def test_the_label_file_of_the_labels_page(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(only_block("labels.md", "class,name"))
    base = labels.load("imagenet-1k")
    mine = labels.read(tmp_path / "mine.csv", base)
    assert [mine[number].name for number in (281, 282, 285)] == ["cat"] * 3
    assert mine[283].name == base[283].name


def test_the_sets_of_the_labels_page() -> None:
    rows = re.findall(r"^\| `(\S+)` \| (\d+) \|", (ROOT / "docs" / "labels.md").read_text(), re.M)
    assert len(rows) == 7
    assert all(len(labels.load(name)) == int(count) for name, count in rows)


def test_the_log_of_a_sort(place: Path) -> None:
    assert run_in(place, "convnext label holiday -o labels.csv --sort-into sorted --mode move --yes").returncode == 0
    first = json.loads((place / "sorted.log").read_text().splitlines()[0])
    shown = json.loads(only_block("sorting.md", '{"log"'))
    assert list(shown) == list(first)
    assert [shown[key] for key in ("log", "version", "mode")] == [first[key] for key in ("log", "version", "mode")]


def test_the_folder_names_of_the_sorting_page() -> None:
    assert f"`{folder_names.Folders().name('AC/DC')}`" in (ROOT / "docs" / "sorting.md").read_text()


def test_the_names_of_the_models_page() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    rows = re.findall(r"^\| (`[^|]*`) \| [^|]*`(convnext\w+\.\w+)` \|$", text, re.M)
    assert len(rows) >= 3
    for written, name in rows:
        for word in re.findall(r"`([^`…]+)`", written):
            entry = zoo.find(word)
            assert entry is not None and entry.name == name, f"{word}: {entry}"


def test_extras_that_are_named_exist() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for page in PAGES:
        for extras in re.findall(r"pip install '(?:\.|convnext-cli)\[([\w,]+)\]'", page.read_text()):
            assert all(extra in setup["options.extras_require"] for extra in extras.split(",")), (
                f"{page.name}: {extras}"
            )


def test_reference_is_current() -> None:
    import make_reference

    assert make_reference.TARGET.read_text() == make_reference.reference(), "run: make docs"


def test_failure_kinds_are_documented() -> None:
    text = (ROOT / "docs" / "usage.md").read_text()
    assert all(f"`{kind}`" in text for kind in FAILURE_KINDS)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
