"""Engines without torch: the graph against the network, and what is kept of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convnext_cli import zoo
from convnext_cli.base.errors import UnavailableError, UsageError
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS, ConvNextConfig
from convnext_cli.model.network import build
from convnext_cli.runtimes import cache, reference
from convnext_cli.runtimes.build import build_engines
from convnext_cli.runtimes.openvino.engine import OpenVINOEngine, graph, split
from convnext_cli.runtimes.select import open_engine
from tests.helpers.command import Run
from tests.helpers.paths import ROOT, SAMPLES
from tests.helpers.tiers import slow_except
from tests.helpers.weights import SMALL, random_tensors, write_model

CONFIGS = {
    "v1": SMALL,
    "v2": SMALL.replace(use_grn=True, layer_scale_init_value=0.0),
    "norm before the pool": SMALL.replace(head_norm="before_pool"),
    "no head": SMALL.replace(num_labels=0),
    "no head, no norm": SMALL.replace(num_labels=0, head_norm="none"),
    "hidden head": SMALL.replace(head_hidden_size=20, hidden_act="silu"),
    "rms, overlapping stem": SMALL.replace(norm="rms", norm_bias=False, stem="overlap", stem_width=6),
    "simple, overlapping stem": SMALL.replace(norm="simple", norm_bias=False, stem="overlap_act", stem_width=6),
    "patch 2": SMALL.replace(patch_size=2, stem_downsample=True, hidden_act="gelu_tanh"),
    "odd kernels, no biases": SMALL.replace(
        kernel_sizes=(7, 5, 5, 3), conv_bias=False, mlp_bias=False, head_bias=False, hidden_act="relu"
    ),
    "isotropic": VARIANTS["convnext_isotropic_small"].replace(depths=(2,), hidden_sizes=(24,), num_labels=7),
}


def logits64(config: ConvNextConfig, tensors: dict[str, torch.Tensor], x: np.ndarray) -> np.ndarray:
    """What network.py gives in float64."""
    network = build(config, {name: tensor.double() for name, tensor in tensors.items()})
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(x).double()).logits)


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_graph_is_the_network(config: ConvNextConfig) -> None:
    tensors = random_tensors(config)
    engine = OpenVINOEngine(graph(config, arrays(tensors)), Card(config), batch_size=3)
    for shape in ((1, 3, 64, 64), (3, 3, 64, 64), (3, 3, 96, 64), (2, 3, 75, 101)):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        assert reference.difference(engine(x), logits64(config, tensors, x)) < 2e-6
    assert (engine.name, engine.device, engine.dtype) == ("openvino", "cpu", "float32")


@pytest.mark.parametrize("photos", [1, 2, 3, 4, 5, 8, 23])
@pytest.mark.parametrize(("batch_size", "threads"), [(4, 1), (4, 2), (8, 2), (1, 2)])
def test_batches_that_are_not_full_get_the_same_answers(batch_size: int, threads: int, photos: int) -> None:
    tensors, card = random_tensors(SMALL), Card(SMALL)
    card = card.replace(preprocessing=card.preprocessing.at_size(64))
    engine = OpenVINOEngine(graph(SMALL, arrays(tensors)), card, batch_size=batch_size, threads=threads)
    x = np.random.default_rng(2).standard_normal((photos, 3, 64, 64)).astype(np.float32)
    logits = engine(x)
    assert logits.shape[0] == photos
    assert reference.difference(logits, logits64(SMALL, tensors, x)) < 2e-6
    np.testing.assert_array_equal(engine(x), logits)
    assert "open" not in engine._forms, "which rounds otherwise in bfloat16"


@pytest.mark.parametrize(
    ("batch_size", "threads", "streams", "part"),
    [(1, 2, 1, 1), (3, 2, 1, 3), (4, 2, 2, 2), (6, 2, 2, 3), (8, 1, 1, 8), (8, 2, 2, 2), (8, 3, 1, 8), (8, 16, 4, 2)],
)
def test_threads_and_photos_are_shared_evenly(batch_size: int, threads: int, streams: int, part: int) -> None:
    assert split(batch_size, threads) == (streams, part)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_parameter_matters(config: ConvNextConfig) -> None:
    """So that a graph without it would not pass the test above."""
    tensors, others = random_tensors(config), random_tensors(config, seed=5)
    x = np.random.default_rng(1).standard_normal((1, 3, 64, 64)).astype(np.float32)
    before = logits64(config, tensors, x)
    for name in tensors:
        after = logits64(config, tensors | {name: others[name]}, x)
        assert reference.difference(after, before) > 1e-5, name


def test_float32_is_float32_where_the_processor_would_rather_not() -> None:
    tensors = random_tensors(SMALL)
    x = reference.reference_input(64, 64)
    wanted = logits64(SMALL, tensors, x)
    made = {}
    for dtype in ("float32", "bfloat16"):
        try:
            made[dtype] = OpenVINOEngine(graph(SMALL, arrays(tensors)), Card(SMALL), dtype=dtype)
        except UnavailableError:
            pytest.skip(f"this processor has no {dtype}")
        assert made[dtype].dtype == dtype
    assert reference.difference(made["float32"](x), wanted) < 2e-6
    assert 1e-4 < reference.difference(made["bfloat16"](x), wanted) < reference.TOLERANCE["bfloat16"]


def test_a_precision_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnavailableError, match="does not compute in float16"):
        OpenVINOEngine(graph(SMALL, arrays(random_tensors(SMALL))), Card(SMALL), dtype="float16")


def test_the_reference_of_the_default_is_true() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    from make_answer import answer

    written, made = json.loads((ROOT / "weights" / "reference.json").read_text()), answer()
    assert written["sha256"] == made["sha256"]
    np.testing.assert_allclose(written["logits"], made["logits"], rtol=0, atol=1e-8)


def loaded(arguments: list[Any], home: Path) -> tuple[set[str], str]:
    """Which libraries a command has imported at its end, and what it printed."""
    code = (
        "import sys; from convnext_cli.cli import run; status = run(sys.argv[1:]); "
        "print(status, [m for m in ('torch', 'torchvision', 'openvino', 'openvino_telemetry') if m in sys.modules])"
    )
    environment = os.environ | {"CONVNEXT_HOME": str(home)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    status, _, modules = done.stdout.splitlines()[-1].partition(" ")
    assert status == "0", done.stderr
    return set(json.loads(modules.replace("'", '"'))), done.stdout + done.stderr


def test_the_first_answer_of_the_default_needs_no_torch(home: Path) -> None:
    assert loaded(["classify", SAMPLES[0]], home)[0] == {"openvino"}
    assert not any(home.rglob("*.xml"))


def test_a_default_that_answers_otherwise_is_not_trusted(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(ROOT / "weights" / "default.safetensors", tmp_path))
    answer = json.loads((ROOT / "weights" / "reference.json").read_text())
    answer["logits"][0][3] += 0.1
    path.with_name("reference.json").write_text(json.dumps(answer))
    monkeypatch.setattr(zoo.local_files, "bundled", lambda: path)
    assert open_engine(path).name == "torch"


def test_an_unknown_model_is_answered_by_torch_and_prepared_then(home: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "own.safetensors")
    command = ["classify", "-m", model, "--json", SAMPLES[0]]
    first, told = loaded(command, home)
    assert "torch" in first
    assert told.count("preparing own") == 1
    second, told_then = loaded(command, home)
    assert "torch" not in second  # OpenVINO, or ONNX Runtime where that was faster
    assert "prepar" not in told_then
    ours, theirs = (json.loads(text[: text.rindex("]\n") + 1].split("\n0 [")[0]) for text in (told, told_then))
    for mine, other in zip(ours[0]["predictions"], theirs[0]["predictions"], strict=True):
        assert mine["index"] == other["index"]
        assert mine["score"] == pytest.approx(other["score"], abs=1e-5)


def test_a_folder_is_prepared_before(convnext: Run, home: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "own.safetensors")
    done = convnext("classify", "-r", str(ROOT / "samples"), "-m", str(model), "-v", "-f", "csv")
    assert done.status == 0
    assert done.err.count("preparing own") == 1
    chosen = cache.choice(cache.known(model).card, "float32").best("throughput")  # type: ignore[union-attr]
    assert f"engine: {chosen.split()[0]} on cpu" in done.err


def test_what_cannot_be_kept_is_said_and_still_answers(home: Path, tmp_path: Path) -> None:
    (home / "cache").write_text("a file where the folder should be")
    model, said = write_model(tmp_path / "own.safetensors"), list[str]()
    engine = open_engine(model, engine="openvino", prepare=True, say=said.append)
    assert engine.name == "openvino"
    assert any("cannot be written" in text for text in said)


@pytest.fixture
def openvino_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of two is faster for a small network may change from run to run."""
    from convnext_cli.runtimes import build as making

    there = making.find_spec
    monkeypatch.setattr(making, "find_spec", lambda name: None if name == "onnxruntime" else there(name))


