"""Assigns the label files of a shard to its photos, by their names.

A sample of WebDataset is named by the text before the first dot, and the rest of a name is a field: ``a.jpg``,
``a.seg.png`` and ``a.cls`` are one sample. Photos have dots in their names too: ``22.05.png`` and ``22.06.png`` are
two. So the longest common stem decides, and what the two names have beyond it must look like a field:

- ``22.05.png`` has the label of ``22.05.cls``, else of ``22.cls``, never that of ``22.06.cls``;
- ``a.seg.png`` has the label of ``a.cls``, which ``a.jpg`` has as well;
- ``22.05.png`` has not the label of ``22.cls`` where there is a ``22.png``, since a number is not a field;
- ``a.left.png`` has the label of ``a.info.json`` only where both fields occur in other samples as well.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

SUFFIXES = (".cls", ".json", ".txt")  # of label files; the first that exists counts
_MOST_CUTS = 16  # dots of a name that may end its stem
Texts = Mapping[str, Sequence[str]]  # the texts of the label files of one stem, by suffix


def labels(photos: Sequence[str], files: Mapping[str, Texts]) -> Iterator[frozenset[str]]:
    """The labels of each photo: one, none, or several that contradict each other.

    Args:
        photos: their stems, that is, names with the folder and without the last suffix.
        files: the label files by stem.
    """
    owned = frozenset(photos)
    photo_fields = Counter(field for stem in owned for _, field in _splits(stem) if _is_field(field))
    spare = _spare(stem for stem in files if stem not in owned)
    interned: dict[frozenset[str], frozenset[str]] = {}  # one set a label, not one a photo
    for stem in photos:
        answer = next(
            (answer for answer in _candidates(stem, files, owned, photo_fields, spare) if answer), frozenset[str]()
        )
        yield interned.setdefault(answer, answer)


def _candidates(
    stem: str,
    files: Mapping[str, Texts],
    owned: frozenset[str],
    photo_fields: Counter[str],
    spare: Mapping[str, Sequence[str]],
) -> Iterator[frozenset[str]]:
    """The labels that label files give to a photo, beginning with the longest common stem."""
    for common, field in _splits(stem):
        if common in files and (not field or _is_field(field) or common not in owned):
            yield _distinct([files[common]])
        if common in spare and (not field or photo_fields[field] > 1):
            yield _distinct([files[other] for other in spare[common]])


def _spare(stems: Iterator[str]) -> Mapping[str, Sequence[str]]:
    """Label files without a photo of their name, by their stem without a field that occurs several times."""
    splits = [(common, field, stem) for stem in stems for common, field in _splits(stem) if _is_field(field)]
    fields = Counter(field for _, field, _ in splits)
    spare = defaultdict[str, list[str]](list)
    for common, field, stem in splits:
        if fields[field] > 1:
            spare[common].append(stem)
    return spare


def _splits(stem: str) -> Iterator[tuple[str, str]]:
    """The stem with no field, then shorter and shorter stems with longer and longer fields."""
    yield stem, ""
    start, cuts = stem.rfind("/") + 1, list[int]()
    while len(cuts) < _MOST_CUTS and (cut := stem.find(".", start)) >= 0:
        cuts.append(cut)
        start = cut + 1
    for cut in reversed(cuts):
        yield stem[:cut], stem[cut + 1 :]


def _is_field(text: str) -> bool:
    """Whether this may be the name of a field: words, each beginning with a letter."""
    return bool(text) and all(word[:1].isalpha() for word in text.split("."))


def _distinct(files: Sequence[Texts]) -> frozenset[str]:
    """The labels that these files give to one photo.

    A ``.cls`` and a ``.json`` contradict each other where both give numbers, or both give names; ``.txt``, which is
    often a caption, counts only without them.
    """
    texts = {suffix: [text for file in files for text in file.get(suffix, ())] for suffix in SUFFIXES}
    first = next((suffix for suffix in SUFFIXES if texts[suffix]), None)
    if first is None:
        return frozenset()
    answers = frozenset(texts[first])
    if first == ".cls":
        numbers = {text.isdecimal() for text in answers}
        answers |= {text for text in texts[".json"] if text.isdecimal() in numbers}
    return answers
