"""Read weights of any layout, from a file or a folder.

The description of the network comes from the file's own card, otherwise from the JSON in its folder, from the zoo by
the file's name, or from the shapes. The notes report the last two.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from convnext_cli import labels as label_sets
from convnext_cli import zoo
from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints import calibration_file, canonical, companion_files, infer_config
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.checkpoints.descriptions import Description, describe, reading
from convnext_cli.checkpoints.detect import sniff, unwrap
from convnext_cli.checkpoints.layouts import mmpretrain, timm
from convnext_cli.checkpoints.layouts.layout import Layout
from convnext_cli.checkpoints.read import read
from convnext_cli.checkpoints.rename import check, mismatch, rename
from convnext_cli.labels import LabelSet, json_form
from convnext_cli.labels.label_set import tell_apart
from convnext_cli.model.card import METADATA_KEY, Card, Task
from convnext_cli.model.config import VARIANTS, ConvNextConfig
from convnext_cli.model.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_TIMMS_OWN = ("test_", "convnext_zepto")  # only timm has these, whatever the names of the tensors
# errors of damaged files; RuntimeError includes RecursionError and NotImplementedError
_UNFORESEEN = (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, AttributeError)
_EXTENTS = ("num_channels", "patch_size", "hidden_sizes", "depths", "use_grn", "kernel_sizes")  # that JSON may contain
_NORM_FIRST = ("norm_pre.", "trunk.norm_pre.")


def load(path: str | Path, *, dtype: torch.dtype | Literal["stored"] | None = None, verify: bool = False) -> Checkpoint:
    """Read a weights file, or a folder that holds one, of any known layout.

    Args:
        path: the file or folder.
        dtype: of the tensors. None casts them to float32, in which CPUs compute best; "stored" keeps the file's dtypes.
        verify: compare the tensors with the fingerprint in the file's card.

    Returns:
        The checkpoint. Its tensors are views of the mapped file; only those that are cast take memory of their own.

    Raises:
        ModelError: the weights cannot be used; the message has the reason.
    """
    asked = Path(path)
    weights = companion_files.find_weights(asked)
    with _named(weights):
        contents = read(weights)
        state = contents.state
        if METADATA_KEY in contents.metadata:
            state = {name: tensor for name, tensor in state.items() if not name.startswith(calibration_file.PREFIX)}
        state, notes = unwrap(state)
        state, layout, more = sniff(state)
        tensors, origin, dropped = rename(state, layout)
        name = layout.name
        if METADATA_KEY in contents.metadata:
            card, card_notes = _with_json(Card.from_json(contents.metadata[METADATA_KEY]), asked, weights)
            name = "canonical" if name in ("official", "isotropic") else name
        else:
            norm_first = any(foreign.startswith(_NORM_FIRST) for foreign in origin.values())
            shapes = {key: tuple(t.shape) for key, t in tensors.items()}
            try:
                config = infer_config.config_of(shapes, norm_first=norm_first)
            except infer_config.MissingTensorError as lack:
                if lack.name in shapes:
                    raise
                raise mismatch(layout, [layout.foreign(lack.name) or lack.name], (), ()) from None
            names = mmpretrain.classes(contents.state) if name == "mmpretrain" else None
            card, card_notes = _card(config, layout, asked, weights, names)
        check(card.config, tensors, origin, layout)
        tensors = {key: tensors[key] for key in card.config.shapes()}
        _check_dtypes(tensors, origin)
        card = _fingerprint(card, tensors, weights, verify=verify)
        card = _with_name(card, asked, weights)
        tensors = _cast(tensors, dtype)
        _check_values(tensors, origin)
    notes = [*contents.notes, *notes, *more, *dropped, *card_notes]
    return Checkpoint(tensors, card, name, weights, notes)


def read_card(path: str | Path) -> Card:
    """The card of weights. If the file has its own card, nothing else is read.

    Raises:
        ModelError: as for ``load``.
    """
    return own_card(path) or load(path, dtype="stored").card


def own_card(path: str | Path) -> Card | None:
    """The card in the file's metadata; None for a file of another library.

    Raises:
        ModelError: as for ``load``.
    """
    weights = companion_files.find_weights(Path(path))
    with _named(weights):
        text = read(weights).metadata.get(METADATA_KEY)
        if text is None:
            return None
        card, _ = _with_json(Card.from_json(text), Path(path), weights)
        return _with_name(card, Path(path), weights)


@contextlib.contextmanager
def _named(weights: Path) -> Iterator[None]:
    """Put the file's name before messages about it, and turn unforeseen errors into ModelError.

    A file can be damaged in more ways than can be checked one by one: a scalar instead of a matrix, no channels.
    """
    try:
        yield
    except ModelError as error:
        if weights.name in error.message:
            raise
        raise ModelError(f"{weights.name}: {error.message}", error.hint) from error
    except MemoryError as error:
        raise ModelError(f"{weights.name} does not fit into memory", "use a machine with more memory") from error
    except _UNFORESEEN as error:
        why = (str(error).strip().splitlines() or [""])[0][:200] or type(error).__name__
        raise ModelError(
            f"{weights.name} is damaged, or its layout is not supported ({why})", "download the model again"
        ) from error


def _card(
    config: ConvNextConfig, layout: Layout, asked: Path, weights: Path, names: list[str] | None
) -> tuple[Card, list[str]]:
    """Make a card for a file that has none, and notes on what was inferred.

    Args:
        config: as inferred from the tensors.
        layout: of the file.
        asked: the path that the user named.
        weights: the weights file.
        names: of the classes, if the file has them.
    """
    description = describe(companion_files.read_json(weights, asked=asked)) or Description("")
    if not description.config and (entry := _entry(asked, weights, config)):  # the JSON does not describe the network
        description = dataclasses.replace(entry, preprocessing=description.preprocessing or entry.preprocessing)
    if names:
        description.labels = json_form.from_id2label(dict(enumerate(names))) or description.labels
        description.by = description.by or "the checkpoint"
    notes = list(description.notes)
    with reading(description.by or "the JSON beside the weights"):
        config = config.replace(**description.config)

    if layout.name == "timm" and config.patch_size * 2 ** (config.num_stages - 1) >= timm.DILATES_AT:
        raise ModelError(
            f"timm dilates the last stage of a network with patches of {config.patch_size} pixels: not supported",
            "use a network with patches of 4 pixels",
        )

    architecture = description.architecture or infer_config.architecture_of(config)
    guessed = []
    if not description.config:
        variant = VARIANTS.get(architecture)
        if variant:
            config = config.replace(hidden_act=variant.hidden_act, norm=variant.norm, norm_eps=variant.norm_eps)
            config = config.replace(layer_norm_eps=variant.layer_norm_eps)
        guessed.append(f"the network ({architecture or 'no published variant'}: {_describe(config)})")
    preprocessing = description.preprocessing
    if preprocessing is None:
        preprocessing = _usual_preprocessing(layout, architecture)
        guessed.append(f"the preprocessing ({layout.name}'s usual, {preprocessing.size[0]} pixels)")
    task: Task = "classification" if config.num_labels else "features"
    if config.num_labels and (description.task == "embedding" or layout.name == "openclip"):
        task = "embedding"
    labels = description.labels
    if task != "classification":
        labels = None
    elif labels is None or _size(labels) != config.num_labels:
        if labels is not None:
            notes.append(
                f"{description.by} names {_size(labels)} classes, but the classifier has {config.num_labels}: "
                "the names were ignored"
            )
        labels = label_sets.for_size(config.num_labels)
        guessed.append(f"the labels ({labels or 'none known'} for {config.num_labels} classes)")
    if guessed:
        notes.append("inferred from names and shapes: " + "; ".join(guessed))
    card = Card(
        config=config,
        preprocessing=preprocessing,
        name=description.name,
        architecture=architecture,
        labels=labels,
        task=task,
        # as in transformers, a classifier of one row is a regression: its softmax would always be 1
        problem=description.problem or ("regression" if config.num_labels == 1 else "single_label"),
        license=description.license,
        source=description.source,
        metrics=description.metrics,
    )
    return card, notes


def _with_json(card: Card, asked: Path, weights: Path) -> tuple[Card, list[str]]:
    """A file's own card, with changes that were made to the JSON of its folder after it was written.

    Sizes in the JSON replace those of the card, and are checked against the tensors. Other class names are used.
    """
    description = describe(companion_files.read_json(weights, asked=asked))
    if description is None:
        return card, []
    with reading(description.by):
        shape = {name: value for name, value in description.config.items() if name in _EXTENTS}
        config = card.config
        if any(
            getattr(config, name) != getattr(config.replace(**{name: value}), name) for name, value in shape.items()
        ):
            config = config.replace(**shape)
    card, notes = card.replace(config=config), list(description.notes)
    if not isinstance(description.labels, LabelSet) or card.task != "classification":
        return card, notes
    names = description.labels.names
    if len(names) != config.num_labels:
        notes.append(
            f"{description.by} names {len(names)} classes, but the classifier has {config.num_labels}: "
            "the names were ignored"
        )
    elif card.labels is None or names not in _spellings(card.label_set()):
        notes.append(f"the class names of {description.by} are used, which differ from those in {weights.name}")
        card = card.replace(labels=description.labels)
    return card, notes


def _spellings(labels: LabelSet) -> list[tuple[str, ...]]:
    """The names that the classes of a card may have in the JSON of a folder that was written with it."""
    ids = [id_ or str(row) for row, id_ in enumerate(labels.ids)]
    grouped = [label.name or f"LABEL_{label.index}" for label in labels]
    spellings = (grouped, labels.lemmas, ids, tell_apart(labels.lemmas, ids))
    return [labels.names, *(LabelSet.from_names("", [name.strip() for name in names]).names for names in spellings)]


def _entry(asked: Path, weights: Path, config: ConvNextConfig) -> Description | None:
    """The zoo's description of a file of this name, if the shapes agree."""
    entry = zoo.entry_for_file(weights) or zoo.entry_for_file(asked)
    if entry is None:
        return None
    card = entry.card()
    if any(getattr(card.config, name) != getattr(config, name) for name in ("hidden_sizes", "depths", "use_grn")):
        return Description(
            "", notes=[f"{weights.name} has the name of {entry.name}, but other shapes: the name was ignored"]
        )
    fields = ("hidden_act", "norm_eps", "layer_norm_eps", "norm", "image_size")
    return Description(
        by=f"the zoo's {entry.name}",
        config={name: getattr(card.config, name) for name in fields},
        preprocessing=card.preprocessing,
        labels=card.labels,
        name=card.name,
        architecture=card.architecture,
        license=card.license,
        source=card.source,
        metrics=card.metrics,
        notes=[f"{weights.name} was recognised as {entry.name} by its name, and is described as that model"],
    )


