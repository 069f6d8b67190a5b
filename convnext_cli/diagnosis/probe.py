"""Probes one engine: the devices that it can use, and whether its answers are correct. It runs in its own process.

A library for another processor, or a driver, may crash the process or hang; the parent has then read all results so
far. Each line of standard output is a JSON object: {"facts": …} once, {"device": …} for each,
{"trying": …} before and {"check": …} after each check, or {"broken": …}.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from convnext_cli import zoo
from convnext_cli.base.errors import ConvNextError, UnavailableError
from convnext_cli.base.text import JsonObject
from convnext_cli.runtimes import reference
from convnext_cli.runtimes.protocol import Engine

Say = Callable[[Mapping[str, object]], None]
Verdict = Literal["ok", "wrong", "failed", "skipped"]
_PHOTOS = 9  # on a GPU, one more than the largest batch that is replayed (cuda_graphs.LARGEST)
# The stored answer has nine decimals.
_TOLERANCE = reference.TOLERANCE | {"float64": 1e-8}


@dataclass(frozen=True)
class Check:
    """The check of an engine's answer to the reference input against that of network.py in float64.

    Args:
        engine, device, dtype: the engine that was checked.
        verdict: the result.
        reason: why it is not "ok".
        difference: the largest of a logit, as a share of the logits' range; None if the answer is not finite.
        top1_equal: whether the best class is the same.
        seconds: the time of the check.
        hint: how to fix a failure.
    """

    engine: str
    device: str
    dtype: str
    verdict: Verdict
    reason: str = ""
    difference: float | None = None
    top1_equal: bool | None = None
    seconds: float | None = None
    hint: str | None = None


class _Answering(Protocol):
    """An engine, or network.py in float64."""

    dtype: str

    def __call__(self, batch: np.ndarray) -> np.ndarray: ...

    def close(self) -> None: ...


def main(engine: str, threads: int) -> None:
    """Print the results for one engine on standard output, to which nothing else is written."""
    report = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def say(line: Mapping[str, object]) -> None:
        print(json.dumps(line), file=report)

    try:
        PROBES[engine](say, threads)
    except Exception as error:
        say({"broken": reason(error)})


def reason(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, ConvNextError):
        return error.message
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


# torch ----------------------------------------------------------------------------------------------------------------


def probe_torch(say: Say, threads: int) -> None:
    import torch

    from convnext_cli.runtimes.torch import devices
    from convnext_cli.runtimes.torch.engine import TorchEngine

    kit = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    cuda = torch.cuda.is_available()
    built_for = torch.cuda.get_arch_list() if torch.version.cuda or torch.version.hip else []
    say(
        {
            "facts": {
                "version": torch.__version__,
                "built_for": kit if torch.version.cuda or torch.version.hip else "CPU",
                "architectures": built_for,
                "cpu_capability": torch.backends.cpu.get_cpu_capability(),
                "driver": devices.nvidia(),
                "why_no_cuda": "" if cuda else devices.why_missing("cuda")[0].removeprefix(": "),
                "compiler": os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++"),
            }
        }
    )
    names = devices.devices()[::-1]  # the CPU first, which others are held against
    for name in names:
        device: dict[str, object] = {"name": name, "description": "", "memory_bytes": None}
        if name.startswith("cuda"):
            properties = torch.cuda.get_device_properties(name)
            capability = (properties.major, properties.minor)
            device |= {"description": properties.name, "memory_bytes": properties.total_memory}
            if torch.version.cuda:
                device |= {"capability": "{}.{}".format(*capability)}
                device |= {"has_kernels": devices.has_kernels(capability, built_for)}
        elif name == "xpu":
            xpu = torch.xpu.get_device_properties(0)
            device |= {"description": xpu.name, "memory_bytes": xpu.total_memory}
        say({"device": device})
    path = _bundled()
    for name in names:
        for dtype in ("float64", "float32", "bfloat16", "float16"):
            if dtype == "float64":
                if name == "cpu":
                    _check(say, "torch", name, dtype, lambda: _Exact(path))
            else:
                make = partial(TorchEngine, path, device=name, dtype=dtype, threads=threads)
                _check(say, "torch", name, dtype, make)


class _Exact:
    """network.py in float64, which made the stored answer."""

    dtype = "float64"

    def __init__(self, path: Path) -> None:
        import torch

        from convnext_cli import checkpoints
        from convnext_cli.model.network import build

        checkpoint = checkpoints.load(path, dtype=torch.float64)
        self._network = build(checkpoint.card.config, checkpoint.tensors)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return np.asarray(self._network(torch.from_numpy(batch).double()).logits.numpy())

    def close(self) -> None:
        pass


# openvino, onnxruntime ------------------------------------------------------------------------------------------------


def probe_openvino(say: Say, threads: int) -> None:
    from convnext_cli.checkpoints.numpy_arrays import read_arrays
    from convnext_cli.runtimes.openvino import engine as openvino
    from convnext_cli.runtimes.openvino.runtime import ov

    core = ov.Core()
    card, arrays = read_arrays(_bundled())
    model = openvino.graph(card.config, arrays)
    precision = "INFERENCE_PRECISION_HINT"
    by_itself = core.compile_model(model, "CPU").get_property(precision).to_string()
    asked = core.compile_model(model, "CPU", {precision: "f32"}).get_property(precision).to_string()
    version = ov.get_version().partition("-")[0]
    say({"facts": {"version": version, "precision_by_itself": by_itself, "float32_honoured": asked == "f32"}})
    for name in core.available_devices:
        device: dict[str, object] = {"name": name.lower(), "description": "", "capabilities": []}
        with contextlib.suppress(RuntimeError):
            device["description"] = core.get_property(name, "FULL_DEVICE_NAME").strip()
            device["capabilities"] = list(core.get_property(name, "OPTIMIZATION_CAPABILITIES"))
        say({"device": device})

    for dtype in ("float32", "bfloat16", "float16"):
        make = partial(openvino.OpenVINOEngine, model, card, dtype=dtype, threads=threads)
        _check(say, "openvino", "cpu", dtype, make)


def probe_onnxruntime(say: Say, threads: int) -> None:
    from convnext_cli.base.libraries import load_onnxruntime

    ort = load_onnxruntime()
    from convnext_cli.checkpoints.numpy_arrays import read_arrays
    from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine

    providers = ort.get_available_providers()
    say({"facts": {"version": ort.__version__, "providers": providers}})
    names = ["cpu", *(["cuda"] if "CUDAExecutionProvider" in providers else [])]
    for name in names:
        say({"device": {"name": name, "description": ""}})
    card, arrays = read_arrays(_bundled())

    def engine(device: str) -> Engine:
        from convnext_cli.runtimes.onnx import graph

        program = graph.graph(card.config, arrays, card).SerializeToString()
        return OnnxRuntimeEngine(program, card, device=device, threads=threads, dtype="float32")

    for name in names:
        _check(say, "onnxruntime", name, "float32", partial(engine, name))


PROBES: dict[str, Callable[[Say, int], None]] = {
    "torch": probe_torch,
    "openvino": probe_openvino,
    "onnxruntime": probe_onnxruntime,
}


# checks ---------------------------------------------------------------------------------------------------------------


def _check(say: Say, engine: str, device: str, dtype: str, make: Callable[[], _Answering]) -> None:
    """Compare an engine's answers to the reference input, alone and in a batch, with the stored answer."""
    result: dict[str, object] = {"engine": engine, "device": device, "dtype": dtype}
    say({"trying": result})
    start = time.perf_counter()
    try:
        result |= _verdict(make, dtype, 2 if device == "cpu" else _PHOTOS)
    except Exception as error:
        result |= {"verdict": "failed", "reason": reason(error)}
        # a device need not support every precision; only float32 is required
        unknown = isinstance(error, NotImplementedError | TypeError) and dtype != "float32"
        if unknown or (isinstance(error, UnavailableError) and engine != "torch"):
            result["verdict"] = "skipped"
        if isinstance(error, ConvNextError):
            result["hint"] = error.hint
    say({"check": result | {"seconds": round(time.perf_counter() - start, 3)}})


