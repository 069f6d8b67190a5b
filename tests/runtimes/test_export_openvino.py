"""OpenVINO exports against network.py, with every option; and files that cannot be used."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError, UnavailableError, UsageError
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.runtimes.exported import ExportedEngine
from convnext_cli.runtimes.exporting.plan import Dtype, Plan
from convnext_cli.runtimes.openvino import export as writer
from convnext_cli.runtimes.reference import TOLERANCE
from convnext_cli.runtimes.select import open_engine
from tests.helpers import exports as made
from tests.helpers.command import Run
from tests.helpers.exports import CONFIGS, FAST, PREPROCESSINGS, REFUSED, SIZES, SMALL, V2, noise, off
from tests.helpers.paths import ROOT, SAMPLES
from tests.helpers.tiers import slow_except

pytest.importorskip("openvino", reason="needs openvino")

from convnext_cli.runtimes.openvino import export_preprocessing, ir_file
from convnext_cli.runtimes.openvino.runtime import op, ov

DEFAULT = ROOT / "weights" / "default.safetensors"
CLOSE = 1e-5  # of the range; seen: 4e-6


def opened(path: Path) -> ExportedEngine:
    found = open_engine(path, device="cpu")
    assert isinstance(found, ExportedEngine)
    return found


# Every network, every option ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slow_except(CONFIGS, *FAST))
def test_every_network_in_any_batch_and_size(name: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, CONFIGS[name])
    card = made.written("openvino", found, Plan(size=None, features=True), tmp_path / "m.xml")
    engine = opened(tmp_path / "m.xml")
    assert (engine.name, engine.device, engine.dtype) == ("openvino", "cpu", "float32")
    assert engine.export == card.export
    for batch in (1, 2, 7):
        for height, width in ((64, 64), (70, 97)):
            assert off(engine, found, noise(batch, height, width)) < CLOSE


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("size", [None, (64, 80)])
def test_batch_and_size_are_what_was_asked_for(batch: int | None, size: tuple[int, int] | None, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path)
    made.written("openvino", found, Plan(batch=batch, size=size, features=True), tmp_path / "m.xml")
    model = ov.Core().read_model(tmp_path / "m.xml")
    assert list(model.input("pixel_values").get_partial_shape()) == [batch or -1, 3, *(size or (-1, -1))]
    assert [output.get_any_name() for output in model.outputs] == ["logits", "features"]
    assert [output.get_partial_shape()[0] for output in model.outputs] == [batch or -1] * 2
    engine = opened(tmp_path / "m.xml")
    for n in (1, 2, 7):
        assert off(engine, found, noise(n, 64, 80)) < CLOSE
    if size:
        with pytest.raises(ModelError, match="takes photos of 64×80 pixels, not 96×96"):
            engine(noise(1, 96, 96))
    else:
        assert off(engine, found, noise(2, 96, 101)) < CLOSE


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_scores(problem: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, problem=problem, temperature=0.6)  # type: ignore[arg-type]
    made.written("openvino", found, Plan(size=None, scores=True, features=True), tmp_path / "m.xml")
    engine = opened(tmp_path / "m.xml")
    x = noise(3)
    assert off(engine, found, x) < CLOSE
    scores, logits = engine.outputs(x)[0], engine(x)
    if problem == "single_label":
        np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-6)
        again = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    else:
        again = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(again, scores, rtol=1e-5)


def test_labels_of_any_kind_survive(tmp_path: Path) -> None:
    names = ['say "cheese"', "Käse\\", "奶酪", "<cheese & 'wine'>\t\n", *(f"class {i}" for i in range(21837))]
    found = made.checkpoint(tmp_path, SMALL.replace(num_labels=len(names)))
    found = checkpoints.Checkpoint(
        **{**vars(found), "card": found.card.replace(labels=LabelSet.from_names("x", names))}
    )
    made.written("openvino", found, Plan(size=None), tmp_path / "m.xml")
    assert list(opened(tmp_path / "m.xml").card.label_set().names) == names


# Half precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", slow_except(["V1", "V2", "rms", "hidden head", "norm before the pool"], "V2"))
def test_half_precision_is_half_the_file(name: str, dtype: Dtype, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, CONFIGS[name].replace(hidden_sizes=(16, 32, 64, 128)))
    sizes = {}
    for kind in ("float32", dtype):
        made.written("openvino", found, Plan(dtype=kind, size=None, features=True), tmp_path / "m.xml")  # type: ignore[arg-type]
        sizes[kind] = (tmp_path / "m.bin").stat().st_size
    assert sizes[dtype] < 0.52 * sizes["float32"]
    engine = opened(tmp_path / "m.xml")
    assert engine.dtype == dtype
    for batch in (1, 2, 7):
        assert 1e-5 < off(engine, found, noise(batch)) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_processor_without_it_computes_in_float32_and_says_so(
    dtype: Dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made.checkpoint(tmp_path)
    made.written("openvino", found, Plan(dtype=dtype, size=None), tmp_path / "m.xml")
    monkeypatch.setitem(ir_file.NEEDS, dtype, "A CAPABILITY THAT NO PROCESSOR HAS")
    runtime, card = ir_file.open_file(tmp_path / "m.xml", device="cpu", threads=1)
    assert runtime.notes == [f"this processor does not compute in {dtype}: m.xml runs in float32"]
    assert off(ExportedEngine("m.xml", runtime, card), found, noise()) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", slow_except(["V1", "V2", "rms"], "V2"))
def test_squares_may_overflow_float16_and_values_may_not(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    found = made.checkpoint(tmp_path, config, changed=made.loud(config, 2000))
    made.written("openvino", found, Plan(dtype="float16", size=None), tmp_path / "m.xml")
    assert off(opened(tmp_path / "m.xml"), found, noise()) < TOLERANCE["float16"]
    found = made.checkpoint(tmp_path, config, changed=made.loud(config, 60000))
    with pytest.raises(ModelError, match="float16 ends at 65,504"):
        made.written("openvino", found, Plan(dtype="float16", size=None), tmp_path / "m.xml")


# Preprocessing --------------------------------------------------------------------------------------------------------


# A bicubic resize takes OpenVINO ten times as long to compile as a bilinear one
@pytest.mark.parametrize(
    ("name", "precision"),
    slow_except(
        [(name, "f32") for name in PREPROCESSINGS]
        + [(name, precision) for name in ("shortest, bicubic", "bilinear, floor") for precision in ("bf16", "f16")],
        *(("shortest, bicubic", "f32"), ("squash and crop", "f32"), ("bilinear, floor", "bf16")),
    ),
)
def test_preprocessing_is_pillows_to_the_byte(name: str, precision: str) -> None:
    """Whatever the runtime is asked to compute in: whole numbers stay what they are."""
    preprocessing = PREPROCESSINGS[name]
    photos = op.parameter([-1, -1, -1, 3], np.uint8)
    model = ov.Model([op.result(export_preprocessing.tensors(photos, preprocessing))], [photos], "preprocessing")
    assert list(model.output(0).get_partial_shape()) == [-1, 3, *preprocessing.size]
    request = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision}).create_infer_request()
    before_13 = int(Image.__version__.split(".")[0]) < 13  # tall photos in the other order
    for width, height in [*SIZES, (2500, 1875), (9000, 20)]:
        if before_13 and height > 2 * width:
            continue
        pictures = made.pictures((width, height))[: 1 if width > 1000 else 3]
        found = np.asarray(request.infer([np.stack([np.asarray(picture) for picture in pictures])])[0])
        wanted = np.stack([apply_preprocessing(preprocessing, picture) for picture in pictures])
        np.testing.assert_array_equal(found, wanted, err_msg=f"{width}×{height}")


@pytest.mark.parametrize("interpolation", slow_except(["bilinear", "bicubic"], "bilinear"))
def test_photos_are_no_further_off_than_tensors(interpolation: str, tmp_path: Path) -> None:
    """GRN makes much of small differences; and where the network is in bfloat16, its photos must not be."""
    preprocessing = Preprocessing(size=(64, 64), resize_to=(73, 73), interpolation=interpolation)  # type: ignore[arg-type]
    found = made.checkpoint(tmp_path, VARIANTS["convnextv2_atto"].replace(num_labels=9), preprocessing=preprocessing)
    pictures = made.pictures((251, 333))
    for dtype in ("float32", "bfloat16"):
        made.written("openvino", found, Plan(dtype=dtype, size=(64, 64)), tmp_path / "tensors.xml")  # type: ignore[arg-type]
        made.written("openvino", found, Plan(dtype=dtype, preprocessing=True), tmp_path / "photos.xml")  # type: ignore[arg-type]
        tensors = off(
            opened(tmp_path / "tensors.xml"),
            found,
            np.stack([apply_preprocessing(preprocessing, each) for each in pictures]),
        )
        photos = off(opened(tmp_path / "photos.xml"), found, np.stack([np.asarray(each) for each in pictures]))
        assert photos <= 1.5 * tensors + 1e-6
    assert photos < TOLERANCE["bfloat16"]


@pytest.mark.parametrize("dtype", slow_except(["float32", "float16", "bfloat16"], "float32"))
@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("preprocessing", slow_except(["bilinear, floor", "shortest, bicubic"], "bilinear, floor"))
def test_photos_go_in_as_they_are(preprocessing: str, batch: int | None, dtype: Dtype, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, V2, preprocessing=PREPROCESSINGS[preprocessing])
    made.written("openvino", found, Plan(dtype=dtype, batch=batch, preprocessing=True), tmp_path / "m.xml")
    engine = opened(tmp_path / "m.xml")
    assert engine.photos and engine.card.preprocessing == found.card.preprocessing
    for size in ((90, 120), (333, 251)):
        for n in (1, 2, 7):
            photos = np.stack([np.asarray(photo) for photo in (made.pictures(size) * 3)[:n]])
            assert off(engine, found, photos) < {"float32": CLOSE}.get(dtype, TOLERANCE.get(dtype))


@pytest.mark.parametrize("name", REFUSED)
def test_preprocessing_that_a_graph_cannot_hold_are_refused(name: str) -> None:
    preprocessing, words = REFUSED[name]
    with pytest.raises(UsageError, match=words):
        writer.refuse(Card(SMALL, preprocessing), Plan(preprocessing=True))


# int8 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slow_except([name for name in CONFIGS if name != "no classifier"], "V2"))
def test_int8_of_every_network(name: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, CONFIGS[name])
    plan = Plan(dtype="int8", size=None, features=True, calibration=made.calibration)
    made.written("openvino", found, plan, tmp_path / "m.xml")
    engine = opened(tmp_path / "m.xml")
    assert engine.dtype == "int8"
    for batch in (1, 2, 7):
        for height, width in ((64, 64), (70, 97)):
            assert 1e-4 < off(engine, found, noise(batch, height, width)) < 0.06


def test_int8_keeps_the_answers_of_the_default(tmp_path: Path) -> None:
    found = checkpoints.load(DEFAULT)
    photos = made.crops(found.card.preprocessing)
    made.written(
        "openvino", found, Plan(dtype="int8", size=None, calibration=lambda: iter(photos[::2])), tmp_path / "m.xml"
    )
    assert (tmp_path / "m.bin").stat().st_size < 0.31 * 4 * found.card.config.num_parameters
    made.written("openvino", found, Plan(size=None), tmp_path / "float32.xml")
    after, before = (opened(tmp_path / name)(photos[1::2]) for name in ("m.xml", "float32.xml"))
    assert (after.argmax(1) == before.argmax(1)).mean() >= 0.95


@pytest.mark.parametrize("preprocessing", slow_except(["bilinear, floor", "shortest, bicubic"], "bilinear, floor"))
def test_int8_with_all_around_it(preprocessing: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, V2, preprocessing=PREPROCESSINGS[preprocessing], temperature=1.5)
    plan = Plan(
        dtype="int8", batch=2, preprocessing=True, scores=True, features=True, calibration=made.calibration, threads=2
    )
    made.written("openvino", found, plan, tmp_path / "m.xml")
    engine = opened(tmp_path / "m.xml")
    assert off(engine, found, np.stack([np.asarray(photo) for photo in made.pictures((120, 90))])) < 0.06


def test_int8_takes_enough_photos(tmp_path: Path) -> None:
    plan = Plan(dtype="int8", size=None, calibration=lambda: made.calibration(3))
    with pytest.raises(UsageError, match="at least 16 photos, and there are 3"):
        made.written("openvino", made.checkpoint(tmp_path), plan, tmp_path / "m.xml")


# Files ----------------------------------------------------------------------------------------------------------------


def test_the_default_is_labelled_as_ever(tmp_path: Path, convnext: Run) -> None:
    found = checkpoints.load(DEFAULT)
    made.written("openvino", found, Plan(preprocessing=True, scores=True), tmp_path / "m.xml")
    ours = convnext("classify", "-f", "csv", "-k", "3", *SAMPLES).out
    theirs = convnext("classify", "-m", tmp_path / "m.xml", "-f", "csv", "-k", "3", *SAMPLES)
    assert theirs.status == 0
    for a, b in zip(ours.splitlines()[1:], theirs.out.splitlines()[1:], strict=True):
        assert [field for field in a.split(",") if "." not in field] == [f for f in b.split(",") if "." not in f]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    made.written("openvino", made.checkpoint(folder), Plan(size=None), folder / "m.xml")
    return folder


DAMAGE = {
    "a cut .bin": (".bin", lambda data: data[: len(data) // 2], "damaged or no OpenVINO model: .*weights"),
    "another .bin": (
        ".bin",
        lambda data: data[:400] + b"\1\2\3\4" + data[404:],
        r"m\.bin is damaged, or not of m\.xml",
    ),
    "a cut .xml": (".xml", lambda data: data[: len(data) // 2], "damaged or no OpenVINO model"),
    "no .xml": (".xml", lambda data: b"", "damaged or no OpenVINO model"),
    "other XML": (".xml", lambda data: b"<html></html>", "damaged or no OpenVINO model"),
    "an unknown operation": (
        ".xml",
        lambda data: data.replace(b'type="Convolution"', b'type="Confusion"'),
        "damaged or no OpenVINO model: .*Confusion",
    ),
    "no card": (".xml", lambda data: data.replace(b"<convnext value", b"<other value"), "has no card of convnext"),
    "a damaged card": (".xml", lambda data: data.replace(b"schema_version", b"version"), "card is damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told(name: str, whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    suffix, damage, words = DAMAGE[name]
    for each in (".xml", ".bin"):
        shutil.copy(whole / f"m{each}", tmp_path)
    file = (tmp_path / "m.xml").with_suffix(suffix)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=words) as told:
        opened(tmp_path / "m.xml")
    assert told.value.hint and capfd.readouterr() == ("", "")


def test_weights_that_are_not_there(whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole / "m.xml", tmp_path)
    with pytest.raises(ModelError, match=r"has its weights in m\.bin, which is not there"):
        opened(tmp_path / "m.xml")
    with pytest.raises(ModelError, match="does not exist"):
        opened(tmp_path / "none.xml")


def test_other_devices_are_not_there(whole: Path) -> None:
    with pytest.raises(UnavailableError, match="runs on the CPU, not on cuda"):
        open_engine(whole / "m.xml", device="cuda")


def test_missing_library_is_told_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="openvino is not installed") as told:
        writer.refuse(Card(SMALL), Plan())
    assert told.value.hint == "pip install openvino"
