"""``from_pretrained`` and ``save_pretrained``, as on transformers' ConvNext page, without a connection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch

from convnext_cli import checkpoints, zoo
from convnext_cli.base.errors import ModelError, OutputError
from convnext_cli.base.files import replacing, unwritten
from convnext_cli.base.text import JsonObject
from convnext_cli.checkpoints import canonical, companion_files
from convnext_cli.checkpoints.companion_files import PROCESSOR
from convnext_cli.checkpoints.descriptions import PROBLEMS, describe, reading
from convnext_cli.checkpoints.layouts import huggingface
from convnext_cli.checkpoints.rename import to_layout
from convnext_cli.huggingface.image_processor import ConvNextImageProcessor
from convnext_cli.labels import LabelSet, json_form
from convnext_cli.model import network as model
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig as Shape
from convnext_cli.model.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

    _Base = model.ConvNextModel
else:
    _Base = object

CONFIG = "config.json"
_Names = Mapping[int, str] | Mapping[str, str]


class ConvNextConfig(Shape):
    """The shape of a network, and the other fields of transformers' class: the names of its classes.

    Args:
        num_stages: checked against depths.
        id2label, label2id: names by number, and numbers by name; either determines num_labels. None for LABEL_0 ….
        problem_type: "single_label_classification", "multi_label_classification" or "regression".
        out_features, out_indices: kept for transformers' backbones, and not used here.

    Raises:
        ValueError: values that make no network, or contradict each other.
    """

    problem_type: str | None
    out_features: list[str] | None
    out_indices: list[int] | None
    _labels: str | LabelSet | None

    def __init__(
        self,
        *,
        num_stages: int | None = None,
        id2label: _Names | None = None,
        label2id: Mapping[str, int] | None = None,
        problem_type: str | None = None,
        out_features: Iterable[str] | None = None,
        out_indices: Iterable[int] | None = None,
        **shape: Any,
    ) -> None:
        labels = _labels(id2label, label2id)
        if labels is not None and shape.setdefault("num_labels", len(labels)) != len(labels):
            raise ValueError(f"num_labels is {shape['num_labels']}, but there are names for {len(labels)} classes")
        if problem_type is not None and problem_type not in PROBLEMS:
            raise ValueError(f"problem_type must be one of {', '.join(PROBLEMS)}, not {problem_type!r}")
        super().__init__(**shape)
        if num_stages is not None and num_stages != len(self.depths):
            raise ValueError(f"num_stages is {num_stages}, but depths has {len(self.depths)} entries")
        self._set(
            _labels=labels,
            problem_type=problem_type,
            out_features=None if out_features is None else list(out_features),
            out_indices=None if out_indices is None else list(out_indices),
        )

    def _set(self, **values: object) -> Self:
        for name, value in values.items():
            object.__setattr__(self, name, value)  # frozen, as its base is
        return self

    def __eq__(self, other: object) -> bool:
        """Whether the networks have the same shape, whatever the names of their classes."""
        return isinstance(other, Shape) and self.to_dict() == other.to_dict()

    __hash__ = Shape.__hash__

    @classmethod
    def from_card(cls, card: Card) -> Self:
        """The config of a card."""
        # without a problem_type, transformers assumes one class of many
        problem = None if card.problem == "single_label" else huggingface.PROBLEMS[card.problem]
        return cls(**card.config.to_dict())._set(_labels=card.labels, problem_type=problem)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> Self:
        """The config of a config.json, of a folder with one, or of weights by name or path.

        Raises:
            ModelError: there are none on this machine, or the file is damaged or describes another network.
        """
        path = Path(name_or_path)
        folder = path.parent if path.name == CONFIG else path
        if (folder / CONFIG).is_file() and (card := _described(folder)):
            return cls.from_card(card)
        return cls.from_card(checkpoints.read_card(zoo.resolve(name_or_path)))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json as transformers reads it.

        Raises:
            ModelError: transformers has no such network.
            OutputError: the file cannot be written.
        """
        described = huggingface.describe(self.shape())
        if described is None:
            raise ModelError(
                "transformers has no network of this shape", "save the network itself, whose card keeps the config"
            )
        _write_json(Path(folder) / CONFIG, described[1] | self._other_fields())

    def shape(self) -> Shape:
        """The shape alone, as in cards."""
        return Shape.from_dict(self.to_dict())

    def card(self) -> Card:
        """A card for a network that is made from this config."""
        problem = PROBLEMS[self.problem_type] if self.problem_type else "single_label"
        return Card(self.shape(), labels=self._labels, problem=problem)

    def replace(self, **changes: Any) -> Self:
        """A copy with other fields; the names stay if their number does."""
        shape, renamed = self.to_dict(), any(changes.get(name) is not None for name in ("id2label", "label2id"))
        if renamed:
            shape.pop("num_labels")  # the names determine it
        new = type(self)(**shape | changes)
        kept = {name: value for name, value in vars(self).items() if name not in self.to_dict() and name not in changes}
        if renamed or new.num_labels != self.num_labels:
            kept.pop("_labels")
        return new._set(**kept)

    @property
    def id2label(self) -> dict[int, str]:
        if self._labels is None:
            return {i: f"LABEL_{i}" for i in range(self.num_labels)}
        return {label.index: label.name for label in self.card().label_set()}

    @property
    def label2id(self) -> dict[str, int]:
        return {name: i for i, name in self.id2label.items()}

    def _other_fields(self) -> JsonObject:
        """The fields of config.json that do not belong to the shape."""
        values: JsonObject = {"problem_type": self.problem_type} if self.problem_type else {}
        if self.num_labels:
            values["id2label"] = {str(i): name for i, name in self.id2label.items()}
            values["label2id"] = self.label2id
        backbone = {"out_features": self.out_features, "out_indices": self.out_indices}
        return values | {name: value for name, value in backbone.items() if value is not None}


