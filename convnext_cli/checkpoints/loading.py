"""Read weights of any layout, from a file or a folder: the one way in.

What the network is comes from the file's own card, else from the JSON beside it, else from the zoo by the file's
name, else from the shapes; all but the first two are said in the notes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from convnext_cli import labels as label_sets
from convnext_cli import zoo
from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints import canonical, companion_files, infer_config
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.checkpoints.descriptions import DINO_PROCESSOR, Description, describe, reading
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

_TIMMS_OWN = ("test_", "convnext_zepto")  # nobody else's, whatever names the tensors were given
_TIMM_DILATES_AT = 64  # pixels for each position of the last stage; timm keeps to 32
# what reading and understanding damaged files raises; RuntimeError includes RecursionError and NotImplementedError
_UNFORESEEN = (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, AttributeError)
_EXTENTS = ("num_channels", "patch_size", "hidden_sizes", "depths", "use_grn", "kernel_sizes")  # that JSON tells
_NORM_FIRST = ("norm_pre.", "trunk.norm_pre.")


def load(path: str | Path, *, dtype: torch.dtype | Literal["stored"] | None = None, verify: bool = False) -> Checkpoint:
    """Read a weights file, or a folder that holds one, of any known layout.

    dtype: of the tensors; None casts what is not float32 to it, once, because CPUs compute best in it; "stored" leaves
        the file's own.
    verify: hold the tensors against the fingerprint that the file's card gives.
    Memory: tensors are views of the mapped file; only those that are cast take memory of their own.
    Raises ModelError for whatever cannot be used, with the reason; the notes of the result are for stderr.
    """
    asked = Path(path)
    weights = companion_files.find_weights(asked)
    with _named(weights):
        contents = read(weights)
        found, notes = unwrap(contents.state)
        found, layout, more = sniff(found)
        tensors, origin, dropped = rename(found, layout)
        name = layout.name
        if METADATA_KEY in contents.metadata:
            card, said = _with_json(Card.from_json(contents.metadata[METADATA_KEY]), asked, weights)
            name = "canonical" if name in ("official", "isotropic") else name
        else:
            norm_first = any(foreign.startswith(_NORM_FIRST) for foreign in origin.values())
            shapes = {key: tuple(t.shape) for key, t in tensors.items()}
            try:
                config = infer_config.config_of(shapes, norm_first=norm_first)
            except infer_config.Lacks as lack:
                if lack.name in shapes:
                    raise
                raise mismatch(layout, [layout.foreign(lack.name) or lack.name], (), ()) from None
            names = mmpretrain.classes(contents.state) if name == "mmpretrain" else None
            card, said = _card(config, layout, asked, weights, names)
        check(card.config, tensors, origin, layout)
        tensors = {key: tensors[key] for key in card.config.shapes()}
        _check_dtypes(tensors, origin)
        card = _fingerprint(card, tensors, weights, verify=verify)
        card = _with_name(card, asked, weights)
        tensors = _cast(tensors, dtype)
        _check_values(tensors, origin)
    notes = [*contents.notes, *notes, *more, *dropped, *said]
    return Checkpoint(tensors, card, name, weights, notes)


def read_card(path: str | Path) -> Card:
    """The card alone: nothing else of the file is read where it has its own. Raises ModelError as ``load`` does."""
    return own_card(path) or load(path, dtype="stored").card


def own_card(path: str | Path) -> Card | None:
    """The card in the file's metadata, None for a file of another library. Raises ModelError as ``load`` does."""
    weights = companion_files.find_weights(Path(path))
    with _named(weights):
        text = read(weights).metadata.get(METADATA_KEY)
        if text is None:
            return None
        card, _ = _with_json(Card.from_json(text), Path(path), weights)
        return _with_name(card, Path(path), weights)


@contextlib.contextmanager
def _named(weights: Path) -> Iterator[None]:
    """Put the file's name before what is said of it; what nobody foresaw in it is a ModelError too.

    A file can be wrong in more ways than can be asked for one by one: a scalar where a matrix belongs, no channels.
    """
    try:
        yield
    except ModelError as error:
        if weights.name in error.message:
            raise
        raise ModelError(f"{weights.name}: {error.message}", error.hint) from error
    except MemoryError as error:
        raise ModelError(f"{weights.name} does not fit into memory", "use a machine with more of it") from error
    except _UNFORESEEN as error:
        why = (str(error).strip().splitlines() or [""])[0][:200] or type(error).__name__
        raise ModelError(
            f"{weights.name} is damaged or no checkpoint of a known layout ({why})", "fetch the model again"
        ) from error


