"""LiteRT exports against network.py, with every option; and files that cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError, UnavailableError, UsageError
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.runtimes.exported import ExportedEngine
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.litert import export as writer
from convnext_cli.runtimes.reference import TOLERANCE
from convnext_cli.runtimes.select import open_engine
from tests.helpers import exports as made
from tests.helpers.command import Run
from tests.helpers.exports import CONFIGS, PREPROCESSINGS, REFUSED, SIZES, SMALL, V2, noise, off
from tests.helpers.paths import ROOT, SAMPLES
from tests.helpers.tiers import slow_except

pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from convnext_cli.runtimes.litert import export_preprocessing
from convnext_cli.runtimes.litert.graph import Graph

DEFAULT = ROOT / "weights" / "default.safetensors"
CLOSE = 1e-5  # of the range; seen: 1e-6


def opened(path: Path) -> ExportedEngine:
    found = open_engine(path, device="cpu")
    assert isinstance(found, ExportedEngine)
    return found


def model_of(path: Path) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))


# Every network, every option ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_every_network_in_any_batch_and_size(name: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, CONFIGS[name])
    card = made.written("tflite", found, Plan(size=None, features=True), tmp_path / "m.tflite")
    engine = opened(tmp_path / "m.tflite")
    assert (engine.name, engine.device, engine.dtype) == ("litert", "cpu", "float32")
    assert engine.export == card.export
    for batch in (1, 2, 7):
        for height, width in ((64, 64), (70, 97)):
            assert off(engine, found, noise(batch, height, width)) < CLOSE


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("size", [None, (64, 80)])
def test_batch_and_size_are_what_was_asked_for(batch: int | None, size: tuple[int, int] | None, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path)
    made.written("tflite", found, Plan(batch=batch, size=size, features=True), tmp_path / "m.tflite")
    interpreter = Interpreter(str(tmp_path / "m.tflite"))
    (given,) = interpreter.get_input_details()
    assert given["name"] == "pixel_values"
    assert list(given["shape_signature"]) == [batch or -1, 3, *(size or (-1, -1))]
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["pixel_values"], "outputs": ["features", "logits"]}
    }
    assert [output["name"] for output in interpreter.get_output_details()] == ["logits", "features"]
    engine = opened(tmp_path / "m.tflite")
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
    made.written("tflite", found, Plan(size=None, scores=True, features=True), tmp_path / "m.tflite")
    engine = opened(tmp_path / "m.tflite")
    x = noise(3)
    assert off(engine, found, x) < CLOSE
    scores, logits = engine.outputs(x)[0], engine(x)
    odds = np.exp(logits)
    again = odds / (odds.sum(1, keepdims=True) if problem == "single_label" else 1 + odds)
    np.testing.assert_allclose(again, scores, rtol=1e-5)


@pytest.mark.parametrize("plan", [Plan(), Plan("float16"), Plan("int8"), Plan(preprocessing=True, scores=True)])
def test_operations_are_built_in_and_weights_are_aligned(plan: Plan, tmp_path: Path) -> None:
    made.written("tflite", made.checkpoint(tmp_path, V2), plan, tmp_path / "m.tflite")
    assert all(
        code.builtinCode != schema.BuiltinOperator.CUSTOM for code in model_of(tmp_path / "m.tflite").operatorCodes
    )
    data = (tmp_path / "m.tflite").read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength()) if model.Buffers(i).DataLength()]
    starts = [np.frombuffer(data, np.uint8).ctypes.data, *(b.DataAsNumpy().ctypes.data for b in buffers)]
    assert len(starts) > 20 and all((start - starts[0]) % 16 == 0 for start in starts)


def test_the_card_is_in_the_metadata_whole(tmp_path: Path) -> None:
    names = ['say "cheese"', "Käse\\", "奶酪", "<cheese>\t\n", *(f"class {i}" for i in range(21837))]
    found = made.checkpoint(tmp_path, SMALL.replace(num_labels=len(names)))
    found.card = found.card.replace(labels=LabelSet.from_names("x", names))
    card = made.written("tflite", found, Plan(size=None), tmp_path / "m.tflite")
    assert list(opened(tmp_path / "m.tflite").card.label_set().names) == names
    model = model_of(tmp_path / "m.tflite")
    (entry,) = model.metadata
    assert entry.name == b"convnext"
    assert bytes(model.buffers[entry.buffer].data).decode() == card.to_json(full=True)


# float16 and int8 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slow_except(["V1", "V2", "rms", "hidden head"], "V2"))
def test_float16_is_half_the_file(name: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, CONFIGS[name].replace(hidden_sizes=(16, 32, 64, 128)))
    made.written("tflite", found, Plan("float16", size=None, features=True), tmp_path / "m.tflite")
    assert (tmp_path / "m.tflite").stat().st_size < 2.4 * found.card.config.num_parameters
    engine = opened(tmp_path / "m.tflite")
    assert engine.dtype == "float16"
    for batch in (1, 2, 7):
        assert 1e-5 < off(engine, found, noise(batch)) < TOLERANCE["float16"]


def test_what_float16_does_not_hold_is_refused(tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, changed=made.loud(SMALL, 60000))
    with pytest.raises(ModelError, match="float16 ends at 65,504"):
        made.written("tflite", found, Plan("float16"), tmp_path / "m.tflite")
    # weights whose products are small again
    last = {"norm.weight": 1e-6 * found.tensors["norm.weight"], "norm.bias": 1e-6 * found.tensors["norm.bias"]}
    found = made.checkpoint(tmp_path, changed=last | {"head.weight": 1e6 * found.tensors["head.weight"]})
    made.written("tflite", found, Plan(), tmp_path / "m.tflite")
    with pytest.raises(ModelError, match="too large for float16"):
        made.written("tflite", found, Plan("float16", features=True), tmp_path / "m.tflite")


@pytest.mark.parametrize("name", slow_except(CONFIGS, "V2"))
def test_int8_of_every_network(name: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, CONFIGS[name])
    made.written("tflite", found, Plan("int8", size=None, features=True), tmp_path / "m.tflite")
    engine = opened(tmp_path / "m.tflite")
    assert engine.dtype == "int8"
    for batch in (1, 2, 7):
        for height, width in ((64, 64), (70, 97)):
            assert 1e-4 < off(engine, found, noise(batch, height, width)) < 0.06


def test_int8_keeps_the_answers_of_the_default(tmp_path: Path) -> None:
    found = checkpoints.load(DEFAULT)
    photos = made.crops(found.card.preprocessing)
    for plan, name in ((Plan(size=None), "float32.tflite"), (Plan("int8", size=None), "m.tflite")):
        made.written("tflite", found, plan, tmp_path / name)
    assert (tmp_path / "m.tflite").stat().st_size < 0.31 * 4 * found.card.config.num_parameters
    after, before = (opened(tmp_path / name)(photos) for name in ("m.tflite", "float32.tflite"))
    assert (after.argmax(1) == before.argmax(1)).mean() >= 0.95


# Preprocessing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_preprocessing_is_pillows_byte_for_byte(name: str, tmp_path: Path) -> None:
    preprocessing, graph = PREPROCESSINGS[name], Graph()
    photos = graph.input(np.uint8, (1, *preprocessing.size, 3), (-1, -1, -1, 3))
    graph.save(
        tmp_path / "m.tflite",
        ("photos", photos),
        {"x": export_preprocessing.tensor_of(photos, graph, preprocessing)},
        {},
    )
    interpreter = Interpreter(str(tmp_path / "m.tflite"))
    before_13 = int(Image.__version__.split(".")[0]) < 13  # tall photos in the other order
    levels = np.array(preprocessing.std).reshape(3, 1, 1) / preprocessing.rescale
    for width, height in SIZES:
        if before_13 and height > 2 * width:
            continue
        pictures = made.pictures((width, height))
        interpreter.resize_tensor_input(0, (len(pictures), height, width, 3))
        interpreter.allocate_tensors()
        interpreter.set_tensor(0, np.stack([np.asarray(picture) for picture in pictures]))
        interpreter.invoke()
        (output,) = interpreter.get_output_details()
        found = interpreter.get_tensor(output["index"]).transpose(0, 3, 1, 2)
        wanted = np.stack([apply_preprocessing(preprocessing, picture) for picture in pictures])
        assert np.abs((found - wanted) * levels).max() < 1e-3, f"{width}×{height}"


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_photos_go_in_as_they_are(batch: int | None, dtype: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, V2, temperature=1.5)
    plan = Plan(dtype, batch=batch, preprocessing=True, scores=True, features=True)  # type: ignore[arg-type]
    made.written("tflite", found, plan, tmp_path / "m.tflite")
    engine = opened(tmp_path / "m.tflite")
    assert engine.photos and engine.card.preprocessing == found.card.preprocessing
    for size in ((90, 120), (333, 251)):
        for n in (1, 2, 7):
            photos = np.stack([np.asarray(photo) for photo in (made.pictures(size) * 3)[:n]])
            assert off(engine, found, photos) < {"float32": CLOSE, "float16": TOLERANCE["float16"]}[dtype]


@pytest.mark.parametrize("name", REFUSED)
def test_preprocessing_that_a_graph_cannot_hold_are_refused(name: str) -> None:
    preprocessing, words = REFUSED[name]
    with pytest.raises(UsageError, match=words):
        writer.refuse(Card(SMALL, preprocessing), Plan(preprocessing=True))


# Files ----------------------------------------------------------------------------------------------------------------


def test_the_default_is_labelled_as_ever_and_nothing_is_said(tmp_path: Path, convnext: Run) -> None:
    target = tmp_path / "m.tflite"
    done = convnext("export", "-o", target, "--with-preprocessing", "--with-softmax", "-q")
    assert (done.status, done.err) == (0, "")
    ours = convnext("classify", "-f", "csv", "-k", "3", *SAMPLES)
    theirs = convnext("classify", "-m", target, "-f", "csv", "-k", "3", *SAMPLES)
    assert theirs.status == 0 and "TensorFlow" not in theirs.err
    for a, b in zip(ours.out.splitlines()[1:], theirs.out.splitlines()[1:], strict=True):
        assert [field for field in a.split(",") if "." not in field] == [f for f in b.split(",") if "." not in f]


def test_a_process_of_its_own_says_nothing_either(whole: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from convnext_cli.runtimes.litert import tflite_file; "
        "found, card = tflite_file.open_file(Path(sys.argv[1]), device='auto', threads=2); "
        "print(found.run(np.zeros((2, 3, 64, 64), np.float32))[0].shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, whole], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(2, 7) False\n", "")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    made.written("tflite", made.checkpoint(folder), Plan(size=None), folder / "m.tflite")
    return folder / "m.tflite"


DAMAGE = {
    "empty": (lambda data: b"", "damaged or no LiteRT model"),
    "cut": (lambda data: data[: len(data) // 2], "damaged or no LiteRT model"),
    "zeros": (lambda data: data[: len(data) // 2] + bytes(500) + data[len(data) // 2 + 500 :], "m.tflite is damaged$"),
    "something else": (lambda data: b"PK\3\4" * 100, "damaged or no LiteRT model"),
    "no card": (lambda data: data.replace(b"convnext\0", b"convnet\0\0"), "has no card of convnext"),
    "a damaged card": (lambda data: data.replace(b"schema_version", b"version_schema"), "card is damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told(name: str, whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damage, words = DAMAGE[name]
    data = whole.read_bytes()
    (tmp_path / "m.tflite").write_bytes(damage(data if name == "zeros" else data[:-26]))  # without its checksum
    with pytest.raises(ModelError, match=words) as told:
        opened(tmp_path / "m.tflite")
    assert told.value.hint and capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is not limited in this way")
def test_a_batch_that_memory_does_not_hold(whole: Path) -> None:
    code = (
        "import resource, sys, numpy as np; from pathlib import Path\n"
        "from convnext_cli.runtimes.litert import tflite_file; "
        "found, card = tflite_file.open_file(Path(sys.argv[1]), device='auto', threads=1); "
        "x = np.zeros((9000, 3, 64, 64), np.float32); used = int(Path('/proc/self/statm').read_text().split()[0]); "
        "resource.setrlimit(resource.RLIMIT_AS, (4096 * used + 2**28,) * 2)\n"
        "try: found.run(x)\n"
        "except MemoryError: print('too much', found.run(x[:2])[0].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, whole], capture_output=True, text=True, check=True)
    assert done.stdout == "too much (2, 7)\n"


def test_other_devices_are_not_there(whole: Path) -> None:
    with pytest.raises(UnavailableError, match="runs on the CPU, not on cuda"):
        open_engine(whole, device="cuda")


@pytest.mark.parametrize(
    ("config", "plan", "words"),
    [
        (SMALL, Plan("bfloat16"), "no arithmetic in bfloat16"),
        (VARIANTS["convnext_xxlarge"], Plan(), "3.4 GB in float32, and a .tflite file holds 2 GB"),
    ],
)
def test_what_the_format_cannot_do_is_refused(config: Any, plan: Plan, words: str) -> None:
    with pytest.raises(UsageError, match=words) as told:
        writer.refuse(Card(config), plan)
    assert "float16" in str(told.value.hint)


def test_a_missing_library_is_told_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="LiteRT is not installed") as told:
        writer.refuse(Card(SMALL), Plan())
    assert told.value.hint == "pip install ai-edge-litert"