def _labels(id2label: _Names | None, label2id: Mapping[str, int] | None) -> LabelSet | None:
    """The classes that either names; None for neither.

    Raises:
        ValueError: the two contradict each other, or the numbers are not 0 … n-1.
    """
    if id2label is None and label2id is None:
        return None
    by_number = {int(i): str(name) for i, name in (id2label or {}).items()}
    reverse = {int(i): str(name) for name, i in (label2id or {}).items()}
    if id2label is not None and label2id is not None and by_number != reverse:
        raise ValueError("id2label and label2id contradict each other")
    try:
        names = json_form.from_id2label(by_number or reverse)
    except ModelError as error:
        raise ValueError(f"{error.message}; {error.hint}") from error
    return names or LabelSet.from_names("id2label", list((by_number or reverse).values()))


def _described(folder: Path) -> Card | None:
    """A card from transformers' config.json alone; None if the file is another library's.

    Raises:
        ModelError: the file is damaged.
    """
    files = companion_files.read_json(folder / CONFIG, asked=folder)
    description, config = describe(files), files[CONFIG]
    if description is None or "pretrained_cfg" in config or "architecture" in config or not description.config:
        return None
    with reading(CONFIG):
        bodies = [str(name) for name in config.get("architectures") or () if not str(name).endswith("Classification")]
        rows = (
            0 if bodies else len(config.get("id2label") or ()) or config.get("num_labels", 2)
        )  # transformers' default
        labels = description.labels if rows else None
        shape = Shape(**description.config, num_labels=rows)
        return Card(
            shape,
            preprocessing=description.preprocessing or Preprocessing(),
            labels=labels,
            problem=description.problem or "single_label",
        )


