"""Writes the files of another library's layout: tensors under its names, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from convnext_cli.base.files import replacing, replacing_folder
from convnext_cli.base.text import JsonObject
from convnext_cli.checkpoints import canonical
from convnext_cli.checkpoints.companion_files import WEIGHTS
from convnext_cli.checkpoints.layouts.layout import Layout
from convnext_cli.checkpoints.layouts.registry import TARGETS, layout_to_write
from convnext_cli.labels.label_set import tell_apart
from convnext_cli.model.card import Card

if TYPE_CHECKING:
    from torch import Tensor


def layout_of(card: Card, layout: str) -> Layout:
    """The names and shapes to write."""
    form, target = layout_to_write(layout, card.config)
    return form if target.names is None else target.names(card.config)


def class_names(card: Card) -> list[str] | None:
    """One unique name for each class; None if the classes have no names."""
    if card.labels is None or card.task != "classification":
        return None
    labels = card.label_set()
    if labels.groups is None:
        return list(labels.names)
    return list(tell_apart(labels.lemmas, [id_ or str(row) for row, id_ in enumerate(labels.ids)]))


def described(card: Card, layout: str, names: list[str] | None, dtype: str) -> tuple[dict[str, JsonObject], list[str]]:
    """The JSON files of a folder by name, and notes on what they cannot express."""
    make_json = TARGETS[layout].json
    assert make_json is not None, f"{layout} is not written as a folder"
    files, lost = make_json(card, names, dtype)
    if not lost:
        return files, []
    return files, [
        f"{layout} cannot express all of the preprocessing ({', '.join(lost)}); the card in {WEIGHTS} keeps it"
    ]


def write_folder(out: Path, tensors: dict[str, Tensor], card: Card, described: dict[str, JsonObject]) -> list[Path]:
    """Write tensors and JSON files as a folder, and return the paths of all files."""
    with replacing_folder(out) as folder:
        for name, values in described.items():
            (folder / name).write_text(json.dumps(values, indent=2) + "\n", "utf-8")
        with (folder / WEIGHTS).open("wb") as stream:
            canonical.dump(stream, tensors, card)
    return [out / name for name in (*described, WEIGHTS)]


def write_file(out: Path, tensors: dict[str, Tensor], card: Card, layout: str, names: list[str] | None) -> None:
    """Write tensors as one file, in the form of the layout."""
    with replacing(out) as stream:
        if out.suffix.lower() == ".safetensors":
            canonical.dump(stream, tensors, card)
            return
        import torch

        own = {name: _own(tensor) for name, tensor in tensors.items()}
        wrap = TARGETS[layout].wrap
        wrapped = own if wrap is None else wrap(own, names)
        with _own_errors(stream) as sink:
            torch.save(wrapped, sink)


def _own(tensor: Tensor) -> Tensor:
    """A tensor with memory of its own: torch.save writes all of the memory that a tensor is a view of."""
    tensor = tensor.contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


class _Sink:
    """A stream that remembers its error, which torch.save replaces by its own."""

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
def _own_errors(stream: IO[bytes]) -> Iterator[Any]:
    sink = _Sink(stream)
    try:
        yield sink
    except RuntimeError as error:
        raise sink.error or error from error
