"""Print how quick a report of many photos is: writing it, opening it in Chromium, scrolling from its top to its end.

Run in the repository: python -m benchmarks.report [--photos 10000] [--pictures 10000] [--keep FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from PIL import Image

from convnext_cli.base.errors import PhotoError
from convnext_cli.jobs.entry import Entry
from convnext_cli.jobs.report import Summary, small_jpeg, write
from convnext_cli.predict.rows import Prediction, Row
from tests.helpers import browser as browsers
from tests.helpers.paths import SAMPLES

# Scroll by so many pixels a frame, until the end or for so many frames; the milliseconds between frames.
SCROLL = """
new Promise((done) => {
  scrollTo(0, 0);
  const end = document.documentElement.scrollHeight - innerHeight, step = %s, times = [];
  let y = 0, last = null;
  requestAnimationFrame(function frame(now) {
    if (last !== null) times.push(now - last);
    last = now;
    if (y >= end || times.length >= %d) return done(times);
    scrollTo(0, y = Math.min(end, y + step));
    requestAnimationFrame(frame);
  });
})
"""
# Milliseconds until what a change asks for is on the screen.
ACT = """
new Promise((done) => requestAnimationFrame(() => {
  const start = performance.now();
  %s;
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
}))
"""


def entries(count: int) -> Iterator[Entry]:
    """Rows of a large folder: 300 labels, five guesses each, a few failures."""
    chance = random.Random(7)
    for i in range(count):
        scores = sorted((chance.random() for _ in range(5)), reverse=True)
        guesses = tuple(
            Prediction(rank, label, None, f"label number {label}", round(score, 6))
            for rank, (score, label) in enumerate(zip(scores, chance.sample(range(300), 5), strict=True), 1)
        )
        file = f"/home/ada/photos/{2010 + i % 15}/{i % 97:02} a folder/IMG_{i:06}.jpg"
        error = PhotoError("truncated", "the JPEG file ends too early") if i % 200 == 0 else None
        row = Row(file, "failed" if error else "ok", 4000, 3000, () if error else guesses, "default", "0" * 64, error)
        yield Entry(file, row)


def photos(folder: Path, count: int = 300) -> list[bytes]:
    """Small pictures as a report has them, all different: parts of the samples."""
    chance = random.Random(7)
    made = []
    for i in range(count):
        with Image.open(SAMPLES[i % len(SAMPLES)]) as image:
            left, top = chance.randrange(image.width - 200), chance.randrange(image.height - 150)
            file = folder / f"{i}.jpg"
            image.crop((left, top, left + 200, top + 150)).save(file, quality=92)
        made.append(small_jpeg(str(file)))
    return made


def speed(folder: Path, count: int = 40, threads: int = 2) -> str:
    """How many pictures of camera photos are made in a second."""
    with Image.open(SAMPLES[1]) as image:
        image.resize((4000, 3000)).save(folder / "large.jpg", quality=92)
    row = Row("", "ok", 4000, 3000, (), "", "")
    start = time.perf_counter()
    large = [Entry(str(folder / "large.jpg"), row)] * count
    write(large, folder / "large.html", title="", summary=Summary({}, "", ""), threads=threads)
    rate = count / (time.perf_counter() - start)
    return f"{rate:.0f} a second from JPEGs of 12 megapixels, {threads} threads"


def frames(page: browsers.Page, step: str, most: int) -> str:
    times = sorted(page.run(SCROLL % (step, most)))
    late = sum(t > 25 for t in times)
    tail = f"99 % within {times[int(0.99 * len(times))]:.1f}, all within {times[-1]:.1f} ms"
    return f"{len(times):,} frames; median {statistics.median(times):.1f}, {tail}; {late} later than 25 ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--pictures", type=int, default=10_000, help="photos that have one")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    program = browsers.found() or sys.exit(f"none of {', '.join(browsers.NAMES)} is installed")
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip()
    print(
        f"{date.today()}  {platform.platform()}  {os.cpu_count()} cores  Python {platform.python_version()}  {version}"
    )
    print(f"load of the machine, other programs: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = given.keep or folder / "report.html"
        print(f"pictures: {speed(folder)}")
        pictures = photos(folder)
        print(f"a picture: {statistics.mean(map(len, pictures)) / 1000:.1f} KB on average")
        summary = Summary({"ok": given.photos}, "default", str(date.today()))
        options = {"title": "Many photos", "summary": summary, "most_thumbnails": given.pictures}
        start = time.perf_counter()
        write(
            entries(given.photos), target, picture=lambda file: pictures[int(file[-10:-4]) % len(pictures)], **options
        )
        seconds = time.perf_counter() - start
        size = f"{given.photos:,} photos, {target.stat().st_size / 1e6:.1f} MB"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"page: {size}, written in {seconds:.1f} s (pictures not counted), peak memory {peak:.0f} MB")
        with browsers.running(program) as browser:
            browser.open(target, width=1600, height=900).close()  # the file is in memory now
            ready = []
            for _ in range(5):
                page = browser.open(target, width=1600, height=900)
                ready.append(int(page.run("document.body.dataset.ready")))
                page.close()
            print(f"open: ready after {statistics.median(ready):,} ms (median of 5: {sorted(ready)})")
            page = browser.open(target, width=1600, height=900)
            heap = page.run("performance.memory.usedJSHeapSize") / 1e6
            cards = page.run("cards.children.length")
            print(f"in the document: {cards} cards; memory of the script: {heap:.0f} MB")
            print(f"scroll, 120 pixels a frame: {frames(page, '120', 600)}")
            print(f"scroll, top to end in 600 frames: {frames(page, 'end / 600', 10_000)}")
            for what, act in (
                ("order by path", "wanted.order = 'path'; update()"),
                ("search", "$('search').value = 'img 77'; search()"),
                ("one label", "clear(); wanted.labels.add(5); update()"),
                ("all again", "clear()"),
            ):
                print(f"{what}: {page.run(ACT % act):.0f} ms")


if __name__ == "__main__":
    main()