class _Pretrained(_Base):
    """Adds reading and writing to a network.

    Args:
        config: its shape, and the names of its classes. card: what its weights say of themselves; None for a network
            made from a config. notes: what reading them inferred, chose or left out.
    """

    config: ConvNextConfig

    def __init__(self, config: Shape) -> None:
        super().__init__(config if isinstance(config, ConvNextConfig) else ConvNextConfig(**config.to_dict()))
        self.card: Card | None = None
        self.notes: list[str] = []

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        num_labels: int | None = None,
        id2label: _Names | None = None,
        label2id: Mapping[str, int] | None = None,
        ignore_mismatched_sizes: bool = False,
    ) -> Self:
        """Load a network by a weights file, a folder, or the name of a model on this machine.

        The network is in eval mode, and its parameters are views of the mapped file unless they are cast.

        Args:
            name_or_path: the weights.
            dtype: of the parameters, or its name, or "auto" for the file's own; None for float32.
            torch_dtype: the former name of ``dtype``.
            num_labels, id2label, label2id: other classes than the checkpoint's.
            ignore_mismatched_sizes: make a new classifier, to be trained, if the number of classes differs. A
                checkpoint without a classifier gets one in any case.

        Raises:
            ModelError: the weights are not on this machine (the hint has the command to pull them), or are not usable.
            ValueError: there is no such dtype, or the names contradict each other.
        """
        labels = _labels(id2label, label2id)
        rows = num_labels if labels is None else len(labels)
        if num_labels not in (None, rows):
            raise ValueError(f"num_labels is {num_labels}, but there are names for {rows} classes")
        checkpoint = checkpoints.load(zoo.resolve(name_or_path), dtype=_dtype(torch_dtype if dtype is None else dtype))
        card, tensors, notes = checkpoint.card, checkpoint.tensors, list(checkpoint.notes)
        if rows is not None and rows != card.config.num_labels:
            if card.config.num_labels and not ignore_mismatched_sizes:
                raise ModelError(
                    f"the classifier of {card.name} has {card.config.num_labels} classes, not {rows}",
                    "pass ignore_mismatched_sizes=True for a new classifier, and train it",
                )
            card, tensors = _with_head(card, rows), tensors | _new_head(card.config, rows, tensors)
            notes.append(f"the classifier of {rows} classes is new: train it before you use its answers")
        if labels is not None:
            card = card.replace(labels=labels)
        with torch.device("meta"):
            network = cls(ConvNextConfig.from_card(card))
        names = network.state_dict().keys()
        network.load_state_dict({name: tensors[name] for name in names}, assign=True)
        network.card, network.notes = card, notes
        return network.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model.safetensors with the card, and config.json and preprocessor_config.json as transformers does.

        If transformers has such a network, the tensors get its names, and it can read the folder. Otherwise they keep
        the canonical names, and JSON of an earlier model is removed. ``from_pretrained`` reads both back exactly.

        A classifier that was replaced by another linear layer is written as it is, with the former names of its classes
        if their number is the same. The card keeps its name, description, metrics and temperature only if the tensors
        have not changed.

        Raises:
            ModelError: the parameters do not match the config in another way.
            OutputError: a file cannot be written.
        """
        folder, tensors = Path(folder), self.state_dict()
        card, head = self.card or self.config.card(), tensors.get("head.weight")
        if head is None or len(head) != card.config.num_labels:
            card = _with_head(card, 0 if head is None else len(head))
        card = card.replace(config=card.config.replace(head_bias=head is None or "head.bias" in tensors))
        _check(card.config, tensors)
        sha256 = canonical.fingerprint(tensors)
        if sha256 != card.sha256 and not _only_widened(
            tensors, card.sha256
        ):  # trained: the description is of other weights
            card = card.replace(name="", description="", metrics={}, temperature=None)
        card = card.replace(sha256=sha256)
        if described := huggingface.describe(card.config):
            layout, description = described
            tensors = to_layout(tensors, layout)
            _write_json(folder / CONFIG, description | ConvNextConfig.from_card(card)._other_fields())
        else:
            _remove(folder / CONFIG)  # of another network that was saved here before
        try:
            _write_json(folder / PROCESSOR, ConvNextImageProcessor.from_preprocessing(card.preprocessing).to_dict())
        except ModelError:  # transformers cannot express this preprocessing; the card keeps it
            _remove(folder / PROCESSOR)
        canonical.write(folder / "model.safetensors", tensors, card)


class ConvNextModel(_Pretrained, model.ConvNextModel):
    """The network without its classifier."""


class ConvNextForImageClassification(_Pretrained, model.ConvNextForImageClassification):
    """The network with its classifier; where the weights have none, its logits are the pooled features."""


def _with_head(card: Card, rows: int) -> Card:
    """A card for another classifier, whose classes have no names; 0 rows for no classifier."""
    config = card.config.replace(num_labels=rows, head_bias=True)
    if not rows:
        config = config.replace(head_hidden_size=None)
    return card.replace(
        config=config,
        labels=None,
        task="classification" if rows else "features",
        problem="regression" if rows == 1 else "single_label",
        metrics={},
        temperature=None,
        sha256="",
    )


def _new_head(config: Shape, rows: int, body: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A linear classifier, initialised like the network's other layers, in the body's dtype."""
    dtype = next(iter(body.values())).dtype
    weight = torch.empty(rows, config.head_hidden_size or config.hidden_sizes[-1])
    torch.nn.init.trunc_normal_(weight, std=config.initializer_range)
    return {"head.weight": weight.to(dtype), "head.bias": torch.zeros(rows, dtype=dtype)}


def _check(config: Shape, tensors: Mapping[str, Tensor]) -> None:
    expected, actual = config.shapes(), {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    odd = [name for name in expected | actual if expected.get(name) != actual.get(name)]
    if odd:
        raise ModelError(
            f"the network no longer matches its config: {len(odd)} parameters differ, such as {odd[0]}",
            "save it with torch.save(network.state_dict(), FILE)",
        )


def _only_widened(tensors: Mapping[str, Tensor], sha256: str) -> bool:
    """Whether these tensors were read from a file in half precision that has this fingerprint."""
    if not sha256:
        return False
    for narrow in (torch.float16, torch.bfloat16):
        cast = {name: tensor.to(narrow) for name, tensor in tensors.items()}
        exact = all(torch.equal(cast[name].to(tensor.dtype), tensor) for name, tensor in tensors.items())
        if exact and canonical.fingerprint(cast) == sha256:
            return True
    return False


def _dtype(wish: torch.dtype | str | None) -> torch.dtype | Literal["stored"] | None:
    if wish == "auto":
        return "stored"
    dtype = getattr(torch, wish, wish) if isinstance(wish, str) else wish
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be a floating torch.dtype, its name or 'auto', not {wish!r}")
    return dtype


def _write_json(path: Path, values: JsonObject) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(path, error) from error
    with replacing(path) as file:
        file.write((json.dumps(values, indent=2) + "\n").encode())


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror}", "remove it, or name another folder") from error
