"""Entry: one known checkpoint, and the reader of zoo.toml, which lists them all."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from convnext_cli.base.text import JsonObject
from convnext_cli.model.config import VARIANTS, ConvNextConfig
from convnext_cli.model.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INCEPTION_MEAN,
    INCEPTION_STD,
    Preprocessing,
)

if TYPE_CHECKING:
    from convnext_cli.model.card import Card

NORMS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "clip": (CLIP_MEAN, CLIP_STD),
    "inception": (INCEPTION_MEAN, INCEPTION_STD),
}
CLASSES = {"imagenet-1k": 1000, "imagenet-12k": 11821, "imagenet-22k": 21841}
TOP1, TOP5, ZERO_SHOT = "imagenet-1k top-1", "imagenet-1k top-5", "imagenet-1k zero-shot top-1"


@dataclass(frozen=True)
class Entry:
    """A published checkpoint.

    Args:
        name: timm's ``arch.tag`` where timm has it.
        architecture: a key of ``config.VARIANTS``.
        config: the shape of the network.
        preprocessing: how a photo becomes the network's input.
        labels: a bundled label set; None where the head has no classes.
        task: the output of the network.
        metrics: published figures in percent.
        license: an SPDX identifier, or the publisher's own name for it.
        terms: the conditions of the licence that must be accepted before a download; "" for none.
        hub: repository on the Hugging Face hub; "" for none.
        also: repositories with the same weights in other layouts.
        url: the publisher's own file; "" for none.
        files: file names under which the weights are distributed, besides those of the hub.
        aliases: other names that people use.
    """

    name: str
    architecture: str
    config: ConvNextConfig
    preprocessing: Preprocessing
    labels: str | None
    task: Literal["classification", "embedding", "features"]
    metrics: dict[str, float]
    license: str
    terms: str
    hub: str
    also: tuple[str, ...]
    url: str
    files: tuple[str, ...]
    aliases: tuple[str, ...]

    @property
    def num_parameters(self) -> int:
        return self.config.num_parameters

    @property
    def gmacs(self) -> float:
        """Billions of multiply-adds for one photo of the preprocessing's size."""
        return self.config.gmacs(*self.preprocessing.size)

    @property
    def top1(self) -> float | None:
        """Published ImageNet-1k top-1 in percent at its usual size; zero-shot for embeddings; None when unknown."""
        return self.metrics.get(TOP1, self.metrics.get(ZERO_SHOT))

    @property
    def source(self) -> str:
        """The address from which the weights come."""
        return f"https://huggingface.co/{self.hub}" if self.hub else self.url

    @property
    def repositories(self) -> tuple[str, ...]:
        """All hub repositories that hold these weights, the one to pull from first."""
        return ((self.hub,) if self.hub else ()) + self.also

    def card(self) -> Card:
        """The card of the checkpoint, as far as it is known before its file is opened."""
        from convnext_cli.model.card import Card

        return Card(
            config=self.config,
            preprocessing=self.preprocessing,
            name=self.name,
            architecture=self.architecture,
            labels=self.labels,
            task=self.task,
            license=self.license,
            source=self.source,
            metrics=dict(self.metrics),
        )


@cache
def entries() -> tuple[Entry, ...]:
    """All known checkpoints, small architectures first."""
    with Path(__file__).with_name("zoo.toml").open("rb") as file:
        zoo = tomllib.load(file)
    rows = []
    for architecture, table in zoo["models"].items():
        plain = table.pop("plain")
        rows += [_entry(architecture, tag, row, tag == plain, zoo) for tag, row in table.items()]
    return tuple(rows)


def _entry(architecture: str, tag: str, row: JsonObject, plain: bool, zoo: JsonObject) -> Entry:
    name = f"{architecture}.{tag}"
    width = row.get("embedding")
    labels: str | None = None if width is not None else row.get("labels", zoo["defaults"]["labels"])
    config = VARIANTS[architecture].replace(num_labels=CLASSES[labels] if labels else width)
    if row.get("headless"):
        config = config.replace(head_norm="none")
    preprocessing = _preprocessing(row, row.get("norm", zoo["defaults"]["norm"]))
    license = row.get("license", zoo["defaults"]["license"])
    host, _, file = row.get("origin", "").partition(":")
    hub = row.get("hub", f"timm/{name}")
    repositories = [hub, *row.get("also", [])]
    aliases = [r for r in repositories if r] + [r.rpartition("/")[2] for r in repositories if r]
    aliases += [*row.get("names", []), name.removeprefix("convnext_")]
    if plain:
        aliases += _short_names(architecture)
    return Entry(
        name=name,
        architecture=architecture,
        config=config.replace(image_size=preprocessing.size[0]),
        preprocessing=preprocessing,
        labels=labels,
        task="classification" if labels else "embedding" if width else "features",
        metrics=_metrics(row),
        license=license,
        terms=zoo["terms"].get(license, ""),
        hub=hub,
        also=tuple(row.get("also", ())),
        url=zoo["hosts"][host] + file if host else "",
        files=((file,) if file else ()) + tuple(row.get("files", ())),
        aliases=tuple(dict.fromkeys(a for a in aliases if a != name)),
    )


def _short_names(architecture: str) -> list[str]:
    """``tiny`` for convnext_tiny, ``v2_tiny`` for convnextv2_tiny, ``zepto_rms`` for convnext_zepto_rms."""
    family, _, size = architecture.partition("_")
    if family == "convnextv2":
        return [architecture, f"v2_{size}", f"{size}_v2", f"{size}v2"]
    return [architecture, size] if family == "convnext" else [architecture]


def _preprocessing(row: JsonObject, norm: str) -> Preprocessing:
    edge, to, squash, bilinear = _view(row["input"])
    test: tuple[int, int] | None = None
    # A test size that scores worse is ignored: convnext_tiny.fb_in22k_ft_in1k loses four points at 288.
    if "test" in row and row["test_top"][0] > row["top"][0]:
        test = _view(row["test"])[:2]
    mean, std = NORMS[norm]
    return Preprocessing(
        size=(edge, edge),
        resize_to=(to, to),
        resize="squash" if squash else "shortest",
        interpolation="bilinear" if bilinear else "bicubic",
        mean=mean,
        std=std,
        test_size=(test[0], test[0]) if test else None,
        test_resize_to=(test[1], test[1]) if test else None,
    )


def _view(text: str) -> tuple[int, int, bool, bool]:
    """ "224 0.875", "384 1 squash" or "224 236 bilinear" as edge, edge to resize to, squash, bilinear."""
    edge, share, *words = text.split()
    to = float(share)
    # timm: floor(size / crop_pct); anything above 1 is torchvision's edge itself
    return int(edge), math.floor(int(edge) / to) if to <= 1 else int(to), "squash" in words, "bilinear" in words


def _metrics(row: JsonObject) -> dict[str, float]:
    named = dict(zip((TOP1, TOP5), row.get("top", ()), strict=False))
    if "test" in row:
        size = _view(row["test"])[0]
        named |= dict(zip((f"{TOP1} at {size}", f"{TOP5} at {size}"), row["test_top"], strict=True))
    if "zero_shot" in row:
        named[ZERO_SHOT] = row["zero_shot"]
    return {name: float(value) for name, value in named.items()}


def sha256_prefix(file: str) -> str:
    """The start of a file's sha256, which torch hub's convention puts into its name; "" for none."""
    match = re.search(r"-([0-9a-f]{8,64})\.\w+$", file)
    return match[1] if match else ""
