"""TorchScript, torch.export and AOTInductor files against network.py; what is damaged, foreign or malicious."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convnext_cli.base.errors import ModelError, UnavailableError, UsageError
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import Card
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.runtimes.exported import ExportedEngine
from convnext_cli.runtimes.exporting.plan import Dtype, Plan
from convnext_cli.runtimes.reference import TOLERANCE
from convnext_cli.runtimes.registry import FORMATS
from convnext_cli.runtimes.select import open_exported
from convnext_cli.runtimes.torch import program as torch_program
from convnext_cli.runtimes.torch import pt2_file
from tests.helpers import exports as made
from tests.helpers.command import Run
from tests.helpers.exports import CONFIGS, FAST, PREPROCESSINGS, REFUSED, SIZES, SMALL, V2, noise, off
from tests.helpers.tiers import slow_except
from tests.helpers.weights import random_tensors

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
RECORDED = {"torchscript": ".ts", "torch-export": ".pt2"}
CLOSE = 1e-6  # of the range; seen: 1e-7, of AOTInductor 4e-7
# the tallest goes down first, the others across
PHOTOS = [(480, 640), (333, 251), (31, 45), (1, 1), (7, 1), (1000, 300)]


def photos(n: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, height, width, 3), np.uint8)


def opened(form: str, found: Checkpoint, plan: Plan, folder: Path) -> ExportedEngine:
    path = folder / f"m{FORMATS[form].suffix}"
    card = made.written(form, found, plan, path)
    engine = open_exported(path)
    assert (engine.name, engine.device, engine.card) == (form, "cpu", card.replace(labels=engine.card.labels))
    return engine


# Every network, every option ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    slow_except(product(CONFIGS, RECORDED), *product(FAST, ["torchscript"]), ("V2", "torch-export")),
)
def test_every_network_in_any_batch_and_size(name: str, form: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    found = made.checkpoint(tmp_path, config)
    engine = opened(form, found, Plan(size=None, features=True), tmp_path)
    stride = config.stride
    for batch in (1, 2, 7, 20):
        for height, width in ((64, 64), (70, 97), (stride, stride)):
            assert off(engine, found, noise(batch, height, width)) < CLOSE
    engine.close()


@pytest.mark.parametrize(
    ("batch", "form"),
    slow_except(product([None, 1, 3], RECORDED), *product([None, 1, 3], ["torchscript"]), (3, "torch-export")),
)
def test_batch_and_size_are_what_was_asked_for(batch: int | None, form: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path)
    engine = opened(form, found, Plan(batch=batch, size=(64, 80)), tmp_path)
    for n in (1, 2, 7):
        assert off(engine, found, noise(n, 64, 80)) < CLOSE
    with pytest.raises(ModelError, match="takes photos of 64×80 pixels, not 96×96"):
        engine(noise(1, 96, 96))


@pytest.mark.parametrize("form", RECORDED)
def test_sizes_beyond_the_open_ones_are_refused(form: str, tmp_path: Path) -> None:
    config = SMALL.replace(depths=(1, 1, 1, 1))
    engine = opened(form, made.checkpoint(tmp_path, config), Plan(size=None), tmp_path)
    for height, width in ((31, 64), (64, 4097)):
        with pytest.raises(ModelError, match=f"32 to 4096 pixels an edge, not {height}×{width}"):
            engine(noise(1, height, width))


@pytest.mark.parametrize(
    ("problem", "form"),
    slow_except(
        product(["single_label", "multi_label"], RECORDED),
        *(("single_label", "torch-export"), ("multi_label", "torchscript")),
    ),
)
def test_scores_have_the_temperature_in_them(problem: Any, form: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, problem=problem, temperature=0.6)
    engine = opened(form, found, Plan(size=(64, 64), scores=True, features=True), tmp_path)
    x = noise(3)
    assert off(engine, found, x) < CLOSE
    scores, logits = engine.outputs(x)[0], engine(x)
    again = 1 / (1 + np.exp(-logits)) if problem == "multi_label" else np.exp(logits)
    np.testing.assert_allclose(again, scores, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "form"),
    slow_except(
        [(name, "torchscript") for name in ("V1", "V2", "rms", "simple", "hidden head", "norm before the pool")]
        + [(name, "torch-export") for name in ("V1", "V2")],
        ("V2", "torchscript"),
        ("V2", "torch-export"),
    ),
)
def test_half_precision_is_half_the_file(name: str, form: str, dtype: Dtype, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, CONFIGS[name].replace(hidden_sizes=(32, 64, 128, 256)))
    engine = opened(form, found, Plan(dtype=dtype, size=(64, 64), features=True, scores=True), tmp_path)
    assert engine.dtype == dtype
    weights = sum(tensor.nbytes for tensor in found.tensors.values())
    program = 700_000  # bytes of its text
    assert (tmp_path / f"m{FORMATS[form].suffix}").stat().st_size < weights / 2 + program
    for batch in (1, 2, 7):
        assert off(engine, found, noise(batch)) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", ["V1", "V2", "rms"])
def test_squares_that_overflow_float16_are_made_in_float32(name: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, CONFIGS[name], changed=made.loud(CONFIGS[name], 2000))
    engine = opened("torchscript", found, Plan(dtype="float16", size=None), tmp_path)
    assert off(engine, found, noise(3)) < TOLERANCE["float16"]


@pytest.mark.parametrize("form", [*RECORDED, "aoti"])
def test_values_that_overflow_float16_are_refused(form: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, V2, changed=made.loud(V2, 60000))
    with pytest.raises(ModelError, match="float16 ends at 65,504"):
        made.written(form, found, Plan(dtype="float16"), tmp_path / "m.pt2")


@pytest.mark.parametrize("form", [*RECORDED, "aoti"])
def test_int8_is_refused(form: str) -> None:
    with pytest.raises(UsageError, match="torchao"):
        FORMATS[form].load_writer().refuse(Card(SMALL), Plan(dtype="int8"))


def test_it_is_torchs_own_format(tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path)
    for form, suffix in RECORDED.items():
        made.written(form, found, Plan(size=(64, 64), features=True), tmp_path / f"m{suffix}")
    x = torch.from_numpy(noise(2))
    extra = {"convnext": ""}
    by_script = torch.jit.load(tmp_path / "m.ts", _extra_files=extra)(x)
    assert json.loads(extra["convnext"])["export"]["format"] == "torchscript"
    program = torch.export.load(tmp_path / "m.pt2", extra_files=extra)
    assert json.loads(extra["convnext"])["export"]["format"] == "torch-export"
    by_program = program.module()(x)
    for given, wanted in zip(by_script, by_program, strict=True):
        torch.testing.assert_close(given, wanted)


# Preprocessing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_preprocessing_is_pillows_to_the_byte(name: str) -> None:
    preprocessing = PREPROCESSINGS[name]
    scripted = torch.jit.script(torch_program.Prepare(preprocessing))
    before_13 = int(Image.__version__.split(".")[0]) < 13  # which resizes tall photos in the other order
    deviation = np.array(preprocessing.std)[:, None, None] * 255
    for size in SIZES:
        for picture in made.pictures(size)[:2]:
            given = scripted(torch.from_numpy(np.array(picture))[None])[0].numpy()
            levels = np.abs(given - apply_preprocessing(preprocessing, picture)) * deviation
            assert levels.max() < (1.01 if before_13 else 1e-3)


@pytest.mark.parametrize("form", RECORDED)
@pytest.mark.parametrize("name", slow_except(["shortest, bicubic", "squash and crop"], "shortest, bicubic"))
def test_photos_of_any_size(form: str, name: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, V2, preprocessing=PREPROCESSINGS[name])
    plan = Plan(size=PREPROCESSINGS[name].size, preprocessing=True, scores=True)
    engine = opened(form, found, plan, tmp_path)
    assert engine.photos
    for (height, width), n in zip(PHOTOS, (1, 2, 7, 1, 2, 1), strict=True):
        assert off(engine, found, photos(n, height, width)) < CLOSE


@pytest.mark.parametrize("form", [*RECORDED, "aoti"])
@pytest.mark.parametrize("name", REFUSED)
def test_preprocessing_that_no_graph_holds_are_refused(form: str, name: str) -> None:
    preprocessing, why = REFUSED[name]
    with pytest.raises(UsageError, match=why):
        FORMATS[form].load_writer().refuse(
            Card(SMALL, preprocessing), Plan(size=preprocessing.size, preprocessing=True)
        )


# AOTInductor ----------------------------------------------------------------------------------------------------------

needs_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")


@needs_compiler
@pytest.mark.slow
def test_a_compiled_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any batch and size, and on no other processor. One test, because compiling takes long."""
    found = made.checkpoint(tmp_path)
    engine = opened("aoti", found, Plan(size=None, features=True), tmp_path)
    for batch in (1, 2, 7, 20):
        for height, width in ((64, 64), (70, 97), (32, 32)):
            assert off(engine, found, noise(batch, height, width)) < CLOSE
    with pytest.raises(ModelError, match="32 to 4096 pixels an edge, not 31×64"):
        engine(noise(1, 31, 64))
    engine.close()
    with pytest.raises(UnavailableError, match="compiled for the CPU"):
        open_exported(tmp_path / "m.pt2", device="cuda")
    here = pt2_file.processor()
    monkeypatch.setattr(pt2_file, "processor", lambda: here.replace(" avx2", "").replace(" neon", ""))
    with pytest.raises(UnavailableError, match=r"this one lacks (avx2|neon)"):
        open_exported(tmp_path / "m.pt2")
    content = (tmp_path / "m.pt2").read_bytes()
    (tmp_path / "m.pt2").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="damaged"):
        open_exported(tmp_path / "m.pt2")


