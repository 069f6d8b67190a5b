"""Which engine runs a model: ``open_engine`` opens it, and prepares it where that is asked for."""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli import zoo
from convnext_cli.base.errors import ConvNextError, ModelError, UnavailableError, UsageError
from convnext_cli.model.card import Card
from convnext_cli.runtimes import cache, reference
from convnext_cli.runtimes.protocol import Engine, Job
from convnext_cli.runtimes.registry import ENGINES, format_of

if TYPE_CHECKING:
    from convnext_cli.runtimes.exported import ExportedEngine


def open_engine(
    path: Path,
    *,
    engine: str = "auto",
    device: str = "auto",
    dtype: str | None = None,
    threads: int = 1,
    job: Job = "latency",
    batch_size: int = 1,
    compiled: bool = False,
    prepare: bool = False,
    say: Callable[[str], None] = lambda _: None,
    stage: Callable[[str], None] = lambda _: None,
) -> Engine:
    """The engine for a model file or folder.

    engine: one of ENGINES; "auto" is the fastest that is prepared, on a GPU and where nothing is prepared torch.
    dtype: None for float32, and for that of a file that was exported.
    threads: processor threads it may use. job: "latency" for few photos, "throughput" for many. batch_size: how many
    will come at once, mostly; others are slower. compiled: have torch compile the network. prepare: build
    missing engines first, which takes seconds. say: called with each note for the user. stage: called
    with the name of each part of preparing, as it begins.
    Raises ModelError when the model cannot be used, UnavailableError when the device or engine is not there, UsageError
    for wishes that exclude each other.
    """
    if compiled and engine not in ("auto", "torch"):
        raise UsageError(f"--compile is for torch, not for {engine}", "leave one of the two out")
    if (form := format_of(path)) is not None:
        if not form.reader:
            return _onnx_file(path, engine, device, dtype, threads, compiled)
        if form.runs_when_opened and path.exists():
            say(f"{path.name} is a program, and opening it runs it: open only files of those whom you trust")
        return open_exported(path, engine=engine, device=device, dtype=dtype, threads=threads, compiled=compiled)
    dtype = dtype or "float32"
    if engine in ("openvino", "onnxruntime") and find_spec(engine) is None:
        raise UnavailableError(f"{engine} is not installed", f"pip install {ENGINES[engine]}")
    if engine == "auto":
        # float16 is for GPUs; a processor computes it slowly, and in torch alone
        elsewhere = device not in ("auto", "cpu") or (device == "auto" and dtype != "int8" and _gpu())
        if compiled or dtype == "float16" or elsewhere:
            engine = "torch"
    elif device not in ("auto", "cpu") and engine != "torch":
        raise UnavailableError(f"{engine} runs this model on the CPU", "leave -d out, or take --engine torch")
    if engine == "torch":
        return _torch(path, say, device=device, dtype=dtype, threads=threads, compiled=compiled)
    if prepared := _from_cache(path, engine, dtype, threads, job, batch_size, say):
        return prepared
    bundled = engine != "onnxruntime" and dtype != "int8" and path == zoo.local_files.bundled()
    if bundled and (prepared := _bundled(path, dtype, threads, batch_size)):
        return prepared
    if dtype == "int8":
        raise UnavailableError(
            "this model is not prepared in int8",
            f"convnext prepare -m {path} --dtype int8 --calibrate FOLDER    (a hundred photos of your kind or more)",
        )
    if engine == "auto" and not prepare:
        return _torch(path, say, device="cpu", dtype=dtype, threads=threads)
    return _prepared(path, engine, dtype, threads, job, batch_size, say, stage)


def _gpu() -> bool:
    """Whether torch has a GPU to use. Importing torch takes longer than a photo does, so the system is asked first."""
    if sys.platform == "darwin":
        seen = platform.machine() == "arm64"
    elif sys.platform == "win32":
        system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32"
        seen = any((system / name).exists() for name in ("nvcuda.dll", "ze_loader.dll"))
    else:
        # every screen has /dev/dri, but only one build of torch computes through it
        build = cache.installed().get("torch", "").partition("+")[2]
        drivers = ["/dev/dri"] if build == "xpu" else ["/dev/nvidiactl", "/dev/dxg", "/dev/kfd"]
        seen = build != "cpu" and any(Path(driver).exists() for driver in drivers)
    if not seen:
        return False
    from convnext_cli.runtimes.torch.engine import devices

    return devices() != ["cpu"]


def _torch(
    path: Path, say: Callable[[str], None], *, device: str, dtype: str, threads: int, compiled: bool = False
) -> Engine:
    if compiled:
        say("torch compiles the network with the first photos, and again for a larger batch: up to a minute")
    # Importing torch makes many objects and no garbage; looking for some meanwhile costs a tenth of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        from convnext_cli.runtimes.torch.engine import TorchEngine
    finally:
        if collecting:
            gc.enable()
    return TorchEngine(path, device=device, dtype=dtype, threads=threads, compiled=compiled)


