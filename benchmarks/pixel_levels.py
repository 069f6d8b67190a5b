"""What ``--pixels close`` and ``fast`` do to the answers of the bundled default: the table in docs/performance.md.

    python -m benchmarks.pixel_levels VALIDATION.parquet [--photos 2000]

Validation photos are enlarged to squares, get a sensor's grain, and are stored as JPEG. The default takes 80 pixels:
3,000 pixels (9 megapixels) are decoded at 1/8 for it. Of a 12-megapixel photo a network of 224 pixels gets 1/4, and
shrinks that by 2.9 again; for the default that is a photo of 940 pixels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image

from benchmarks.profiles import display_p3
from benchmarks.validation_photos import begin
from convnext_cli.photos.decode import decode
from convnext_cli.photos.photo import Decoded
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.scoring import score

EDGES = (3000, 940)
BATCH = 8
Level = Literal["exact", "close", "fast"]
LEVELS: tuple[Level, ...] = ("exact", "close", "fast")


@dataclass
class Answers:
    """What a level made of the photos so far.

    Args:
        scores: (N, classes).
        differing, largest: the share of values that differ from the exact ones, and the most levels of 255, a photo.
        decoded: at which fraction the last photo was decoded.
    """

    scores: list[np.ndarray] = field(default_factory=list)
    differing: list[float] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)
    decoded: str = ""


def enlarged(data: bytes, edge: int, rng: np.random.Generator) -> bytes:
    """A photo of edge × edge pixels with grain and a Display P3 profile, as a JPEG file."""
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((edge, edge), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 5, (edge // 2, edge // 2, 3)).repeat(2, 0).repeat(2, 1)
    pixels = (np.asarray(image, np.float32) + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92, icc_profile=display_p3())
    return file.getvalue()


def tensor(predictor: Predictor, decoded: Decoded, level: Level) -> np.ndarray:
    """The photo as the network takes it."""
    method = "exact" if level == "exact" else "close"
    return apply_preprocessing(predictor.preprocessor.preprocessing, decoded, method=method)


def measure(predictor: Predictor, photos: list[bytes], edge: int) -> dict[Level, Answers]:
    """The answers of each level to enlarged photos."""
    rng = np.random.default_rng(0)
    preprocessing = predictor.preprocessor.preprocessing
    answers = {level: Answers() for level in LEVELS}
    step = 255 * float(np.mean(preprocessing.std))  # levels in one unit of the tensor
    for start in range(0, len(photos), BATCH):
        batch = [enlarged(data, edge, rng) for data in photos[start : start + BATCH]]
        tensors: dict[Level, list[np.ndarray]] = {}
        for level in LEVELS:
            tensors[level] = []
            for data in batch:
                decoded = decode(data, enough=preprocessing.enough if level == "fast" else None)
                answers[level].decoded = f"1/{round(edge / decoded.pixels.width)}"
                tensors[level].append(tensor(predictor, decoded, level))
            logits = predictor.engine(np.stack(tensors[level]))
            answers[level].scores += [score(row, "softmax", predictor.temperature) for row in logits]
            for exact, values in zip(tensors["exact"], tensors[level], strict=True):
                apart = np.abs(values - exact)
                answers[level].differing.append(float((apart > 1e-6).mean()))
                answers[level].largest.append(step * float(apart.max()))
    return answers


def main() -> None:
    predictor, photos, labels = begin(__doc__, 2000, ("pillow", "torch"))
    print("| edge | level | decoded at | values that differ % | most levels of 255, mean (largest) "
          "| same first label % | right % | largest difference of a score | mean |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for edge in EDGES:
        answers = measure(predictor, photos, edge)
        exact = np.stack(answers["exact"].scores)
        for level, answer in answers.items():
            scores = np.stack(answer.scores)
            apart = np.abs(scores - exact).max(1)
            print(
                f"| {edge} | {level} | {answer.decoded} | {100 * np.mean(answer.differing):.2f} "
                f"| {np.mean(answer.largest):.1f} ({np.max(answer.largest):.1f}) "
                f"| {100 * (scores.argmax(1) == exact.argmax(1)).mean():.2f} "
                f"| {100 * (scores.argmax(1) == labels).mean():.1f} | {apart.max():.4f} | {apart.mean():.5f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
