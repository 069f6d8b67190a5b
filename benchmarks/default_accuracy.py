"""Accuracy and calibration of the bundled default through the whole pipeline, on Tiny ImageNet's validation photos.

    python benchmarks/default_accuracy.py VALIDATION.parquet [--limit N]

The file has Hugging Face's image layout: a column ``image`` of {bytes, path} and a column ``label`` of integers.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from convnext_cli.photos.photo import Photo
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions

BINS = 15


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error: |accuracy − confidence|, weighted over bins of equal width."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs((right - confidence)[bins == b].sum()) for b in range(BINS)]
    return float(sum(gaps) / len(right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    table = pq.read_table(given.parquet).slice(0, given.limit).to_pydict()
    labels = np.array(table["label"])
    print(f"{date.today()}  {platform.platform()}  torch {version('torch')}, pillow {version('pillow')}")
    print(f"{len(labels):,} photos\n\n| scores | top-1 % | top-5 % | expected calibration error |")
    print("| --- | --- | --- | --- |")
    predictor = open_predictor(PredictorOptions.of(model="default"), job="throughput")
    for name, temperature in (("with the card's temperature", predictor.temperature), ("without it", 1.0)):
        photos = (Photo(str(number), image["bytes"]) for number, image in enumerate(table["image"]))
        rows = list(replace(predictor, temperature=temperature).rows(photos))
        assert all(row.status == "ok" for row in rows)
        guesses = np.array([[p.index for p in row.predictions] for row in rows])
        right = guesses == labels[:, None]
        error = calibration_error(np.array([row.predictions[0].score for row in rows]), right[:, 0])
        print(f"| {name} | {100 * right[:, 0].mean():.2f} | {100 * right.any(1).mean():.2f} | {error:.3f} |")


if __name__ == "__main__":
    main()
