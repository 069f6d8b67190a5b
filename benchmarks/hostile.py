"""Hostile input: one row for each file that says image, no crash, no hang, bounded memory.

    python benchmarks/hostile.py                 # fetches Pillow's source distribution with pip for its Tests/images
    python benchmarks/hostile.py --images DIR    # or takes a folder that is there
    python benchmarks/hostile.py --paths 100000  # how many paths go through standard input

Each line of the table is one run of ``convnext classify`` as a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections import Counter
from contextlib import suppress
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PHOTO = ROOT / "samples" / "coffee.jpg"


def fetch(folder: Path) -> Path:
    """Tests/images of Pillow's source distribution."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-binary",
        ":all:",
        "--no-deps",
        "-d",
        str(folder),
        "pillow",
    ]
    subprocess.run(pip, check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (images,) = folder.glob("*/Tests/images")
    return images


def truncations(folder: Path) -> Path:
    """The sample photo, cut after every kilobyte."""
    folder.mkdir()
    data = PHOTO.read_bytes()
    for size in range(0, len(data), 1024):
        (folder / f"{size:06d}.jpg").write_bytes(data[:size])
    return folder


def strange(folder: Path) -> Path:
    """Names, special files, a folder without permission, a loop, a bomb of 40,000 × 40,000 pixels."""
    folder.mkdir()
    data = PHOTO.read_bytes()
    for name in (
        b"new\nline.jpg",
        b"qu\"o'te.jpg",
        b"bad\xfc.jpg",
        b"[red].jpg",
        b"\x1b[31mred.jpg",
        b"-r.jpg",
        b" .jpg",
    ):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(data)
    os.mkfifo(folder / "fifo.jpg")
    (folder / "closed").mkdir(mode=0)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "self.jpg").symlink_to("self.jpg")
    (folder / "bomb.png").write_bytes(bomb(40_000))
    return folder


def bomb(edge: int) -> bytes:
    """A small bilevel PNG of edge × edge pixels, made row by row: a large parent would show in the peaks below."""
    pack = zlib.compressobj(9)
    pixels = b"".join(pack.compress(bytes(1 + edge // 8)) for _ in range(edge)) + pack.flush()
    header = struct.pack(">IIBBBBB", edge, edge, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def run(name: str, arguments: list[str], stdin: bytes | None = None) -> None:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as listing:
        listing.write(stdin or b"")
        listing.seek(0)
        start = time.perf_counter()
        command = [sys.executable, "-m", "convnext_cli", "classify", "-f", "jsonl", *arguments]
        process = subprocess.Popen(command, stdin=listing, stdout=out, stderr=err, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        out.seek(0), err.seek(0)
        kinds = Counter(row["error"]["kind"] if row["error"] else row["status"] for row in map(json.loads, out))
        said = err.read().decode().splitlines()
    passed = next((line.split()[1] for line in said if line.startswith("skipped ")), "0")
    found = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    noise = len(said) - 1 - (passed != "0")
    print(
        f"| {name} | {kinds.total():,} | {passed} | {found} | {os.waitstatus_to_exitcode(status)} | {seconds:.0f} "
        f"| {usage.ru_maxrss / 1024:.0f} | {noise} |",
        flush=True,
    )


def slowest(images: Path) -> tuple[float, str]:
    """The file that takes longest to decode or refuse, by itself."""
    from convnext_cli.base.errors import PhotoError
    from convnext_cli.photos.decode import decode, read_file

    worst = (0.0, "")
    for path in images.rglob("*"):
        start = time.perf_counter()
        with suppress(PhotoError):
            decode(read_file(str(path)))
        worst = max(worst, (time.perf_counter() - start, path.name))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--paths", type=int, default=100_000)
    given = parser.parse_args()
    print(f"{date.today()}  {platform.platform()}  {os.cpu_count()} cores  Python {platform.python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "pillow", "pillow-heif")) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        images = given.images or fetch(place)
        print("| input | rows | skipped | rows by kind | exit | seconds | peak MB | stray lines |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        run(f"Pillow's Tests/images ({sum(p.is_file() for p in images.rglob('*')):,} files)", ["-r", str(images)])
        run("a JPEG cut at every kilobyte", ["-r", str(truncations(place / "cut"))])
        run("strange names, FIFO, loop, bomb", ["-r", str(strange(place / "strange"))])
        for count in (1000, given.paths):
            # small inputs: what counts here is that each path gets a row, and that memory stays flat
            arguments = ["--files-from", "-", "--size", "32"]
            run(f"{count:,} paths on standard input, at 32 pixels", arguments, b"samples/cat.jpg\n" * count)
        (place / "strange" / "closed").chmod(0o700)
        print("\nslowest file to decode or refuse: {1}, {0:.2f} s".format(*slowest(images)))


if __name__ == "__main__":
    main()