def _from_cache(
    path: Path, engine: str, dtype: str, threads: int, job: Job, batch_size: int, say: Callable[[str], None]
) -> Engine | None:
    """What is prepared for these weights; None when there is nothing, or it is damaged."""
    if (known := cache.known(path)) is None:
        return None
    if engine == "auto":
        choice = cache.choice(known.card, dtype)
        if dtype != "int8" and choice is None:
            return None
        engine = choice.best(job) if choice else "openvino"
    if engine.startswith("torch"):
        return _torch(path, say, device="cpu", dtype=dtype, threads=threads, compiled=engine != "torch")
    entry = cache.find(known.card, engine, dtype)
    if entry is None:
        return None
    intact = cache.Check(entry)  # reads the files while the runtime is loaded
    opened: Engine | None = None
    # a runtime says in its own words that a file is damaged; the engine is then built again
    with suppress(RuntimeError, ConvNextError, OSError):
        if engine == "openvino":
            from convnext_cli.runtimes.openvino import engine as openvino

            opened = openvino.OpenVINOEngine(
                entry.folder / openvino.FILE, known.card, dtype=dtype, threads=threads, batch_size=batch_size
            )
        else:
            opened = _onnxruntime(entry.folder / "model.onnx", known.card, "cpu", threads, dtype)
    if opened is None or not intact():
        say(f"what was prepared of {path.name} for {engine} is damaged, and is removed")
        cache.discard(entry)
        return None
    opened.notes = [*known.notes, *opened.notes]
    return opened


def _bundled(path: Path, dtype: str, threads: int, batch_size: int) -> Engine | None:
    """The bundled default, which is small enough to be built each time, and brings the answer that it must give."""
    try:
        from convnext_cli.runtimes.openvino import engine as openvino
    except ImportError:
        return None
    from convnext_cli.checkpoints.numpy_arrays import read_arrays

    card, arrays = read_arrays(path)
    opened = openvino.OpenVINOEngine(
        openvino.graph(card.config, arrays), card, dtype=dtype, threads=threads, batch_size=batch_size
    )
    answer = json.loads(path.with_name("reference.json").read_text("utf-8"))
    if answer["sha256"] != card.sha256:
        return None
    logits = opened(reference.reference_input(*card.preprocessing.size))
    if reference.difference(logits, answer["logits"]) > reference.TOLERANCE[dtype]:
        return None
    return opened


def _onnx_file(path: Path, engine: str, device: str, dtype: str | None, threads: int, compiled: bool) -> Engine:
    """A file of the user's, in the precision that it has."""
    if engine not in ("auto", "onnxruntime") or compiled:
        raise UsageError(f"only onnxruntime runs {path.name}", "leave --engine and --compile out")
    opened = _onnxruntime(path, None, device, threads)
    if dtype not in (None, opened.dtype):
        opened.close()
        raise UsageError(f"{path.name} computes in {opened.dtype}, not in {dtype}", "leave --dtype out")
    return opened


def open_exported(
    path: Path,
    *,
    engine: str = "auto",
    device: str = "auto",
    dtype: str | None = None,
    threads: int = 1,
    compiled: bool = False,
) -> ExportedEngine:
    """A file that ``convnext export`` made, but ONNX, in its own runtime. Raises as ``open_engine`` does."""
    from convnext_cli.runtimes.exported import ExportedEngine

    form = format_of(path)
    if form is None or not form.reader:
        raise ModelError(f"{path.name} is not a file that `convnext export` made for a runtime", "check the path")
    if engine not in ("auto", form.runtime) or compiled:
        raise UsageError(f"only {form.runtime} runs {path.name}", "leave --engine and --compile out")
    if not path.exists():
        raise ModelError(f"{path} does not exist", "check the path")
    if find_spec(form.library.replace("-", "_")) is None:
        raise UnavailableError(f"{path.name} needs {form.library}", f"pip install {form.library}")
    runtime, card = form.load_reader().open_file(path, device=device, threads=threads)
    opened = ExportedEngine(path.name, runtime, card)
    if dtype not in (None, opened.dtype):
        opened.close()
        raise UsageError(f"{path.name} computes in {opened.dtype}, not in {dtype}", "leave --dtype out")
    return opened


def _onnxruntime(path: Path, card: Card | None, device: str, threads: int, dtype: str | None = None) -> Engine:
    from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, card, device=device, threads=threads, dtype=dtype)


def _prepared(
    path: Path,
    engine: str,
    dtype: str,
    threads: int,
    job: Job,
    batch_size: int,
    say: Callable[[str], None],
    stage: Callable[[str], None],
) -> Engine:
    from convnext_cli.runtimes.build import build_engines

    say(f"preparing {path.name} for this machine, once")
    # what is measured for folders is measured in batches
    done = build_engines(
        path, dtype=dtype, threads=threads, batch_size=max(8, batch_size), keep=engine, brief=True, stage=stage
    )
    if done.kept:
        say(f"{done.kept}: it will be prepared again next time")
    name = done.choice.best(job) if engine == "auto" else engine
    if name not in done.engines:
        raise UnavailableError(f"{engine} cannot run it: {'; '.join(done.refused)}", "take --engine torch")
    for other in done.engines.values():
        if other is not done.engines[name]:
            other.close()
    return done.engines[name]
