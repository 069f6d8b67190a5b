"""Files that are no weights, damaged, or want to run code: each a ModelError in plain words, and nothing is run."""

from __future__ import annotations

import collections
import gzip
import io
import json
import os
import pickle
import re
import struct
import tarfile
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_safetensors

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints.read import read
from convnext_cli.model.config import ConvNextConfig

CONFIG = ConvNextConfig(depths=(1, 1, 1, 1), hidden_sizes=(8, 12, 16, 24), num_labels=5)


def tensors() -> dict[str, torch.Tensor]:
    return {name: torch.ones(shape) for name, shape in CONFIG.shapes().items()}


def pth(state: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


def torchscript() -> bytes:
    buffer = io.BytesIO()
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(traced, buffer)
    return buffer.getvalue()


def header(content: Any, data: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(begin: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [2] if shape is None else shape, "data_offsets": [begin, end]}


def changed(name: str, shape: tuple[int, ...]) -> bytes:
    return to_safetensors(tensors() | {name: torch.ones(shape)})


def endless() -> dict[str, Any]:
    state: dict[str, Any] = {"weight": torch.ones(2)}
    state["model"] = state
    return state


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 114374272\n"
WHOLE = to_safetensors(tensors())
FOREIGN: dict[str, tuple[str, bytes, str]] = {
    "LFS pointer": ("model.safetensors", LFS, "Git LFS pointer"),
    "LFS pointer of a pickle": ("pytorch_model.bin", LFS, "Git LFS pointer"),
    "web page": ("convnext.pth", b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "web page, no doctype": ("model.safetensors", b"<html><head>", "web page"),
    "XML message": ("convnext.pth", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
    "JSON message": ("convnext.pth", b'{"error": "Repository not found"}', "not a file of weights"),
    "text": ("convnext.pth", b"Entry not found", "not a file of weights"),
    "empty": ("convnext.pth", b"", "is empty"),
    "HDF5": ("weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "Keras": ("model.keras", zipped(**{"model.weights.h5": b"x"}), "Keras"),
    "msgpack": ("flax_model.msgpack", b"\x81\xa6params" + bytes(64), "Flax"),
    "msgpack, renamed": ("weights.bin", b"\xde\x00\x12\xa6params" + bytes(64), "Flax"),
    "ONNX": ("model.onnx", b"\x08\x07\x12\x07pytorch\x1a\x03" + bytes(64), "ONNX"),
    "ONNX, renamed": ("model.pth", b"\x08\x07\x12\x07pytorch\x1a\x03" + bytes(64), "ONNX"),
    "TensorFlow Lite": ("model.bin", b"\x1c\0\0\0TFL3" + bytes(64), "TensorFlow Lite"),
    "npz": ("weights.npz", npz(), "numpy archive"),
    "npy": ("weights.pth", npy(), "numpy array"),
    "gzip": ("weights.pth.gz", gzip.compress(b"x" * 100), "gzip"),
    "tar": ("weights.tar", tar(), "tar archive"),
    "zip of weights": ("weights.zip", zipped(**{"convnext.pth": b"x"}), "contains convnext.pth"),
    "GGUF": ("weights.bin", b"GGUF\3\0\0\0" + bytes(64), "GGUF"),
    "noise": ("weights.bin", bytes(range(5, 255)) * 8, "not a file of weights"),
    "TorchScript": ("scripted.pt", torchscript(), "TorchScript"),
    "pickle named safetensors": ("model.safetensors", pth(tensors()), "wrong suffix"),
    "half a header": ("model.safetensors", WHOLE[:100], "header should have"),
    "half a file": ("model.safetensors", WHOLE[: len(WHOLE) // 2], "bytes are missing"),
    "all but a byte": ("model.safetensors", WHOLE[:-1], "1 of its"),
    "a byte too many": ("model.safetensors", WHOLE + b"\0", "1 bytes follow"),
    "seven bytes": ("model.safetensors", WHOLE[:7], "not the length of a header"),
    "huge header": ("model.safetensors", struct.pack("<Q", 2**40) + bytes(64), "not the length of a header"),
    "header is no JSON": ("model.safetensors", header(b"{not json}"), "not readable"),
    "header is a list": ("model.safetensors", header(b"[1, 2]"), "not readable"),
    "deep header": ("model.safetensors", header(b'{"a":' * 50_000), "not readable"),
    "overlap": ("model.safetensors", header({"a": one(0, 8), "b": one(4, 12)}, bytes(12)), "overlaps"),
    "hole": ("model.safetensors", header({"a": one(0, 8), "b": one(12, 20)}, bytes(20)), "overlaps"),
    "backwards": ("model.safetensors", header({"a": one(0, -8)}, bytes(8)), "overlaps"),
    "not filled": ("model.safetensors", header({"a": one(0, 8, [3])}, bytes(8)), "does not fill"),
    "negative shape": ("model.safetensors", header({"a": one(0, 8, [-2, -1])}, bytes(8)), "below 0"),
    "odd places": ("model.safetensors", header({"a": one("0", 8)}, bytes(8)), "pair of numbers"),  # type: ignore[arg-type]
    "unknown type": ("model.safetensors", header({"a": one(0, 8, dtype="F33")}, bytes(8)), "damaged"),
    "no shape": (
        "model.safetensors",
        header({"a": one(0, 8) | {"shape": None}}, bytes(8)),
        "not a list of whole numbers",
    ),
    "metadata is a list": ("model.safetensors", header({"__metadata__": ["a"], "a": one(0, 8)}, bytes(8)), "metadata"),
    "half a zip": ("weights.pth", pth(tensors())[:-2000], "is cut off"),
    "half a legacy pickle": ("weights.pth", pth(tensors(), _use_new_zipfile_serialization=False)[:-2000], "truncated"),
    "a list": ("weights.pth", pth([torch.ones(3)]), "contains a list"),
    "no tensors": (
        "weights.pth",
        pth({"epoch": 3, "args": Namespace(lr=1)}),
        "contains no weights, only epoch, args",
    ),
    "a dict in itself": ("weights.pth", pth(endless()), "without end"),
    "another network": (
        "weights.pth",
        pth({"conv1.weight": torch.ones(2), "fc.bias": torch.ones(2)}),
        "not the weights",
    ),
    "no channels": ("model.safetensors", changed("stages.0.0.dwconv.weight", (0, 1, 7, 7)), "layout is not supported"),
    "scalar": ("model.safetensors", changed("stages.0.0.pwconv1.weight", ()), "layout is not supported"),
    "a block too far": ("model.safetensors", changed("stages.0.2000000.gamma", (8,)), "2000000"),
    "no stem": (
        "weights.pth",
        pth({"stages.0.0.dwconv.weight": torch.ones(8, 1, 7, 7)}),
        "downsample_layers.0.0.weight",
    ),
}


@pytest.mark.parametrize(("name", "content", "words"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_checkpoint_is_said_in_plain_words(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        checkpoints.load(path)
    assert words in error.value.message
    assert name in error.value.message or "weights" in error.value.message
    assert error.value.hint


def test_every_truncation_of_a_file_is_said(tmp_path: Path) -> None:
    for content, name in ((WHOLE, "w.safetensors"), (pth(tensors()), "w.pth")):
        for kept in range(0, len(content), max(1, len(content) // 60)):
            (tmp_path / name).write_bytes(content[:kept])
            with pytest.raises(ModelError):
                checkpoints.load(tmp_path / name)


def test_a_header_may_begin_with_any_byte(tmp_path: Path) -> None:
    """Its length is the first byte, which other formats' magic must not claim."""
    text = json.dumps({"a": one(0, 8)}).encode()
    for pad in range(256):
        path = tmp_path / "weights.bin"
        path.write_bytes(header(text + b" " * pad, bytes(8)))
        assert torch.equal(read(path).state["a"], torch.zeros(2))


# Pickles that want to run code ----------------------------------------------------------------------------------------


class Writes:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("place", ["beside", "instead"])
def test_a_pickle_with_code_is_refused_by_name_and_nothing_runs(form: str, place: str, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    state: Any = {"model": tensors(), "extra": Writes(trap)} if place == "beside" else Writes(trap)
    path = tmp_path / "weights.pth"
    if form == "plain":
        path.write_bytes(pickle.dumps(Writes(trap) if place == "instead" else {"extra": Writes(trap)}))
    else:
        path.write_bytes(pth(state, _use_new_zipfile_serialization=form == "zip"))
    with pytest.raises(ModelError) as error:
        checkpoints.load(path)
    assert not trap.exists()
    assert "posix.system" in error.value.message or "nt.system" in error.value.message
    assert "torch.save" in str(error.value.hint)


def test_the_trap_works() -> None:
    """The pickles above are dangerous: an ordinary reader would run them."""
    assert pickle.loads(pickle.dumps(Harmless())) == 7


class Harmless:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return sum, ((3, 4),)


def test_code_hidden_behind_allowed_names_is_refused(tmp_path: Path) -> None:
    """A Namespace is allowed, what it holds is not; nor is a whole network, whose class is code."""
    trap = tmp_path / "trap"
    for value, asked in (
        ({"model": tensors(), "args": Namespace(hook=Writes(trap))}, "system"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"model": tensors(), "history": collections.defaultdict(list)}, "collections.defaultdict"),
    ):
        path = tmp_path / "weights.pth"
        path.write_bytes(pth(value))
        with pytest.raises(ModelError) as error:
            checkpoints.load(path)
        assert asked in error.value.message
        assert not trap.exists()


def test_nothing_is_ever_opened_without_the_restricted_unpickler() -> None:
    sources = {path.name: path.read_text() for path in Path(checkpoints.__file__).parents[1].rglob("*.py")}
    source = "".join(sources.values())
    assert "weights_only=False" not in source
    assert re.findall(r"torch\.load\((?!.*\bweights_only=True\b).*", source) == []
    # what a process hands to those that it starts itself is not a file of anyone's
    own = {"isolated_decoding.py", "isolated_worker.py", "stages.py"}
    assert {name for name, text in sources.items() if "pickle.load" in text} == own


# Folders --------------------------------------------------------------------------------------------------------------


def refused(path: Path) -> ModelError:
    with pytest.raises(ModelError) as error:
        checkpoints.load(path)
    assert error.value.hint
    return error.value


def test_folders_without_one_clear_file(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere").message
    assert "contains no weights" in refused(tmp_path).message
    (tmp_path / "tf_model.h5").write_bytes(b"x")
    assert "tf_model.h5 (Keras)" in refused(tmp_path).message
    for name in ("one.pth", "two.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    assert "one.pth, two.safetensors" in refused(tmp_path).message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are of Unix")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.pth")
    assert "neither a file nor a folder" in refused(tmp_path / "weights.pth").message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"x")
    path.chmod(0)
    assert "cannot read" in refused(path).message


def test_shards(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    for content, words in (
        ({"weight_map": {"a": "../../secret.safetensors"}}, "outside its folder"),
        ({"weight_map": {"a": "model-00001-of-00002.safetensors"}}, "1 of the 1 parts"),
        ({"nothing": 1}, "not an index"),
        ([], "not an index"),
    ):
        index.write_text(json.dumps(content))
        assert words in refused(tmp_path).message
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(WHOLE)
    index.write_text(json.dumps({"weight_map": {"lost.weight": "model-00001-of-00002.safetensors"}}))
    assert "lack 1 tensors" in refused(tmp_path).message
    index.unlink()
    assert "one of 2 parts" in refused(tmp_path / "model-00001-of-00002.safetensors").message


def test_json_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(WHOLE)
    for content in ("{", "[]", "\udcff", '{"a":' * 50_000):
        (tmp_path / "config.json").write_text(content, errors="surrogateescape")
        assert "config.json" in refused(tmp_path).message


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "convnext", "depths": "many"},
        {"model_type": "convnext", "depths": [1, 1]},
        {"model_type": "convnext", "hidden_sizes": 3},
        {"model_type": "convnext", "patch_size": [4, 4]},
        {"model_type": "convnext", "layer_norm_eps": "small"},
        {"architecture": "convnext_tiny", "pretrained_cfg": []},
        {"architecture": "convnext_tiny", "pretrained_cfg": {"input_size": "224"}},
        {"architecture": "convnext_tiny", "model_args": ["depths"]},
        {"architecture": "convnext_tiny", "model_args": {"norm_layer": "batchnorm"}},
    ],
    ids=str,
)
def test_json_with_values_of_a_wrong_kind(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(WHOLE)
    (tmp_path / "config.json").write_text(json.dumps(config))
    message = refused(tmp_path).message
    assert "config.json has a wrong value" in message or "JSON" in message


@pytest.mark.parametrize(
    ("file", "key", "values"),
    [
        ("preprocessor_config.json", "size", [0, -1, 100_000, {"shortest_edge": 0}, {"height": 224}]),
        ("preprocessor_config.json", "crop_pct", [0, -0.5, 1.5, 1e-320]),
        ("preprocessor_config.json", "image_mean", [[0.5], "x", [0.5, 0.5, None], 10**400, 1e4]),
        ("preprocessor_config.json", "image_std", [0, 1e-9, 1e7, [0.2, 0.2, 0], [0.2] * 4]),
        ("preprocessor_config.json", "rescale_factor", [float("nan"), 0, "x"]),
        ("config.json", "layer_norm_eps", [0, -1e-6, float("nan")]),
        ("config.json", "layer_norm_eps", [10**400]),
        ("config.json", "depths", [[100_000_000, 1, 1, 1]]),
        ("config.json", "hidden_act", ["mish", 3]),
        ("config.json", "image_size", [0, [], "big"]),
        ("config.json", "num_channels", [0, "3"]),
        ("config.json", "problem_type", ["guessing", 3]),
    ],
)
def test_a_wrong_value_is_said_with_its_file_and_key(file: str, key: str, values: list[Any], tmp_path: Path) -> None:
    for value in values:
        files: dict[str, Any] = {"config.json": {"model_type": "convnext"}, "preprocessor_config.json": {}}
        files[file][key] = value
        (tmp_path / "model.safetensors").write_bytes(WHOLE)
        for name, content in files.items():
            (tmp_path / name).write_text(json.dumps(content))
        assert f"{file} has a wrong value: {key} must be" in refused(tmp_path).message
