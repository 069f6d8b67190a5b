"""``from_pretrained`` and ``save_pretrained``, as on transformers' ConvNext page, without any network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from convnext_cli import checkpoints, model, zoo
from convnext_cli.card import Card
from convnext_cli.checkpoints import canonical, huggingface
from convnext_cli.checkpoints.rename import to_layout
from convnext_cli.config import ConvNextConfig
from convnext_cli.errors import OutputError

if TYPE_CHECKING:
    _Base = model.ConvNextModel
else:
    _Base = object


class _Pretrained(_Base):
    """Adds reading and writing to a network.

    card: what its weights say of themselves; None for a network made from a config.
    notes: what reading them inferred, chose or left out.
    """

    def __init__(self, config: ConvNextConfig) -> None:
        super().__init__(config)
        self.card: Card | None = None
        self.notes: list[str] = []

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, dtype: torch.dtype | None = None) -> Self:
        """The network of a weights file, a folder, or a name of the zoo whose weights are on this machine.

        dtype: of the parameters; float32 for None. The network is in eval mode, and its parameters are views of the
        mapped file where nothing had to be cast.
        Raises ModelError when the weights are not here (with the line that pulls them) or cannot be used.
        """
        checkpoint = checkpoints.load(zoo.resolve(name_or_path), dtype=dtype)
        with torch.device("meta"):
            network = cls(checkpoint.card.config)
        names = network.state_dict().keys()
        network.load_state_dict({name: checkpoint.tensors[name] for name in names}, assign=True)
        network.card, network.notes = checkpoint.card, checkpoint.notes
        return network.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model.safetensors, which holds the card too, and config.json in transformers' form.

        Where transformers has such a network, the tensors have its names and it reads the folder; else they have the
        canonical ones. ``from_pretrained`` reads both back exactly. Raises OutputError.
        """
        folder, tensors = Path(folder), self.state_dict()
        headless = "head.weight" not in tensors
        config = self.config.replace(num_labels=0, head_hidden_size=None) if headless else self.config
        card = (self.card or Card(config)).replace(config=config)
        if headless:
            card = card.replace(task="features", labels=None)
        card = card.replace(sha256=canonical.fingerprint(tensors))
        described = huggingface.describe(config)
        if described:
            layout, description = described
            tensors = to_layout(tensors, layout)
            if card.task == "classification":
                if card.problem != "single_label":
                    description["problem_type"] = huggingface.PROBLEMS[card.problem]
                names = card.label_set().names
                description["id2label"] = {str(i): name for i, name in enumerate(names)}
                description["label2id"] = {name: i for i, name in enumerate(names)}
            _write_json(folder / "config.json", description)
        canonical.write(folder / "model.safetensors", tensors, card)


class ConvNextModel(_Pretrained, model.ConvNextModel):
    """The network without its classifier."""


class ConvNextForImageClassification(_Pretrained, model.ConvNextForImageClassification):
    """The network with its classifier; where the weights have none, its logits are the pooled features."""


def _write_json(path: Path, values: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}", "check free space and permissions, or name another folder"
        ) from error
