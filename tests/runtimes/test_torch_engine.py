"""The torch engine against network.py in float64, on the CPU; what needs a GPU is marked and skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError, UnavailableError, UsageError
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.network import build
from convnext_cli.runtimes.reference import difference, reference_input
from convnext_cli.runtimes.torch import devices as torch_devices
from convnext_cli.runtimes.torch.engine import TorchEngine, devices
from convnext_cli.runtimes.torch.real_float32 import real_float32
from tests.helpers.tiers import slow_except

SMALL = {"depths": (1, 1, 2, 1), "hidden_sizes": (8, 16, 24, 32), "num_labels": 5, "layer_scale_init_value": 0.5}
CONFIGS = {
    "V1": ConvNextConfig(**SMALL),
    "V2": ConvNextConfig(**SMALL | {"layer_scale_init_value": 0, "use_grn": True}),
    "isotropic": ConvNextConfig(depths=(2,), hidden_sizes=(16,), patch_size=16, stem_norm=False, num_labels=5),
}
# Share of the range of the logits; seen were at most 4e-7, 2e-2 and 3e-3.
TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


def made(config: ConvNextConfig, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Weights in which every parameter matters: none is 0 or 1, and no activation vanishes."""
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in config.shapes().items():
        values = torch.randn(shape, generator=random, dtype=torch.float64)
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 and "grn" not in name else 4
        tensors[name] = (values / fan_in**0.5 + (0.8 if len(shape) == 1 else 0)).to(dtype)
    return Checkpoint(tensors, Card(config), "canonical", Path("made.safetensors"))


def exact(checkpoint: Checkpoint, batch: np.ndarray) -> np.ndarray:
    """network.py in float64."""
    network = build(checkpoint.card.config, {name: tensor.double() for name, tensor in checkpoint.tensors.items()})
    with torch.inference_mode():
        return network(torch.from_numpy(batch).double()).logits.numpy()


def shallow(name: str) -> ConvNextConfig:
    """Two stages of one block, which compile in half the time."""
    return CONFIGS[name].replace(depths=(1, 1), hidden_sizes=(8, 16), kernel_sizes=(7, 7))