def _with_name(card: Card, asked: Path, weights: Path) -> Card:
    """Name weights without a name after their file, or after the folder if the file has a standard name."""
    if card.name:
        return card
    if not asked.is_dir() and weights.name not in companion_files.STANDARD:
        return card.replace(name=zoo.local_files.stem(weights) or weights.stem)
    folder = (asked if asked.is_dir() else weights.parent).absolute()
    return card.replace(name=zoo.local_files.repository(folder / "_") or folder.name or weights.stem)


def _usual_preprocessing(layout: Layout, architecture: str) -> Preprocessing:
    """The usual preprocessing of a layout, for a file without a description."""
    if layout.usual is not None:
        return layout.usual(architecture)
    return timm.usual(architecture) if architecture.startswith(_TIMMS_OWN) else Preprocessing.official()


def _size(labels: str | LabelSet) -> int:
    return len(label_sets.load(labels) if isinstance(labels, str) else labels)


def _describe(config: ConvNextConfig) -> str:
    depths, dims = ("-".join(map(str, values)) for values in (config.depths, config.hidden_sizes))
    return f"depths {depths}, widths {dims}"


def _check_dtypes(tensors: dict[str, Tensor], origin: dict[str, str]) -> None:
    """Raise ModelError for a tensor that does not hold floats."""
    for name, tensor in tensors.items():
        if str(tensor.dtype) not in canonical.DTYPES:
            raise ModelError(
                f"tensor {origin[name]} has the dtype {tensor.dtype}: the weights are quantised",
                "use the float weights of this model",
            )


