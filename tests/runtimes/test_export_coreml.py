"""Core ML packages. Core ML runs on macOS alone, so what is saved is read back from the files and computed here."""

from __future__ import annotations

import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_cli.base.errors import ModelError, UnavailableError, UsageError
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.runtimes.coreml import export as writer
from convnext_cli.runtimes.exporting.check import Network
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.reference import TOLERANCE, difference
from convnext_cli.runtimes.select import open_engine
from tests.helpers import exports as made
from tests.helpers.exports import CONFIGS, FAST, SMALL, noise
from tests.helpers.tiers import slow_except

if sys.platform == "win32":
    pytest.skip("coremltools is for Linux and macOS", allow_module_level=True)
if find_spec("coremltools") is None:  # importing it takes seconds, in each process that collects this file
    pytest.skip("coremltools writes the packages", allow_module_level=True)

SIZE = (64, 64)
PLAIN: dict[str, Any] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "silu": lambda x: x * x.sigmoid(),
    "relu": lambda x: x.relu(),
    "sigmoid": lambda x: x.sigmoid(),
    "identity": lambda x: x,
}


class Package:
    """A saved .mlpackage, read from its files alone and computed with torch, each operation as the MIL reference of
    coremltools says (apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html)."""

    def __init__(self, path: Path) -> None:
        from coremltools.proto import Model_pb2

        folder = path / "Data" / "com.apple.CoreML"
        self.spec = Model_pb2.Model()
        self.spec.ParseFromString((folder / "model.mlmodel").read_bytes())
        self.blob = (folder / "weights" / "weight.bin").read_bytes()
        (self.block,) = self.spec.mlProgram.functions["main"].block_specializations.values()
        self.read = 0  # bytes of the blob that were used

    @property
    def card(self) -> Card:
        return Card.from_json(self.spec.description.metadata.userDefined["convnext"])

    def kinds(self) -> set[str]:
        return {operation.type for operation in self.block.operations}

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        (source,) = self.spec.description.input
        values: dict[str, Any] = {source.name: torch.from_numpy(x)}
        for operation in self.block.operations:
            if operation.type == "const":
                found = self.value(operation.attributes["val"])
            else:
                given = {
                    name: [
                        values[a.name] if a.WhichOneof("binding") == "name" else self.value(a.value)
                        for a in v.arguments
                    ]
                    for name, v in operation.inputs.items()
                }
                compute = PLAIN.get(operation.type) or getattr(self, f"op_{operation.type}")
                found = compute(**{name: one for name, (one,) in given.items()})
            (output,) = operation.outputs
            values[output.name] = found
        names = [output.name for output in self.spec.description.output]
        assert list(self.block.outputs) == names
        return [values[name].numpy() for name in names]

    def value(self, value: Any) -> Any:
        tensor_type = value.type.tensorType
        shape = [dimension.constant.size for dimension in tensor_type.dimensions]
        if value.WhichOneof("value") == "blobFileValue":
            assert value.blobFileValue.fileName == "@model_path/weights/weight.bin"
            return self.from_blob(value.blobFileValue.offset).reshape(shape)
        tensor = value.immediateValue.tensor
        kind = tensor.WhichOneof("value")
        if kind == "bytes":  # float16
            found: Any = torch.from_numpy(np.frombuffer(tensor.bytes.values, np.float16).copy())
        elif kind == "strings":
            return tensor.strings.values[0]
        else:
            found = list(getattr(tensor, kind).values)
            if kind == "floats":
                found = torch.tensor(found, dtype=torch.float32)
        if isinstance(found, Tensor):
            return found.reshape(shape)
        return found if shape else found[0]

    def from_blob(self, offset: int) -> Tensor:
        """Storage of version 2: an entry is a sentinel, a type, a size and an offset of the data."""
        sentinel, kind, size, start = struct.unpack_from("<IIQQ", self.blob, offset)
        assert sentinel == 0xDEADBEEF and self.blob[4] == 2
        self.read += size
        dtype = {1: np.float16, 2: np.float32}[kind]
        return torch.from_numpy(np.frombuffer(self.blob[start : start + size], dtype).copy())

    def op_cast(self, x: Tensor, dtype: str) -> Tensor:
        return x.to({"fp16": torch.float16, "fp32": torch.float32}[dtype])

    def op_conv(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        strides: list,
        pad_type: str,
        pad: list,
        dilations: list,
        groups: int,
    ) -> Tensor:
        assert pad_type in ("custom", "valid") and dilations == [1, 1]
        top, bottom, left, right = pad
        found = F.conv2d(
            F.pad(x.float(), (left, right, top, bottom)), weight.float(), bias.float(), strides, groups=groups
        )
        return found.to(x.dtype)

    def op_layer_norm(self, x: Tensor, axes: list, epsilon: Any) -> Tensor:
        assert x.dtype == torch.float32, "squares overflow in float16"
        variance = x.var(axes, correction=0, keepdim=True)
        return (x - x.mean(axes, keepdim=True)) / (variance + epsilon).sqrt()

    def op_batch_norm(
        self, x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor, epsilon: Any
    ) -> Tensor:
        mean, variance, gamma, beta = (v.float()[:, None, None] for v in (mean, variance, gamma, beta))
        return ((x.float() - mean) / (variance + epsilon).sqrt() * gamma + beta).to(x.dtype)

    def op_gelu(self, x: Tensor, mode: str) -> Tensor:
        return F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])

    def op_softmax(self, x: Tensor, axis: int) -> Tensor:
        return x.softmax(axis)

    def op_rsqrt(self, x: Tensor, epsilon: Any) -> Tensor:
        return (x + epsilon).rsqrt()

    def op_squeeze(self, x: Tensor, axes: list) -> Tensor:
        return x.squeeze(axes)

    def op_reduce_mean(self, x: Tensor, axes: list, keep_dims: bool) -> Tensor:
        assert x.dtype == torch.float32
        return x.mean(axes, keepdim=keep_dims)

    def op_reduce_sum(self, x: Tensor, axes: list, keep_dims: bool) -> Tensor:
        assert x.dtype == torch.float32
        return x.sum(axes, keepdim=keep_dims)

    def op_reduce_l2_norm(self, x: Tensor, axes: list, keep_dims: bool) -> Tensor:
        assert x.dtype == torch.float32
        return x.square().sum(axes, keepdim=keep_dims).sqrt()


