"""What is measured: one of our engines, another library, or a training step, all as a ``Subject``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from convnext_cli.base.errors import UsageError
from convnext_cli.base.threads import usable_threads
from convnext_cli.benchmarking import work
from convnext_cli.benchmarking.measure import Subject
from convnext_cli.benchmarking.setting import Setting
from convnext_cli.model.card import Card
from convnext_cli.runtimes.select import open_engine


def open_subject(setting: Setting, *, prepare: bool = False, say: Callable[[str], None] = lambda _: None) -> Subject:
    """Open it. Raises what ``open_engine`` raises, and UnavailableError for a peer that is not there."""
    if setting.peer or setting.mode == "train":
        import torch

        torch.set_num_threads(setting.threads)
    if setting.mode == "train":
        from convnext_cli.benchmarking.training import TrainingStep

        return TrainingStep(setting)
    if setting.peer:
        from convnext_cli.benchmarking.peers import open_peer

        return open_peer(setting)
    if setting.layout:
        if setting.engine not in ("auto", "torch"):
            raise UsageError(f"{setting.engine} has a layout of its own", "--layout is for --engine torch")
        from convnext_cli.runtimes.torch.engine import TorchEngine

        return TorchEngine(
            Path(setting.path),
            device=setting.device,
            dtype=setting.dtype,
            threads=setting.threads,
            compiled=setting.compiled,
            layout=setting.layout,
        )
    return open_engine(
        Path(setting.path),
        engine=setting.engine,
        device=setting.device,
        dtype=setting.asked_dtype,
        threads=setting.threads,
        job="latency" if setting.batch_size == 1 else "throughput",
        batch_size=setting.batch_size,
        compiled=setting.compiled,
        prepare=prepare,
        say=say,
    )


def describe(engine: Subject, setting: Setting) -> dict[str, object]:
    """What it turned out to be, as read back from it, and the work of one photo."""
    config, size = engine.card.config, input_size(engine.card, setting)
    # what is inside another program's ONNX file is not known
    known = not setting.path.lower().endswith(".onnx") or bool(engine.card.sha256)
    return {
        "engine": engine.name,
        "device": engine.device,
        "provider": getattr(engine, "provider", None),
        "dtype": engine.dtype,
        "layout": getattr(engine, "layout", None),
        "image_size": list(size),
        "architecture": engine.card.architecture,
        "weights_sha256": engine.card.sha256,
        "macs": work.macs(config, size) if known else None,
        "minimum_bytes": work.minimum_bytes(config, size, engine.dtype, setting.batch_size) if known else None,
        "usable_threads": usable_threads(),
        "notes": list(engine.notes),
    }


def input_size(card: Card, setting: Setting) -> tuple[int, int]:
    """(height, width) in pixels. Raises UsageError for a size below the network's stride."""
    if setting.size is None:
        return card.preprocessing.size
    if setting.size < card.config.stride:
        raise UsageError(
            f"{setting.size} pixels are less than the network's stride", f"take --size {card.config.stride} or more"
        )
    return setting.size, setting.size
