"""The verb ``convert``: weights in another library's layout.

A network that the library cannot hold, and a target that cannot be written, are refused before anything is written. A
file or folder takes its name only when it is complete and on the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from convnext_cli import zoo
from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.base.files import user_path
from convnext_cli.base.libraries import libraries_said
from convnext_cli.base.listener import SILENT, Listener
from convnext_cli.checkpoints import targets
from convnext_cli.checkpoints.companion_files import WEIGHTS
from convnext_cli.checkpoints.layouts.registry import LAYOUTS, TARGETS
from convnext_cli.model.card import Card
from convnext_cli.storage.addresses import check_output

if TYPE_CHECKING:
    from torch import Tensor

    from convnext_cli.checkpoints.layouts.layout import Layout

Dtype = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """The request of ``convert``.

    Args:
        source: a name, a file or a folder of any layout.
        output: the file or folder to write, depending on the layout.
        layout: a key of ``layouts.registry.TARGETS``.
        dtype: of the tensors. None is float32 for hf, whose networks compute in the dtype of the file, and keeps the
            dtypes of the source for other layouts.
        layer_norm_eps: another epsilon for the last norm; None keeps it.
        overwrite: whether an existing output may be replaced.

    Raises:
        UsageError: a value is out of range.
    """

    source: str | Path
    output: str | Path
    layout: str
    dtype: Dtype | None = None
    layer_norm_eps: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.layout not in TARGETS:
            raise UsageError(f"layout must be one of {', '.join(TARGETS)}, not {self.layout!r}")
        if self.dtype not in (None, *get_args(Dtype)):
            raise UsageError(f"dtype must be one of {', '.join(get_args(Dtype))}, not {self.dtype!r}")
        if self.layer_norm_eps is not None and not 0 < self.layer_norm_eps <= 1:
            raise UsageError(f"layer_norm_eps must be above 0 and at most 1, not {self.layer_norm_eps!r}")


@dataclass(frozen=True)
class ConvertResult:
    """The result of a conversion.

    Args:
        path: of the file or folder.
        files: all files that were written.
        layout: as the request names it.
        origin: the layout of the source.
        dtype: the dtypes of the tensors, separated by commas.
        tensors: how many there are.
        bytes: the size of all files together.
        card: of the weights as they were written.
        notes: what was inferred or left out when the source was read, and what the layout cannot hold.
    """

    path: Path
    files: tuple[Path, ...]
    layout: str
    origin: str
    dtype: str
    tensors: int
    bytes: int
    card: Card
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """The JSON object of ``convert --json``."""
        return {
            "path": str(self.path),
            "files": [str(file) for file in self.files],
            "from": self.origin,
            "to": self.layout,
            "dtype": self.dtype,
            "bytes": self.bytes,
            "tensors": self.tensors,
            "sha256": self.card.sha256,
            "notes": list(self.notes),
        }


@libraries_said()
def convert(request: ConvertRequest, listener: Listener = SILENT) -> ConvertResult:
    """Write weights in another layout. Code in a pickle is never run.

    Args:
        request: the weights, the layout and the target.
        listener: receives the progress.

    Raises:
        UsageError: the output is not a possible target.
        ModelError: the source cannot be used, or the layout cannot hold the network.
        OutputError: the output cannot be written; an existing one stays.
    """
    check_output(str(request.output))
    source, out, layout = zoo.resolve(request.source), user_path(request.output), request.layout
    folder = targets.is_folder(out, layout)
    targets.check(source, out, folder=folder, overwrite=request.overwrite)
    from convnext_cli.checkpoints import calibration_file, canonical, expressible, layout_files
    from convnext_cli.checkpoints.loading import load
    from convnext_cli.checkpoints.rename import to_layout

    listener.stage(f"reading {source.name}")
    checkpoint = load(source, dtype="stored", verify=True)
    card, notes = checkpoint.card, [*checkpoint.notes, *calibration_file.left_out(source)]
    former = card.config.layer_norm_eps
    if request.layer_norm_eps is not None and request.layer_norm_eps != former:
        notes.append(f"the epsilon of the last norm was changed from {former:g} to {request.layer_norm_eps:g}")
        card = card.replace(config=card.config.replace(layer_norm_eps=request.layer_norm_eps))
    expressible.check(card.config, layout, bare=not folder)
    tensors, dtype = checkpoint.tensors, request.dtype
    if layout == "hf":
        dtype = dtype or "float32"
        if card.temperature not in (None, 1) and card.problem == "single_label" and card.config.num_labels:
            notes.append(
                f"the classifier's weights and bias were divided by the temperature, {card.temperature:g}, "
                "so that the scores stay the same"
            )
            tensors, card = _folded(tensors, card)
    if dtype is not None:
        tensors = _cast(tensors, dtype, LAYOUTS.get(checkpoint.layout))
        card = card.replace(sha256=canonical.fingerprint(tensors))
    names = layout_files.class_names(card)
    renamed = to_layout(tensors, layout_files.layout_of(card, layout))
    dtypes = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}))
    listener.stage(f"writing {out.name}")
    if folder:
        described, notes_on_json = layout_files.described(card, layout, names, dtypes)
        files = layout_files.write_folder(out, renamed, card, described)
        notes += [*notes_on_json, *_kept(card, layout)]
    else:
        layout_files.write_file(out, renamed, card, layout, names)
        files = [out]
        notes += _lost(card, out, layout)
    size = sum(file.stat().st_size for file in files)
    return ConvertResult(out, tuple(files), layout, checkpoint.layout, dtypes, len(renamed), size, card, tuple(notes))


def _cast(tensors: dict[str, Tensor], dtype: str, source: Layout | None) -> dict[str, Tensor]:
    """Cast tensors to another dtype.

    Args:
        tensors: by canonical name.
        dtype: its name.
        source: the layout of the file; None for canonical.

    Raises:
        ModelError: a value is outside the range of the dtype.
    """
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    cast = {name: tensor.to(kind) for name, tensor in tensors.items()}
    for name, tensor in cast.items():
        low, high = tensor.aminmax()
        if not bool(low.isfinite() & high.isfinite()):
            largest = float(tensors[name].abs().max())
            theirs = source.foreign(name) if source is not None else name
            shown = f"{name} ({theirs} in the file)" if theirs not in (None, name) else name
            raise ModelError(
                f"{shown} contains {largest:g}, and the largest {dtype} is {torch.finfo(kind).max:g}",
                f"--dtype {'bfloat16 or --dtype float32' if dtype == 'float16' else 'float32'}",
            )
    return cast


def _folded(tensors: dict[str, Tensor], card: Card) -> tuple[dict[str, Tensor], Card]:
    """Divide the classifier by the temperature, and remove it from the card: for libraries without temperatures."""
    import torch

    assert card.temperature is not None
    ends = {
        name: (tensor.double() / card.temperature).to(torch.promote_types(tensor.dtype, torch.float32))
        for name, tensor in tensors.items()
        if name in ("head.weight", "head.bias")
    }
    return tensors | ends, card.replace(temperature=None)


def _kept(card: Card, layout: str) -> list[str]:
    """A note on what the JSON of a folder cannot express, apart from preprocessing."""
    parts = {
        "problem type": layout == "timm" and card.problem != "single_label",
        _temperature(card): card.temperature is not None,
        "licence": layout == "hf" and bool(card.license),
        "source": bool(card.source),
    }
    gone = [part for part, had in parts.items() if had]
    return [f"{layout} cannot express: {', '.join(gone)}; the card in {WEIGHTS} keeps that"] if gone else []


def _lost(card: Card, out: Path, layout: str) -> list[str]:
    """A note on what a pickle of bare tensors does not contain; safetensors contain the card."""
    if out.suffix.lower() == ".safetensors":
        return []
    parts = {
        "labels": card.labels is not None and layout != "mmpretrain",
        "preprocessing": True,
        "problem type": card.problem != "single_label" or card.task == "embedding",
        _temperature(card): card.temperature is not None,
        "name and licence": bool(card.license or card.source),
    }
    gone = ", ".join(part for part, had in parts.items() if had)
    return [f"a {out.suffix} file of {layout} cannot hold: {gone}"]


def _temperature(card: Card) -> str:
    """The words for a temperature that is lost. Scores of independent labels do not depend on it."""
    if card.problem != "single_label" or card.temperature is None:
        return "temperature"
    return f"temperature (divide logits by {card.temperature:g} for the same scores)"
