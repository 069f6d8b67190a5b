"""The facts about a model, as the JSON values of ``convnext models``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

from convnext_cli.base.text import JsonObject

if TYPE_CHECKING:
    from convnext_cli.checkpoints import Checkpoint
    from convnext_cli.model.card import Card
    from convnext_cli.zoo import Entry


class ModelRow(TypedDict):
    """One JSON object of ``models list``; unknown facts of weights without a card are None."""

    name: str
    where: str
    path: str | None
    default: bool
    aliases: list[str]
    size: int | None
    size_is_estimate: bool
    architecture: str | None
    params: int | None
    gmacs: float | None
    input: list[int] | None
    labels: str | None
    classes: int | None
    task: str | None
    top1: float | None
    license: str | None
    terms: str | None
    metrics: dict[str, float]
    source: str
    recommended: NotRequired[str | None]


class Statistics(TypedDict):
    """Figures that show whether weights are plausible."""

    tensors: int
    dtypes: dict[str, int]
    largest: float
    layer_scale: float | None


class CalibrationFacts(TypedDict):
    """What ``--sure`` and ``--sets`` rest on."""

    photos: int
    fewest: int
    temperature: float
    out_of_scope: str
    file: str


class ModelFacts(ModelRow, total=False):
    """The JSON object of ``models info``. A model that is not on this machine has ``pull``, and no file."""

    pull: str
    copies: list[str]
    layout: str
    file_sha256: str | None
    sha256: str
    temperature: float | None
    calibration: CalibrationFacts | None
    statistics: Statistics | None
    warnings: list[str]
    recipe: JsonObject
    config: JsonObject
    export: JsonObject


def row(name: str, source: Card | Entry | None, where: str, path: Path | None, chosen: bool) -> ModelFacts:
    """One JSON object of ``models list``.

    Args:
        name: of the model.
        source: its card or entry; None if neither is known.
        where: where it is: "bundled", "local", "pull" or "-".
        path: of its weights on this machine.
        chosen: whether it is the default.
    """
    facts: ModelFacts = {
        "name": name,
        "where": where,
        "path": None if path is None else str(path),
        "default": chosen,
        "aliases": list(getattr(source, "aliases", ())),
        "size": None if path is None else size_of(path),
        "size_is_estimate": path is None,
        "architecture": None,
        "params": None,
        "gmacs": None,
        "input": None,
        "labels": None,
        "classes": None,
        "task": None,
        "top1": None,
        "license": None,
        "terms": None,
        "metrics": {},
        "source": "",
    }
    if source is None:
        return facts
    if path is None and where == "pull":
        from convnext_cli.zoo.recommendation import download_size

        facts["size"] = download_size(source.config)
    facts["architecture"] = source.architecture
    facts["params"] = source.config.num_parameters
    facts["gmacs"] = round(source.config.gmacs(*source.preprocessing.size), 3)
    facts["input"] = list(source.preprocessing.size)
    facts["labels"] = source.labels if source.labels is None or isinstance(source.labels, str) else source.labels.name
    facts["classes"] = source.config.num_labels
    facts["task"] = source.task
    facts["top1"] = getattr(source, "top1", None)
    facts["license"] = source.license
    facts["terms"] = getattr(source, "terms", source.license if "non-commercial" in source.license else "")
    facts["metrics"] = dict(source.metrics)
    facts["source"] = source.source
    return facts


def size_of(path: Path) -> int | None:
    """The size of a model on this machine in bytes, with all its files; None if they are missing."""
    from convnext_cli import zoo

    files = zoo.local_files.shards(path) if path.name.endswith(".index.json") else _parts(path)
    try:
        return sum(file.stat().st_size for file in files)
    except OSError:
        return None


def inspect(path: Path) -> ModelFacts:
    """The JSON object of ``models info`` for weights on this machine.

    Raises:
        ModelError: the weights cannot be used.
    """
    from convnext_cli import checkpoints, zoo
    from convnext_cli.runtimes import registry
    from convnext_cli.zoo.record import sha256

    if registry.is_program(path):
        return _inspect_program(path)
    checkpoint = checkpoints.load(path, dtype="stored", verify=True)
    card, file = checkpoint.card, checkpoint.path
    facts = row(card.name or file.stem, card, "bundled" if file == zoo.local_files.bundled() else "local", file, False)
    if entry := zoo.entry_for_file(file):
        facts["terms"], facts["license"] = entry.terms, card.license or entry.license
        facts["source"] = card.source or entry.source
    facts["layout"], facts["file_sha256"], facts["size"] = checkpoint.layout, sha256(file), file.stat().st_size
    facts["statistics"], facts["warnings"] = _statistics(checkpoint), list(checkpoint.notes)
    _add_card(facts, card)
    facts["calibration"] = _calibration(path)
    return facts


def _calibration(path: Path) -> CalibrationFacts | None:
    """The calibration in the file of a model or beside it. Raises ModelError if it is damaged."""
    from convnext_cli.checkpoints import calibration_file

    calibration = calibration_file.read_calibration(path)
    if calibration is None:
        return None
    beside = calibration_file.path_beside(path)
    return {
        "photos": calibration.photos,
        "fewest": calibration.fewest,
        "temperature": calibration.temperature,
        "out_of_scope": calibration.scope.scorer.method,
        "file": str(beside if beside.is_file() else path),
    }


def _add_card(facts: ModelFacts, card: Card) -> None:
    facts["sha256"], facts["temperature"] = card.sha256, card.temperature
    facts["recipe"], facts["config"] = card.preprocessing.to_dict(), card.config.to_dict()


def _inspect_program(path: Path) -> ModelFacts:
    """The JSON object for a file of ``convnext export``, which is not run."""
    from dataclasses import asdict

    from convnext_cli.base.errors import ModelError
    from convnext_cli.runtimes import inspection
    from convnext_cli.zoo.record import sha256

    card, notes = inspection.inspect(path)
    if card is None or card.export is None:
        raise ModelError(
            f"{path.name} was made by another program, and has no card that describes it",
            f"convnext classify -m {path} PHOTO runs it",
        )
    facts = row(card.name or path.stem, card, "local", path, False)
    facts["layout"] = f"{card.export.format}, {card.export.dtype}"
    facts["file_sha256"] = sha256(path) if path.is_file() else None
    facts["size"] = sum(file.stat().st_size for file in _parts(path))
    facts["statistics"], facts["warnings"], facts["export"] = None, notes, asdict(card.export)
    _add_card(facts, card)
    facts["calibration"] = _calibration(path)
    return facts


def _parts(path: Path) -> list[Path]:
    """The files of an export: all files of a package; for OpenVINO and large ONNX files the weights, too."""
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    weights = path.with_suffix(".bin") if path.suffix.lower() == ".xml" else path.with_name(f"{path.name}.data")
    return [file for file in (path, weights) if file.is_file()]


def _statistics(checkpoint: Checkpoint) -> Statistics:
    dtypes: dict[str, int] = {}
    largest, scales = 0.0, []
    for name, tensor in checkpoint.tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        dtypes[kind] = dtypes.get(kind, 0) + tensor.numel()
        low, high = (float(x) for x in tensor.aminmax())
        largest = max(largest, -low, high)
        if name.endswith(".gamma") and ".grn." not in name:
            scales.append(float(tensor.float().abs().mean()))
    return {
        "tensors": len(checkpoint.tensors),
        "dtypes": dtypes,
        "largest": largest,
        "layer_scale": sum(scales) / len(scales) if scales else None,
    }