def engine(checkpoint: Checkpoint, **options: object) -> TorchEngine:
    return TorchEngine(Path("nowhere"), checkpoint=checkpoint, **{"device": "cpu"} | options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_made_here_all_matter(name: str) -> None:
    checkpoint, x = made(CONFIGS[name]), reference_input(64, 64)
    before = exact(checkpoint, x)
    for parameter, tensor in checkpoint.tensors.items():
        changed = Checkpoint(checkpoint.tensors | {parameter: tensor * 1.5}, checkpoint.card, "", checkpoint.path)
        assert difference(exact(changed, x), before) > 1e-4, parameter


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("layout", [None, "channels_last", "contiguous"])
@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [("float32", False), ("bfloat16", False), ("float16", False), ("bfloat16", True), ("float16", True)],
)
def test_eager_is_the_network(name: str, layout: str | None, dtype: str, autocast: bool) -> None:
    checkpoint, x = made(CONFIGS[name]), reference_input(64, 96, 3)
    with_torch = engine(checkpoint, layout=layout, dtype=dtype, autocast=autocast)
    logits = with_torch(x)
    with_torch.close()
    assert logits.dtype == np.float32 and logits.shape == (3, 5)
    assert difference(logits, exact(checkpoint, x)) < TOLERANCE[dtype]
    assert (with_torch.device, with_torch.dtype, with_torch.compilations) == ("cpu", dtype, 0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_really_used(dtype: str) -> None:
    checkpoint, x = made(CONFIGS["V1"]), reference_input(64, 64)
    for autocast in (False, True):
        assert difference(engine(checkpoint, dtype=dtype, autocast=autocast)(x), exact(checkpoint, x)) > 1e-5


@pytest.mark.slow
def test_compiled_is_the_network_and_compiles_once_for_smaller_batches() -> None:
    checkpoint, x = made(shallow("V2")), reference_input(64, 64, 5)
    wanted = exact(checkpoint, x)
    compiled = engine(checkpoint, compiled=True)
    for size in (4, 3, 1, 4, 2):
        logits = compiled(x[:size])
        assert logits.shape == (size, 5)
        assert difference(logits, wanted[:size]) < TOLERANCE["float32"]
    assert compiled.compilations == 1
    assert difference(compiled(x), wanted) < TOLERANCE["float32"]
    assert compiled.compilations == 2


@pytest.mark.slow
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch was built without oneDNN")
def test_compiled_code_holds_the_weights_as_constants() -> None:
    compiled, x = engine(made(shallow("V1")), compiled=True), reference_input(64, 64, 2)
    compiled(x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        compiled(x)
    # only constants are packed beforehand
    assert "mkldnn::_convolution_pointwise" in {event.name for event in profile.events()}


@pytest.mark.parametrize(("dtype", "autocast"), [("bfloat16", False), ("bfloat16", True)])
@pytest.mark.slow
def test_compiled_in_half_precision(dtype: str, autocast: bool) -> None:
    checkpoint, x = made(shallow("V1")), reference_input(64, 64, 2)
    logits = engine(checkpoint, compiled=True, dtype=dtype, autocast=autocast)(x)
    assert difference(logits, exact(checkpoint, x)) < TOLERANCE[dtype]


@pytest.mark.slow
def test_compiling_without_a_compiler_says_what_is_missing() -> None:
    code = (
        "from tests.runtimes.test_torch_engine import *\n"
        "try: engine(made(CONFIGS['V1']), compiled=True)(reference_input(64, 64))\n"
        "except UnavailableError as error: print(error.message, '|', error.hint)\n"
    )
    environment = os.environ | {"CXX": "/nowhere/c++", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "torch cannot compile here" in done.stdout
    assert "--compile" in done.stdout


def test_a_batch_is_split_over_devices_in_order() -> None:
    checkpoint, x = made(CONFIGS["V1"]), reference_input(64, 64, 5)
    several = engine(checkpoint, device=["cpu", "cpu", "cpu"])
    assert several.device == "cpu+cpu+cpu"
    wanted = exact(checkpoint, x)
    for size in (5, 2, 1):  # uneven parts, and fewer photos than devices
        assert difference(several(x[:size]), wanted[:size]) < TOLERANCE["float32"]
    several.close()


def test_split_parts_fail_together() -> None:
    several = engine(made(CONFIGS["V1"]), device=["cpu", "cpu"])
    with pytest.raises(RuntimeError, match="channels"):
        several(np.zeros((2, 4, 64, 64), np.float32))
    several.close()


@pytest.mark.parametrize("interface", slow_except(["old", "new"], "new"))
def test_float32_stays_float32_whatever_the_process_asked_for(interface: str) -> None:
    """In a process of its own: the interfaces' settings cannot be taken back one by one."""
    ask = {
        "old": "torch.set_float32_matmul_precision('medium'); torch.backends.cudnn.allow_tf32 = True",
        "new": "torch.backends.mkldnn.matmul.fp32_precision = torch.backends.mkldnn.conv.fp32_precision = 'bf16'; "
        "torch.backends.cudnn.conv.fp32_precision = 'tf32'; torch.backends.cudnn.rnn.fp32_precision = 'ieee'",
    }[interface]
    code = (
        "from tests.runtimes.test_torch_engine import *\n"
        "b = torch.backends\n"
        "settings = lambda: [p.fp32_precision for p in (b.cuda.matmul, b.cudnn.conv, b.mkldnn.matmul, b.mkldnn.conv)]\n"
        f"{ask}\n"
        "before = settings()\n"
        "checkpoint = made(ConvNextConfig(**SMALL | {'hidden_sizes': (64, 128, 192, 256)}))\n"
        "x = reference_input(64, 64, 2)\n"
        "with real_float32(): assert not {'tf32', 'bf16'} & set(settings())\n"
        "print(difference(engine(checkpoint)(x), exact(checkpoint, x)))\n"
        "assert settings() == before, (before, settings())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < TOLERANCE["float32"]


def test_cuda_would_not_use_tf32() -> None:
    before = torch.backends.cudnn.allow_tf32
    with real_float32():
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32  # as the compiler reads it
    assert torch.backends.cudnn.allow_tf32 == before


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    first = engine(made(CONFIGS["V1"]), threads=before + 1)
    assert torch.get_num_threads() == before + 1
    first.close()
    assert torch.get_num_threads() == before


def test_the_weights_are_read_where_none_are_given_and_not_changed(tmp_path: Path) -> None:
    checkpoint, x = made(CONFIGS["V1"]), reference_input(64, 64)
    checkpoints.save(checkpoint, tmp_path / "made.safetensors")
    for dtype in ("float32", "bfloat16"):
        read = TorchEngine(tmp_path / "made.safetensors", device="cpu", dtype=dtype)
        np.testing.assert_array_equal(read(x), engine(checkpoint, dtype=dtype)(x))
    assert all(tensor.dtype == torch.float32 for tensor in checkpoint.tensors.values())


def test_a_batch_that_does_not_fit_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        engine(made(CONFIGS["V1"]))(np.broadcast_to(np.zeros((), np.float32), (1 << 30, 3, 64, 64)))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"dtype": "int8"}, UnavailableError, "int8"),
        ({"autocast": True}, UsageError, "autocast"),
        ({"layout": "blocked"}, UsageError, "blocked"),
        ({"device": "tpu"}, UnavailableError, "tpu"),
        ({"device": "cuda:77"}, UnavailableError, "cuda:77"),
    ],
)
def test_wishes_that_cannot_be_met(options: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        engine(made(CONFIGS["V1"]), **options)


def test_photos_have_three_channels() -> None:
    with pytest.raises(ModelError, match="4-channel"):
        engine(made(ConvNextConfig(**SMALL | {"num_channels": 4})))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("wish", ["cuda", "cuda:0", "cuda:all"])
def test_a_missing_gpu_is_told_with_what_was_found(wish: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        engine(made(CONFIGS["V1"]), device=wish)
    assert torch.__version__ in caught.value.message
    assert "driver" in caught.value.message or "GPU" in caught.value.message
    assert "cpu" in str(caught.value.hint)
    assert caught.value.exit_status == 4


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((6, 1), ["sm_75", "sm_120"], False),
        ((12, 0), ["sm_90"], False),
        ((12, 1), ["sm_90", "compute_90"], True),
        ((9, 0), ["sm_90a"], False),
        ((12, 0), ["sm_120"], True),
    ],
)
def test_which_gpus_a_torch_has_code_for(capability: tuple[int, int], built_for: list[str], runs: bool) -> None:
    assert torch_devices.has_kernels(capability, built_for) is runs


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_cuda_is_the_network(dtype: str, compiled: bool) -> None:
    checkpoint = made(CONFIGS["V2"])
    on_gpu = engine(checkpoint, device="cuda", dtype=dtype, compiled=compiled)
    for size in (1, 3, 1, 12):  # recorded, recorded, replayed, too large to record
        x = reference_input(64, 64, size)
        assert difference(on_gpu(x), exact(checkpoint, x)) < TOLERANCE[dtype]


@pytest.mark.gpu
@GPU
def test_all_gpus_together_are_the_network() -> None:
    checkpoint, x = made(CONFIGS["V1"]), reference_input(64, 64, 9)
    together = engine(checkpoint, device="cuda:all")
    assert together.device == "+".join(name for name in devices() if name.startswith("cuda"))
    assert difference(together(x), exact(checkpoint, x)) < TOLERANCE["float32"]
    together.close()


@pytest.mark.gpu
@GPU
def test_a_replayed_graph_takes_the_new_photos() -> None:
    checkpoint = made(CONFIGS["V1"])
    on_gpu = engine(checkpoint, device="cuda")
    first, second = reference_input(64, 64, 1), -reference_input(64, 64, 1)
    one = on_gpu(first)
    assert difference(on_gpu(second), exact(checkpoint, second)) < TOLERANCE["float32"]
    np.testing.assert_array_equal(on_gpu(first), one)
