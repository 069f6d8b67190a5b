"""Two bundled defaults side by side: photos of known content, and a start for other photos.

    python -m benchmarks.old_and_new photos OLD NEW [--skimage WHEEL]
    python -m benchmarks.old_and_new tuned OLD NEW CLOTHES OUT [--epochs 10] [--seeds 1]

OLD and NEW are weights, such as `git show REVISION:weights/default.safetensors > old.safetensors`, and "default".

"photos" shows the three best labels for the samples and for the photos inside of scikit-image, which is no dependency
of this project: a wheel (pip download --no-deps scikit-image), or the installed package. Three of its photos show a
class of Tiny ImageNet, the same as our samples before they were saved as JPEG; the others say how sure a default is of
what it does not know.

"tuned" trains both on CLOTHES (a folder or zip with train, val and test) with the same commands, all layers and the
classifier alone, and judges them by test. The runs are below OUT; the same command goes on where it was cut.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convnext_cli import classify
from convnext_cli.base.errors import ConvNextError
from convnext_cli.base.machine import processor
from convnext_cli.base.threads import usable_threads
from convnext_cli.predict.rows import Row

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
CAT, ESPRESSO, MISSILE = ("n02123045", "n02124075", "n02123394"), ("n07920052",), ("n04008634",)
# Names of photos: what they show, and the WordNet ids of labels that are right
OURS = {
    "cat.jpg": ("a tabby cat", CAT),
    "coffee.jpg": ("a cup of espresso", ESPRESSO),
    "rocket.jpg": ("a rocket", MISSILE),
}
THEIRS: dict[str, tuple[str, tuple[str, ...]]] = {
    "chelsea.png": ("a tabby cat", CAT),
    "coffee.png": ("a cup of espresso", ESPRESSO),
    "rocket.jpg": ("a rocket", MISSILE),
    "astronaut.png": ("an astronaut", ()),
    "camera.png": ("a photographer", ()),
    "motorcycle_left.png": ("a motorcycle", ()),
    "coins.png": ("coins", ()),
    "brick.png": ("a brick wall", ()),
    "gravel.png": ("gravel", ()),
}
METHODS = {"all layers": (), "the classifier alone": ("--freeze",)}
SHOWN = 3


def photos_of(skimage: Path | None) -> Iterator[tuple[str, str, tuple[str, ...], bytes]]:
    """Names, what they show, ids of right labels, and bytes."""
    for name, (content, right) in OURS.items():
        yield f"samples/{name}", content, right, (SAMPLES / name).read_bytes()
    if skimage is None:
        spec = find_spec("skimage")
        if spec is None or not spec.submodule_search_locations:
            sys.exit("scikit-image is not here: pip download --no-deps scikit-image, and name the wheel with --skimage")
        skimage = Path(next(iter(spec.submodule_search_locations))).parent
    for name, (content, right) in THEIRS.items():
        inside = f"skimage/data/{name}"
        if skimage.is_dir():
            data = (skimage / inside).read_bytes()
        else:
            with zipfile.ZipFile(skimage) as wheel:
                data = wheel.read(inside)
        yield inside, content, right, data


def answer(row: Row, right: tuple[str, ...]) -> str:
    """The best labels with their scores, the right ones in bold."""
    if row.error is not None:
        return row.error.message
    shown = []
    for guess in row.predictions:
        text = f"{guess.label} {guess.score:.2f}"
        shown.append(f"**{text}**" if guess.id in right else text)
    return ", ".join(shown)


def compare_photos(options: argparse.Namespace) -> None:
    photos = list(photos_of(options.skimage))
    models = {"old": options.old, "new": options.new}
    rows = {name: classify([data for *_, data in photos], model=model, k=SHOWN) for name, model in models.items()}
    print(f"| photo | shows | {' | '.join(models)} |\n| --- | --- | --- | --- |")
    for number, (name, content, right, _) in enumerate(photos):
        shown = content if right else f"{content} (none of the classes)"
        cells = [answer(rows[model][number], right) for model in models]
        print(f"| {name} | {shown} | {' | '.join(cells)} |")
    known = [number for number, (_, _, right, _) in enumerate(photos) if right]
    print()
    for model in models:
        count = sum(rows[model][number].predictions[0].id in photos[number][2] for number in known)
        print(f"{model}: right on {count} of {len(known)} photos of a class that it has")


def called(*arguments: object) -> str:
    """Standard output of a command. Ends the program where it fails, or is interrupted."""
    command = [sys.executable, "-m", "convnext_cli", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"status {done.returncode} of: {' '.join(command)}")
    return done.stdout


def tune(model: str, folder: Path, method: tuple[str, ...], options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train a model as ``method`` says, or go on with it, and judge it by test."""
    # the seed of the classifier alone is of no use where the data has its splits
    more = method or ("--epochs", options.epochs, "--seed", seed)
    called("train", options.clothes, "-o", folder, "--from", model, *more, "-q")
    figures: dict[str, Any] = json.loads(
        called("evaluate", "-m", folder, options.clothes, "--split", "test", "--json", "-q")
    )
    return figures


def compare_tuned(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    print("| trained | seed | old, top-1 on test | new, top-1 on test |\n| --- | --- | --- | --- |", flush=True)
    photos = 0
    for name, method in METHODS.items():
        for seed in range(1 if method else options.seeds):
            cells = []
            for title, model in (("old", options.old), ("new", options.new)):
                folder = options.out / f"{title}-{name.replace(' ', '-')}-{seed}"
                figures = tune(model, folder, method, options, seed)
                top1, photos = figures["top1"], figures["photos"]
                cells.append(f"{100 * top1['value']:.2f} % ({100 * top1['low']:.1f} to {100 * top1['high']:.1f})")
            print(f"| {name} | {seed} | {' | '.join(cells)} |", flush=True)
    print(
        f"\n{options.clothes.name}, {photos} photos of test, intervals of 95 %; all layers: --epochs "
        f"{options.epochs:g}, the classifier alone: --freeze\n{processor()}, {usable_threads()} threads, Python "
        f"{platform.python_version()}, torch {version('torch')}, {date.today()}"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    photos, tuned = kinds.add_parser("photos"), kinds.add_parser("tuned")
    for kind in (photos, tuned):
        kind.add_argument("old")
        kind.add_argument("new")
    photos.add_argument("--skimage", type=Path, help="its wheel, or the folder that holds the package")
    tuned.add_argument("clothes", type=Path)
    tuned.add_argument("out", type=Path)
    tuned.add_argument("--epochs", type=float, default=10.0)
    tuned.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args(arguments)
    compare_photos(options) if options.kind == "photos" else compare_tuned(options)


if __name__ == "__main__":
    try:
        main()
    except ConvNextError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
