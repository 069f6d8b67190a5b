"""``convnext bench``: its rows, its screens, and that nothing is left running."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import convnext_cli
from convnext_cli import BenchRequest, Listener, zoo
from convnext_cli.base import machine
from convnext_cli.base.errors import ModelError, OutputError, UsageError
from convnext_cli.benchmarking import compare, peers, plot, sweep, work
from convnext_cli.benchmarking.process import Worker, WorkerError
from convnext_cli.benchmarking.row import KEYS, failed
from convnext_cli.benchmarking.runs import Bench
from convnext_cli.benchmarking.setting import Setting
from convnext_cli.model.config import VARIANTS
from tests.helpers.command import Run
from tests.helpers.paths import ROOT

QUICK = ("--seconds", "0.05", "--no-checks", "-t", "1")
LOW = {"flops": 1e12, "by": "by hand", "all": {}, "copy": 1e10, "disturbed": [], "device": "cpu", "dtype": "float32"}


@pytest.fixture
def no_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The products take seconds; a slow test measures them."""
    monkeypatch.setattr(Bench, "measure_ceiling", lambda self, *key: LOW)


def setting(**values: Any) -> Setting:
    return Setting("default", str(zoo.resolve("default")), **values)


DOCUMENT = {"environment", "rows", "ceilings", "ratios", "compared"}


@pytest.mark.usefixtures("no_ceilings")
def test_json_has_the_promised_keys(convnext: Run) -> None:
    done = convnext("bench", "--json", "-b", "1", *QUICK)
    assert done.status == 0, done.err
    found = json.loads(done.out)
    (row,) = found["rows"]
    assert found.keys() == DOCUMENT
    assert set(KEYS) <= row.keys()
    assert found["environment"]["versions"].keys() >= {"convnext", "python", "torch"}
    assert row["engine"] == "openvino"
    assert row["device"] == "cpu"
    assert row["image_size"] == [80, 80]
    assert row["batch_size"] == 1
    assert row["images_per_second"] == pytest.approx(1000 / row["latency_p50_ms"])
    assert len(row["samples_ms"]) >= 10
    assert row["macs"] == work.macs(_config(), (80, 80))
    assert found["ceilings"] == [LOW]
    assert row["ceiling_flops"] == LOW["flops"]
    assert 0 < row["achieved_flops"] == pytest.approx(2 * row["macs"] * row["images_per_second"])
    assert "1/1 default" in done.err


@pytest.mark.slow
def test_ceilings_are_measured(convnext: Run) -> None:
    done = convnext("bench", "--json", "-b", "1", *QUICK)
    assert done.status == 0, done.err
    document = json.loads(done.out)
    (row,) = document["rows"]
    (ceiling,) = document["ceilings"]
    assert ceiling["flops"] == max(ceiling["all"].values()) == row["ceiling_flops"]
    assert {name.split()[0] for name in ceiling["all"]} == {"torch", "openvino"}
    assert ceiling["copy"] > 1e8


def _config() -> Any:
    from convnext_cli import checkpoints

    return checkpoints.load(zoo.resolve("default")).card.config


