"""What applying a colour profile after the resize, instead of before it, changes: the table in docs/preprocessing.md.

    python -m benchmarks.colour_order VALIDATION.parquet [--photos 400]

Validation photos are enlarged to 320 × 320 pixels: smoothly and with a sensor's grain, or in squares with hard edges.
They keep their colours in the profile ("as seen"), or their values are taken as values of the profile, which makes them
more saturated than they were ("vivid"). Both orders then make the 80 × 80 pixels of the bundled default.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from benchmarks.profiles import adobe_rgb, display_p3, grey_gamma, printed_cmyk
from benchmarks.validation_photos import begin
from convnext_cli.photos.colour import in_srgb
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.scoring import score

EDGE = 320
SRGB = ImageCms.createProfile("sRGB")
PROFILES = {
    "Display P3": ("RGB", display_p3()),
    "Adobe RGB": ("RGB", adobe_rgb()),
    "grey, gamma 2.2": ("L", grey_gamma()),
    "CMYK": ("CMYK", printed_cmyk()),
}
Pictures = tuple[Image.Image, Image.Image, Image.Image]  # profile before the resize, after it, and not at all


def enlarged(data: bytes, rng: np.random.Generator, *, sharp: bool) -> Image.Image:
    """A photo of ``EDGE`` × ``EDGE`` pixels."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if sharp:
        return image.resize((EDGE, EDGE), Image.Resampling.NEAREST)
    image = image.resize((EDGE, EDGE), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 5, (EDGE, EDGE, 3))
    return Image.fromarray((np.asarray(image, np.float32) + grain).clip(0, 255).astype(np.uint8))


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """An RGB photo in another mode; as CMYK with black in place of 70 % of the grey that the other inks would print."""
    if mode != "CMYK":
        return image.convert(mode)
    inks = 255 - np.asarray(image).astype(np.float32)
    black = 0.7 * inks.min(axis=2, keepdims=True)
    values = np.concatenate([inks - black, black], axis=2)
    return Image.frombytes("CMYK", image.size, values.round().astype(np.uint8).tobytes())


def pictures(photos: list[bytes], size: tuple[int, int], name: str, *, sharp: bool, vivid: bool) -> Iterator[Pictures]:
    """Each photo with a profile, brought to a size in three ways."""
    mode, data = PROFILES[name]
    profile, rng = ImageCms.ImageCmsProfile(io.BytesIO(data)), np.random.default_rng(0)
    to_srgb = ImageCms.buildTransform(profile, SRGB, mode, "RGB")
    for photo in photos:
        image = enlarged(photo, rng, sharp=sharp)
        image = in_mode(image, mode) if vivid else ImageCms.profileToProfile(image, SRGB, profile)
        small = image.resize(size, Image.Resampling.BICUBIC)
        before = to_srgb.apply(image).resize(size, Image.Resampling.BICUBIC)
        yield before, to_srgb.apply(small), in_srgb(small, None)


def row_of(predictor: Predictor, photos: list[bytes], labels: np.ndarray, name: str, **kind: Any) -> list[str]:
    """The cells of one row of the table."""
    preprocessing = predictor.preprocessor.preprocessing
    levels, tensors = [], []
    for triple in pictures(photos, preprocessing.size, name, **kind):
        values = [np.asarray(picture).astype(int) for picture in triple]
        levels.append([np.abs(values[0] - other) for other in values[1:]])
        tensors.append([apply_preprocessing(preprocessing, picture) for picture in triple])
    logits = [
        np.concatenate([predictor.engine(np.stack(column[i : i + 8])) for i in range(0, len(column), 8)])
        for column in zip(*tensors, strict=True)
    ]
    scores = [np.stack([score(row, "softmax", predictor.temperature) for row in rows]) for rows in logits]
    best = [rows.argmax(1) for rows in logits]
    after, without = (np.array(column) for column in zip(*levels, strict=True))
    return [
        name,
        f"{'hard edges' if kind['sharp'] else 'smooth'}, {'vivid' if kind['vivid'] else 'as seen'}",
        f"{after.mean():.2f}",
        f"{100 * np.mean(after > 2):.2f}",
        f"{after.max()}",
        f"{np.abs(scores[0] - scores[1]).max():.3f}",
        f"{100 * np.mean(best[0] == best[1]):.1f}",
        f"{100 * np.mean(best[0] == labels):.1f} → {100 * np.mean(best[1] == labels):.1f}",
        f"{without.mean():.1f}",
        f"{100 * np.mean(best[0] == best[2]):.1f}",
    ]


def main() -> None:
    predictor, photos, labels = begin(__doc__, 400, ("pillow",))
    print(
        "| profile | photos | levels, mean | above 2, % | largest | score | same label, % | right, % "
        "| without it: levels | same label, % |"
    )
    print("| --- |" + " --- |" * 9)
    for name, (mode, _) in PROFILES.items():
        for sharp, vivid in ((False, False), (False, True), (True, True)):
            if vivid or mode == "RGB":  # colours as seen would need a profile that goes both ways
                print(
                    f"| {' | '.join(row_of(predictor, photos, labels, name, sharp=sharp, vivid=vivid))} |", flush=True
                )


if __name__ == "__main__":
    main()
