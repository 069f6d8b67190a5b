"""Print the table of docs/export.md: every format of ``convnext export``, on every kind of network.

    python -m benchmarks.export [FOLDER OF PHOTOS] [--only FORMAT] [--results FILE]

Each cell is one run of ``convnext export --json`` in a process of its own: the largest difference from the network as
a share of the range of its scores, photos that keep their label, the file's size as a share of the weights', and how
many times as fast as the network in torch a batch of 8 is (the quickest of interleaved calls, two threads). The default
has its trained weights; the others have random ones in which every parameter matters, so their answers mean nothing and
must be the same all the same. Cells that are in FILE already are not made again.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from convnext_cli.base.machine import processor
from convnext_cli.checkpoints import canonical
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.runtimes.registry import FORMATS
from tests.helpers.weights import random_tensors

NETWORKS = (
    "default",
    "convnext_atto",
    "convnext_tiny",
    "convnextv2_atto",
    "convnextv2_tiny",
    "convnext_isotropic_small",
    "convnext_base",
)
# Precisions, of the trained default alone: rounding random weights says little.
DTYPES = ("float16", "bfloat16", "int8")
LIBRARIES = ("torch", "onnxruntime", "openvino", "ai-edge-litert", "executorch", "coremltools", "numpy")


def weights(name: str, folder: Path) -> str:
    """Random weights of a variant as a file; the default by its name."""
    if name == "default":
        return name
    path = folder / f"{name}.safetensors"
    if not path.exists():
        config = VARIANTS[name]
        tensors = random_tensors(config)
        card = Card(config, Preprocessing.official(), name, name, "imagenet-1k", sha256=canonical.fingerprint(tensors))
        canonical.write(path, tensors, card)
    return str(path)


def cell(form: str, dtype: str, model: str, photos: str | None, folder: Path) -> dict[str, Any]:
    """What ``convnext export`` says of one file, or why there is none."""
    command = [sys.executable, "-m", "convnext_cli", "export", "-m", model, "--to", form, "--dtype", dtype, "--json"]
    command += ["-o", str(folder / f"made{FORMATS[form].suffix}"), "--overwrite", "-t", "2"]
    if photos and dtype == "int8":
        command += ["--calibrate", photos]
    elif photos:
        command += ["--check-on", photos]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.stdout.strip():
        return json.loads(done.stdout)["check"]  # type: ignore[no-any-return]
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return {"error": (said or [done.stderr.strip() or "no answer"])[-1].removeprefix("error: ")}


def text(found: dict[str, Any], notes: list[str]) -> str:
    """A cell of the table."""
    why = found.get("error") or "; ".join(found["against"])
    if why:
        if why not in notes:
            notes.append(why)
        return f"no [{notes.index(why) + 1}]"
    before, after = found["bytes"]
    network, file = found["ms"].get("8") or next(iter(found["ms"].values()))
    parts = (found["difference"], found["agreement"], after / before, network / file)
    return "{:.0e} · {:.1f} % · {:.2f} · {:.2f}×".format(*parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", help="a folder to check and calibrate with; else the samples, and no int8")
    parser.add_argument("--only", choices=FORMATS, nargs="+", default=list(FORMATS))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--results", type=Path, help="JSON lines of the cells, read and added to")
    given = parser.parse_args()
    dtypes = DTYPES if given.photos else DTYPES[:2]
    keys = [(form, "float32", name) for name in given.networks for form in given.only]
    keys += [(form, dtype, "default") for dtype in dtypes for form in given.only]
    known: dict[tuple[str, ...], dict[str, Any]] = {}
    if given.results and given.results.exists():
        for line in given.results.read_text().splitlines():
            values = json.loads(line)
            known[tuple(values["key"])] = values["found"]
    with tempfile.TemporaryDirectory() as place:
        for key in keys:
            if key in known:
                continue
            form, dtype, name = key
            known[key] = cell(form, dtype, weights(name, Path(place)), given.photos, Path(place))
            print(*key, text(known[key], []), file=sys.stderr, flush=True)
            if given.results:
                with given.results.open("a") as file:
                    file.write(json.dumps({"key": key, "found": known[key]}) + "\n")
    notes: list[str] = []
    names = [name.removeprefix("convnext_") for name in given.networks]
    table("float32", names, [[(form, "float32", name) for name in given.networks] for form in given.only], known, notes)
    rows = [[(form, dtype, "default") for dtype in dtypes] for form in given.only]
    table("default", dtypes, rows, known, notes)
    for number, why in enumerate(notes, 1):
        print(f"[{number}] {why}  ")
    versions = []
    for library in LIBRARIES:
        try:
            versions.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            continue
    counts = {found["photos"] for found in known.values() if "photos" in found}
    print(f"\n{processor()}, 2 threads, Python {platform.python_version()}, {', '.join(versions)}, {date.today()};")
    print(f"photos: {', '.join(map(str, sorted(counts)))}.")


def table(
    title: str,
    names: Sequence[str],
    rows: list[list[tuple[str, ...]]],
    known: dict[tuple[str, ...], dict[str, Any]],
    notes: list[str],
) -> None:
    print(f"| {title} |", " | ".join(names), "|")
    print("| --- |" + " --- |" * len(names))
    for keys in rows:
        print(f"| {keys[0][0]} |", " | ".join(text(known[key], notes) for key in keys), "|")
    print()


if __name__ == "__main__":
    main()
