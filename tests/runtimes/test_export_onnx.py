"""ONNX exports against network.py, with every option; and in runtimes that know nothing of this program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError, UnavailableError, UsageError
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card
from convnext_cli.photos.decode import decode, read_file
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.runtimes.exporting.plan import Dtype, Plan
from convnext_cli.runtimes.onnx import export as writer
from convnext_cli.runtimes.reference import TOLERANCE
from tests.helpers import exports as made
from tests.helpers.command import Run
from tests.helpers.exports import CONFIGS, PREPROCESSINGS, REFUSED, SIZES, SMALL, V2, noise, off
from tests.helpers.paths import ROOT, SAMPLES

onnx = pytest.importorskip("onnx", reason="needs onnx")
ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")

from convnext_cli.runtimes.onnx import (  # noqa: E402
    export_graph,
    export_preprocessing,
    graph,
)
from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine  # noqa: E402
from convnext_cli.runtimes.onnx.graph import Ops  # noqa: E402

DEFAULT = ROOT / "weights" / "default.safetensors"
CLOSE = 1e-5  # of the range; seen: 2e-6
NEWEST = export_graph.newest_opset("float32", False)
WEB = ROOT / "tests" / "web"


def opened(path: Path) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(path, None, device="cpu")


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


# Every network, every option ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [17, 20, NEWEST])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_network_in_any_batch_and_size(name: str, opset: int, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, CONFIGS[name])
    card = made.written("onnx", found, Plan(size=None, features=True, opset=opset), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    engine = opened(tmp_path / "m.onnx")
    assert engine.card == card.replace(labels=engine.card.labels) and engine.export == card.export
    for batch in (1, 2, 7):
        for height, width in ((64, 64), (70, 97)):
            assert off(engine, found, noise(batch, height, width)) < CLOSE


@pytest.mark.parametrize("opset", range(17, NEWEST + 1))
def test_layer_normalisation_is_one_node_in_every_opset(opset: int, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, V2)
    made.written("onnx", found, Plan(size=None, opset=opset), tmp_path / "m.onnx")
    nodes = kinds(tmp_path / "m.onnx")
    assert nodes.count("LayerNormalization") == 1 + 3 + sum(V2.depths) + 1  # stem, downsampling, blocks, head
    assert nodes.count("Gelu") == (sum(V2.depths) if opset >= 20 else 0)
    assert off(opened(tmp_path / "m.onnx"), found, noise(3)) < CLOSE


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("size", [None, (64, 80)])
def test_batch_and_size_are_what_was_asked_for(batch: int | None, size: tuple[int, int] | None, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path)
    plan = Plan(batch=batch, size=size, features=True)
    made.written("onnx", found, plan, tmp_path / "m.onnx")
    session = ort.InferenceSession(tmp_path / "m.onnx")
    given = [extent if isinstance(extent, int) else None for extent in session.get_inputs()[0].shape]
    assert given == [batch, 3, *(size or (None, None))]
    assert [(one.name, one.shape[0]) for one in session.get_outputs()] == [
        ("logits", batch or "batch"),
        ("features", batch or "batch"),
    ]
    engine = opened(tmp_path / "m.onnx")
    for n in (1, 2, 7):
        assert off(engine, found, noise(n, 64, 80)) < CLOSE
    if size:
        with pytest.raises(ModelError, match="takes photos of 64×80 pixels, not 96×96"):
            engine(noise(1, 96, 96))
    else:
        assert off(engine, found, noise(2, 96, 101)) < CLOSE


def test_what_changed_after_the_export_is_said(tmp_path: Path, convnext: Run) -> None:
    """ONNX Runtime checks no weights; and others may have changed it rightly, so that it runs."""
    found, path = made.checkpoint(tmp_path), tmp_path / "m.onnx"
    made.written("onnx", found, Plan(size=(64, 64)), path)
    whole = path.read_bytes()
    assert opened(path).notes == []
    path.write_bytes(whole[: len(whole) // 2] + bytes(40) + whole[len(whole) // 2 + 40 :])
    assert opened(path).notes == ["m.onnx is damaged, or another program changed it after it was exported"]
    assert "note: m.onnx is damaged" in convnext("classify", "-m", path, SAMPLES[0]).err
    path.write_bytes(whole)
    onnx.save(onnx.load(path), path)  # as other programs do
    assert opened(path).notes == []
    onnx.checker.check_model(str(path), full_check=True)


def test_nothing_is_said_to_whoever_opens_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for dtype in ("float32", "bfloat16"):
        plan = Plan(dtype=dtype, size=None, preprocessing=True)
        made.written("onnx", made.checkpoint(tmp_path, V2), plan, tmp_path / f"{dtype}.onnx")
        code = f"import onnxruntime; onnxruntime.InferenceSession({str(tmp_path / f'{dtype}.onnx')!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("", "")


def test_scores_have_the_temperature_in_them(tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, temperature=0.6)
    made.written("onnx", found, Plan(size=None, scores=True, features=True), tmp_path / "m.onnx")
    engine = opened(tmp_path / "m.onnx")
    x = noise(3)
    assert off(engine, found, x) < CLOSE
    scores, _ = engine.outputs(x)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-6)
    again = np.exp(engine(x))  # the pipeline's softmax of what it takes for logits
    np.testing.assert_allclose(again / again.sum(1, keepdims=True), scores, rtol=1e-5)
    assert engine.card.temperature is None


def test_scores_of_many_labels_are_a_sigmoid(tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, problem="multi_label", temperature=0.6)
    made.written("onnx", found, Plan(size=None, scores=True), tmp_path / "m.onnx")
    engine = opened(tmp_path / "m.onnx")
    x = noise(3)
    assert off(engine, found, x) < CLOSE
    np.testing.assert_allclose(1 / (1 + np.exp(-engine(x))), engine.outputs(x)[0], rtol=1e-5)


def test_labels_of_any_kind_survive(tmp_path: Path) -> None:
    names = ['say "cheese"', "Käse\\", "奶酪", "<cheese & 'wine'>", *(f"class {i}" for i in range(21837))]
    config = SMALL.replace(num_labels=len(names))
    found = made.checkpoint(tmp_path, config)
    found = checkpoints.Checkpoint(
        **{**vars(found), "card": found.card.replace(labels=LabelSet.from_names("x", names))}
    )
    made.written("onnx", found, Plan(size=None), tmp_path / "m.onnx")
    assert list(opened(tmp_path / "m.onnx").card.label_set().names) == names


# Half precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [17, NEWEST])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["V1", "V2", "rms", "simple", "hidden head", "norm before the pool"])
def test_half_precision_is_half_the_file(name: str, dtype: Dtype, opset: int, tmp_path: Path) -> None:
    config = CONFIGS[name].replace(hidden_sizes=(16, 32, 64, 128))
    found = made.checkpoint(tmp_path, config)
    sizes = {}
    for kind in ("float32", dtype):
        plan = Plan(dtype=kind, size=None, features=True, scores=True, opset=opset)  # type: ignore[arg-type]
        made.written("onnx", found, plan, tmp_path / "m.onnx")
        sizes[kind] = (tmp_path / "m.onnx").stat().st_size
    assert sizes[dtype] < 0.55 * sizes["float32"]
    engine = opened(tmp_path / "m.onnx")
    assert engine.dtype == dtype
    session = ort.InferenceSession(tmp_path / "m.onnx")
    assert {one.type for one in (*session.get_inputs(), *session.get_outputs())} == {"tensor(float)"}
    for batch in (1, 2, 7):
        assert off(engine, found, noise(batch)) < TOLERANCE[dtype]
    if dtype == "bfloat16":
        assert "bfloat16" in engine.notes[0]


@pytest.mark.parametrize("opset", [17, NEWEST])
@pytest.mark.parametrize("name", ["V1", "V2", "rms"])
def test_squares_that_overflow_float16_are_made_in_float32(name: str, opset: int, tmp_path: Path) -> None:
    config = CONFIGS[name]
    found = made.checkpoint(tmp_path, config, changed=made.loud(config, 2000))  # values in thousands
    made.written("onnx", found, Plan(dtype="float16", size=None, opset=opset), tmp_path / "m.onnx")
    assert off(opened(tmp_path / "m.onnx"), found, noise(3)) < TOLERANCE["float16"]


@pytest.mark.parametrize("config", [SMALL, V2])
def test_values_that_overflow_float16_are_refused(config: object, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, config, changed=made.loud(config, 60000))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="float16 ends at 65,504") as told:
        made.written("onnx", found, Plan(dtype="float16", size=None), tmp_path / "m.onnx")
    assert "bfloat16" in str(told.value.hint) and not (tmp_path / "m.onnx").exists()
    made.written("onnx", found, Plan(dtype="bfloat16", size=None), tmp_path / "m.onnx")
    assert off(opened(tmp_path / "m.onnx"), found, noise(2)) < TOLERANCE["bfloat16"]


# Preprocessing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [17, NEWEST])
@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_preprocessing_is_pillows_to_the_byte(name: str, opset: int) -> None:
    preprocessing = PREPROCESSINGS[name]
    ops = Ops(opset)
    ops.output(
        export_preprocessing.tensors(ops, preprocessing),
        "tensors",
        onnx.TensorProto.FLOAT,
        ["n", 3, *preprocessing.size],
    )
    model = ops.model(export_preprocessing.INPUT, onnx.TensorProto.UINT8, ["n", "h", "w", 3], None)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString())
    # Pillow before 13 resizes tall photos in the other order, which differs by single levels
    before_13 = int(Image.__version__.split(".")[0]) < 13
    for width, height in SIZES:
        photos = made.pictures((width, height))
        (found,) = session.run(None, {export_preprocessing.INPUT: np.stack(photos)})
        wanted = np.stack([apply_preprocessing(preprocessing, photo) for photo in photos])
        if before_13 and height > 2 * width:
            assert np.abs(found - wanted).max() < 4 / 255 / min(preprocessing.std)
        else:
            np.testing.assert_array_equal(found, wanted, err_msg=f"{width}×{height}")


@pytest.mark.parametrize("batch", [None, 2])
def test_photos_go_in_as_they_are(batch: int | None, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, V2)
    made.written("onnx", found, Plan(batch=batch, preprocessing=True, scores=True), tmp_path / "m.onnx")
    engine = opened(tmp_path / "m.onnx")
    assert engine.photos and engine.card.preprocessing == found.card.preprocessing
    for size in ((90, 120), (333, 251)):
        for n in (1, 2, 7):
            photos = np.stack([np.asarray(photo) for photo in (made.pictures(size) * 3)[:n]])
            assert off(engine, found, photos) < CLOSE
    assert engine(photos).shape == (7, 7)


@pytest.mark.parametrize("name", REFUSED)
def test_preprocessing_that_a_graph_cannot_hold_are_refused(name: str) -> None:
    preprocessing, words = REFUSED[name]
    with pytest.raises(UsageError, match=words) as told:
        writer.refuse(Card(SMALL, preprocessing), Plan(preprocessing=True))
    assert "--with-preprocessing" in str(told.value.hint)
    writer.refuse(Card(SMALL, preprocessing), Plan())


# int8 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [17, None])
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "no classifier"])
def test_int8_of_every_network(name: str, opset: int | None, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, CONFIGS[name])
    plan = Plan(dtype="int8", size=None, features=True, opset=opset, calibration=made.calibration)
    made.written("onnx", found, plan, tmp_path / "m.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "m.onnx"), full_check=True)
    engine = opened(tmp_path / "m.onnx")
    assert engine.dtype == "int8"
    for batch in (1, 2, 7):
        for height, width in ((64, 64), (70, 97)):
            assert off(engine, found, noise(batch, height, width)) < 0.06
    assert off(engine, found, noise(7)) > 1e-4  # it is rounded


def test_int8_keeps_the_answers_of_the_default(tmp_path: Path) -> None:
    found = checkpoints.load(DEFAULT)
    photos = made.crops(found.card.preprocessing)
    plan = Plan(dtype="int8", size=None, calibration=lambda: iter(photos[::2]), preprocessing=False)
    made.written("onnx", found, plan, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").stat().st_size < 0.31 * 4 * found.card.config.num_parameters
    made.written("onnx", found, Plan(size=None), tmp_path / "float32.onnx")
    after, before = (opened(tmp_path / name)(photos[1::2]) for name in ("m.onnx", "float32.onnx"))
    assert (after.argmax(1) == before.argmax(1)).mean() >= 0.95
    error = np.sqrt(np.square(after - before).mean())
    assert 1e-4 < error < 0.03 * before.std()  # 0.017 with these weights


def test_int8_multiplies_whole_numbers(tmp_path: Path) -> None:
    plan = Plan(dtype="int8", size=None, calibration=made.calibration)
    made.written("onnx", made.checkpoint(tmp_path, V2), plan, tmp_path / "m.onnx")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "as_it_runs.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(tmp_path / "m.onnx", options, providers=["CPUExecutionProvider"])
    assert kinds(tmp_path / "as_it_runs.onnx").count("MatMulIntegerToFloat") == 2 * sum(V2.depths)


def test_int8_with_preprocessing(tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, V2)
    plan = Plan(dtype="int8", preprocessing=True, scores=True, calibration=made.calibration)
    made.written("onnx", found, plan, tmp_path / "m.onnx")
    assert off(opened(tmp_path / "m.onnx"), found, np.stack(made.pictures((120, 90)))) < 0.06


def test_int8_takes_enough_photos(tmp_path: Path) -> None:
    plan = Plan(dtype="int8", size=None, calibration=lambda: made.calibration(3))
    with pytest.raises(UsageError, match="at least 16 photos, and there are 3"):
        made.written("onnx", made.checkpoint(tmp_path), plan, tmp_path / "m.onnx")


# Opsets, the simplifier, large files, what is not there ---------------------------------------------------------------


def test_default_opset_is_the_newest_that_runs(tmp_path: Path) -> None:
    for dtype, calibration in (("float32", None), ("int8", made.calibration)):
        plan = Plan(dtype=dtype, size=None, calibration=calibration)  # type: ignore[arg-type]
        made.written("onnx", made.checkpoint(tmp_path), plan, tmp_path / "m.onnx")
        opset = onnx.load(tmp_path / "m.onnx").opset_import[0].version
        assert opset == export_graph.newest_opset(dtype, False)
        assert export_graph.runs(opset, dtype, False) and not export_graph.runs(opset + 1, dtype, False)


def test_opsets_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="opset 16 has no LayerNormalization") as told:
        writer.refuse(Card(SMALL), Plan(opset=16))
    assert "--opset 17" in str(told.value.hint)
    with pytest.raises(UsageError, match="does not run float32 in opset 99") as told:
        made.written("onnx", made.checkpoint(tmp_path), Plan(opset=99), tmp_path / "m.onnx")
    assert f"--opset {NEWEST}" in str(told.value.hint)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_simplifier_leaves_norms_card_and_answers(dtype: Dtype, tmp_path: Path) -> None:
    pytest.importorskip("onnxslim", reason="needs onnxslim")
    found = made.checkpoint(tmp_path, V2)
    plan = Plan(
        dtype=dtype,
        preprocessing=True,
        scores=True,
        features=True,
        simplify=True,
        calibration=made.calibration if dtype == "int8" else None,
    )
    card = made.written("onnx", found, plan, tmp_path / "m.onnx")
    assert kinds(tmp_path / "m.onnx").count("LayerNormalization") == 1 + 3 + sum(V2.depths) + 1
    engine = opened(tmp_path / "m.onnx")
    assert engine.export == card.export
    for size in ((90, 120), (333, 251)):
        assert off(engine, found, np.stack(made.pictures(size))) < TOLERANCE.get(dtype, 0.06)
    made.written("onnx", found, replace(plan, simplify=False), tmp_path / "as_it_was.onnx")
    assert (tmp_path / "m.onnx").stat().st_size < 1.2 * (tmp_path / "as_it_was.onnx").stat().st_size


def test_weights_of_two_gigabytes_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made.checkpoint(tmp_path)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(graph, "_MOST", 1000)
    made.written("onnx", found, Plan(size=None), tmp_path / "out" / "m.onnx")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["m.onnx", "m.onnx.data"]
    assert off(opened(tmp_path / "out" / "m.onnx"), found, noise()) < CLOSE


@pytest.mark.parametrize(
    ("library", "line"),
    [("onnx", "onnx onnxruntime"), ("onnxruntime", "onnx onnxruntime"), ("onnxslim", "onnxslim")],
)
def test_missing_library_is_told_with_the_pip_line(library: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "find_spec", lambda name: None if name == library else name)
    with pytest.raises(UnavailableError, match=f"{library} is not installed") as told:
        writer.refuse(Card(SMALL), Plan(simplify=True))
    assert told.value.hint == f"pip install {line}"


# Without this program -------------------------------------------------------------------------------------------------


def labels_of(out: str) -> list[str]:
    return [row["predictions"][0]["label"] for row in map(json.loads, out.splitlines())]


def by_ten_lines(model: Path) -> list[str]:
    """The labels of the samples."""
    script = ROOT / "docs" / "onnx_ten_lines.py"
    assert "convnext_cli" not in script.read_text()
    command = [sys.executable, "-P", str(script), str(model), *SAMPLES]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=model.parent)
    found = [line.split("\t")[1] for line in done.stdout.splitlines()]
    assert len(found) == len(SAMPLES)
    return found


@pytest.mark.parametrize("size", [96, 224])
def test_ten_lines_take_colour_profiles_into_account(size: int, tmp_path: Path, convnext: Run) -> None:
    """A sample has one, of Adobe RGB, which changes its label at 224 pixels."""
    path = tmp_path / "m.onnx"
    assert convnext("export", "--size", str(size), "--with-preprocessing", "--no-check", "-o", path).status == 0
    assert by_ten_lines(path) == labels_of(convnext("classify", "-m", path, "-f", "jsonl", *SAMPLES).out)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(size=(80, 80)),
        Plan(size=None),
        Plan(size=(80, 80), batch=3, scores=True),
        Plan(size=(80, 80), preprocessing=True, features=True),
        Plan(size=(80, 80), preprocessing=True, scores=True, batch=2),
    ],
    ids=["as it is", "any size", "scores, a fixed batch", "photos", "photos, scores, a fixed batch"],
)
def test_ten_lines_of_python_give_the_same_labels(plan: Plan, tmp_path: Path, convnext: Run) -> None:
    made.written("onnx", checkpoints.load(DEFAULT), plan, tmp_path / "m.onnx")
    theirs = by_ten_lines(tmp_path / "m.onnx")
    assert theirs == labels_of(convnext("classify", "-f", "jsonl", *SAMPLES).out)
    assert theirs == labels_of(convnext("classify", "-m", tmp_path / "m.onnx", "-f", "jsonl", *SAMPLES).out)


def test_the_same_labels_in_webassembly(tmp_path: Path, convnext: Run) -> None:
    node = shutil.which("node")
    if node is None or not (WEB / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("needs node, and onnxruntime-web: npm install --prefix tests/web")
    plan = Plan(preprocessing=True, scores=True, opset=20)  # onnxruntime-web 1.30 takes up to 26
    made.written("onnx", checkpoints.load(DEFAULT), plan, tmp_path / "m.onnx")
    arguments = [node, str(WEB / "classify.mjs"), str(tmp_path / "m.onnx")]
    photos = []  # a canvas has converted a photo to sRGB before anything is resized
    for number, path in enumerate(SAMPLES):
        photo = decode(read_file(path)).image
        photos.append(tmp_path / f"{number}.png")
        photo.save(photos[-1], icc_profile=None)
        (tmp_path / f"{number}.rgb").write_bytes(photo.tobytes())
        arguments += [str(photo.width), str(photo.height), str(tmp_path / f"{number}.rgb")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    ours = [json.loads(row)["predictions"][0] for row in convnext("classify", "-f", "jsonl", *photos).out.splitlines()]
    assert [each["index"] for each in theirs] == [each["index"] for each in ours]
    np.testing.assert_allclose([each["score"] for each in theirs], [each["score"] for each in ours], rtol=1e-4)