@pytest.fixture
def kept(home: Path, tmp_path: Path, openvino_alone: None) -> tuple[Path, cache.Entry]:
    """A model that is prepared, and its entry."""
    model = write_model(tmp_path / "own.safetensors")
    for engine in build_engines(model, keep="openvino").engines.values():
        engine.close()
    known = cache.known(model)
    assert known is not None
    entry = cache.find(known.card, "openvino", "float32")
    assert entry is not None
    assert entry.intact()
    return model, entry


def spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "one bit":
        content[len(content) // 3] ^= 4
        path.write_bytes(content)
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "how"),
    slow_except(
        product(("model.bin", "model.xml", "entry.json"), ("gone", "cut", "one bit", "empty")),
        *(("model.bin", "one bit"), ("model.bin", "gone"), ("model.xml", "cut"), ("entry.json", "empty")),
    ),
)
def test_a_damaged_entry_is_never_used(kept: tuple[Path, cache.Entry], name: str, how: str) -> None:
    model, entry = kept
    x = reference.reference_input(64, 64)
    before = open_engine(model, engine="openvino")(x)
    spoil(entry.folder / name, how)
    said = list[str]()
    engine = open_engine(model, engine="openvino", prepare=True, say=said.append)
    np.testing.assert_array_equal(engine(x), before)
    # an entry that cannot be read is none
    assert any("is damaged" in text for text in said) == (name != "entry.json")
    again = cache.find(engine.card, "openvino", "float32")
    assert again is not None
    assert again.intact()


