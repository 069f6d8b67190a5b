"""What the size of Pillow's blocks of memory costs: decoding and shrinking photos of 12 megapixels in all threads.

python -m benchmarks.blocks [--photos 24]
"""

from __future__ import annotations

import argparse
import io
import platform
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import photos
from convnext_cli.base import machine
from convnext_cli.base.threads import usable_threads

# MiB a block, blocks that are kept; the first is Pillow's own choice
CHOICES = [(16, 0), (64, 0), (1, 0), (1, 64)]
TURNS = 3


def work(path: str, size: int, kept: int, count: int) -> None:
    """In a process of its own: print seconds a photo, processor seconds of the system a photo, and page faults."""
    from PIL import Image, _imaging

    _imaging.set_block_size(size * 2**20)
    _imaging.set_blocks_max(kept)
    data = Path(path).read_bytes()

    def one(_: int) -> None:
        image = Image.open(io.BytesIO(data))
        image.load()
        image.resize((341, 256), Image.Resampling.BICUBIC)

    with ThreadPoolExecutor(usable_threads()) as pool:
        list(pool.map(one, range(2 * usable_threads())))
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        list(pool.map(one, range(count)))
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    print(seconds / count, (after.ru_stime - before.ru_stime) / count, (after.ru_minflt - before.ru_minflt) / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=24)
    given = parser.parse_args()
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}, {usable_threads()} threads")
    print(f"Python {platform.python_version()}, pillow {version('pillow')}\n")
    print("| MiB a block | kept | ms a photo | system ms, all threads | page faults |")
    print("| --- | --- | --- | --- | --- |")
    found: dict[tuple[int, int], list[tuple[float, ...]]] = {choice: [] for choice in CHOICES}
    with TemporaryDirectory() as place:
        (path,) = photos.make(Path(place) / "photos", photos.KINDS["12 MP"], 1, 1)
        for _ in range(TURNS):
            for size, kept in CHOICES:
                code = f"from benchmarks.blocks import work; work({path!r}, {size}, {kept}, {given.photos})"
                done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
                found[size, kept].append(tuple(map(float, done.stdout.split())))
    for (size, kept), runs in found.items():
        seconds, system, faults = min(runs)
        print(f"| {size} | {kept} | {1000 * seconds:.1f} | {1000 * system:.1f} | {faults:,.0f} |")


if __name__ == "__main__":
    main()
