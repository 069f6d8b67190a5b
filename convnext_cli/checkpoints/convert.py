"""Weights into the files of another library: ``convnext convert``.

What a library cannot hold, and where the result cannot lie, is told before anything is written; a file or folder takes
its name when all of it is on the disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from convnext_cli.base.errors import ModelError
from convnext_cli.base.files import replacing, replacing_folder
from convnext_cli.checkpoints import canonical, expressible, foreign_preprocessing, targets
from convnext_cli.checkpoints.detect import LAYOUTS
from convnext_cli.checkpoints.layouts import huggingface, mmpretrain, timm
from convnext_cli.checkpoints.layouts.isotropic import ISOTROPIC
from convnext_cli.checkpoints.layouts.layout import Layout
from convnext_cli.checkpoints.layouts.official import OFFICIAL
from convnext_cli.checkpoints.layouts.torchvision import TORCHVISION
from convnext_cli.checkpoints.loading import load
from convnext_cli.checkpoints.rename import to_layout
from convnext_cli.checkpoints.targets import CONFIG, PROCESSOR, WEIGHTS
from convnext_cli.labels.label_set import tell_apart
from convnext_cli.model.card import Card
from convnext_cli.model.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Written:
    """What was written. layout: as ``--to`` names it. origin: whose names the source had. dtype: of all tensors, or of
    each kind. notes: what was chosen or left out on the way in, and what the target has no place for.
    """

    path: Path
    files: list[Path]
    layout: str
    origin: str
    dtype: str
    tensors: int
    card: Card
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


def convert(
    source: Path,
    out: Path,
    layout: str,
    *,
    dtype: str | None = None,
    layer_norm_eps: float | None = None,
    overwrite: bool = False,
) -> Written:
    """Write the weights at ``source`` in another layout.

    layout: a key of ``placing.FORMS``. dtype: float32, float16 or bfloat16; None keeps that of the file, but for hf,
        whose networks compute in the dtype of the file: there it is float32.
    layer_norm_eps: another epsilon for the last norm.
    Raises UsageError where the result cannot lie at ``out``, ModelError when the source cannot be used or the layout
    cannot hold the network, OutputError; nothing is then at ``out`` that was not there before.
    """
    folder = targets.is_folder(out, layout)
    targets.check(source, out, folder=folder, overwrite=overwrite)
    found = load(source, dtype="stored", verify=True)
    card, notes = found.card, found.notes
    former = card.config.layer_norm_eps
    if layer_norm_eps is not None and layer_norm_eps != former:
        notes.append(f"the epsilon of the last norm is {layer_norm_eps:g} from now on, not {former:g}")
        card = card.replace(config=card.config.replace(layer_norm_eps=layer_norm_eps))
    bare = layout == "timm" and not folder
    expressible.check(card.config, layout, bare=bare)
    tensors = found.tensors
    if layout == "hf":
        dtype = dtype or "float32"
        if card.temperature not in (None, 1) and card.problem == "single_label" and card.config.num_labels:
            tensors, card = _folded(tensors, card)
            notes.append(
                f"the classifier's weights and bias are divided by the temperature, {found.card.temperature:g}: "
                "the scores stay the same"
            )
    if dtype is not None:
        tensors = _cast(tensors, dtype, LAYOUTS.get(found.layout))
        card = card.replace(sha256=canonical.fingerprint(tensors))
    names = _class_names(card)
    renamed = to_layout(tensors, _layout(card, layout))
    dtypes = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}))
    if folder:
        described, unsaid = _described(card, layout, names, dtypes)
        files = _write_folder(out, renamed, card, described)
        notes += [*unsaid, *_kept(card, layout)]
    else:
        _write_file(out, renamed, card, layout, names)
        files = [out]
        notes += _lost(card, out, layout)
    return Written(out, files, layout, found.layout, dtypes, len(renamed), card, notes)


# What goes there ------------------------------------------------------------------------------------------------------


def _layout(card: Card, layout: str) -> Layout:
    """The names and shapes to write."""
    if layout == "timm":
        return timm.model_of(card.config)[2]
    if layout == "hf":
        return _transformers(card)[0]
    if layout == "torchvision":
        return TORCHVISION
    if layout == "mmpretrain":
        return mmpretrain.MMPRETRAIN
    return ISOTROPIC if card.config.bare else OFFICIAL


def _transformers(card: Card) -> tuple[Layout, dict[str, Any]]:
    found = huggingface.describe(card.config)
    assert found is not None, "holding.check let pass what transformers does not have"
    return found


def _class_names(card: Card) -> list[str] | None:
    """One name a class, all different; None when they have none."""
    if card.labels is None or card.task != "classification":
        return None
    labels = card.label_set()
    if labels.groups is None:
        return list(labels.names)
    return list(tell_apart(labels.lemmas, [id_ or str(row) for row, id_ in enumerate(labels.ids)]))


def _described(card: Card, layout: str, names: list[str] | None, dtype: str) -> tuple[dict[str, Any], list[str]]:
    """The JSON files of a folder, by name, and notes of what they cannot say."""
    if layout == "timm":
        cfg = foreign_preprocessing.to_timm(card.recipe, card.config.num_channels)
        files = {CONFIG: timm.describe(card, cfg, names)}
        unsaid = _unsaid(card.recipe, Preprocessing.from_timm, cfg)
    else:
        cfg = foreign_preprocessing.to_huggingface(card.recipe)
        unsaid = _unsaid(card.recipe, Preprocessing.from_huggingface, cfg)
        files = {CONFIG: _transformers(card)[1] | _transformers_words(card, names, dtype)}
        if not unsaid:
            files[PROCESSOR] = cfg
    if not unsaid:
        return files, []
    return files, [
        f"{layout} has no words for all of the preprocessing ({', '.join(unsaid)}); the card in {WEIGHTS} keeps it"
    ]


def _unsaid(recipe: Preprocessing, read: Any, cfg: dict[str, Any]) -> list[str]:
    try:
        return foreign_preprocessing.unsaid(recipe, read(cfg))
    except ValueError as error:
        return [str(error)]


def _transformers_words(card: Card, names: list[str] | None, dtype: str) -> dict[str, Any]:
    """What transformers' config.json says besides the network's shape."""
    words: dict[str, Any] = {} if "," in dtype else {"dtype": dtype}
    if card.task == "classification" and card.problem != "single_label":
        words["problem_type"] = huggingface.PROBLEMS[card.problem]
    if rows := card.config.num_labels:
        names = names or [f"LABEL_{row}" for row in range(rows)]
        words["id2label"] = {str(row): name for row, name in enumerate(names)}
        words["label2id"] = {name: row for row, name in enumerate(names)}
    return words


def _kept(card: Card, layout: str) -> list[str]:
    """A note of what the JSON of a folder has no words for, apart from preprocessing."""
    parts = {
        "what it was trained for": layout == "timm" and card.problem != "single_label",
        _temperature(card): card.temperature is not None,
        "licence": layout == "hf" and bool(card.license),
        "source": bool(card.source),
    }
    gone = [part for part, had in parts.items() if had]
    return [f"{layout} has no words for: {', '.join(gone)}; the card in {WEIGHTS} keeps that"] if gone else []


def _lost(card: Card, out: Path, layout: str) -> list[str]:
    """A note of what a pickle of bare tensors does not say of them; safetensors carry the card."""
    if out.suffix.lower() == ".safetensors":
        return []
    parts = {
        "labels": card.labels is not None and layout != "mmpretrain",
        "preprocessing": True,
        "what it was trained for": card.problem != "single_label" or card.task == "embedding",
        _temperature(card): card.temperature is not None,
        "name and licence": bool(card.license or card.source),
    }
    gone = ", ".join(part for part, had in parts.items() if had)
    return [f"a {out.suffix} of {layout} has no place for: {gone}"]


# Tensors and files ----------------------------------------------------------------------------------------------------


def _cast(tensors: dict[str, Tensor], dtype: str, source: Layout | None) -> dict[str, Tensor]:
    """In another dtype. source: whose names the file has. Raises ModelError for a value that has no place in it."""
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    cast = {name: tensor.to(kind) for name, tensor in tensors.items()}
    for name, tensor in cast.items():
        low, high = tensor.aminmax()
        if not bool(low.isfinite() & high.isfinite()):
            largest = float(tensors[name].abs().max())
            theirs = source.foreign(name) if source is not None else name
            said = f"{name} ({theirs} in the file)" if theirs not in (None, name) else name
            raise ModelError(
                f"{said} holds {largest:g}, and {dtype} ends at {torch.finfo(kind).max:g}",
                f"--dtype {'bfloat16 or --dtype float32' if dtype == 'float16' else 'float32'}",
            )
    return cast


def _temperature(card: Card) -> str:
    """What is said of a temperature that goes no further; of several labels a photo, scores do not depend on it."""
    if card.problem != "single_label" or card.temperature is None:
        return "temperature"
    return f"temperature (divide logits by {card.temperature:g} for the same scores)"


def _folded(tensors: dict[str, Tensor], card: Card) -> tuple[dict[str, Tensor], Card]:
    """The classifier divided by the temperature, and the card without one: for libraries that know of none."""
    import torch

    assert card.temperature is not None
    ends = {
        name: (tensor.double() / card.temperature).to(torch.promote_types(tensor.dtype, torch.float32))
        for name, tensor in tensors.items()
        if name in ("head.weight", "head.bias")
    }
    return tensors | ends, card.replace(temperature=None)


def _write_folder(out: Path, tensors: dict[str, Tensor], card: Card, described: dict[str, Any]) -> list[Path]:
    with replacing_folder(out) as folder:
        for name, values in described.items():
            (folder / name).write_text(json.dumps(values, indent=2) + "\n", "utf-8")
        with (folder / WEIGHTS).open("wb") as stream:
            canonical.dump(stream, tensors, card)
    return [out / name for name in (*described, WEIGHTS)]


def _write_file(out: Path, tensors: dict[str, Tensor], card: Card, layout: str, names: list[str] | None) -> None:
    with replacing(out) as stream:
        if out.suffix.lower() == ".safetensors":
            canonical.dump(stream, tensors, card)
            return
        import torch

        own = {name: _own(tensor) for name, tensor in tensors.items()}
        wrapped = {"official": {"model": own}, "mmpretrain": mmpretrain.wrap(own, names)}.get(layout, own)
        with _telling(stream) as sink:
            torch.save(wrapped, sink)


def _own(tensor: Tensor) -> Tensor:
    """A tensor that shares its memory with no other: torch.save writes all of the memory that a tensor is a view of."""
    tensor = tensor.contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


class _Sink:
    """A stream that remembers what went wrong with it; torch.save tells it in words of its own."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._stream.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def _telling(stream: IO[bytes]) -> Iterator[Any]:
    sink = _Sink(stream)
    try:
        yield sink
    except RuntimeError as error:
        raise sink.error or error from error