def test_a_cache_that_keeps_nothing_is_said_behind_the_answer(home: Path, convnext: Run, tmp_path: Path) -> None:
    model = write_model(tmp_path / "own.safetensors")
    cache.root().mkdir(parents=True, exist_ok=True)
    (cache.root() / "engines").touch()  # where a folder is wanted
    done = convnext("classify", "-m", str(model), SAMPLES[0])
    assert done.status == 0
    assert "it will be prepared again next time" in done.err and "from now on" not in done.err


def test_a_lost_entry_is_made_again_behind_the_answer(convnext: Run, kept: tuple[Path, cache.Entry]) -> None:
    model, entry = kept
    spoil(entry.folder / "model.bin", "one bit")
    for engine, preparing in (("torch", 1), ("openvino", 0)):
        done = convnext("classify", "-m", str(model), "-v", "--json", SAMPLES[0])
        assert done.status == 0
        assert f"engine: {engine}" in done.err
        assert done.err.count("preparing own") == preparing  # "preparing" may also be the stage that limits


def test_changed_weights_are_new_weights(kept: tuple[Path, cache.Entry]) -> None:
    model, _ = kept
    write_model(model, seed=1)
    assert cache.known(model) is None
    assert open_engine(model).name == "torch"


def test_json_beside_the_weights_counts(kept: tuple[Path, cache.Entry], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(kept[0], folder / "model.safetensors")
    build_engines(folder)
    assert cache.known(folder) is not None
    (folder / "preprocessor_config.json").write_text("{}")
    assert cache.known(folder) is None


def test_another_version_of_the_runtime_makes_its_own(
    kept: tuple[Path, cache.Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = cache.known(kept[0]).card  # type: ignore[union-attr]
    monkeypatch.setattr(cache, "installed", lambda: {"openvino": "1999.1"})
    assert cache.find(card, "openvino", "float32") is None
    assert cache.choice(card, "float32") is None


@pytest.mark.parametrize(
    ("times", "best"),
    [
        ({"torch": 2.0, "openvino": 1.0}, "openvino"),
        ({"torch": 2.0, "openvino": 1.09, "onnxruntime": 1.0}, "openvino"),
        ({"openvino": 1.2, "onnxruntime": 1.0}, "onnxruntime"),
        ({"torch": 3.0, "torch --compile": 1.0, "openvino": 2.0}, "torch --compile"),
        ({"torch": 3.0}, "torch"),
        ({}, "torch"),
    ],
)
def test_the_clearly_fastest_is_chosen(times: dict[str, float], best: str) -> None:
    assert cache.Choice({"throughput": times}).best("throughput") == best


def test_another_processor_measures_for_itself(kept: tuple[Path, cache.Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    card = cache.known(kept[0]).card  # type: ignore[union-attr]
    assert cache.choice(card, "float32") is not None
    monkeypatch.setattr("convnext_cli.base.machine.processor", lambda: "another")
    assert cache.choice(card, "float32") is None
    assert cache.find(card, "openvino", "float32") is not None


@pytest.mark.slow
def test_two_that_prepare_at_once_leave_one_whole_entry(home: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "own.safetensors")
    code = (
        "import sys; from pathlib import Path; from convnext_cli.runtimes.build import build_engines\n"
        "build_engines(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(model)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: subprocess.run(command, check=True, env=os.environ), range(2)))
    entries = cache.entries()
    assert entries
    assert all(entry.intact() for entry in entries)
    assert {path.name for path in (home / "cache" / "engines").iterdir()} == {e.folder.name for e in entries}
    assert len({entry.engine for entry in entries}) == len(entries)


def test_a_graph_that_is_wrong_is_left_out(
    home: Path, tmp_path: Path, openvino_alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convnext_cli.runtimes.openvino import engine as openvino

    right = openvino.graph

    def wrong(config: ConvNextConfig, tensors: dict[str, np.ndarray]) -> Any:
        name = "stages.0.0.pwconv2.bias"
        return right(config, {**tensors, name: tensors[name] + 1})

    monkeypatch.setattr(openvino, "graph", wrong)
    model = write_model(tmp_path / "own.safetensors")
    done = build_engines(model)
    assert "openvino" not in done.engines
    assert any("openvino differs from the network" in text for text in done.refused)
    assert open_engine(model, prepare=True).name == "torch"
    with pytest.raises(UnavailableError, match="differs from the network"):
        open_engine(model, engine="openvino", prepare=True)


def test_entries_that_nobody_uses_go(kept: tuple[Path, cache.Entry], tmp_path: Path) -> None:
    old = time.time() - 61 * 24 * 3600
    os.utime(kept[1].folder / "entry.json", (old, old))
    build_engines(write_model(tmp_path / "other.safetensors", seed=2), keep="openvino")
    assert {entry.name for entry in cache.entries()} == {"other"}


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        ({"compiled": True, "engine": "openvino"}, UsageError, "--compile is for torch"),
        ({"engine": "openvino", "device": "cuda"}, UnavailableError, "on the CPU"),
        ({"engine": "onnxruntime", "device": "cuda"}, UnavailableError, "on the CPU"),
        ({"dtype": "int8"}, UnavailableError, "not prepared in int8"),
        ({"device": "cuda"}, UnavailableError, "cuda"),
    ],
)
def test_impossible_wishes(
    home: Path, tmp_path: Path, wish: dict[str, Any], error: type[Exception], words: str
) -> None:
    if wish.get("device") == "cuda" and "engine" not in wish and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(error, match=words):
        open_engine(write_model(tmp_path / "own.safetensors"), **wish)


def test_an_onnx_file_has_its_own_precision(home: Path, tmp_path: Path) -> None:
    from convnext_cli.runtimes.onnx import graph as onnx_graph

    onnx_graph.save(onnx_graph.graph(SMALL, arrays(random_tensors(SMALL))), tmp_path / "own.onnx")
    assert open_engine(tmp_path / "own.onnx").name == "onnxruntime"
    for wish, words in (({"dtype": "bfloat16"}, "computes in float32"), ({"engine": "torch"}, "only onnxruntime")):
        with pytest.raises(UsageError, match=words):
            open_engine(tmp_path / "own.onnx", **wish)


def test_the_prepare_command(convnext: Run, home: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "own.safetensors")
    done = convnext("prepare", "-m", str(model), "--json")
    assert done.status == 0
    told = json.loads(done.out)
    assert told["chosen"].keys() == told["ms_per_photo"].keys() == {"latency", "throughput"}
    assert told["difference"]["openvino"] < 2e-6
    assert "openvino" in convnext("prepare", "-m", str(model)).out
    rows = json.loads(convnext("prepare", "--list", "--json").out)
    assert {(row["model"], row["dtype"]) for row in rows} == {("own", "float32")}
    assert "own" in convnext("prepare", "--list").out
    assert convnext("prepare", "--clear").status == 0
    assert not cache.entries()
    assert "nothing is prepared" in convnext("prepare", "--list").err
    assert convnext("prepare", "--dtype", "int8").status == 2
    assert convnext("prepare", "--calibrate", "x").status == 2


def test_stopping_the_preparation_keeps_the_answer(
    convnext: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("convnext_cli.runtimes.build.build_engines", stopped)
    done = convnext("classify", "-m", str(write_model(tmp_path / "own.safetensors")), "--json", SAMPLES[0])
    assert done.status == 0
    assert json.loads(done.out)[0]["status"] == "ok"
    assert "not prepared: stopped" in done.err
