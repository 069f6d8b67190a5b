"""How well each score tells photos of a model's kind from all others: the area under the ROC curve.

    python -m benchmarks.out_of_scope TINY CLOTHING --clothing-model MODEL [--limit 10000] [--cache FOLDER]

TINY: Tiny ImageNet's validation photos, which the default was trained for. CLOTHING: the clothing dataset, with splits,
and MODEL a model that ``convnext train CLOTHING --freeze`` made. Each model is asked about photos of its own kind, of
the other's, and of noise, drawings and text that this script makes. Scores that rest on photos are fitted on half of
the model's own photos (on the split val of CLOTHING), and tested on the others.
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
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.network_outputs import Outputs, of_data, of_photos, open_model
from convnext_cli.certainty.out_of_scope import METHODS, Scorer, held_out
from convnext_cli.evaluation.figures import auroc

FOREIGN = 2000  # photos of the other data set
MADE = 500  # photos of each kind that is made
EDGE = 128
WORDS = "the quick brown fox jumps over a lazy dog while seven wizards vex daft jackdaws and pack my box with jugs"


def noise(random: np.random.Generator) -> Image.Image:
    """Random pixels, coarse or fine, grey or coloured."""
    edge = int(random.choice([8, 16, 32, 64, EDGE]))
    channels = int(random.choice([1, 3]))
    pixels = random.integers(0, 256, (edge, edge, channels), dtype=np.uint8)
    picture = Image.fromarray(np.broadcast_to(pixels, (edge, edge, 3)).copy())
    picture = picture.resize((EDGE, EDGE), Image.Resampling(int(random.choice([0, 2, 3]))))
    return picture.filter(ImageFilter.GaussianBlur(float(random.choice([0, 0, 1, 3]))))


def drawing(random: np.random.Generator) -> Image.Image:
    """Lines, ellipses and rectangles on a plain ground."""
    picture = Image.new("RGB", (EDGE, EDGE), tuple(random.integers(200, 256, 3).tolist()))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(random.integers(3, 12))):
        (x0, x1), (y0, y1) = (sorted(random.integers(0, EDGE, 2).tolist()) for _ in range(2))
        colour = tuple(random.integers(0, 200, 3).tolist())
        width = int(random.integers(1, 5))
        fill = tuple(random.integers(0, 256, 3).tolist()) if random.random() < 0.3 else None
        shape = int(random.integers(0, 4))
        if shape == 0:
            pen.line((x0, y0, x1, y1), colour, width)
        elif shape == 1:
            pen.ellipse((x0, y0, x1, y1), fill, colour, width)
        elif shape == 2:
            pen.rectangle((x0, y0, x1, y1), fill, colour, width)
        else:
            pen.arc((x0, y0, x1, y1), 0, int(random.integers(60, 300)), colour, width)
    return picture


def text(random: np.random.Generator) -> Image.Image:
    """A page of words, dark on light or light on dark."""
    light, dark = tuple(random.integers(210, 256, 3).tolist()), tuple(random.integers(0, 60, 3).tolist())
    ground, ink = (light, dark) if random.random() < 0.8 else (dark, light)
    picture = Image.new("RGB", (EDGE, EDGE), ground)
    pen, size = ImageDraw.Draw(picture), int(random.choice([9, 12, 16, 24]))
    font = ImageFont.load_default(size)
    words = WORDS.split()
    for top in range(4, EDGE - size, round(size * 1.3)):
        pen.text((4, top), " ".join(random.choice(words, 12).tolist()), ink, font)
    return picture


KINDS: dict[str, Callable[[np.random.Generator], Image.Image]] = {"noise": noise, "drawings": drawing, "text": text}


def made(kind: str) -> list[bytes]:
    """Photos of one of ``KINDS``, the same in every run."""
    random = np.random.default_rng(list(KINDS).index(kind))
    files = []
    for _ in range(MADE):
        file = io.BytesIO()
        KINDS[kind](random).save(file, "PNG")
        files.append(file.getvalue())
    return files


def rows(fitted: Outputs, own: Outputs, foreign: dict[str, Outputs]) -> dict[str, list[tuple[float, float]]]:
    """For each method the AUROC and the share of foreign photos let through at the limit, one pair a kind."""
    table = {}
    for method in METHODS:
        limit = np.quantile(held_out(method, *fitted), 0.95)
        scorer = Scorer.fit(method, fitted.features, fitted.truth)
        near = scorer.scores(own.logits, own.features)
        far = {name: scorer.scores(photos.logits, photos.features) for name, photos in foreign.items()}
        table[method] = [(auroc(near, scores), float((scores <= limit).mean())) for scores in far.values()]
        print(f"  {method}: keeps {100 * (near <= limit).mean():.1f} % of its own photos", flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tiny")
    parser.add_argument("clothing")
    parser.add_argument("--clothing-model", required=True)
    parser.add_argument("--limit", type=int, default=10_000, help="photos of a model's own kind")
    parser.add_argument("--cache", type=Path, default=Path("build/outputs"))
    given = parser.parse_args()
    print(f"{date.today()}  {platform.platform()}  numpy {version('numpy')}, pillow {version('pillow')}")
    tables, names = [], []
    for name, model in (("default", "default"), ("clothing", given.clothing_model)):
        predictor = open_model(model)
        if name == "default":
            tiny = of_data(predictor, given.tiny, None, given.limit, given.cache)
            fitted, own = tiny.take(np.arange(0, len(tiny.truth), 2)), tiny.take(np.arange(1, len(tiny.truth), 2))
            other = of_data(predictor, given.clothing, None, FOREIGN, given.cache)
        else:
            splits = ("val", "test")
            fitted, own = (of_data(predictor, given.clothing, split, given.limit, given.cache) for split in splits)
            other = of_data(predictor, given.tiny, None, FOREIGN, given.cache)
        foreign = {"clothing" if name == "default" else "tiny": other}
        foreign |= {kind: of_photos(predictor, made(kind), kind, given.cache) for kind in KINDS}
        print(f"{name}: fitted on {len(fitted.truth):,} photos, tested on {len(own.truth):,}")
        tables.append(rows(fitted, own, foreign))
        names += [f"{name}: {kind}" for kind in foreign]
    for title, part in (("AUROC, %", 0), ("let through where 95 % of own photos are kept, %", 1)):
        print(f"\n| {title} | {' | '.join(names)} | mean |\n| --- |{' ---: |' * (len(names) + 1)}")
        for method in METHODS:
            values = [100 * pair[part] for table in tables for pair in table[method]]
            print(f"| {method} | {' | '.join(f'{value:.1f}' for value in values)} | {np.mean(values):.1f} |")


if __name__ == "__main__":
    main()
