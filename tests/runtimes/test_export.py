"""``convnext export`` as its users see it; what each format does is in the tests of the formats."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convnext_cli
from convnext_cli import ExportRequest, Listener
from convnext_cli.base.errors import UsageError
from convnext_cli.checkpoints import canonical
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card, Export
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.runtimes.exporting.check import percent
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES
from tests.helpers.photos import encoded, picture
from tests.helpers.tiers import slow_except
from tests.helpers.weights import SMALL, random_tensors, write_model

pytest.importorskip("onnxruntime", reason="the check runs ONNX files")
LABELS = LabelSet.from_names("own", [f"ein {name}" for name in ("Öl", 'a "b"', "c,d", "e", "f", "g", "h")])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model with labels, a temperature and a licence of its own."""
    path = tmp_path / "small.safetensors"
    tensors = random_tensors(SMALL)
    preprocessing = Preprocessing(size=(64, 64), resize_to=(73, 73))
    card = Card(SMALL, preprocessing, "small", "", LABELS, license="mit", sha256=canonical.fingerprint(tensors))
    canonical.write(path, tensors, card.replace(temperature=1.7))
    return path


def classified(convnext: Run, model: Path, *options: str) -> list[dict]:
    done = convnext("classify", *SAMPLES, "-m", str(model), "-k", "0", "-f", "jsonl", "-e", "auto", *options)
    assert done.status == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def assert_same_rows(found: list[dict], wanted: list[dict], within: float = 1e-5) -> None:
    assert [row["path"] for row in found] == [row["path"] for row in wanted]
    for a, b in zip(found, wanted, strict=True):
        scores = {p["label"]: p["score"] for p in b["predictions"]}
        assert {p["label"] for p in a["predictions"]} == set(scores)
        assert a["predictions"][0]["label"] == b["predictions"][0]["label"]
        assert all(abs(p["score"] - scores[p["label"]]) < within for p in a["predictions"])
        assert a["model_sha256"] == b["model_sha256"]


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".ts", ".pt2"])
def test_an_exported_file_answers_like_the_weights(convnext: Run, model: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"made{suffix}"
    done = convnext("export", "-m", str(model), "-o", str(target))
    assert done.status == 0, done.err
    assert "random inputs" in done.out and "100.0 %" in done.out
    assert_same_rows(classified(convnext, target), classified(convnext, model, "-e", "torch"))


@pytest.mark.parametrize("suffix", slow_except([".onnx", ".xml", ".ts", ".pt2"], ".onnx"))
def test_preprocessing_and_softmax_inside_change_no_answer(
    convnext: Run, model: Path, tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / f"made{suffix}"
    done = convnext("export", "-m", str(model), "-o", str(target), "--with-preprocessing", "--with-softmax")
    assert done.status == 0, done.err
    assert_same_rows(classified(convnext, target), classified(convnext, model, "-e", "torch"), within=1e-4)


def test_the_card_in_the_file_needs_nothing_beside_it(convnext: Run, model: Path, tmp_path: Path) -> None:
    import onnxruntime

    target = tmp_path / "made.onnx"
    assert convnext("export", "-m", str(model), "-o", str(target), "--features", "--batch", "2").status == 0
    session = onnxruntime.InferenceSession(target)
    card = json.loads(session.get_modelmeta().custom_metadata_map["convnext"])
    assert card["labels"]["names"] == list(LABELS.names)
    assert (card["license"], card["sha256"], card["temperature"]) == (
        "mit",
        Card.from_json(json.dumps(card)).sha256,
        1.7,
    )
    assert card["recipe"]["size"] == [64, 64] and card["recipe"]["resize_to"] == [73, 73]
    export = Export.from_dict(card["export"])
    assert (export.format, export.batch, export.size, export.features) == ("onnx", 2, (64, 64), True)
    assert export.made_with.keys() >= {"convnext-cli", "onnx"}
    logits, features = session.run(None, {"pixel_values": np.zeros((2, 3, 64, 64), np.float32)})
    assert logits.shape == (2, 7) and features.shape == (2, SMALL.hidden_sizes[-1])


def test_a_bundled_label_set_is_written_out(convnext: Run, tmp_path: Path) -> None:
    import onnxruntime

    target = tmp_path / "made.onnx"
    assert convnext("export", "-o", str(target), "-q") == (0, "", "")
    card = json.loads(onnxruntime.InferenceSession(target).get_modelmeta().custom_metadata_map["convnext"])
    assert len(card["labels"]["names"]) == 200 == len(card["labels"]["ids"])
    assert Card.from_json(json.dumps(card)).label_set().names[0] == card["labels"]["names"][0]


def overflowing(path: Path, factor: float) -> Path:
    """A model whose residual stream grows by ``factor`` in its last stage."""
    tensors = random_tensors(SMALL)
    tensors["downsample_layers.3.1.weight"] = tensors["downsample_layers.3.1.weight"] * factor
    card = Card(SMALL, Preprocessing(size=(64, 64), resize_to=(64, 64)), "hot", sha256=canonical.fingerprint(tensors))
    canonical.write(path, tensors, card)
    return path


def test_a_file_that_fails_its_check_is_not_left(
    convnext: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer with a defect: one weight of the file is another."""
    from convnext_cli.runtimes.onnx import export as onnx

    write = onnx.write

    def wrong(checkpoint: Checkpoint, *arguments: object) -> None:
        bias = checkpoint.tensors["head.bias"].clone()
        bias[0] += 0.01
        write(dataclasses.replace(checkpoint, tensors=checkpoint.tensors | {"head.bias": bias}), *arguments)

    monkeypatch.setattr(onnx, "write", wrong)
    target = tmp_path / "made.onnx"
    target.write_text("what was there")
    before = sorted(tmp_path.iterdir())
    done = convnext("export", "-m", str(model), "-o", str(target), "--overwrite")
    assert done.status == 1
    assert "was not kept: it differs" in done.err and "random inputs" in done.out
    assert target.read_text() == "what was there" and sorted(tmp_path.iterdir()) == before


def test_what_float16_cannot_hold_is_refused(convnext: Run, tmp_path: Path) -> None:
    model, target = overflowing(tmp_path / "hot.safetensors", 1e5), tmp_path / "made.onnx"
    done = convnext("export", "-m", str(model), "-o", str(target), "--dtype", "float16")
    assert done.status == 3 and "float16 ends at 65,504" in done.err and "bfloat16" in done.err
    assert not target.exists()


def test_squares_do_not_overflow_float16(convnext: Run, tmp_path: Path) -> None:
    model, target = overflowing(tmp_path / "warm.safetensors", 3e3), tmp_path / "made.onnx"
    done = convnext("export", "-m", str(model), "-o", str(target), "--dtype", "float16")
    assert done.status == 0, done.err


def test_json_says_all(convnext: Run, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.jpg").write_bytes(encoded(picture(80, 60, seed=i), "JPEG")[: None if i else 300])
    done = convnext(
        "export", "-m", str(model), "-o", str(tmp_path / "a.onnx"), "--json", "--size", "any", "--check-on", str(folder)
    )
    assert done.status == 0, done.err
    values = json.loads(done.out)
    assert values["files"] == [str(tmp_path / "a.onnx")] and values["runtime"] == "onnxruntime"
    check = values["check"]
    assert check["ok"] and check["photos"] == 4 + 3 and check["skipped"] == 1
    random = [trial for trial in check["trials"] if trial["what"] == "random"]
    assert [(t["photos"], tuple(t["size"])) for t in random] == [
        (n, size) for size in [(64, 64), (96, 160)] for n in (1, 2, 7)
    ]
    assert 0 < check["difference"] < 1e-5 and check["ms"].keys() == {"1", "8"}
    assert "1 photo could not be read and was left out" in done.err


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["-o", "a.unknown"], 2, "--to"),
        (["-o", "a.onnx", "--to", "openvino"], 2, ".xml"),
        (["-o", "nowhere/a.onnx"], 74, "no folder"),
        (["-o", "there.onnx"], 2, "--overwrite"),
        (["-o", "a.xml", "--opset", "17"], 2, "--to onnx"),
        (["-o", "a.onnx", "--opset", "16"], 2, "17"),
        (["-o", "a.onnx", "--batch", "0"], 2, "any"),
        (["-o", "a.onnx", "--size", "16"], 2, "at least 32"),
        (["-o", "a.onnx", "--size", "any", "--with-preprocessing"], 2, "one size"),
        (["-o", "a.onnx", "--dtype", "int8"], 2, "--calibrate"),
        (["-o", "a.ts", "--dtype", "int8"], 2, "torchscript files cannot be in int8"),
        (["--to", "coreml", "--dtype", "int8"], 2, "coreml files cannot be in int8"),
        (["-o", "a.onnx", "--calibrate", "."], 2, "--dtype int8 and --calibrate FOLDER go together"),
        (["-o", "a.onnx", "--check-on", "."], 2, "no photos"),
        (["-o", "a.onnx", "--check-on", ".", "--no-check"], 2, "exclude"),
        (["-o", "a.onnx", "-m", "nothing.safetensors"], 3, "does not exist"),
    ],
)
def test_refusals_leave_nothing(
    convnext: Run,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    status: int,
    said: str,
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "there.onnx").write_text("mine")
    done = convnext("export", *(["-m", str(model)] if "-m" not in options else []), *options)
    assert done.status == status and said in done.err, done.err
    assert [file.name for file in folder.iterdir()] == ["there.onnx"]
    assert (folder / "there.onnx").read_text() == "mine"


def test_photos_that_cannot_be_read_check_nothing(convnext: Run, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i}.jpg").write_bytes(encoded(picture(80, 60, seed=i), "JPEG")[:300])
    done = convnext("export", "-m", model, "-o", tmp_path / "a.onnx", "--check-on", folder)
    assert done.status == 2 and f"none of the 40 photos in {folder} can be read" in done.err
    done = convnext("export", "-m", model, "-o", tmp_path / "a.onnx", "--dtype", "int8", "--calibrate", folder)
    assert done.status == 2 and f"in the testing half of {folder} can be read" in done.err
    for file in list(folder.iterdir())[1:]:
        file.unlink()
    done = convnext("export", "-m", model, "-o", tmp_path / "a.onnx", "--check-on", folder)
    assert done.status == 2 and f"the one photo in {folder} cannot be read" in done.err
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2", ".tflite"])
def test_a_network_of_other_channels_is_refused(suffix: str, convnext: Run, tmp_path: Path) -> None:
    model = write_model(tmp_path / "grey.safetensors", SMALL.replace(num_channels=1))
    done = convnext("export", "-m", model, "-o", tmp_path / f"a{suffix}")
    assert done.status == 3 and "grey.safetensors takes 1-channel photos" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["grey.safetensors"]


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is here")
def test_core_ml_is_refused_before_the_work_where_it_cannot_be_checked(
    convnext: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("coremltools") is None:
        pytest.skip("needs coremltools")
    from convnext_cli.runtimes.coreml import export as coreml

    monkeypatch.setattr(coreml, "write", None)
    done = convnext("export", "-m", model, "-o", tmp_path / "a.mlpackage")
    assert done.status == 4
    assert "run on macOS alone: the file cannot be checked here" in done.err and "--no-check" in done.err
    assert "writing" not in done.err


def test_percents_do_not_contradict_what_is_said_of_them() -> None:
    said = {
        96.97: "96.97",
        96.9999: "96.9999",
        97.0: "97.0",
        97.04: "97.0",
        99.96: "99.96",
        100.0: "100.0",
        12.34: "12.3",
    }
    assert {share: percent(share) for share in said} == said


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_the_table_keeps_its_words_on_a_narrow_screen(
    columns: int, convnext: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = convnext("export", "-m", model, "-o", tmp_path / "a.onnx")
    assert done.status == 0, done.err
    assert max(map(len, done.out.splitlines())) <= columns
    words = " ".join(line[: 18 if columns == 40 else 25].strip() for line in done.out.splitlines())
    assert "…" not in done.out
    assert "ms a photo, one" in words and "ms a photo, 8 at" in words
    assert ("same label" in done.out) == (columns > 40)


def test_what_lies_where_a_second_file_would_go_is_not_replaced(convnext: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_text("mine")
    done = convnext("export", "-m", str(model), "-o", str(tmp_path / "a.xml"))
    assert done.status == 2 and "a.bin is there already" in done.err
    assert (tmp_path / "a.bin").read_text() == "mine" and not (tmp_path / "a.xml").exists()


def test_a_file_that_is_not_checked_says_so(convnext: Run, model: Path, tmp_path: Path) -> None:
    done = convnext("export", "-m", str(model), "-o", str(tmp_path / "a.onnx"), "--no-check")
    assert done.status == 0 and done.out == "" and "not checked" in done.err


def test_multi_label_scores_are_sigmoids(convnext: Run, model: Path, tmp_path: Path) -> None:
    checkpoint = canonical_with(model, tmp_path / "multi.safetensors", problem="multi_label")
    target = tmp_path / "a.onnx"
    done = convnext("export", "-m", str(checkpoint), "-o", str(target), "--with-softmax")
    assert done.status == 0, done.err
    assert_same_rows(classified(convnext, target), classified(convnext, checkpoint, "-e", "torch"))


def test_regression_has_no_scores(convnext: Run, model: Path, tmp_path: Path) -> None:
    checkpoint = canonical_with(model, tmp_path / "r.safetensors", problem="regression")
    done = convnext("export", "-m", str(checkpoint), "-o", str(tmp_path / "a.onnx"), "--with-softmax")
    assert done.status == 2 and "scores of classes" in done.err


def canonical_with(model: Path, target: Path, **changes: object) -> Path:
    from convnext_cli import checkpoints

    found = checkpoints.load(model)
    canonical.write(target, found.tensors, dataclasses.replace(found.card, **changes))
    return target


def test_photos_of_any_size_go_into_one_batch_file(convnext: Run, tmp_path: Path) -> None:
    """A fixed batch, and photos that are all of other sizes."""
    model, target = write_model(tmp_path / "m.safetensors"), tmp_path / "a.onnx"
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(5):
        Image.fromarray(np.asarray(picture(90 + i, 70 + 2 * i, seed=i))).save(photos / f"{i}.png")
    assert convnext("export", "-m", str(model), "-o", str(target), "--with-preprocessing", "--batch", "3").status == 0
    options = ("classify", "-r", str(photos), "-f", "jsonl", "-k", "0")
    found = [json.loads(line) for line in convnext(*options, "-m", str(target)).out.splitlines()]
    wanted = [json.loads(line) for line in convnext(*options, "-m", str(model), "-e", "torch").out.splitlines()]
    assert_same_rows(found, wanted, within=1e-4)


def test_the_verb_from_python(convnext: Run, model: Path, tmp_path: Path) -> None:
    heard: list[str] = []

    class Ears(Listener):
        def stage(self, name: str, total: int | None = None) -> None:
            heard.append(name)

    request = ExportRequest(model=model, output=tmp_path / "a.xml", batch=2, size=96, scores=True, threads=1)
    assert pickle.loads(pickle.dumps(request)) == request
    result = convnext_cli.export(request, Ears())
    assert result.passed and result.check is not None and result.runtime == "openvino"
    assert [file.name for file in result.files] == ["a.xml", "a.bin"]
    assert heard == ["writing a.xml", "checking a.xml in its own runtime"]
    options = ("--batch", "2", "--size", "96", "--with-softmax", "-t", "1", "--json")
    done = convnext("export", "-m", str(model), "-o", str(tmp_path / "b.xml"), *options)
    assert json.loads(done.out)["card"] == result.to_dict()["card"]
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    with pytest.raises(UsageError, match=r"a\.xml"):
        convnext_cli.export(request)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"format": "gif"}, "format"),
        ({"dtype": "float8"}, "dtype"),
        ({"batch": 0}, "batch"),
        ({"size": "test"}, "size"),
        ({"threads": 0}, "threads"),
        ({"dtype": "int8"}, "--calibrate"),
        ({"calibrate": "photos"}, "--calibrate"),
        ({"check": False, "threads": 2}, "--threads"),
        ({"check": False, "check_on": "photos"}, "--check-on"),
    ],
)
def test_a_request_checks_itself(wrong: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        ExportRequest(**wrong)