def _verdict(make: Callable[[], _Answering], dtype: str, count: int) -> dict[str, object]:
    photo, expected = _reference()
    photos = np.repeat(photo, count, 0)
    engine = make()
    with contextlib.closing(engine):
        one = np.concatenate([engine(photos[:1]), engine(photos[:1])])
        many = engine(photos)
        difference = max(reference.difference(row[None], expected) for row in (*one, *many))
        top1 = bool((np.concatenate([one, many]).argmax(-1) == expected.argmax()).all())
        computed = engine.dtype
    verdict: dict[str, object] = {"difference": difference if np.isfinite(difference) else None, "top1_equal": top1}
    if computed != dtype:
        return verdict | {"verdict": "wrong", "reason": f"it computes in {computed} when asked for {dtype}"}
    if difference > _TOLERANCE[dtype]:
        off = (
            f"it differs by {difference:.1e} of the range of the scores"
            if np.isfinite(difference)
            else "not a finite number"
        )
        return verdict | {"verdict": "wrong", "reason": f"{off}; at most {_TOLERANCE[dtype]:.0e} is rounding"}
    return verdict | {"verdict": "ok", "reason": ""}


def _bundled() -> Path:
    path = zoo.local_files.bundled()
    if path is None:
        raise UnavailableError("the bundled model is missing", "pip install --force-reinstall convnext-cli")
    return path


def _reference() -> tuple[np.ndarray, np.ndarray]:
    """The reference input, (1, 3, H, W), and the answer of network.py in float64, (1, classes)."""
    path = _bundled()
    card = zoo.local_files.embedded_card(path)
    answer = path.with_name("reference.json")
    if card is None or not answer.is_file():
        raise UnavailableError(f"{answer.name} is missing", "pip install --force-reinstall convnext-cli")
    stored = json.loads(answer.read_text("utf-8"))
    if stored["sha256"] != card.sha256:
        raise UnavailableError(f"{answer.name} belongs to other weights", "pip install --force-reinstall convnext-cli")
    return reference.reference_input(*card.preprocessing.size), np.array(stored["logits"])


def answers(lines: str) -> Iterator[JsonObject]:
    """The results that a process printed, complete lines only."""
    for line in lines.splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
