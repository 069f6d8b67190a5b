"""Accuracy of the bundled default through the whole pipeline, on Tiny ImageNet's validation photos.

    python benchmarks/default_accuracy.py VALIDATION.parquet [--limit N]

The file has Hugging Face's image layout: a column ``image`` of {bytes, path} and a column ``label`` of integers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow.parquet as pq

from convnext_cli import classify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    table = pq.read_table(given.parquet).slice(0, given.limit).to_pydict()
    rows = classify([image["bytes"] for image in table["image"]], k=5, batch_size=32)
    first = sum(
        row.predictions[0].index == label for row, label in zip(rows, table["label"], strict=True) if row.predictions
    )
    five = sum(label in [p.index for p in row.predictions] for row, label in zip(rows, table["label"], strict=True))
    failed = sum(row.status == "failed" for row in rows)
    share = 100 / len(rows)
    print(f"{len(rows):,} photos, {failed} failed: top-1 {share * first:.2f} %, top-5 {share * five:.2f} %")


if __name__ == "__main__":
    main()
