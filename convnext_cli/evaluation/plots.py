"""Pictures: which labels are confused, and how often answers are right, by score and by share of photos answered."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from convnext_cli.base.text import JsonObject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGIBLE = 60  # classes whose names find room beside the matrix


def available() -> bool:
    """Whether matplotlib is here."""
    return find_spec("matplotlib") is not None


def confusion(counts: np.ndarray, names: Sequence[str], path: Path) -> None:
    """counts: (classes, classes), photos by true and answered label; drawn as shares of each true label's photos.

    Photos that were answered with a label of none of the classes are missing from their row. Raises OSError.
    """
    plt = _pyplot()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    edge = min(max(5.0, 0.22 * len(names) + 3), 16.0)
    figure, axes = plt.subplots(figsize=(edge + 1, edge), layout="constrained")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest" if len(names) <= 500 else "auto")
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true label's photos")
    if len(names) <= LEGIBLE:
        ticks = [_plain(name) for name in names]
        axes.set_xticks(range(len(names)), ticks, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), ticks, fontsize=8)
    if len(names) <= 12:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xlabel("answer")
    axes.set_ylabel("true label")
    _save(figure, path)


def reliability(bins: Sequence[JsonObject], error: float | None, path: Path) -> None:
    """bins: of the document's calibration. error: the ECE. Raises OSError."""
    plt = _pyplot()
    figure, (axes, below) = plt.subplots(
        2, 1, figsize=(6, 6.5), layout="constrained", sharex=True, height_ratios=(3, 1)
    )
    filled = [entry for entry in bins if entry["photos"]]
    width = bins[0]["high"] - bins[0]["low"]
    middles = [(entry["low"] + entry["high"]) / 2 for entry in filled]
    axes.plot((0, 1), (0, 1), color="grey", linestyle="--", label="as often right as it says")
    axes.bar(middles, [entry["accuracy"] for entry in filled], width * 0.92, label="right", color="#0d7a70")
    means = [entry["confidence"] for entry in filled]
    axes.plot(means, [entry["accuracy"] for entry in filled], "o", color="black", ms=3, label="at the mean score")
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right")
    axes.set_title("" if error is None else f"expected calibration error {error:.3f}, {len(bins)} bins", fontsize=10)
    axes.legend(fontsize=8, loc="upper left")
    below.bar(middles, [entry["photos"] for entry in filled], width * 0.92, color="#8a939c")
    below.set(xlabel="score of the best guess", ylabel="photos")
    _save(figure, path)


def precision(models: Sequence[JsonObject], path: Path) -> None:
    """How often answers are right, by the share of photos that get one.

    Args:
        models: the document's part of each model, with ``sure``.
        path: of the picture.

    Raises:
        OSError: it cannot be written.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    for values, colour in zip(models, ("#0d7a70", "#b4552d"), strict=False):
        sure = values["sure"]
        shares = [step["answered"] / sure["photos"] for step in sure["curve"]]
        right = [step["right"] / step["answered"] for step in sure["curve"]]
        axes.plot(shares, right, color=colour, label=_plain(values["model"]))
        if sure["precision"]["photos"]:
            at = sure["precision"]["photos"] / sure["photos"]
            axes.plot([at], [sure["precision"]["value"]], "o", color=colour, label=f"--sure {sure['asked']:g}")
    axes.axhline(models[0]["sure"]["asked"], color="grey", linestyle="--", label="asked for")
    axes.set(xlim=(0, 1), xlabel="share of photos with an answer", ylabel="share of answers that are right")
    axes.set_ylim(top=1.005)
    axes.legend(fontsize=8, loc="lower left")
    _save(figure, path)


def _pyplot() -> ModuleType:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def _save(figure: Figure, path: Path) -> None:
    from matplotlib import pyplot as plt

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a script that the font lacks: boxes, and nothing to be done
            # without the date and the version: the same answers make the same file
            figure.savefig(path, dpi=120, metadata={"Software": None})
    finally:
        plt.close(figure)


def _plain(name: str) -> str:
    """A name as text: no formula, no second line, and not too long."""
    text = "".join(sign if sign.isprintable() else "?" for sign in name).replace("$", r"\$")
    return text if len(text) <= 30 else text[:29] + "…"
