"""How fast JPEG decoders are on photos of 12 megapixels, and whether they give the bits of Pillow's.

    pip install simplejpeg && python -m benchmarks.jpeg_decoders [--turns 15]

One thread; processor time, the least of all turns, which the decoders take one after the other. Pillow keeps its memory
as ``convnext`` sets it.
"""

from __future__ import annotations

import argparse
import io
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import photos
from convnext_cli.base import machine
from convnext_cli.photos.large_photos import set_blocks

Decoder = Callable[[bytes], object]


def decoders() -> dict[str, tuple[Decoder, Callable[[object], np.ndarray]]]:
    """By name: what decodes, and what makes (height, width, 3) of its result."""
    import simplejpeg
    import torch
    from torchvision.io import decode_jpeg

    def pillow(data: bytes) -> object:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image

    buffer = np.empty((3000, 4000, 3), np.uint8)
    return {
        "Pillow": (pillow, np.asarray),
        "Pillow, and its pixels unpacked": (lambda data: np.asarray(pillow(data)), np.asarray),
        "simplejpeg": (simplejpeg.decode_jpeg, np.asarray),
        "simplejpeg, into the same memory": (lambda data: simplejpeg.decode_jpeg(data, buffer=buffer), np.asarray),
        "torchvision": (
            lambda data: decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)),
            lambda planes: np.asarray(planes).transpose(1, 2, 0),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args().turns
    set_blocks()
    with tempfile.TemporaryDirectory() as place:
        files = photos.make(Path(place) / "photos", photos.KINDS["12 MP"], 3, 3)
        data = [Path(path).read_bytes() for path in files]
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}")
    print(f"Python {platform.python_version()}, " + ", ".join(map(_version, ("pillow", "simplejpeg", "torchvision"))))
    expected = [np.asarray(Image.open(io.BytesIO(file))) for file in data]
    kinds = decoders()
    equal = {
        name: all(np.array_equal(unpack(decode(file)), bits) for file, bits in zip(data, expected, strict=True))
        for name, (decode, unpack) in kinds.items()
    }
    least = dict.fromkeys(kinds, float("inf"))
    for turn in range(turns):
        for name, (decode, _) in kinds.items():
            start = time.process_time()
            decode(data[turn % len(data)])
            least[name] = min(least[name], time.process_time() - start)
    print("\n| decoder | ms | times Pillow | equal bits |\n| --- | --- | --- | --- |")
    for name, seconds in least.items():
        ratio = least["Pillow"] / seconds
        print(f"| {name} | {1000 * seconds:.1f} | {ratio:.2f} | {'yes' if equal[name] else 'no'} |")


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} (not installed)"


if __name__ == "__main__":
    main()