def _card(
    config: ConvNextConfig, layout: Layout, asked: Path, weights: Path, names: list[str] | None
) -> tuple[Card, list[str]]:
    """The card of a file that has none, and notes of what nobody said. names: of classes, where the file has some."""
    said = describe(companion_files.read_json(weights, asked=asked)) or Description("")
    if not said.config and (entry := _entry(asked, weights, config)):  # the JSON says nothing of the network
        said = dataclasses.replace(entry, recipe=said.recipe or entry.recipe)
    if names:
        said.labels = json_form.from_id2label(dict(enumerate(names))) or said.labels
        said.by = said.by or "the checkpoint"
    notes = list(said.notes)
    with reading(said.by or "the JSON beside the weights"):
        config = config.replace(**said.config)

    if layout.name == "timm" and config.patch_size * 2 ** (config.num_stages - 1) >= _TIMM_DILATES_AT:
        raise ModelError(
            f"timm dilates the last stage of a network with patches of {config.patch_size}; that is not supported",
            "use a network with patches of 4",
        )

    architecture = said.architecture or infer_config.architecture_of(config)
    guessed = []
    if not said.config:
        variant = VARIANTS.get(architecture)
        if variant:
            config = config.replace(hidden_act=variant.hidden_act, norm=variant.norm, norm_eps=variant.norm_eps)
            config = config.replace(layer_norm_eps=variant.layer_norm_eps)
        guessed.append(f"the network ({architecture or 'no published variant'}: {_describe(config)})")
    recipe = said.recipe
    if recipe is None:
        recipe = _usual_recipe(layout, architecture)
        guessed.append(f"the preprocessing ({layout.name}'s usual, {recipe.size[0]} pixels)")
    task: Task = "classification" if config.num_labels else "features"
    if config.num_labels and (said.task == "embedding" or layout.name == "openclip"):
        task = "embedding"
    labels = said.labels
    if task != "classification":
        labels = None
    elif labels is None or _size(labels) != config.num_labels:
        if labels is not None:
            notes.append(
                f"{said.by} names {_size(labels)} classes, but the classifier has {config.num_labels}: ignored"
            )
        labels = label_sets.for_size(config.num_labels)
        guessed.append(f"the labels ({labels or 'none known'} for {config.num_labels} classes)")
    if guessed:
        notes.append("inferred from names and shapes: " + "; ".join(guessed))
    card = Card(
        config=config,
        recipe=recipe,
        name=said.name,
        architecture=architecture,
        labels=labels,
        task=task,
        # as in transformers, a head of one row that nobody explains is no class: its softmax would always be 1
        problem=said.problem or ("regression" if config.num_labels == 1 else "single_label"),
        license=said.license,
        source=said.source,
        metrics=said.metrics,
    )
    return card, notes


def _with_json(card: Card, asked: Path, weights: Path) -> tuple[Card, list[str]]:
    """A file's own card with what its folder says otherwise: someone changed that after the folder was written.

    The shape that the JSON tells goes into the card's config, to be held against the tensors; other class names win.
    """
    said = describe(companion_files.read_json(weights, asked=asked))
    if said is None:
        return card, []
    with reading(said.by):
        shape = {name: value for name, value in said.config.items() if name in _EXTENTS}
        config = card.config
        if any(
            getattr(config, name) != getattr(config.replace(**{name: value}), name) for name, value in shape.items()
        ):
            config = config.replace(**shape)
    card, notes = card.replace(config=config), list(said.notes)
    if not isinstance(said.labels, LabelSet) or card.task != "classification":
        return card, notes
    names = said.labels.names
    if len(names) != config.num_labels:
        notes.append(f"{said.by} names {len(names)} classes, but the classifier has {config.num_labels}: ignored")
    elif card.labels is None or names not in _spellings(card.label_set()):
        notes.append(f"took the class names of {said.by}, which are others than those in {weights.name}")
        card = card.replace(labels=said.labels)
    return card, notes


def _spellings(labels: LabelSet) -> list[tuple[str, ...]]:
    """How the classes of a card are called in the JSON of folders that were written with it, as it is read again."""
    ids = [id_ or str(row) for row, id_ in enumerate(labels.ids)]
    grouped = [label.name or f"LABEL_{label.index}" for label in labels]
    spellings = (grouped, labels.lemmas, ids, tell_apart(labels.lemmas, ids))
    return [labels.names, *(LabelSet.from_names("", [name.strip() for name in names]).names for names in spellings)]