def exported(folder: Path, plan: Plan, config: ConvNextConfig = SMALL, **fields: Any) -> tuple[Package, Network]:
    """What is written by the plan, and what it is held against."""
    found = made.checkpoint(folder, config)
    found.card = found.card.replace(**fields)
    card = made.written("coreml", found, plan, folder / "model.mlpackage")
    package = Package(folder / "model.mlpackage")
    assert package.card == card
    return package, Network(found, card)


def assert_same(package: Package, network: Network, dtype: str, *inputs: np.ndarray) -> None:
    for x in inputs:
        found, wanted = package(x), network.answer(x)
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            assert a.shape == b.shape and a.dtype == np.float32
            assert difference(a, b) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", slow_except(CONFIGS, *FAST))
def test_the_saved_program_computes_the_network(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    package, network = exported(tmp_path, Plan(size=SIZE, features=True), config)
    assert_same(package, network, "float32", *map(noise, (1, 2, 7)))
    assert package.read > 2 * config.num_parameters  # small vectors are in the program itself


@pytest.mark.parametrize("name", slow_except(["V1", "V2", "rms", "simple"], "V2"))
def test_float16_halves_the_weights_and_keeps_norms_wide(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    package, network = exported(tmp_path, Plan("float16", size=SIZE, features=True, scores=True), config)
    assert_same(package, network, "float16", noise(2))
    assert len(package.blob) < 3 * config.num_parameters


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_scores(tmp_path: Path, problem: str) -> None:
    package, network = exported(tmp_path, Plan(size=SIZE, scores=True), temperature=1.7, problem=problem)
    assert_same(package, network, "float32", noise(2))
    assert [output.name for output in package.spec.description.output] == ["scores"]


def test_an_open_size(tmp_path: Path) -> None:
    package, network = exported(tmp_path, Plan(size=None))
    assert_same(package, network, "float32", noise(2), noise(1, 96, 160))
    assert ranges(package) == [(1, 64), (3, 3), (32, 4096), (32, 4096)]


def test_the_batch_is_open_unless_it_is_fixed(tmp_path: Path) -> None:
    package, _ = exported(tmp_path, Plan(size=SIZE))
    assert ranges(package)[0] == (1, 64)
    (tmp_path / "fixed").mkdir()
    package, network = exported(tmp_path / "fixed", Plan(batch=3, size=SIZE))
    assert ranges(package) == []
    assert list(package.spec.description.input[0].type.multiArrayType.shape) == [3, 3, *SIZE]
    assert_same(package, network, "float32", noise(3))


def ranges(package: Package) -> list[tuple[int, int]]:
    found = package.spec.description.input[0].type.multiArrayType.shapeRange.sizeRanges
    return [(one.lowerBound, one.upperBound) for one in found]


def test_the_card_is_told_in_core_mls_own_fields_too(tmp_path: Path) -> None:
    package, _ = exported(tmp_path, Plan(size=SIZE), license="mit", source="https://example.org", description="Birds.")
    metadata = package.spec.description.metadata
    assert (metadata.license, metadata.author, metadata.shortDescription) == ("mit", "https://example.org", "Birds.")


def test_what_float16_does_not_hold_is_refused(tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, changed=made.loud(SMALL, 60000))
    with pytest.raises(ModelError, match="float16 ends at 65,504"):
        made.written("coreml", found, Plan("float16", size=SIZE), tmp_path / "m.mlpackage")
    last = {"norm.weight": 1e-6 * found.tensors["norm.weight"], "norm.bias": 1e-6 * found.tensors["norm.bias"]}
    found = made.checkpoint(tmp_path, changed=last | {"head.weight": 1e6 * found.tensors["head.weight"]})
    with pytest.raises(ModelError, match="too large for float16"):
        made.written("coreml", found, Plan("float16", size=SIZE, features=True), tmp_path / "m.mlpackage")


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (Plan("bfloat16"), "no bfloat16"),
        (Plan("int8"), "macOS alone"),
        (Plan(preprocessing=True), "no arrays of bytes"),
    ],
)
def test_what_core_ml_cannot_do_is_refused(plan: Plan, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        writer.refuse(Card(SMALL), plan)


def test_a_missing_library_is_told_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="coremltools is not installed") as told:
        writer.refuse(Card(SMALL), Plan())
    assert told.value.hint == "pip install coremltools"


