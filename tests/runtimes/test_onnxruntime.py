"""The ONNX graph against network.py, and the engine with our files, others' files, and files that cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from convnext_cli.base.errors import ModelError, UnavailableError
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import METADATA_KEY, Card
from convnext_cli.model.config import VARIANTS, ConvNextConfig
from convnext_cli.model.network import build
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.runtimes.onnx import graph as onnx_graph
from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine
from convnext_cli.runtimes.onnx.graph import graph
from tests.helpers.weights import SMALL, random_tensors

# Seen: 3e-7 of the range of the logits at most, where torch itself in float32 is at 2e-7.
TOLERANCE = 2e-6


def arrays(config: ConvNextConfig) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in random_tensors(config).items()}


def ours(config: ConvNextConfig = SMALL, card: Card | None = None) -> bytes:
    data: bytes = graph(config, arrays(config), card).SerializeToString()
    return data


def photos(n: int = 2, height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, 3, height, width)).astype(np.float32)


def exact(config: ConvNextConfig, x: np.ndarray) -> np.ndarray:
    """What network.py gives in float64."""
    model = build(config, {name: tensor.double() for name, tensor in random_tensors(config).items()})
    with torch.inference_mode():
        return np.asarray(model(torch.from_numpy(x).double()).logits)


def off(found: np.ndarray, right: np.ndarray) -> float:
    assert found.shape == right.shape
    return float(np.abs(found - right).max() / np.ptp(right))


# The graph ------------------------------------------------------------------------------------------------------------

CONFIGS = {
    name: VARIANTS[name].replace(num_labels=37)
    for name in (
        "convnext_zepto_rms_ols",
        "convnext_atto",
        "convnextv2_atto",
        "convnext_atto_rms",
        "convnext_atto_ols",
        "convnext_tiny_hnf",
        "test_convnext",
        "test_convnext3",
        "convnext_isotropic_small",
    )
} | {
    "hidden head": SMALL.replace(head_hidden_size=20),
    "no classifier": SMALL.replace(num_labels=0),
    "no classifier, relu": SMALL.replace(num_labels=0, hidden_act="relu", head_norm="before_pool"),
    "no last norm": SMALL.replace(head_norm="none", mlp_bias=False, conv_bias=False, head_bias=False),
    "pooled rms": SMALL.replace(norm="rms", norm_bias=True, num_labels=0),
    "patches of two": SMALL.replace(patch_size=2, stem_downsample=True),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_graph_equals_the_network(name: str) -> None:
    config = CONFIGS[name]
    onnx.checker.check_model(graph(config, arrays(config)), full_check=True)
    engine = OnnxRuntimeEngine(ours(config), Card(config))
    x = photos()
    assert off(engine(x), exact(config, x)) < TOLERANCE


def test_tolerance_sees_a_wrong_parameter() -> None:
    tensors = arrays(SMALL)
    x = photos()
    right = exact(SMALL, x)
    for name in tensors:
        wrong = tensors | {name: tensors[name] * np.float32(1.01)}
        engine = OnnxRuntimeEngine(graph(SMALL, wrong).SerializeToString(), Card(SMALL), dtype="float32")
        assert off(engine(x), right) > 10 * TOLERANCE, name


def test_batch_and_size_are_open_and_photos_do_not_mix() -> None:
    engine = OnnxRuntimeEngine(ours(), Card(SMALL))
    for n, height, width in ((1, 32, 32), (5, 64, 96), (3, 70, 45)):
        x = photos(n, height, width)
        assert off(engine(x), exact(SMALL, x)) < TOLERANCE
    x = photos(5)
    assert np.allclose(engine(x)[3:4], engine(x[3:4]), rtol=0, atol=1e-6)
    assert engine(np.asfortranarray(x)).tobytes() == engine(x).tobytes()


def test_file_holds_its_card(tmp_path: Path) -> None:
    card = Card(
        SMALL, Preprocessing.official(96), "mine", labels=LabelSet.from_names("mine", list("abcdefg")), sha256="12"
    )
    path = tmp_path / "mine.onnx"
    onnx_graph.save(graph(SMALL, arrays(SMALL), card), path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.onnx"]
    engine = OnnxRuntimeEngine(path, None, threads=2)
    assert engine.card == card and engine.notes == []
    assert (engine.name, engine.device, engine.dtype) == ("onnxruntime", "cpu", "float32")
    assert engine.provider == "CPUExecutionProvider"
    x = photos()
    assert off(engine(x), exact(SMALL, x)) < TOLERANCE
    engine.close()


def test_weights_too_large_for_one_file_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "_MOST", 1000)
    path = tmp_path / "large.onnx"
    onnx_graph.save(graph(SMALL, arrays(SMALL), Card(SMALL)), path)
    assert (tmp_path / "large.onnx.data").stat().st_size > 4 * SMALL.num_parameters * 0.5
    x = photos()
    assert off(OnnxRuntimeEngine(path, None)(x), exact(SMALL, x)) < TOLERANCE
    (tmp_path / "large.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"cannot load large\.onnx") as found:
        OnnxRuntimeEngine(path, None)
    assert "beside" in str(found.value.hint)


def test_the_graph_is_made_and_run_without_torch(tmp_path: Path) -> None:
    np.savez(tmp_path / "tensors.npz", **arrays(SMALL))  # type: ignore[arg-type]
    code = (
        "import sys, numpy as np\n"
        "from convnext_cli.model.card import Card\n"
        "from convnext_cli.model.config import ConvNextConfig\n"
        "from convnext_cli.runtimes.onnx.graph import graph\n"
        "from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine\n"
        f"config = ConvNextConfig.from_dict({SMALL.to_dict()!r})\n"
        f"model = graph(config, dict(np.load({str(tmp_path / 'tensors.npz')!r})))\n"
        "engine = OnnxRuntimeEngine(model.SerializeToString(), Card(config))\n"
        "assert engine(np.zeros((1, 3, 64, 64), np.float32)).shape == (1, 7)\n"
        "assert not {'torch', 'torchvision', 'openvino'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Others' files --------------------------------------------------------------------------------------------------------


def other(
    shape: tuple[Any, ...] = ("n", 3, "h", "w"),
    *,
    classes: int = 5,
    operation: str = "GlobalAveragePool",
    kind: int = TensorProto.FLOAT,
    opset: int | None = 17,
    inputs: int = 1,
    last: str | None = None,
    quantised: bool = False,
) -> onnx.ModelProto:
    """Mean colours through one linear layer."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weight = np.random.default_rng(0).standard_normal((3, classes)).astype(dtype)
    nodes = [helper.make_node(operation, ["x0"], ["pooled"]), helper.make_node("Flatten", ["pooled"], ["flat"])]
    weights = [numpy_helper.from_array(weight, "weight")]
    flat = "flat"
    if quantised:
        weights += [numpy_helper.from_array(np.array(0.01, np.float32), "s")]
        weights += [numpy_helper.from_array(np.array(0, np.int8), "z")]
        nodes.append(helper.make_node("QuantizeLinear", ["flat", "s", "z"], ["q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]))
        flat = "d"
    nodes.append(helper.make_node("MatMul", [flat, "weight"], ["y" if last is None else "before"]))
    if last is not None:
        nodes.append(helper.make_node(last, ["before"], ["y"]))
    body = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info(f"x{i}", kind, shape) for i in range(inputs)],
        [
            helper.make_tensor_value_info("y", TensorProto.INT64, (2,))
            if last == "Shape"
            else helper.make_tensor_value_info("y", kind, (shape[0], classes))
        ],
        weights,
    )
    model: onnx.ModelProto = helper.make_model(
        body, ir_version=8, opset_imports=[] if opset is None else [helper.make_opsetid("", opset)]
    )
    if opset is None:
        del model.opset_import[:]
    return model


def answer(x: np.ndarray, classes: int = 5) -> np.ndarray:
    weight = np.random.default_rng(0).standard_normal((3, classes)).astype(np.float32)
    return np.asarray(x.mean((2, 3)) @ weight)


def opened(model: onnx.ModelProto | bytes, **options: Any) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(model if isinstance(model, bytes) else model.SerializeToString(), None, **options)


def test_export_of_torch_runs(tmp_path: Path) -> None:
    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = build(SMALL, random_tensors(SMALL))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x).logits  # type: ignore[no-any-return]

    path = tmp_path / "theirs.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits(),
            (torch.zeros(2, 3, 64, 64),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            dynamic_axes={"image": {0: "n"}},
        )
    engine = OnnxRuntimeEngine(path, None)
    x = photos(5, 64, 64)
    assert off(engine(x), exact(SMALL, x)) < TOLERANCE
    assert engine.card.name == "theirs" and engine.card.preprocessing.size == (64, 64)
    assert engine.card.label_set().names[-1] == "class_6"
    with pytest.raises(ModelError, match="takes photos of 64×64 pixels, not 96×96"):
        engine(photos(1, 96, 96))


