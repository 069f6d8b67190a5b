"""The curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from convnext_cli.base.text import JsonObject


def available() -> bool:
    """Whether matplotlib is here."""
    return find_spec("matplotlib") is not None


def curves(log: Sequence[JsonObject], path: Path) -> None:
    """Loss, accuracy on val, and learning rate with the edge of the photos, over epochs. Raises OSError."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    steps = [line for line in log if "loss" in line]
    evaluations = [line for line in log if "val_loss" in line]
    figure, (loss, accuracy, rate) = plt.subplots(
        3, 1, figsize=(7, 8), layout="constrained", sharex=True, height_ratios=(3, 3, 1.5)
    )
    epochs = [line["epoch"] for line in steps]
    at = [line["epoch"] for line in evaluations]
    loss.plot(epochs, [line["loss"] for line in steps], color="#8a939c", lw=1, label="train, as it learns")
    loss.plot(at, [line["val_loss"] for line in evaluations], "o-", color="#0d7a70", ms=3, label="val")
    loss.set(ylabel="loss")
    loss.legend(fontsize=8)
    for name, colour in (("top1", "#0d7a70"), ("top5", "#c77b1e")):
        if any(line[f"val_{name}"] is None for line in evaluations):  # too few classes for it to say anything
            continue
        accuracy.plot(at, [100 * line[f"val_{name}"] for line in evaluations], "o-", color=colour, ms=3, label=name)
    if evaluations:
        best = max(evaluations, key=lambda line: (line["val_top1"], -line["val_loss"]))
        accuracy.plot(best["epoch"], 100 * best["val_top1"], "*", color="black", ms=10)
        accuracy.annotate(
            f"{100 * best['val_top1']:.1f} %",
            (best["epoch"], 100 * best["val_top1"]),
            (0, 6),
            ha="center",
            textcoords="offset points",
            fontsize=8,
        )
        accuracy.legend(fontsize=8)
        accuracy.margins(y=0.1)
    accuracy.set(ylabel="val, %")
    rate.plot(epochs, [line["lr"] for line in steps], color="#8a939c", lw=1)
    rate.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None))
    sizes = [line["size"] for line in steps]
    if len(set(sizes)) > 1:
        edge = rate.twinx()
        edge.step(epochs, sizes, color="#c77b1e", lw=1)
        edge.set_ylabel("pixels", color="#c77b1e")
    try:
        # without the date and the version: the same run makes the same file
        figure.savefig(path, dpi=120, metadata={"Software": None})
    finally:
        plt.close(figure)