@pytest.mark.slow  # a process of its own imports coremltools for seconds
def test_writing_says_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from convnext_cli import checkpoints; "
        "from convnext_cli.runtimes.coreml import export; from convnext_cli.runtimes.exporting.plan import Plan; "
        "found = checkpoints.load(Path(sys.argv[1])); "
        "export.write(found, found.card, Plan(size=(64, 64)), Path(sys.argv[2]))"
    )
    model = made.checkpoint(tmp_path).path
    command = [sys.executable, "-c", code, str(model), str(tmp_path / "model.mlpackage")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is here")
def test_elsewhere_than_on_macos_it_does_not_run(tmp_path: Path) -> None:
    exported(tmp_path, Plan(size=SIZE))
    with pytest.raises(UnavailableError, match="runs on macOS alone"):
        open_engine(tmp_path / "model.mlpackage")


@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML runs on macOS alone")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_core_ml_computes_the_network(tmp_path: Path, dtype: str) -> None:
    _, network = exported(tmp_path, Plan(dtype, size=SIZE, features=True))  # type: ignore[arg-type]
    engine = open_engine(tmp_path / "model.mlpackage", device="cpu")
    for x in map(noise, (1, 2, 7, 65)):
        for a, b in zip(engine.outputs(x), network.answer(x), strict=True):  # type: ignore[attr-defined]
            assert difference(a, b) < TOLERANCE[dtype]
