"""The beginning of benchmarks that take validation photos: their options, the bundled default, and the heading."""

from __future__ import annotations

import argparse
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from convnext_cli.base import machine
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.predictor import Predictor


def begin(description: str, photos: int, libraries: tuple[str, ...]) -> tuple[Predictor, list[bytes], np.ndarray]:
    """The bundled default, and the photos that the command line names, as files and as numbers of their classes.

    Args:
        description: of the benchmark; its first line is printed by ``--help``.
        photos: how many, unless ``--photos`` says another number.
        libraries: whose versions the heading has.
    """
    from pyarrow import parquet

    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("validation", type=Path)
    parser.add_argument("--photos", type=int, default=photos)
    arguments = parser.parse_args()
    rows = parquet.read_table(arguments.validation).slice(0, arguments.photos).to_pylist()
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}")
    versions = "".join(f", {library} {version(library)}" for library in libraries)
    print(f"Python {platform.python_version()}{versions}; {len(rows)} photos\n")
    predictor = open_predictor(PredictorOptions.of(model="default"), job="throughput")
    return predictor, [row["image"]["bytes"] for row in rows], np.array([row["label"] for row in rows])