@pytest.mark.parametrize("name", ["bench", "benchmark"])
@pytest.mark.usefixtures("no_ceilings")
@pytest.mark.slow
def test_table_fits_eighty_columns(name: str, convnext: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = convnext(name, "-b", "1,2", "-e", "openvino,torch", "-q", *QUICK)
    assert done.status == 0, done.err
    table = [line for line in done.out.splitlines() if line[:1] in "╭│├╰"]
    assert len(table) == 8
    assert all(len(line) <= 80 for line in table)
    assert "images/s" in table[1]
    hidden = re.search(r"^no room here for (.*); --json has them$", done.out, re.M)
    assert hidden and not any(name in table[1] for name in hidden[1].split(", "))
    assert done.err == ""
    line = re.search(r"^  (convnext classify .*) -r FOLDER$", done.out, re.M)
    assert line
    assert convnext(*line[1].split()[1:], str(ROOT / "samples" / "cat.jpg")).status == 0


@pytest.mark.usefixtures("no_ceilings")
@pytest.mark.slow
def test_compare_and_the_gate(convnext: Run, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    assert convnext("bench", "-b", "1", "-o", str(old), *QUICK).status == 0
    before = json.loads(old.read_text())
    done = convnext("bench", "-b", "1", "--compare", str(old), "--fail-below", "0.01", "--json", *QUICK)
    assert done.status == 0, done.err
    (ratio,) = json.loads(done.out)["compared"]
    assert ratio["interval"][0] <= ratio["ratio"] <= ratio["interval"][1]
    for row in before["rows"]:
        row["samples_ms"] = [sample / 1000 for sample in row["samples_ms"]]
        row["images_per_second"] *= 1000
    old.write_text(json.dumps(before))
    done = convnext("bench", "-b", "1", "--compare", str(old), "--fail-below", "0.5", *QUICK)
    assert done.status == 1
    assert "1 of 1 below 0.5" in done.err
    done = convnext("bench", "-b", "2", "--compare", str(old), *QUICK)
    assert done.status == 2
    assert "no row of the same settings" in done.err and "1/1" not in done.err  # said beforehand
    done = convnext("bench", "-b", "1,2", "--compare", str(old), *QUICK)
    assert "no row of the same settings for 1 of 2" in done.err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--fail-below", "1"), 2, "--fail-below belongs to --compare"),
        (("--compare", "nowhere.json"), 2, "cannot be read"),
        (("-b", "auto,1"), 2, "combined"),
        (("-b", "0"), 2, "not in the range"),
        (("-b", "many"), 2, "not a valid integer"),
        (("-e", "tensorflow"), 2, "is not one of"),
        (("--train", "--against", "timm"), 2, "--train excludes"),
        (("--against", "caffe"), 2, "there is no peer 'caffe'"),
        (("--against", "timm+fast"), 2, "timm is not run with fast"),
        (("--plot", "speed.pdf"), 2, "neither a png nor an svg"),
        (("--data", "nowhere"), 2, "there is no folder nowhere"),
        (("-m", "convnext_tony", "--random"), 3, "there is no architecture 'convnext_tony'"),
        (("-m", "convnext_tiny.fb_in1k"), 3, "--random"),
        (("-b", "99999999999999999999"), 2, "not in the range"),
        (("--data", __file__), 2, "there is no folder"),
        (("-b", "1,2", "-d", "tpu"), 4, "the device 'tpu' is not there"),
        (("--size", "8"), 2, "less than the network's stride"),
        (("-e", "openvino", "--layout", "contiguous"), 2, "--layout is for --engine torch"),
        (("--dtype", "int8"), 4, "int8"),
    ],
)
def test_what_cannot_be_is_said(arguments: tuple[str, ...], status: int, says: str, convnext: Run) -> None:
    done = convnext("bench", *QUICK, *(() if "-b" in arguments else ("-b", "1")), *arguments)
    assert done.status == status, done.err
    assert says in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


@pytest.mark.usefixtures("no_ceilings")
@pytest.mark.slow
def test_batches_that_nobody_named_are_those_of_each_device(convnext: Run) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = convnext("bench", "-d", "cpu,cuda", "--json", *QUICK)
    assert done.status == 1
    tried = [(row["device"], row["batch_size"]) for row in json.loads(done.out)["rows"]]
    assert tried == [("cpu", 1), ("cpu", 8), ("cuda", 1), ("cuda", 64)]


def test_a_device_that_is_not_there(convnext: Run) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = convnext("bench", "-d", "cuda", "-b", "1", *QUICK)
    assert done.status == 4
    assert "the device 'cuda' is not there" in done.err
    assert "cpu" in done.err


@pytest.mark.usefixtures("no_ceilings")
@pytest.mark.slow
def test_out_of_memory_is_a_row(convnext: Run) -> None:
    done = convnext("bench", "-b", "1,100000000", *QUICK)
    assert done.status == 1
    assert "out of memory" in done.out
    assert "inputs of batch 100000000" in done.err


@pytest.mark.usefixtures("no_ceilings")
@pytest.mark.slow
def test_what_cannot_be_in_a_sweep_is_a_row(convnext: Run, tmp_path: Path) -> None:
    target = tmp_path / "found.json"
    done = convnext("bench", "--size", "80,7", "-b", "1", "-o", str(target), *QUICK)
    assert done.status == 1
    assert "refused" in done.out and "less than the network's stride" in done.err
    whole, other = json.loads(target.read_text())["rows"]
    assert whole["images_per_second"] > 0 and other["error"]["kind"] == "refused"


