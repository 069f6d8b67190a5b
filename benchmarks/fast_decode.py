"""What ``--fast-decode`` does to the answers of the bundled default: the table in docs/performance.md.

    python -m benchmarks.fast_decode VALIDATION.parquet [--photos 400]

Validation photos are enlarged to squares, get a sensor's grain, and are stored as JPEG. The default takes 80 pixels:
3,000 pixels (9 megapixels) are decoded at 1/8 for it. Of a 12-megapixel photo a network of 224 pixels gets 1/4, and
shrinks that by 2.9 again; for the default that is a photo of 940 pixels.
"""

from __future__ import annotations

import argparse
import io
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from convnext_cli.base import machine
from convnext_cli.photos.decode import decode
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.scoring import score

EDGES = (3000, 940)


def enlarged(data: bytes, edge: int, rng: np.random.Generator) -> bytes:
    """A photo of edge × edge pixels with grain, as a JPEG file."""
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((edge, edge), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 5, (edge // 2, edge // 2, 3)).repeat(2, 0).repeat(2, 1)
    pixels = (np.asarray(image, np.float32) + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92)
    return file.getvalue()


def main() -> None:
    from pyarrow import parquet

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("validation", type=Path)
    parser.add_argument("--photos", type=int, default=400)
    given = parser.parse_args()
    rows = parquet.read_table(given.validation).slice(0, given.photos).to_pylist()
    predictor, rng = open_predictor(PredictorOptions.of(model="default"), job="throughput"), np.random.default_rng(0)
    recipe, labels = predictor.preprocessor.preprocessing, np.array([row["label"] for row in rows])
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}")
    print(f"Python {platform.python_version()}, pillow {version('pillow')}; {len(rows)} photos\n")
    print(
        "| edge | decoded at | same top-1 % | right %, exact | right %, fast | largest difference of a score | mean |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for edge in EDGES:
        inputs: dict[bool, list[np.ndarray]] = {False: [], True: []}
        for row in rows:
            data = enlarged(row["image"]["bytes"], edge, rng)
            for fast, kept in inputs.items():
                photo = decode(data, enough=recipe.enough if fast else None)
                kept.append(apply_preprocessing(recipe, photo, fast=fast))
                part = f"1/{round(edge / photo.pixels.width)}"
        exact, fast_ = (
            np.concatenate([predictor.engine(np.stack(kept[i : i + 8])) for i in range(0, len(kept), 8)])
            for kept in inputs.values()
        )
        best, other = exact.argmax(1), fast_.argmax(1)
        scores = [
            np.stack([score(row, "softmax", predictor.temperature) for row in logits]) for logits in (exact, fast_)
        ]
        apart = np.abs(scores[0] - scores[1]).max(1)
        print(
            f"| {edge} | {part} | {100 * (best == other).mean():.2f} | {100 * (best == labels).mean():.1f} "
            f"| {100 * (other == labels).mean():.1f} | {apart.max():.3f} | {apart.mean():.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