def test_card_of_a_bare_file_is_guessed_and_says_so() -> None:
    engine = opened(other())
    (note,) = engine.notes
    assert "has no card" in note and "224×224" in note and "none known for 5 classes" in note
    assert engine.card.config.num_labels == 5 and engine.card.preprocessing == Preprocessing.official()
    engine = opened(other(("n", 3, 64, 80), classes=1000))
    assert engine.card.labels == "imagenet-1k" and "imagenet-1k" in engine.notes[0]
    assert engine.card.preprocessing.size == (64, 80)
    assert opened(other(classes=1)).card.problem == "regression"


def test_classes_that_the_file_does_not_say_are_counted() -> None:
    model = other(last="Identity")
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert opened(model).card.config.num_labels == 5


@pytest.mark.parametrize("n", [1, 4, 6])
def test_fixed_batch_takes_any_number_of_photos(n: int) -> None:
    x = photos(n)
    assert np.allclose(opened(other((4, 3, "h", "w")))(x), answer(x), atol=1e-6)


def test_half_precision_is_read_from_the_graph() -> None:
    engine = opened(other(kind=TensorProto.FLOAT16))
    x = photos(3)
    found = engine(x)
    assert engine.dtype == "float16" and found.dtype == np.float32
    assert np.allclose(found, answer(x), atol=1e-2)


