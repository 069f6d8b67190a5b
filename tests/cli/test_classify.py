"""``convnext classify`` as its user sees it: the bundled model, the sample photos, good and bad input."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from convnext_cli.base.errors import FAILURE_KINDS
from tests.helpers.command import Run
from tests.helpers.paths import ROOT, SAMPLES

CAT, COFFEE, ROCKET = SAMPLES
COMMAND = [sys.executable, "-m", "convnext_cli"]


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def mixed(tmp_path: Path) -> list[str]:
    """Good photos between bad ones; the status that each must get."""
    good = Path(CAT).read_bytes()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("this is no photo")
    (tmp_path / "half.jpg").write_bytes(good[: len(good) // 2])
    os.mkfifo(tmp_path / "pipe.jpg")
    return [CAT, *(str(tmp_path / n) for n in ("empty.jpg", "text.jpg", "half.jpg", "pipe.jpg")), COFFEE,
            str(tmp_path / "gone.jpg"), ROCKET]  # fmt: skip


def test_table(convnext: Run) -> None:
    done = convnext("classify", "-f", "table", CAT, COFFEE)
    assert done.status == 0
    assert "samples/cat.jpg  451×300" in done.out
    assert "samples/coffee.jpg  600×400" in done.out
    summary, sentence = done.err.splitlines()
    assert summary.startswith("default: convnext_femto, patch 2, 200 labels (tiny-imagenet-200), 80×80 · 2 photos in ")
    assert sentence.startswith("the bundled model is a small demonstration: ")
    assert "\x1b" not in done.out + done.err


def test_a_photo_alone_is_classified(convnext: Run) -> None:
    assert convnext(CAT).out == convnext("classify", CAT).out


def test_a_command_wins_over_a_file_of_its_name(convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(CAT, tmp_path / "completion")
    monkeypatch.chdir(tmp_path)
    assert convnext("completion").status == 2


def test_unknown_word(convnext: Run) -> None:
    done = convnext("clasify")
    assert done.status == 2
    assert "Did you mean 'classify'?" in done.err


def test_formats_hold_the_same(convnext: Run) -> None:
    jsonl = lines(convnext("classify", "-f", "jsonl", *SAMPLES).out)
    assert json.loads(convnext("classify", "--json", *SAMPLES).out) == jsonl
    flat = list(csv.DictReader(io.StringIO(convnext("classify", "-f", "csv", *SAMPLES).out)))
    assert [row["path"] for row in jsonl] == SAMPLES
    for row, cells in zip(jsonl, flat, strict=True):
        assert len(row["predictions"]) == 5
        assert [cells["label"], cells["id_2"]] == [row["predictions"][0]["label"], row["predictions"][1]["id"]]
        assert float(cells["score_5"]) == row["predictions"][4]["score"]
        assert row["model"] == "default"
        assert len(row["model_sha256"]) == 64


def test_scores_of_all_classes_add_up(convnext: Run) -> None:
    (row,) = lines(convnext("classify", "-k", "0", "-f", "jsonl", CAT).out)
    assert len(row["predictions"]) == 200
    assert sum(p["score"] for p in row["predictions"]) == pytest.approx(1, abs=1e-5)
    assert [p["rank"] for p in row["predictions"]] == list(range(1, 201))
    scores = [p["score"] for p in row["predictions"]]
    assert scores == sorted(scores, reverse=True)


def test_kinds_of_scores_rank_alike(convnext: Run) -> None:
    ranked = {
        kind: [p["label"] for p in lines(convnext("classify", f"--{kind}", "-f", "jsonl", CAT).out)[0]["predictions"]]
        for kind in ("softmax", "sigmoid", "logits")
    }
    assert ranked["softmax"] == ranked["sigmoid"] == ranked["logits"]


def test_scores_do_not_depend_on_the_batch(convnext: Run, tmp_path: Path) -> None:
    photos = []
    for i in range(11):
        photo = Image.open(SAMPLES[i % 3]).rotate(31 * i, expand=True)
        photo.save(tmp_path / f"{i}.jpg")
        photos.append(str(tmp_path / f"{i}.jpg"))
    runs = [
        lines(convnext("classify", "-k", "0", "-f", "jsonl", "-b", batch, "-t", threads, *photos).out)
        for batch, threads in ((1, 1), (3, 2), (8, 2), (64, 1))
    ]
    for run in runs[1:]:
        for row, first in zip(run, runs[0], strict=True):
            scores = {p["index"]: p["score"] for p in row["predictions"]}
            assert all(abs(scores[p["index"]] - p["score"]) < 1e-5 for p in first["predictions"])


def test_same_bytes_whatever_the_workers(convnext: Run) -> None:
    one, two = (convnext("classify", "-t", "2", "-j", j, "-f", "jsonl", *SAMPLES * 5).out for j in ("1", "2"))
    assert one == two


def test_bad_photos_are_rows_and_change_nothing(convnext: Run, mixed: list[str]) -> None:
    alone = {row["path"]: row for row in lines(convnext("classify", "-f", "jsonl", "-b", "1", *SAMPLES).out)}
    done = convnext("classify", "-f", "jsonl", *mixed)
    assert done.status == 1
    rows = lines(done.out)
    assert [row["path"] for row in rows] == mixed
    kinds = [row["error"] and row["error"]["kind"] for row in rows]
    assert kinds == [None, "empty", "not_an_image", "truncated", "not_a_file", None, "missing", None]
    assert set(kinds) - {None} <= set(FAILURE_KINDS)
    for row in rows:
        if row["status"] == "ok":
            for mine, first in zip(row["predictions"], alone[row["path"]]["predictions"], strict=True):
                assert mine["index"] == first["index"]
                assert mine["score"] == pytest.approx(first["score"], abs=1e-5)
        else:
            assert row["predictions"] == []
    assert "8 photos, 5 failed" in done.err


def test_bad_photos_in_a_table(convnext: Run, mixed: list[str]) -> None:
    done = convnext("classify", "-f", "table", *mixed)
    assert done.status == 1
    assert "half.jpg  truncated:" in done.out


def test_a_line_for_each_photo_off_a_terminal(convnext: Run, mixed: list[str]) -> None:
    done = convnext("classify", *mixed)
    rows = lines(convnext("classify", "-f", "jsonl", *mixed).out)
    assert done.status == 1
    assert len(done.out.splitlines()) == len(mixed)
    for line, row in zip(done.out.splitlines(), rows, strict=True):
        cells = line.split("\t")
        assert cells[0] == row["path"]
        if row["error"] is None:
            best = row["predictions"][0]
            assert cells[1:] == [best["label"], f"{best['score']:.4f}"]
        else:
            assert cells[1:] == ["failed", "", row["error"]["kind"], row["error"]["message"]]


def test_lines_have_more_guesses_where_k_asks_for_them(convnext: Run) -> None:
    (row,) = lines(convnext("classify", "-k", "2", "-f", "jsonl", CAT).out)
    cells = [cell for p in row["predictions"] for cell in (p["label"], f"{p['score']:.4f}")]
    assert convnext("classify", "-k", "2", CAT).out == "\t".join([CAT, *cells]) + "\n"
    assert convnext("classify", "--min-score", "1", CAT).out.split("\t")[1:] == ["unknown", cells[1] + "\n"]
    assert convnext("classify", "-f", "lines", CAT).out == convnext("classify", CAT).out


def test_lines_stay_lines_whatever_photos_are_called(convnext: Run, tmp_path: Path) -> None:
    names = ("a\tb\nc.jpg", "d\re.jpg", "\x1b[31m.jpg", "\u2028.jpg", os.fsdecode(b"\xfc.jpg"))
    for name in names:
        shutil.copy(CAT, tmp_path / name)
    out = convnext("classify", tmp_path).out
    assert len(out.split("\n")) == len(names) + 1
    assert all(line.count("\t") == 2 for line in out.splitlines())
    assert "a\\tb\\nc.jpg" in out
    assert "\\xfc.jpg" in out


def test_lines_end_silently_under_head(tmp_path: Path) -> None:
    command = f"{sys.executable} -m convnext_cli classify {' '.join(SAMPLES * 20)} -b 1 | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert done.stdout.startswith(CAT)
    assert "rror" not in done.stderr


def test_failures_are_named_at_the_end(convnext: Run, tmp_path: Path) -> None:
    for i in range(13):
        (tmp_path / f"{i:02}.jpg").touch()
    shutil.copy(CAT, tmp_path / "cat.jpg")
    for form in (["-f", "jsonl"], ["-f", "table"], []):
        done = convnext("classify", tmp_path, *form)
        named = [line for line in done.err.splitlines() if line.startswith("failed: ")]
        assert named[:10] == [f"failed: {tmp_path}/{i:02}.jpg: empty: the file is empty" for i in range(10)]
        assert named[10:] == ["failed: 3 more; -f jsonl names all"]
    done = convnext("classify", tmp_path, "-q")
    assert done.status == 1
    assert done.err.splitlines() == ["error: 13 of 14 photos failed", "hint: without -q they are named"]
    assert convnext("classify", "-q", CAT).err == ""


def test_nothing_there(convnext: Run, tmp_path: Path) -> None:
    done = convnext("classify", str(tmp_path / "gone.jpg"))
    assert done.status == 2
    assert done.err.startswith("error: ")
    assert "hint: " in done.err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "Name at least one photo"),
        (["-0", CAT], 2, "-0 only applies to --files-from"),
        (["--json", "-f", "csv", CAT], 2, "exclude each other"),
        (["-o", "x.xyz", CAT], 2, "cannot be inferred from its name"),
        (["-o", "no/such/folder/x.csv", CAT], 74, "does not exist"),
        (["--size", "huge", CAT], 2, "nor a number of pixels"),
        (["--mean", "1,2", CAT], 2, "not three numbers"),
        (["--mean", "nan,0,0", CAT], 2, "not three numbers"),
        (["--mean", "123.675,116.28,103.53", CAT], 2, "divide it by 255"),
        (["--std", "0", CAT], 2, "not three positive numbers"),
        (["--size", "15", CAT], 2, "the network's stride"),
        (["--size", "1000000", CAT], 2, "4096"),
        (["--crop-pct", "nan", CAT], 2, "--crop-pct"),
        (["--min-score", "nan", CAT], 2, "--min-score"),
        (["-t", "99999999", CAT], 2, "--threads"),
        (["--softmax", "--logits", CAT], 2, "exclude each other"),
        (["--colour", CAT], 2, "No such option"),
        (["-m", "convnext_tny", CAT], 3, "convnext_tiny"),
        (["-m", "no/such/file.pth", CAT], 3, "does not exist"),
        (["-m", "convnext_large.fb_in1k", CAT], 3, "convnext models pull convnext_large.fb_in1k"),
        (["-d", "cuda:99", CAT], 4, "here are:"),
        (["--labels", "no-such-labels.txt", CAT], 3, "no-such-labels"),
        (["http://localhost/cat.jpg"], 2, "not fetched"),
    ],
)
def test_errors(convnext: Run, arguments: list[str], status: int, said: str) -> None:
    done = convnext("classify", *arguments)
    assert done.status == status, done.err
    assert said in done.err
    assert done.err.startswith("error: ")
    assert "hint: " in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_min_score(convnext: Run) -> None:
    sure, unsure = (convnext("classify", "--min-score", floor, "-f", "jsonl", CAT) for floor in ("0.0", "1"))
    assert lines(sure.out)[0]["status"] == "ok"
    assert lines(unsure.out)[0]["status"] == "unknown"
    assert lines(unsure.out)[0]["predictions"] == lines(sure.out)[0]["predictions"]
    assert unsure.status == 0
    assert "unknown" in convnext("classify", "--min-score", "100%", CAT).out


def test_output_file(convnext: Run, tmp_path: Path) -> None:
    target = tmp_path / "labels.csv"
    assert convnext("classify", "-o", str(target), *SAMPLES).status == 0
    first = target.read_text()
    assert len(list(csv.DictReader(io.StringIO(first)))) == 3
    refused = convnext("classify", "-o", str(target), CAT)
    assert refused.status == 2
    assert "--overwrite" in refused.err
    assert target.read_text() == first
    assert convnext("classify", "-o", str(target), "--overwrite", CAT).status == 0
    assert len(list(csv.DictReader(io.StringIO(target.read_text())))) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["labels.csv"]


def test_quiet_and_verbose(convnext: Run) -> None:
    assert convnext("classify", "-q", CAT).err == ""
    assert "limits" in convnext("classify", "-v", CAT).err


def test_own_labels(convnext: Run, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"name {i}" for i in range(200)))
    (row,) = lines(convnext("classify", "--labels", str(names), "-f", "jsonl", CAT).out)
    assert all(p["label"] == f"name {p['index']}" for p in row["predictions"])
    names.write_text("only one")
    assert convnext("classify", "--labels", str(names), CAT).status == 3


def test_merged_labels_add_their_scores(convnext: Run, tmp_path: Path) -> None:
    everything = lines(convnext("classify", "-k", "0", "-f", "jsonl", CAT).out)[0]["predictions"]
    cats = {30, 31, 32}
    mapping = tmp_path / "names.json"
    mapping.write_text(json.dumps({str(i): "cat" for i in cats} | {"33": ""}))
    merged = lines(convnext("classify", "-k", "0", "--labels", str(mapping), "-f", "jsonl", CAT).out)[0]["predictions"]
    assert len(merged) == 200 - 2 - 1
    (cat,) = [p for p in merged if p["label"] == "cat"]
    assert cat["score"] == pytest.approx(sum(p["score"] for p in everything if p["index"] in cats), abs=1e-6)
    best = max((p for p in everything if p["index"] in cats), key=lambda p: p["score"])
    assert (cat["index"], cat["id"]) == (best["index"], best["id"])


def test_preprocessing_options_change_the_pixels(convnext: Run) -> None:
    def scores(*options: str) -> list[float]:
        return [p["score"] for p in lines(convnext("classify", "-f", "jsonl", *options, CAT).out)[0]["predictions"]]

    plain = scores()
    assert scores("--size", "80") == plain
    for option in (
        "--size 64",
        "--crop-pct 0.9",
        "--resize-mode squash",
        "--interpolation bilinear",
        "--mean 0.5,0.5,0.5",
        "--std 0.5",
    ):
        assert scores(*option.split()) != plain


def test_too_many_pixels(convnext: Run) -> None:
    (row,) = lines(convnext("classify", "--max-pixels", "1000", "-f", "jsonl", CAT).out)
    assert row["error"]["kind"] == "too_large"
    assert "--max-pixels" in row["error"]["message"]


def test_recursive_and_summary(convnext: Run, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    shutil.copy(CAT, tmp_path / "deep" / "er" / "cat.jpg")
    shutil.copy(COFFEE, tmp_path / "coffee-without-suffix")
    (tmp_path / "notes.txt").write_text("no photo")
    done = convnext("classify", "-r", "-f", "jsonl", str(tmp_path))
    assert done.status == 0
    assert [Path(row["path"]).name for row in lines(done.out)] == ["coffee-without-suffix", "cat.jpg"]
    assert "skipped 1 file (1 .txt)" in done.err


def test_strange_names(convnext: Run, tmp_path: Path) -> None:
    names = [
        "new\nline.jpg",
        "[red]bold[\\].jpg",
        "qu\"ote's.jpg",
        "\x1b[31mred.jpg",
        "bad\udcfc.jpg",
        "-dash.jpg",
        "‮gpj.jpg",
    ]
    for name in names:
        shutil.copy(CAT, tmp_path / name)
    done = convnext("classify", "-r", "-f", "jsonl", str(tmp_path))
    assert done.status == 0
    assert {Path(row["path"]).name for row in lines(done.out)} == set(names)
    table = convnext("classify", "-r", str(tmp_path))
    assert table.status == 0
    assert "[red]bold[\\].jpg" in table.out
    assert "new\\nline.jpg" in table.out
    assert "bad\\xfc.jpg" in table.out
    assert "\x1b" not in table.out
    assert "\u202e" not in table.out


def start(*arguments: str, **options: object) -> subprocess.Popen:
    return subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stderr=subprocess.PIPE, **options)


def test_standard_input(tmp_path: Path) -> None:
    command = [*COMMAND, "classify", "-", "--json"]
    photo = subprocess.run(command, input=Path(CAT).read_bytes(), capture_output=True, check=True)
    (row,) = json.loads(photo.stdout)
    assert row["path"] == "-"
    assert (row["width"], row["height"]) == (451, 300)


def test_files_from_standard_input_and_a_closed_pipe(tmp_path: Path) -> None:
    listing = tmp_path / "list"
    listing.write_bytes(b"".join(CAT.encode() + b"\0" for _ in range(2000)))
    with listing.open("rb") as stdin:
        command = start("classify", "--files-from", "-", "-0", "-f", "jsonl", stdin=stdin, stdout=subprocess.PIPE)
    assert command.stdout is not None
    assert json.loads(command.stdout.readline())["status"] == "ok"
    command.stdout.close()  # what `| head -1` does
    _, said = command.communicate(timeout=60)
    assert said == b""
    assert command.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("form", ["table", "jsonl", "json"])
def test_a_full_disk(form: str) -> None:
    with Path("/dev/full").open("wb") as full:
        command = start("classify", "-f", form, CAT, stdout=full)
        _, said = command.communicate(timeout=60)
    assert command.returncode == 74, said
    assert said.startswith(b"error: ")
    assert b"Traceback" not in said
    assert b"Exception" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_keeps_what_was_done_and_what_was_there(tmp_path: Path, number: int) -> None:
    listing, target = tmp_path / "list", tmp_path / "out.json"
    listing.write_text("".join(f"{SAMPLES[i % 3]}\n" for i in range(3000)))
    target.write_text("an older result")
    command = start("classify", "--files-from", str(listing), "-o", str(target), "--overwrite", "-b", "1")
    part = tmp_path / f"out.json.{command.pid}.part"
    while command.poll() is None and not (part.exists() and part.stat().st_size):
        pass
    command.send_signal(number)
    _, said = command.communicate(timeout=60)
    assert command.returncode == 130, said
    assert b"Traceback" not in said
    assert f"the rows that were done are in {part}; the same command starts over" in said.decode()
    rows = json.loads(part.read_text())
    assert [row["path"] for row in rows] == [SAMPLES[i % 3] for i in range(len(rows))]
    assert 0 < len(rows) < 3000
    assert target.read_text() == "an older result"


def test_a_slow_list_is_answered_as_it_comes() -> None:
    """Each photo's row is there before the next path is written; another way to read it would wait for ever."""
    command = start(
        "classify", "--files-from", "-", "-f", "jsonl", "-b", "1", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert command.stdin is not None
    assert command.stdout is not None
    for path in SAMPLES:
        command.stdin.write(f"{path}\n".encode())
        command.stdin.flush()
        assert json.loads(command.stdout.readline())["path"] == path
    command.communicate(timeout=60)


def test_what_c_libraries_print_never_lands_in_a_result(tmp_path: Path) -> None:
    """With standard input and error closed, the next two files that are opened would be 0 and 2."""
    target = tmp_path / "rows.csv"
    noise = "import os; os.write(2, b'NOISE')"
    command = f"{sys.executable} -m convnext_cli classify {CAT} -o {target} <&- 2>&-"
    site = tmp_path / "sitecustomize.py"  # as libtiff does while a photo is decoded
    site.write_text(
        "import os, PIL.Image\nreal = PIL.Image.open\n"
        f"def noisy(*a, **kw):\n    {noise}\n    return real(*a, **kw)\nPIL.Image.open = noisy\n"
    )
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    lines = target.read_text().splitlines()
    assert len(lines) == 2 and lines[0].startswith("path,"), lines


def test_a_closed_standard_output_is_an_error_only_where_something_goes_there(tmp_path: Path, home: Path) -> None:
    def status(arguments: str) -> tuple[int, str]:
        command = f"{sys.executable} -m convnext_cli {arguments} >&-"
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
        return done.returncode, done.stderr

    assert status(f"classify -q {CAT} -o {tmp_path / 'rows.csv'}")[0] == 0
    assert status(f"label -q samples -o {tmp_path / 'labels.csv'}")[0] == 0
    code, words = status(f"classify {CAT}")
    assert (code, "standard output is closed" in words, "Traceback" in words) == (74, True, False)
    assert status("--help")[0] == 74


@pytest.mark.parametrize(
    ("closed", "arguments", "status"),
    [(">&-", CAT, 74), ("2>&-", f"-q {CAT}", 0), ("2>&-", CAT, 0), ("2>/dev/full", CAT, 0), ("<&-", "-", 1)],
)
def test_closed_streams(closed: str, arguments: str, status: int) -> None:
    command = f"{sys.executable} -m convnext_cli classify {arguments} {closed}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert bool(done.stdout) == (status != 74)


def test_an_input_is_never_the_output(convnext: Run, tmp_path: Path) -> None:
    photo, listing = tmp_path / "cat.jpg", tmp_path / "list.csv"
    shutil.copy(CAT, photo)
    listing.write_text(f"{CAT}\n")
    for arguments in ([photo, "-o", photo, "-f", "csv"], ["--files-from", listing, "-o", listing]):
        done = convnext("classify", "--overwrite", *arguments)
        assert done.status == 2
        assert "one of the inputs" in done.err
    assert photo.read_bytes() == Path(CAT).read_bytes()
    assert listing.read_text() == f"{CAT}\n"


def test_output_goes_through_a_link(convnext: Run, tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    link.symlink_to(real)
    assert convnext("classify", "-o", str(link), CAT).status == 0
    assert link.is_symlink()
    assert CAT in real.read_text()


def test_a_screen_without_our_signs() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, "classify", "-f", "table", CAT], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"451?300" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_glob_over_a_closed_folder_says_so(convnext: Run, tmp_path: Path) -> None:
    (tmp_path / "no").mkdir(mode=0)
    (tmp_path / "yes").mkdir()
    shutil.copy(CAT, tmp_path / "yes" / "cat.jpg")
    done = convnext("classify", "-f", "jsonl", f"{tmp_path}/*/*.jpg")
    assert [row["error"] and row["error"]["kind"] for row in lines(done.out)] == ["permission", None]


def test_output_dash_and_devices(convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(lines(convnext("classify", "-f", "jsonl", "-o", "-", CAT).out)) == 1
    assert len(lines(convnext("classify", "-f", "jsonl", "-o", "/dev/stdout", CAT).out)) == 1
    assert list(tmp_path.iterdir()) == []


def test_photos_are_never_written(convnext: Run, tmp_path: Path) -> None:
    photo = tmp_path / "cat.jpg"
    shutil.copy(CAT, photo)
    before = (photo.stat().st_mtime_ns, photo.read_bytes())
    tmp_path.chmod(0o500)
    try:
        assert convnext("classify", str(photo)).status == 0
        assert [p.name for p in tmp_path.iterdir()] == ["cat.jpg"]
    finally:
        tmp_path.chmod(0o700)
    assert (photo.stat().st_mtime_ns, photo.read_bytes()) == before