@pytest.mark.usefixtures("no_ceilings")
def test_what_was_measured_is_kept_when_it_is_stopped(
    convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, target = Bench.interleaved, tmp_path / "found.json"

    def stopped(self: Bench, settings: list[Setting], *values: Any, **more: Any) -> Any:
        if settings[0].batch_size == 2:
            raise KeyboardInterrupt
        return measure(self, settings, *values, **more)

    monkeypatch.setattr(Bench, "interleaved", stopped)
    done = convnext("bench", "-b", "1,2,4", "-o", str(target), *QUICK)
    assert done.status == 130 and "interrupted" in done.err and "openvino" in done.out
    assert [row["batch_size"] for row in json.loads(target.read_text())["rows"]] == [1]


@pytest.mark.usefixtures("no_ceilings")
@pytest.mark.slow
def test_photos_that_cannot_be_read_are_no_speed(convnext: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    done = convnext("bench", "--data", str(tmp_path), "-b", "1", "--json", *QUICK)
    assert done.status == 1
    (way,) = json.loads(done.out)["whole_way"]
    assert (way["failed"], way["images_per_second"]) == (1, 0)


@pytest.mark.usefixtures("no_ceilings")
def test_a_missing_plot_library_is_said_beforehand(convnext: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    done = convnext("bench", "--plot", "speed.png", *QUICK)
    assert done.status == 4
    assert "pip install matplotlib" in done.err


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_rows_are_drawn(suffix: str, begins: bytes, tmp_path: Path) -> None:
    figures = {"images_per_second": 10.0, "images_per_second_interval": [9.0, 11.0], "latency_p50_ms": 100.0}
    row = failed(setting(batch_size=1), "", "") | figures | {"error": None}
    plot.draw([row, row | {"batch_size": 2, "latency_p50_ms": 200.0}], tmp_path / f"speed.{suffix}")
    assert (tmp_path / f"speed.{suffix}").read_bytes().startswith(begins)


@pytest.mark.usefixtures("no_ceilings")
@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plot(suffix: str, begins: bytes, convnext: Run, tmp_path: Path) -> None:
    target = tmp_path / f"speed.{suffix}"
    done = convnext("bench", "-b", "1,2", "--plot", str(target), *QUICK)
    assert done.status == 0, done.err
    assert target.read_bytes().startswith(begins)


@pytest.mark.usefixtures("no_ceilings")
@pytest.mark.slow
def test_the_whole_way(convnext: Run) -> None:
    done = convnext("bench", "--data", str(ROOT / "samples"), "-b", "2", *QUICK)
    assert done.status == 0, done.err
    assert re.search(r"photo → label: .*3 photos, 0 failed", done.out)
    for stage in ("read", "decode", "resize", "copy", "infer", "write"):
        assert f"{stage} ms" in done.out


@pytest.mark.usefixtures("no_ceilings")
@pytest.mark.slow
def test_training(convnext: Run) -> None:
    done = convnext("bench", "--train", "--random", "-m", "test_convnext2", "-b", "2", "--size", "64", "--json", *QUICK)
    assert done.status == 0, done.err
    (row,) = json.loads(done.out)["rows"]
    assert row["mode"] == "train"
    assert row["engine"] == "torch"
    assert row["achieved_flops"] == pytest.approx(6 * row["macs"] * row["images_per_second"])


@pytest.mark.peers
@pytest.mark.usefixtures("no_ceilings")
@pytest.mark.slow
def test_against_other_libraries_on_the_same_weights(convnext: Run) -> None:
    """torchvision has no atto."""
    done = convnext(
        *("bench", "--random", "-m", "convnext_atto", "--size", "64", "-b", "2", "-e", "torch", "--json"),
        *("--against", "timm,torchvision,transformers,onnxruntime", *QUICK),
    )
    assert done.status == 1, done.err  # a library that cannot is a row that says so
    found = json.loads(done.out)
    ours, timm, torchvision, transformers, onnxruntime = found["rows"]
    assert torchvision["error"]["kind"] == "unavailable"
    for row in (timm, transformers, onnxruntime):
        assert row["error"] is None, row
        assert row["max_logit_difference"] < 1e-5
        assert row["weights_sha256"] == ours["weights_sha256"]
        assert len(row["rounds"]) == len(ours["rounds"])
    assert [ratio["to"]["peer"] for ratio in found["ratios"]] == ["timm", "torchvision", "transformers", "onnxruntime"]
    assert found["ratios"][0]["interval"][0] > 0


@pytest.mark.peers
@pytest.mark.slow
def test_torchvision_takes_the_weights() -> None:
    with Bench() as bench:
        one = bench.random_weights("convnext_tiny").replace(peer="torchvision", size=64, threads=1)
        reference = bench.reference(one)
        with Worker() as worker:
            worker.ask("open", setting=one.to_dict())
            (logits,) = worker.ask("answer")["logits"]
    assert reference is not None
    assert logits == pytest.approx(reference[0], abs=1e-4)
    assert not Path(one.path).exists()


def test_architectures_are_known_by_their_shape() -> None:
    from convnext_cli.model.card import Card

    for name, config in VARIANTS.items():
        if not config.num_labels:
            continue  # with a classifier it is another's shape
        twins = {other for other, shape in VARIANTS.items() if shape == config}
        assert peers.architecture(Card(config.replace(num_labels=7), architecture="")) in twins, name
    assert peers.architecture(Card(VARIANTS["convnext_tiny"].replace(depths=(1, 1, 1, 1)))) == ""


@pytest.mark.usefixtures("no_ceilings")
def test_the_best_batch_and_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that holds 100 photos and gains nothing beyond 16."""

    def one(self: Bench, settings: list[Setting], rounds: int = 1, **_: Any) -> list[dict[str, Any]]:
        n = settings[0].batch_size
        error = {"kind": "out_of_memory", "message": "full"} if n > 100 else None
        speed = 100.0 * min(n, 16)
        return [
            {"error": error, "batch_size": n, "images_per_second": speed, "latency_p50_ms": 10.0, "device": "cuda:0"}
        ]

    monkeypatch.setattr(Bench, "interleaved", one)
    with Bench() as bench:
        *rows, found = sweep.batches(bench, setting())
    assert isinstance(found, sweep.Batches)
    assert [row["batch_size"] for row in rows if isinstance(row, dict)] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert found.best == 16
    assert 88 <= (found.largest or 0) <= 100
    assert isinstance(rows[-1], dict)
    assert rows[-1]["error"]["kind"] == "out_of_memory"


def test_sweeps_leave_out_what_cannot_be_together() -> None:
    made = sweep.settings(
        [setting()], {"engine": ["openvino", "torch"], "layout": ["channels_last", "contiguous"], "batch_size": [1, 8]}
    )
    assert [(s.engine, s.layout, s.batch_size) for s in made] == [
        *(("openvino", None, n) for n in (1, 8)),
        *(("torch", layout, n) for layout in ("channels_last", "contiguous") for n in (1, 8)),
    ]


def test_the_winner_is_a_command_that_runs() -> None:
    found = setting(batch_size=8, threads=2, engine="torch", compiled=True)
    assert sweep.command(found, "-r FOLDER") == "convnext classify -e torch --compile -b 8 -t 2 -r FOLDER"
    drawn = Setting("convnext_tiny", "of a moment", batch_size=8, threads=2, home="of a moment")
    assert sweep.command(drawn, "-r FOLDER") == "convnext bench --random -m convnext_tiny -b 8 -t 2"


def test_a_ratio_needs_two_speeds() -> None:
    good = {"images_per_second": 1.0, "samples_ms": [1.0] * 20, "batch_size": 1, "rounds": [20]}
    bad = good | {"images_per_second": None, "error": {"kind": "out_of_memory", "message": "full"}}
    (found,) = compare.interleaved([good, bad])
    assert found.ratio is None
    assert "full" in found.problem


def test_an_older_run_that_is_none(tmp_path: Path) -> None:
    for text, says in (("[1]", "holds no rows"), ("{", "is not JSON")):
        (tmp_path / "old.json").write_text(text)
        with pytest.raises(UsageError, match=says):
            compare.read(tmp_path / "old.json")


def test_random_weights_are_for_architectures() -> None:
    with Bench() as bench, pytest.raises(ModelError, match="no architecture"):
        bench.random_weights("resnet50")


def test_the_cache_is_read_from_the_system(tmp_path: Path) -> None:
    for i, size in enumerate(("48K", "2048K", "32M")):
        (tmp_path / f"index{i}").mkdir()
        (tmp_path / f"index{i}" / "size").write_text(size + "\n")
    assert machine.last_level_cache(tmp_path) == 32 << 20
    assert machine.last_level_cache(tmp_path / "nowhere") == 64 << 20


# processes ------------------------------------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_leaving_ends_the_worker_and_what_it_started() -> None:
    with Worker() as worker:
        worker.ask("open", setting=setting().to_dict())
        pid = worker.pid
        assert alive(pid)
    assert not alive(pid)
    with Worker() as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="status -9"):
            worker.ask("open", setting=setting().to_dict())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals of this kind")
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
@pytest.mark.slow
def test_a_bench_that_is_stopped_leaves_no_worker(sent: signal.Signals, status: int) -> None:
    code = (
        "import sys; from convnext_cli.benchmarking.process import Worker; ask = Worker.ask\n"
        "def told(self, what, **values):\n"
        "    if what == 'warm': print(self.pid, flush=True)\n"
        "    return ask(self, what, **values)\n"
        "Worker.ask = told\n"
        "from convnext_cli.cli import main; main(['bench', '-b', '1', '--seconds', '600'])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(sent)
        _, told = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"Traceback" not in told
    # the worker has the other end of a pipe of its own: its end is seen by the kernel, at once or a moment later
    fd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") and alive(pid) else None
    if fd is not None:
        import select

        assert select.select([fd], [], [], 30)[0], "the worker goes on"
        os.close(fd)


@pytest.mark.slow
def test_a_closed_pipe_ends_it_silently() -> None:
    code = (
        f"from convnext_cli.benchmarking.runs import Bench; Bench.measure_ceiling = lambda self, *key: {LOW}\n"
        "from convnext_cli.cli import main; main('bench -b 1 --seconds 0.02 --no-checks --json'.split())"
    )
    command = ["bash", "-o", "pipefail", "-c", f"{sys.executable} -c {shlex.quote(code)} | head -1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stdout == "{\n"
    assert "error" not in done.stderr


@pytest.mark.usefixtures("no_ceilings")
def test_the_verb_from_python(home: Path) -> None:
    heard: list[str] = []

    class Ears(Listener):
        def stage(self, name: str, total: int | None = None) -> None:
            heard.append(name)

    request = BenchRequest(models=("default",), batch_sizes=(2,), threads=(1,), seconds=0.05, checks=False)
    assert pickle.loads(pickle.dumps(request)) == request
    result = convnext_cli.bench(request, Ears())
    (row,) = result.rows
    assert result.passed and not result.interrupted
    assert (row["model"], row["batch_size"], row["threads"], row["error"]) == ("default", 2, 1, None)
    assert any(name.startswith("1/1 default") for name in heard)
    assert result.document.keys() == DOCUMENT
    assert row.keys() >= set(KEYS)


@pytest.mark.usefixtures("no_ceilings")
def test_the_verb_writes_its_document(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.json"
    request = BenchRequest(
        models=("default",), batch_sizes=(2,), threads=(1,), seconds=0.05, checks=False, output=target
    )
    result = convnext_cli.bench(request)
    assert json.loads(target.read_text()) == json.loads(result.to_json())
    with pytest.raises(UsageError, match="already exists"):
        convnext_cli.bench(request)
    with pytest.raises(OutputError, match="does not exist"):
        convnext_cli.bench(replace(request, output=tmp_path / "none" / "new.json"))


@pytest.mark.usefixtures("no_ceilings")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_figures_are_shown_even_if_they_cannot_be_written(convnext: Run) -> None:
    done = convnext("bench", "-b", "1", "-o", "/dev/full", *QUICK)
    assert done.status == 74 and "/dev/full" in done.err and "openvino" in done.out


@pytest.mark.usefixtures("no_ceilings")
@pytest.mark.slow
def test_python_gives_the_keys_of_the_command(convnext: Run) -> None:
    request = BenchRequest(models=("default",), batch_sizes=(2,), threads=(1,), seconds=0.05, checks=False)
    result = convnext_cli.bench(request)
    document = json.loads(convnext("bench", "-b", "2", "--json", *QUICK).out)
    assert document.keys() == result.document.keys()
    assert document["rows"][0].keys() == result.rows[0].keys()


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"engines": ("caffe",)}, "engines"),
        ({"dtypes": ("float8",)}, "dtypes"),
        ({"layouts": ("nchw",)}, "layouts"),
        ({"fail_below": 0.9}, "--compare"),
        ({"overwrite": True}, "-o FILE"),
        ({"train": True, "data": "photos"}, "--train"),
        ({"batch_sizes": "auto", "against": ("timm",)}, "-b auto"),
    ],
)
def test_a_request_checks_itself(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        BenchRequest(**wrong)