def test_int8_is_read_from_the_graph() -> None:
    assert opened(other(quantised=True)).dtype == "int8"
    assert opened(other()).dtype == "float32"


def test_softmax_at_the_end_is_undone() -> None:
    engine = opened(other(last="Softmax"))
    x = photos(3)
    found, right = np.exp(engine(x)), np.exp(answer(x))
    assert np.allclose(found / found.sum(1, keepdims=True), right / right.sum(1, keepdims=True), atol=1e-6)
    assert "softmax" in engine.notes[0]


# What cannot be used --------------------------------------------------------------------------------------------------

WHOLE = ours()
REFUSED: dict[str, tuple[onnx.ModelProto | bytes, str]] = {
    "empty": (b"", "is damaged or no ONNX file"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", "is damaged or no ONNX file"),
    "cut": (WHOLE[: len(WHOLE) // 2], "is damaged or no ONNX file"),
    "two inputs": (other(inputs=2), "has 2 inputs .'x0', 'x1'., not one of photos"),
    "four channels": (ours(SMALL.replace(num_channels=4)), "takes 4-channel photos"),
    "no picture": (other(("n", 3, "l")), r"3 dimensions \['n', 3, 'l'\], not 4"),
    "whole numbers": (other(kind=TensorProto.INT32, operation="Identity"), r"takes tensor\(int32\)"),
    "no scores": (other(last="Shape"), r"no output of scores \(N, classes\)"),
    "no opset": (other(opset=None), "names no opset that ONNX Runtime .* knows: Missing opset"),
    "newer opset": (other(opset=999), "names no opset that ONNX Runtime .* knows: .*999"),
    "unknown operation": (other(operation="Gloss"), "operation that ONNX Runtime .* lacks: .*Gloss"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_words_and_silently(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, words = REFUSED[name]
    data = model if isinstance(model, bytes) else model.SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for given, called in ((path, r"model\.onnx"), (data, "the ONNX model")):
        with pytest.raises(ModelError, match=f"{called}.*{words}") as found:
            OnnxRuntimeEngine(given, None)
        assert found.value.hint and str(tmp_path) not in found.value.message
    assert capfd.readouterr() == ("", "")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx is not a file"):
        OnnxRuntimeEngine(tmp_path / "none.onnx", None)


def test_nothing_is_told_to_its_maker(tmp_path: Path) -> None:
    """By itself it notes a number for this machine in the home folder, and looks for a server to send it to."""
    onnx_graph.save(onnx_graph.graph(SMALL, arrays(SMALL)), tmp_path / "model.onnx")
    code = (
        "import sys; from pathlib import Path; from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine; "
        "OnnxRuntimeEngine(Path(sys.argv[1]), None)"
    )
    (tmp_path / "home").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.onnx")], env=environment, check=True)
    assert not list((tmp_path / "home").iterdir())


def test_card_of_another_network_is_refused() -> None:
    with pytest.raises(ModelError, match="gives 7 scores, but its card says 1000 classes"):
        OnnxRuntimeEngine(ours(), Card(ConvNextConfig()))
    with pytest.raises(ModelError, match="card is damaged"):
        model = graph(SMALL, arrays(SMALL))
        helper.set_model_props(model, {METADATA_KEY: "{}"})
        opened(model)


def test_a_batch_that_was_baked_in_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    model = other(last="Identity")
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 5]), "shape"))
    model.graph.node[-1].CopyFrom(helper.make_node("Reshape", ["before", "shape"], ["y"]))
    engine = opened(model)
    with pytest.raises(ModelError, match="does not run on 2 photos") as found:
        engine(photos(2))
    assert found.value.hint and capfd.readouterr() == ("", "")


def test_out_of_memory_is_a_memory_error(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    path = tmp_path / "model.onnx"
    path.write_bytes(ours())
    code = (
        "import resource, numpy as np\n"
        "from pathlib import Path\n"
        "from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine\n"
        f"engine = OnnxRuntimeEngine(Path({str(path)!r}), None)\n"
        "x = np.zeros((1, 3, 3072, 3072), np.float32)\n"
        "engine(x[..., :32, :32])\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, used + 2**25))\n"
        "try:\n    engine(x)\n"
        "except MemoryError as error:\n    print('MemoryError', bool(str(error)))\n"
        "print(engine(x[..., :32, :32]).shape)\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("asks Linux how much memory it has")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.split("\n")[:2], done.stderr) == (["MemoryError True", "(1, 7)"], "")


# Devices and libraries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_missing_device_is_told_with_what_is_there(device: str) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("ONNX Runtime has CUDA here")
    with pytest.raises(UnavailableError, match=f"no device '{device}' here; .*CPUExecutionProvider") as found:
        opened(other(), device=device)
    assert "pip install onnxruntime-gpu" in str(found.value.hint)
    assert opened(other(), device="auto").device == opened(other(), device="cpu").device == "cpu"


@pytest.mark.gpu
def test_cuda_gives_the_same() -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("ONNX Runtime has no CUDA here")
    engine = OnnxRuntimeEngine(ours(), Card(SMALL), device="cuda")
    assert (engine.device, engine.provider) == ("cuda:0", "CUDAExecutionProvider")
    x = photos(9)
    assert off(engine(x), exact(SMALL, x)) < 10 * TOLERANCE


@pytest.mark.parametrize(("library", "module"), [("onnxruntime", "onnx.engine"), ("onnx", "onnx.graph")])
def test_missing_library_is_told_with_the_pip_line(library: str, module: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from convnext_cli.base.errors import UnavailableError\n"
        f"try:\n    import convnext_cli.runtimes.{module}\n"
        "except UnavailableError as error:\n    print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "pip install onnxruntime onnx\n"


def test_our_own_graph_needs_no_second_library(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(ours(card=Card(SMALL)))
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from pathlib import Path\n"
        "from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine\n"
        f"print(OnnxRuntimeEngine(Path({str(path)!r}), None, dtype='float32').card.config.num_labels)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("7\n", "")