@needs_compiler
@pytest.mark.slow
def test_a_compiled_network_of_photos(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any size; and nothing is said or left while it is compiled."""
    found = made.checkpoint(tmp_path, V2.replace(depths=(1, 1), hidden_sizes=(8, 16), kernel_sizes=(7, 7)))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = {path.name for path in tmp_path.iterdir()}
    engine = opened("aoti", found, Plan(size=(64, 64), preprocessing=True, scores=True), tmp_path)
    for (height, width), n in zip(PHOTOS, (1, 2, 7, 1, 2, 1), strict=True):
        assert off(engine, found, photos(n, height, width)) < CLOSE
    engine.close()
    assert {path.name for path in tmp_path.iterdir()} == before | {"m.pt2"}
    assert not list(here.iterdir())
    assert capfd.readouterr() == ("", "")


def test_without_a_compiler_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UnavailableError, match="no compiler 'no-such-compiler'") as told:
        FORMATS["aoti"].load_writer().refuse(Card(SMALL), Plan())
    assert "apt install" in str(told.value.hint)


def test_a_compiler_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'no more memory' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    tiny = CONFIGS["isotropic"].replace(depths=(1,))
    with pytest.raises(UnavailableError, match=r"could not compile the program with .*broken: "):
        made.written("aoti", made.checkpoint(tmp_path, tiny), Plan(size=(64, 64)), tmp_path / "m.pt2")
    assert not (tmp_path / "m.pt2").exists()


# What is not to be opened ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", RECORDED.values())
def test_files_that_are_none_of_ours(suffix: str, tmp_path: Path) -> None:
    def refused(content: Callable[[Path], object], why: str) -> None:
        path = tmp_path / f"m{suffix}"
        content(path)
        with pytest.raises(ModelError, match=why):
            open_exported(path)

    def plain_zip(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/readme.txt", "hello")

    refused(lambda path: path.write_bytes(b""), "is empty")
    refused(lambda path: path.write_bytes(b"\x80\x02}q\x00."), "damaged, or no program")
    refused(plain_zip, "or holds no (TorchScript|program)")
    refused(lambda path: torch.save(random_tensors(SMALL), path), "or holds no (TorchScript|program)")
    refused(lambda path: (path.unlink(), path.mkdir()), "is not a file")


def foreign(path: Path) -> None:
    """A program that somebody else made."""
    network = torch.nn.Linear(3, 2)
    if path.suffix == ".ts":
        torch.jit.save(torch.jit.script(network), path)
    else:
        torch.export.save(torch.export.export(network, (torch.zeros(1, 3),)), path)


@pytest.mark.parametrize("suffix", RECORDED.values())
def test_a_program_without_our_card_is_not_loaded(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"m{suffix}"
    foreign(path)
    monkeypatch.setattr(torch.jit, "load", None)
    monkeypatch.setattr(torch.export, "load", None)
    with pytest.raises(ModelError, match="no card of convnext"):
        open_exported(path)


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> None:
    """The zip with what ``change`` makes of each entry."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


@pytest.mark.parametrize("form", RECORDED)
def test_damage_is_said_wherever_it_is(form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / f"good{RECORDED[form]}"
    made.written(form, made.checkpoint(tmp_path), Plan(size=(64, 64)), good)
    content, bad = good.read_bytes(), good.with_stem("bad")
    for keep in (0.1, 0.5, 0.9, 0.999):
        bad.write_bytes(content[: int(len(content) * keep)])
        with pytest.raises(ModelError, match="damaged"):
            open_exported(bad)
    with zipfile.ZipFile(good) as archive:
        weights = archive.read(max(archive.infolist(), key=lambda entry: "data/" in entry.filename and entry.file_size))
    turned = bytearray(content)
    turned[content.index(weights) + len(weights) // 2] ^= 1
    bad.write_bytes(turned)
    with pytest.raises(ModelError, match="has another checksum"):
        open_exported(bad)
    graph = "model.json" if form == "torch-export" else ".py"
    for part in ("convnext", graph):
        rewritten(good, bad, lambda name, data, part=part: data[: len(data) // 2] if name.endswith(part) else data)  # type: ignore[misc]
        with pytest.raises(ModelError):
            open_exported(bad)
    assert capfd.readouterr().err == ""


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_no_pickle_of_a_program_runs(tmp_path: Path) -> None:
    good, bad, trace = tmp_path / "good.pt2", tmp_path / "bad.pt2", tmp_path / "it-ran"
    made.written("torch-export", made.checkpoint(tmp_path), Plan(size=(64, 64)), good)
    pickled = io.BytesIO()
    torch.save((Malicious(trace),), pickled)
    rewritten(good, bad, lambda name, data: pickled.getvalue() if "sample_inputs" in name else data)
    with pytest.raises(ModelError, match="cannot load"):
        open_exported(bad)
    shutil.copy(good, bad)
    with zipfile.ZipFile(bad, "a") as archive:
        archive.writestr("bad/data/constants/opaque_obj_0", pickled.getvalue())
    with pytest.raises(ModelError, match="pickled objects"):
        open_exported(bad)
    assert not trace.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


# As users see it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", RECORDED)
def test_threads_are_its_own_until_it_is_closed(form: str, tmp_path: Path) -> None:
    made.written(form, made.checkpoint(tmp_path), Plan(size=(64, 64)), tmp_path / f"m{RECORDED[form]}")
    before = torch.get_num_threads()
    engine = open_exported(tmp_path / f"m{RECORDED[form]}", threads=before + 1)
    assert torch.get_num_threads() == before + 1
    engine.close()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("suffix", RECORDED.values())
def test_nothing_of_torch_reaches_the_screen(suffix: str, convnext: Run, tmp_path: Path) -> None:
    target = tmp_path / f"made{suffix}"
    done = convnext("export", "-o", str(target), "--no-check", "-q")
    assert (done.status, done.out, done.err) == (0, "", ""), done
