"""Options that cannot take effect are refused, in every command: nothing that is typed is ignored without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convnext_cli import classify
from convnext_cli.base.errors import UsageError
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.runtimes.exporting.plan import Plan
from tests.helpers import exports as made
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES

CAT, COFFEE, ROCKET = SAMPLES


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files of OpenVINO: with preprocessing; of one size and batch; that give scores; in bfloat16."""
    folder = tmp_path_factory.mktemp("exports")
    # bilinear: compiles in a tenth of the time of a bicubic resize
    preprocessing = Preprocessing(size=(64, 64), resize_to=(73, 73), interpolation="bilinear")
    found = made.checkpoint(folder, preprocessing=preprocessing)
    for name, plan in {
        "whole": Plan(size=(64, 64), preprocessing=True),
        "fixed": Plan(size=(64, 64), batch=2),
        "scores": Plan(size=(64, 64), scores=True),
        "half": Plan(size=(64, 64), dtype="bfloat16"),
    }.items():
        made.written("openvino", found, plan, folder / f"{name}.xml")
    return folder


# What was looked at: the command line (FILE.xml is one of the exports), the status, words of the message

PREPROCESSING = [
    ["--size", "32"],
    ["--size", "test"],
    ["--crop-pct", "0.9"],
    ["--resize-mode", "squash"],
    ["--interpolation", "bicubic"],
    ["--mean", "0.5"],
    ["--std", "0.5"],
]
REFUSED = [
    *((["classify", "-m", "whole.xml", *change, CAT], change[0]) for change in PREPROCESSING),
    (["label", "-m", "whole.xml", "--mean", "0.5", "-o", "rows.jsonl", CAT], "--mean"),
    (["evaluate", "-m", "whole.xml", "--crop-pct", "1", "labelled"], "--crop-pct"),
    (["classify", "-m", "whole.xml", "--pixels", "close", CAT], "--pixels close"),
    (["classify", "-m", "fixed.xml", "--size", "32", CAT], "takes photos of 64×64 pixels"),
    (["classify", "-m", "fixed.xml", "-b", "3", CAT], "takes 2 photos in each call"),
    (["classify", "-m", "fixed.xml", "--dtype", "bfloat16", CAT], "computes in float32"),
    (["classify", "-m", "fixed.xml", "-e", "torch", CAT], "only openvino runs"),
    (["classify", "-m", "fixed.xml", "--compile", CAT], "leave --engine and --compile out"),
    (["classify", "-m", "scores.xml", "--logits", CAT], "--logits cannot be computed"),
    (["classify", "-m", "scores.xml", "--sigmoid", CAT], "--sigmoid cannot be computed"),
    (["classify", "--size", "test", CAT], "no test size is known"),
    (["classify", "-e", "openvino", "--compile", CAT], "--compile is for torch"),
    (["classify", "-e", "onnxruntime", "--compile", CAT], "--compile is for torch"),
    (["classify", "-t", "1", "-j", "2", CAT], "more than --threads 1"),
    (["classify", "--pull", "--offline", CAT], "exclude each other"),
    (["classify", "-q", "-v", CAT], "exclude each other"),
    (["classify", "-v", "-q", CAT], "exclude each other"),
    (["label", "-q", "-vv", "-o", "x.csv", CAT], "exclude each other"),
    (["evaluate", "-q", "-v", "labelled"], "exclude each other"),
    (["bench", "-q", "-v"], "exclude each other"),
    (["classify", "-0", CAT], "-0 only applies to --files-from"),
    (["classify", "--overwrite", CAT], "--overwrite is for -o"),
    (["classify", "--overwrite", "-o", "-", CAT], "--overwrite is for -o"),
    (["classify", "--show", CAT], "--show draws on a terminal"),
    (["classify", "--show", "-f", "jsonl", CAT], "--show"),
    (["classify", "--show", "-o", "x.csv", CAT], "--show"),
    (["classify", "--softmax", "--sigmoid", CAT], "exclude each other"),
    (["classify", "--json", "-f", "csv", CAT], "exclude each other"),
    (["label", "-0", "-o", "x.csv", CAT], "-0 only applies to --files-from"),
    *(
        (["label", *walking, "-o", "x.csv", CAT], f"{walking[0]} only applies to folders")
        for walking in (["--depth", "1"], ["--hidden"], ["--follow"], ["--include", "*"], ["--exclude", "*.x"])
    ),
    (["label", "--mix", "--relabel", "-o", "x.csv", CAT], "exclude each other"),
    (["label", "--by", "id", "-o", "x.csv", CAT], "--by is for --sort-into"),
    (["label", "--mode", "move", "-o", "x.csv", CAT], "--mode is for --sort-into"),
    (["label", "--dry-run", "-o", "x.csv", CAT], "--dry-run is for --sort-into"),
    (["label", "--dry-run", "--sort-into", "s", "--xmp", "embed", "-o", "x.csv", CAT], "--dry-run touches no photo"),
    (["label", "--yes", "-o", "x.csv", CAT], "--yes is for --sort-into and --xmp"),
    (["label", "--yes", "--dry-run", "--sort-into", "s", "-o", "x.csv", CAT], "leave --yes out"),
    (["label", "--yes", "--xmp", "embed", "--xmp-remove", "-o", "x.csv", CAT], "leave --yes out"),
    (["label", "--xmp-naming", "replace", "-o", "x.csv", CAT], "--xmp-naming is for --xmp"),
    (["label", "--xmp-root", "Mine", "-o", "x.csv", CAT], "--xmp-root is for --xmp"),
    (["label", "--no-xmp-tree", "-o", "x.csv", CAT], "--no-xmp-tree is for --xmp"),
    (["label", "--xmp-remove", "-o", "x.csv", CAT], "--xmp-remove is for --xmp"),
    (["label", "--xmp", "embed", "--xmp-naming", "append", "-o", "x.csv", CAT], "for --xmp sidecar"),
    (["label", "--xmp", "sidecar", "--xmp-remove", "--no-xmp-tree", "-o", "x.csv", CAT], "writes no keywords"),
    (["label", "--undo", "sorted.log", "--model", "default"], "leave --model out"),
    (["label", "--undo", "sorted.log", CAT], "leave the paths out"),
    (["label", "-", "-o", "x.csv"], "convnext classify -"),
    (["label", "-t", "1", "-j", "2", "-o", "x.csv", CAT], "more than --threads 1"),
    *(
        (["label", "--by", "label", *cluster, "-o", "x", "labelled"], "--by is for --sort-into")
        for cluster in ([], ["--cluster", "auto"])
    ),
    *(
        (["label", "--cluster", "auto", *option, "-o", "x", "labelled"], f"{option[0]} cannot be combined with")
        for option in (
            ["--sort-into", "s"],
            ["--xmp", "sidecar"],
            ["--report", "r.html"],
            ["--watch"],
            ["--strict"],
            ["--mix"],
            ["--nice", "3"],
            ["--nice", "0"],
            ["--batch-size", "4"],
            ["--workers", "2"],
            ["--rewrite"],
            ["--verbose"],
        )
    ),
    (["label", "--cluster", "auto", "--mode", "move", "-o", "x", "labelled"], "--mode is for --sort-into"),
    (["label", "--cluster", "auto", "--dry-run", "-o", "x", "labelled"], "--dry-run is for --sort-into"),
    (["label", "--cluster", "auto", "--xmp-root", "Mine", "-o", "x", "labelled"], "--xmp-root is for --xmp"),
    (["label", "--cluster", "auto", "-f", "csv", "-o", "x", "labelled"], "a cluster writes parquet"),
    (["label", "--cluster", "auto", "--overwrite", "--relabel", "-o", "x", "labelled"], "--overwrite labels"),
    (["label", "--cluster", "auto", "-0", "-o", "x", "labelled"], "-0 only applies to --files-from"),
    (["label", "--cluster", "auto", "--depth", "1", "-o", "x", CAT], "--depth only applies to folders"),
    (["label", "--cluster", "auto", "--pull", "--offline", "-o", "x", "labelled"], "exclude each other"),
    (["label", "--cluster", "auto", "-o", "x", "-"], "convnext classify -"),
    (["label", "--overwrite", "--relabel", "-o", "x.csv", CAT], "--overwrite labels everything"),
    (["convert", "default", "x.pth"], "Missing option '--to'"),
    (["convert", "default", "x.pth", "--to", "canonical", "--layer-norm-eps", "nan"], "--layer-norm-eps"),
    (["convert", "default", "x.pth", "--to", "hf", "more.pth"], "unexpected extra argument"),
    (["doctor", CAT], "unexpected extra argument"),
    (["doctor", "-q"], "No such option"),
    (["completion", "bash", "--json"], "No such option"),
    (["completion", "tcsh"], "'tcsh' is not one of"),
    (["evaluate", "--mistakes", "3", "labelled"], "--mistakes is for -o"),
    (["evaluate", "--overwrite", "labelled"], "--overwrite is for -o"),
    (["evaluate", "--pull", "--offline", "labelled"], "exclude each other"),
    (["export", "-o", "x.xml", "--opset", "20"], "for --to onnx"),
    (["export", "-o", "x.xml", "--simplify"], "for --to onnx"),
    (["export", "-o", "x.xml", "--check-on", "photos", "--no-check"], "exclude each other"),
    (["export", "-o", "x.xml", "--dtype", "int8"], "--calibrate"),
    (["export", "-o", "x.xml", "--calibrate", "photos"], "go together"),
    (["export", "-o", "x.xml", "--pull", "--offline"], "exclude each other"),
    (["export", "-o", "x.xml", "--no-check", "-t", "2"], "--threads"),
    (["prepare", "--list", "--clear"], "exclude each other"),
    (["prepare", "--list", "-m", "default"], "--list takes no --model"),
    (["prepare", "--clear", "--json"], "--clear takes no --json"),
    (["prepare", "--dtype", "int8"], "go together"),
    (["prepare", "--calibrate", "photos"], "go together"),
    (["prepare", "--dtype", "int8", "--calibrate", "photos", "--compile"], "--compile"),
    (["prepare", "--pull", "--offline"], "exclude each other"),
    (["prepare", "-m", "fixed.xml"], "nothing to prepare"),
    (["bench", "--overwrite"], "--overwrite is for -o"),
    (["bench", "-m", "half.xml", "--dtype", "float32", "-b", "1", "--seconds", "0"], "computes in bfloat16"),
    (["bench", "--plot", "s3://bucket/speed.png"], "is a URL"),
    (["bench", "--plot", "https://example.org/speed.svg"], "is a URL"),
    (["bench", "--fail-below", "0.9"], "--fail-below belongs to --compare"),
    (["bench", "--layout", "contiguous", "-e", "openvino"], "--layout is for --engine torch"),
    (["bench", "--compile", "-e", "openvino"], "--compile is for"),
    (["bench", "-b", "auto,1"], "combined"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=lambda value: " ".join(value)[:70])
def test_without_effect_is_refused(
    convnext: Run,
    exports: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("labelled/tabby/1.jpg", "photos/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).symlink_to(CAT)
    done = convnext(*(str(exports / word) if word.endswith(".xml") and word != "x.xml" else word for word in arguments))
    assert done.status == 2, done.out + done.err
    assert words in done.err
    assert "hint: " in done.err
    assert done.out == ""
    assert not (tmp_path / "rows.jsonl").exists()


def test_what_agrees_with_the_file_is_accepted(convnext: Run, exports: Path) -> None:
    for more in (["--size", "64"], ["-b", "4"], ["--dtype", "float32"], ["-e", "openvino"], ["--logits"]):
        assert convnext("classify", "-m", exports / "fixed.xml", *more, CAT).status == 0, more
    assert convnext("classify", "-m", exports / "scores.xml", "--softmax", CAT).status == 0


# The same in Python


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": 0.5}, "--mean cannot change it"),
        ({"size": 64}, "--size cannot change it"),
        ({"preprocessing": Preprocessing(size=(32, 32), resize_to=(32, 32))}, "cannot be replaced"),
    ],
)
def test_python_refuses_preprocessing_that_is_inside(exports: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        classify(CAT, model=exports / "whole.xml", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 64, "preprocessing": Preprocessing()}, "exclude each other"),
        ({"size": "big"}, "--size"),
        ({"size": True}, "--size"),
        ({"crop_pct": 95}, "--crop-pct must be"),
        ({"resize_mode": "stretch"}, "must be one of"),
        ({"scores": "probabilities"}, "scores must be one of"),
        ({"min_score": 50}, "but scores are between 0 and 1"),
        ({"min_score": float("nan")}, "must be a number"),
        ({"min_score": "0.5"}, "must be a number"),
        ({"floors": {"tabby": 60}}, "the floor of 'tabby'"),
        ({"threads": 1, "workers": 2}, "more than --threads"),
    ],
)
def test_python_refuses(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        classify(CAT, **options)


def test_python_changes_the_preprocessing() -> None:
    usual, changed = (
        classify(CAT, k=0, **options)[0] for options in ({}, {"size": 64, "crop_pct": 1.0, "interpolation": "bilinear"})
    )
    assert not np.allclose([p.score for p in usual.predictions], [p.score for p in changed.predictions])


# Scores and shares


@pytest.mark.parametrize("command", [["classify"], ["label", "-o", "x.csv"]])
@pytest.mark.parametrize("value", ["50", "1.01", "-0.1", "101%"])
def test_a_threshold_that_no_score_has(
    convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = convnext(*command, "--min-score", value, CAT)
    assert done.status == 2
    assert "--min-score" in done.err
    if value == "50":
        assert "50% or 0.5" in done.err


def test_a_percentage_is_a_share(convnext: Run) -> None:
    rows = [convnext("classify", "--min-score", value, "-f", "jsonl", *SAMPLES).out for value in ("0.5", "50%", "5e-1")]
    assert rows[0] == rows[1] == rows[2]
    assert '"unknown"' in rows[0] and '"ok"' in rows[0]


def test_logits_take_any_threshold_but_no_percentage(convnext: Run) -> None:
    assert convnext("classify", "--logits", "--min-score", "50", CAT).status == 0
    done = convnext("classify", "--logits", "--min-score", "50%", CAT)
    assert done.status == 2
    assert "logits are not" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["classify", "--crop-pct", "95", CAT], "0.95 or 95%"),
        (["classify", "--crop-pct", "nan", CAT], "not a number"),
        (["classify", "--crop-pct", "0.01", CAT], "between 0.1 and 1"),
        (["evaluate", "--precision", "95", "labelled"], "0.95 or 95%"),
        (["evaluate", "--precision", "1", "labelled"], "between 0 and 1"),
        (["evaluate", "--fail-below", "0.8", "labelled"], "80, or 0.8%"),
        (["evaluate", "--fail-below", "101", "labelled"], "0 to 100"),
        (["evaluate", "--fail-below", "nan", "labelled"], "0 to 100"),
        (["bench", "--compare", "old.json", "--fail-below", "95"], "0.95 or 95%"),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_shares(convnext: Run, arguments: list[str], words: str) -> None:
    done = convnext(*arguments)
    assert done.status == 2
    assert words in done.err


def test_floors_are_shares_too(convnext: Run, tmp_path: Path) -> None:
    floors = tmp_path / "floors.csv"
    floors.write_text("espresso,99.99%\nEgyptian cat,1%\n")
    statuses = [convnext("classify", "--floors", floors, "-f", "csv", photo).out for photo in (COFFEE, CAT)]
    assert ",unknown," in statuses[0] and ",ok," in statuses[1]
    for text in ("espresso,60", "espresso,-0.5", "espresso,101%"):
        floors.write_text(text)
        done = convnext("classify", "--floors", floors, CAT)
        assert done.status == 3
        assert "line 1" in done.err
    floors.write_text("espresso,60\n")
    assert convnext("classify", "--logits", "--floors", floors, CAT).status == 0
    floors.write_text("espresso,0,6\n")  # a decimal comma, and no title
    assert convnext("classify", "--floors", floors, CAT).status == 3
