"""What applying a colour profile after the resize, instead of before it, changes: the table in docs/preprocessing.md.

    python -m benchmarks.colour_order VALIDATION.parquet [--photos 1000]

Validation photos are enlarged to 320 × 320 pixels, smoothly and with a sensor's grain, or in squares with hard edges.
Their values are taken as values of each profile, so that they are more saturated than they were. Both orders then make
the 80 × 80 pixels of the bundled default.
"""

from __future__ import annotations

import argparse
import io
import platform
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from benchmarks.profiles import adobe_rgb, display_p3, grey_gamma, printed_cmyk
from convnext_cli.base import machine
from convnext_cli.photos.colour import in_srgb
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.scoring import score

EDGE = 320


def enlarged(data: bytes, rng: np.random.Generator, *, sharp: bool) -> Image.Image:
    """A photo of ``EDGE`` × ``EDGE`` pixels."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if sharp:
        return image.resize((EDGE, EDGE), Image.Resampling.NEAREST)
    image = image.resize((EDGE, EDGE), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 5, (EDGE, EDGE, 3))
    return Image.fromarray((np.asarray(image, np.float32) + grain).clip(0, 255).astype(np.uint8))


def separated(image: Image.Image) -> Image.Image:
    """An RGB photo as four inks, with black in place of 70 % of the grey that the others would print."""
    inks = 255 - np.asarray(image).astype(np.float32)
    black = 0.7 * inks.min(axis=2, keepdims=True)
    values = np.concatenate([inks - black, black], axis=2)
    return Image.frombytes("CMYK", image.size, values.round().astype(np.uint8).tobytes())


KINDS: dict[str, tuple[str, bytes, Callable[[Image.Image], Image.Image]]] = {
    "Display P3": ("RGB", display_p3(), lambda image: image),
    "Adobe RGB": ("RGB", adobe_rgb(), lambda image: image),
    "grey, gamma 2.2": ("L", grey_gamma(), lambda image: image.convert("L")),
    "CMYK": ("CMYK", printed_cmyk(), separated),
}


def main() -> None:
    from pyarrow import parquet

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("validation", type=Path)
    parser.add_argument("--photos", type=int, default=1000)
    arguments = parser.parse_args()
    rows = parquet.read_table(arguments.validation).slice(0, arguments.photos).to_pylist()
    labels = np.array([row["label"] for row in rows])
    predictor = open_predictor(PredictorOptions.of(model="default"), job="throughput")
    recipe = predictor.preprocessor.preprocessing
    srgb = ImageCms.createProfile("sRGB")
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}")
    print(f"Python {platform.python_version()}, pillow {version('pillow')}; {len(rows)} photos\n")
    print(
        "| profile | photos | levels, mean | above 2, % | largest | without it, mean | score | same label % | right % |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (mode, profile, convert) in KINDS.items():
        transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, mode, "RGB")
        for sharp in (False, True):
            rng = np.random.default_rng(0)
            levels, without, tensors = [], [], []
            for row in rows:
                image = convert(enlarged(row["image"]["bytes"], rng, sharp=sharp))
                size = recipe.size[::-1]
                small = image.resize(size, Image.Resampling.BICUBIC)
                orders = [transform.apply(image).resize(size, Image.Resampling.BICUBIC), transform.apply(small)]
                values = [np.asarray(order).astype(int) for order in (*orders, in_srgb(small, None))]
                levels.append(np.abs(values[0] - values[1]))
                without.append(np.abs(values[0] - values[2]).mean())
                tensors.append([apply_preprocessing(recipe, order) for order in orders])
            logits = [
                np.concatenate([predictor.engine(np.stack(column[i : i + 8])) for i in range(0, len(column), 8)])
                for column in zip(*tensors, strict=True)
            ]
            scores = [np.stack([score(row, "softmax", predictor.temperature) for row in order]) for order in logits]
            apart, best = np.abs(scores[0] - scores[1]), [order.argmax(1) for order in logits]
            right = [f"{100 * np.mean(order == labels):.1f}" for order in best]
            print(
                f"| {name} | {'hard edges' if sharp else 'smooth'} | {np.mean(levels):.2f} "
                f"| {100 * np.mean(np.array(levels) > 2):.2f} | {np.max(levels)} | {np.mean(without):.1f} "
                f"| {apart.max():.3f} | {100 * np.mean(best[0] == best[1]):.1f} | {' → '.join(right)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