def _entry(asked: Path, weights: Path, config: ConvNextConfig) -> Description | None:
    """What the zoo knows of a file of this name, if the shapes bear it out."""
    entry = zoo.entry_for_file(weights) or zoo.entry_for_file(asked)
    if entry is None:
        return None
    card = entry.card()
    if any(getattr(card.config, name) != getattr(config, name) for name in ("hidden_sizes", "depths", "use_grn")):
        return Description("", notes=[f"{weights.name} has the name of {entry.name}, but other shapes: name ignored"])
    fields = ("hidden_act", "norm_eps", "layer_norm_eps", "norm", "image_size")
    return Description(
        by=f"the zoo's {entry.name}",
        config={name: getattr(card.config, name) for name in fields},
        recipe=card.recipe,
        labels=card.labels,
        name=card.name,
        architecture=card.architecture,
        license=card.license,
        source=card.source,
        metrics=card.metrics,
        notes=[f"took {weights.name} for {entry.name} by its name: what no file says is that model's"],
    )


def _with_name(card: Card, asked: Path, weights: Path) -> Card:
    """Weights that have no name are called as their file, or as the folder where many files are called so."""
    if card.name:
        return card
    if not asked.is_dir() and weights.name not in companion_files.STANDARD:
        return card.replace(name=zoo.local_files.stem(weights) or weights.stem)
    folder = (asked if asked.is_dir() else weights.parent).absolute()
    return card.replace(name=zoo.local_files.repository(folder / "_") or folder.name or weights.stem)


def _usual_recipe(layout: Layout, architecture: str) -> Preprocessing:
    """The recipe of a bare file: the layout says whose."""
    if layout.name == "torchvision":
        published = architecture in ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")
        return Preprocessing.from_torchvision(architecture if published else "convnext_base")
    if layout.name == "openclip":
        return Preprocessing.from_open_clip(224)
    if layout.name == "dinov3":
        return Preprocessing.from_huggingface(DINO_PROCESSOR)
    if layout.name == "timm" or architecture.startswith(_TIMMS_OWN):
        return timm.usual(architecture)
    return Preprocessing.official()


def _size(labels: str | LabelSet) -> int:
    return len(label_sets.load(labels) if isinstance(labels, str) else labels)


def _describe(config: ConvNextConfig) -> str:
    depths, dims = ("-".join(map(str, values)) for values in (config.depths, config.hidden_sizes))
    return f"depths {depths}, widths {dims}"


def _check_dtypes(tensors: dict[str, Tensor], origin: dict[str, str]) -> None:
    """Raise ModelError for a tensor that is not of floats."""
    for name, tensor in tensors.items():
        if str(tensor.dtype) not in canonical.DTYPES:
            raise ModelError(
                f"tensor {origin[name]} is of {tensor.dtype}: the weights are quantised",
                "use the float weights of this model",
            )


def _check_values(tensors: dict[str, Tensor], origin: dict[str, str]) -> None:
    """Raise ModelError for a tensor that holds NaN or infinity, also where a cast made it so."""
    for name, tensor in tensors.items():
        # The extremes are NaN or infinite when any value is, and cost no copy.
        low, high = tensor.aminmax()
        if not bool(low.isfinite() & high.isfinite()):
            raise ModelError(
                f"tensor {origin[name]} holds NaN or infinity in {str(tensor.dtype).removeprefix('torch.')}",
                "the file is damaged or its training failed; fetch it again",
            )


def _fingerprint(card: Card, tensors: dict[str, Tensor], weights: Path, *, verify: bool) -> Card:
    if card.sha256 and not verify:
        return card
    found = canonical.fingerprint(tensors)
    if card.sha256 and card.sha256 != found:
        raise ModelError(
            f"{weights.name} was changed or damaged: its tensors have sha256 {found[:12]}…, its card says "
            f"{card.sha256[:12]}…",
            "fetch it again",
        )
    return card.replace(sha256=found)


def _cast(tensors: dict[str, Tensor], dtype: Any) -> dict[str, Tensor]:
    import torch

    if dtype == "stored":
        return tensors
    return {name: tensor.to(dtype or torch.float32) for name, tensor in tensors.items()}