def _check_values(tensors: dict[str, Tensor], origin: dict[str, str]) -> None:
    """Raise ModelError for a tensor with NaN or infinity, even if only after the cast."""
    for name, tensor in tensors.items():
        # The extremes are NaN or infinite if any value is, and need no copy.
        low, high = tensor.aminmax()
        if not bool(low.isfinite() & high.isfinite()):
            raise ModelError(
                f"tensor {origin[name]} contains NaN or infinity in {str(tensor.dtype).removeprefix('torch.')}",
                "download the file again; if that does not help, its training failed",
            )


def _fingerprint(card: Card, tensors: dict[str, Tensor], weights: Path, *, verify: bool) -> Card:
    if card.sha256 and not verify:
        return card
    digest = canonical.fingerprint(tensors)
    if card.sha256 and card.sha256 != digest:
        raise ModelError(
            f"{weights.name} was changed or damaged: the sha256 of its tensors is {digest[:12]}…, and its card says "
            f"{card.sha256[:12]}…",
            "download the file again",
        )
    return card.replace(sha256=digest)


def _cast(tensors: dict[str, Tensor], dtype: torch.dtype | Literal["stored"] | None) -> dict[str, Tensor]:
    import torch

    if dtype == "stored":
        return tensors
    return {name: tensor.to(dtype or torch.float32) for name, tensor in tensors.items()}
