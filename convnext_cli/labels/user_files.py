"""A user's label file: other words, another language, fewer classes.

Its content decides how it is read; the suffix decides only whether commas or tabs separate columns:

- a list, one name a line (or a JSON list): as many as the classifier has rows;
- a mapping from class to name (a JSON object; CSV or TSV; lines of "n01440764 tench", "0: tench" or "0,tench"): the
  class is its number, its WordNet id or its present name. Classes with the same name are merged, an empty name or "-"
  hides a class, and classes that are not in the file keep their name. A column ``parent`` of a table has the broader
  groups of a class, ``animal/feline``.
"""

from __future__ import annotations

import re
import reprlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from convnext_cli.base.errors import ModelError
from convnext_cli.base.text import JsonObject, JsonValue
from convnext_cli.labels import bundled
from convnext_cli.labels.bundled import is_id
from convnext_cli.labels.json_form import in_order
from convnext_cli.labels.label_set import LabelSet, tell_apart

_LIMIT = 64 * 2**20  # bytes; the largest honest file, 22k with definitions, has 3 MB
_HIDDEN = ("", "-")
_KEY_WORDS = ("index", "idx", "class_index", "class_idx", "class_id", "class", "id", "wnid", "synset", "key", "number")
_NAME_WORDS = ("name", "label", "class_name", "words", "text", "display", "lemma", "title")

# Keys of files that hold the names with other things: transformers' and Keras' configs, torchvision's ImageFolder.
_WRAPPERS = ("id2label", "label2id", "class_to_idx", "class_names", "classes", "labels", "names")
_LINE = re.compile(r"([0-9]{1,9}|n[0-9]{8})(?:\s*[,;:]\s*(.*)|\s+(\S.*))")

_PARENT, _SEPARATOR = "parent", "/"


class Pair(NamedTuple):
    """What a file says of one class.

    Args:
        where: it says so, for messages.
        key: the class.
        name: its name; None to leave it.
        parents: the groups above it, broadest first.
    """

    where: str
    key: str
    name: str | None
    parents: tuple[str, ...] = ()


def read(path: str | Path, base: LabelSet) -> LabelSet:
    """Read the names that a file gives to a classifier whose classes are ``base``.

    Ids and definitions stay those of ``base``.

    Raises:
        ModelError: the file cannot be read or is not UTF-8, a list has another length, or ``base`` lacks a class.
    """
    path = Path(path)
    text = _text(path)
    if not text.strip():
        raise ModelError(f"the label file {path} is empty", f"write {len(base)} lines, one name for each class")
    suffix = path.suffix.lower()
    if text.lstrip()[0] in "[{" and suffix not in (".csv", ".tsv"):
        content = _from_json(path, text)
    elif suffix in (".csv", ".tsv"):
        content = _from_table(path, text, "\t" if suffix == ".tsv" else _comma(text), base)
    else:
        content = _from_lines(path, text, base)
    if content and isinstance(content[0], Pair):
        return _mapped(path, base, [pair for pair in content if isinstance(pair, Pair)])
    return _listed(path, base, [name for name in content if isinstance(name, str)])


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        from difflib import get_close_matches

        near = get_close_matches(str(path), bundled.SETS) or list(bundled.SETS)
        hint = f"check the path, or name a bundled set: {', '.join(near)}"
        raise ModelError(f"the label file {path} cannot be read: {error.strerror}", hint) from error
    if len(data) > _LIMIT:
        raise ModelError(f"{path} is too large for a label file", "name a text, JSON or CSV file of names")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(
            f"the label file {path} is not UTF-8 (byte {error.start})", "save it with the encoding UTF-8"
        ) from error
    if "\0" in text:
        raise ModelError(f"the label file {path} is not text", "save it as text with the encoding UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _from_json(path: Path, text: str) -> list[str] | list[Pair]:
    import ast
    import json

    def unique(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
        twice = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
        if twice:
            raise ModelError(f"{path}: the class {_shown(twice[0])} occurs twice", "name each class once")
        return dict(pairs)

    try:
        data = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        try:
            # {0: 'tench', …}, as Python prints a dict
            data = json.loads(json.dumps(ast.literal_eval(text)), object_pairs_hook=unique)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            hint = "write a list of names, or an object from class to name"
            raise ModelError(f"the label file {path} is not JSON: {error}", hint) from error
    if isinstance(data, dict):
        data = next((data[key] for key in _WRAPPERS if isinstance(data.get(key), (dict, list))), data)
    if isinstance(data, list):
        return [_name(path, f"name {i}", value) for i, value in enumerate(data)]
    if not isinstance(data, dict):
        raise ModelError(
            f"{path} contains neither a list nor an object", "write a list of names, or an object from class to name"
        )
    numbered = all(key.strip().isdecimal() for key in data)
    if not numbered and all(type(value) is int for value in data.values()):
        data = _inverted(path, data)
    return [Pair(f"class {_shown(key)}", key.strip(), _name(path, f"class {_shown(key)}", data[key])) for key in data]


def _inverted(path: Path, label2id: dict[str, int]) -> dict[str, str]:
    if len(set(label2id.values())) < len(label2id):
        raise ModelError(
            f"{path}: two names have the same number",
            "give each class a name of its own, or write an object from number to name",
        )
    return {str(number): name for name, number in label2id.items()}


def _name(path: Path, where: str, value: JsonValue) -> str:
    if isinstance(value, list) and len(value) == 2 and is_id(str(value[0])):
        value = value[1]  # {"0": ["n01440764", "tench"]}, as Keras has it
    if value is None or value is False:
        return ""
    if isinstance(value, (str, int, float)) and value is not True:
        return str(value).strip()
    raise ModelError(f"{path}, {where}: {_shown(value)} is not a name", "write names as strings")


def _shown(value: object) -> str:
    """The beginning of a value from a file, for messages."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    short.maxlist = short.maxdict = short.maxlevel = 2
    return short.repr(value)


def _comma(text: str) -> str:
    """The separator of a CSV: a semicolon where spreadsheets of the locale write it."""
    first = text.partition("\n")[0]
    return max(",", ";", "\t", key=first.count)


def _from_lines(path: Path, text: str, base: LabelSet) -> list[str] | list[Pair]:
    lines = text.rstrip().split("\n")
    if all("\t" in line for line in lines):
        return _from_table(path, text, "\t", base)
    matches = [match for line in lines if (match := _LINE.fullmatch(line.strip()))]
    if len(matches) == len(lines) and not _are_names(matches, base):
        return [Pair(f"line {i}", match[1], match[2] or match[3] or "") for i, match in enumerate(matches, start=1)]
    return [line.strip() for line in lines]


def _are_names(matches: list[re.Match[str]], base: LabelSet) -> bool:
    """Whether lines that begin with a number are names nevertheless ("101 dalmatians"): they are not in order."""
    numbers = [int(match[1]) for match in matches if match[3] and match[1].isdecimal()]
    consecutive = not numbers or sorted(numbers) == list(range(min(numbers), min(numbers) + len(matches)))
    return len(matches) == len(base) and not consecutive


def _from_table(path: Path, text: str, separator: str, base: LabelSet) -> list[str] | list[Pair]:
    import csv
    import io

    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise ModelError(f"the label file {path} is not a table: {error}", "write CSV: class,name") from error
    rows = [(line, row) for line, row in rows if any(row)]
    widths = {len(row) for _, row in rows}
    if len(widths) > 1:
        line = next(line for line, row in rows if len(row) != len(rows[0][1]))
        raise ModelError(
            f"{path}, line {line}: the number of columns differs from the first line", 'quote names with commas: "a, b"'
        )
    width = widths.pop() if widths else 0
    header = [cell.casefold().replace(" ", "_") for cell in rows[0][1]] if rows else []
    headed = any(cell in (*_KEY_WORDS, *_NAME_WORDS, _PARENT) for cell in header) and not (
        header[0].isdecimal() or is_id(header[0]) or (width > 1 and _rows(_lookup(base), rows[0][1][0]))
    )
    if width == 1:
        headed = headed and len(rows) != len(base)
        return [row[0] for _, row in rows[headed:]]
    key, name, parent = 0, 1, None
    if headed:
        parent = header.index(_PARENT) if _PARENT in header else None
        first = 1 if parent == 0 else 0
        key = next((header.index(word) for word in _KEY_WORDS if word in header), first)
        name = next((header.index(word) for word in _NAME_WORDS if word in header and header.index(word) != key), -1)
        if parent is not None and name < 0:  # names stay as they are
            return [Pair(f"line {line}", row[key], None, _parents(path, line, row[parent])) for line, row in rows[1:]]
    if width > 2 and (not headed or name < 0):
        raise ModelError(
            f"{path} has {width} columns, and no header says which one holds the names",
            'add a header such as "class,name"',
        )
    return [
        Pair(f"line {line}", row[key], row[name], () if parent is None else _parents(path, line, row[parent]))
        for line, row in rows[headed:]
    ]


def _parents(path: Path, line: int, cell: str) -> tuple[str, ...]:
    parents = tuple(name.strip() for name in cell.split(_SEPARATOR)) if cell else ()
    if not all(parents):
        raise ModelError(
            f"{path}, line {line}: {_shown(cell)} is not a parent", "write the groups, broadest first: animal/feline"
        )
    return parents


def _listed(path: Path, base: LabelSet, names: list[str]) -> LabelSet:
    if len(names) != len(base):
        raise ModelError(
            f"the label file {path} has {len(names)} names, but the classifier has {len(base)} classes",
            "write one name a line in the order of the classes, or a CSV of class,name for some classes",
        )
    label_set = bundled.from_ids(path.name, names)
    if label_set is not None:
        return label_set  # WordNet ids determine everything
    base = _described(base, names)
    return _grouped(path, base, [None if text in _HIDDEN else text for text in names], merge=False)


def _mapped(path: Path, base: LabelSet, pairs: list[Pair]) -> LabelSet:
    pairs = _renumbered(base, pairs)
    lookup = _lookup(base)
    own: dict[int, str] = {}
    parents: dict[int, tuple[str, ...]] = {}
    for where, key, name, above in pairs:
        rows = _rows(lookup, key)
        if len(rows) != 1:
            raise _unknown(path, where, key, base, rows)
        if name is not None and own.setdefault(rows[0], name) != name:
            raise ModelError(
                f"{path}, {where}: the class {rows[0]} has two names, {_shown(own[rows[0]])} and {_shown(name)}",
                "name each class once",
            )
        if parents.setdefault(rows[0], above) != above:
            raise ModelError(f"{path}, {where}: the class {rows[0]} has two parents", "name each class once")
    return _with_parents(_with_names(path, base, own), parents)


def _with_parents(label_set: LabelSet, parents: dict[int, tuple[str, ...]]) -> LabelSet:
    if not any(parents.values()):
        return label_set
    before = label_set.parents or ((),) * len(label_set)
    return replace(label_set, parents=tuple(parents.get(row) or above for row, above in enumerate(before)))


def _with_names(path: Path, base: LabelSet, own: dict[int, str]) -> LabelSet:
    """A label set with other names for some rows or all."""
    if not own:
        return replace(base, name=path.name)
    label_set = bundled.from_ids(path.name, [own[row] for row in sorted(own)])
    if label_set is not None:  # the names are WordNet ids, as in ImageFolder's class_to_idx
        if len(own) == len(base):
            return label_set
        own = dict(zip(sorted(own), label_set.names, strict=True))
    present = [label.name for label in base]
    names = [own.get(row, present[row]) for row in range(len(base))]
    if len(own) == len(base):
        base = _described(base, names)
    merge = not (len(own) == len(base) and bundled.restates(base, names))
    return _grouped(path, base, [None if name in _HIDDEN else name for name in names], merge)


def _described(base: LabelSet, names: list[str]) -> LabelSet:
    """``base``; or, if it has no ids, the bundled set that has these names, one a row."""
    return base if any(base.ids) else bundled.recognise("", names) or base


def _renumbered(base: LabelSet, pairs: list[Pair]) -> list[Pair]:
    """Correct transformers' 22k list, whose numbers have two gaps."""
    if len(pairs) != len(base) or not all(_is_number(pair.key) and pair.name is not None for pair in pairs):
        return pairs
    by_number = {int(pair.key): pair.name or "" for pair in pairs}
    if max(by_number) < len(base):
        return pairs
    names = in_order(by_number)
    return pairs if names is None else [Pair(f"class {i}", str(i), name) for i, name in enumerate(names)]


def _rows(lookup: dict[str, list[int]], key: str) -> list[int]:
    number = str(int(key)) if _is_number(key) else key  # "007"
    return lookup.get(key) or lookup.get(key.casefold()) or lookup.get(number) or []


def _is_number(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) < 20  # Python refuses to read thousands of digits


def _lookup(base: LabelSet) -> dict[str, list[int]]:
    """Rows by number, id, present name, lemmas and first lemma; the first kind that has a key decides."""
    kinds: tuple[Iterable[tuple[str, int]], ...] = (
        ((str(row), row) for row in range(len(base))),
        ((identity, row) for row, identity in enumerate(base.ids) if identity),
        ((label.name, label.index) for label in base if label.name),
        ((label.name.casefold(), label.index) for label in base if label.name),
        ((lemma.casefold(), row) for row, lemma in enumerate(base.lemmas)),
        ((lemma.partition(", ")[0].casefold(), row) for row, lemma in enumerate(base.lemmas)),
    )
    result: dict[str, list[int]] = {}
    for kind in kinds:
        rows = defaultdict(list)
        for key, row in kind:
            rows[key].append(row)
        result = {**rows, **result}
    return result


def _unknown(path: Path, where: str, key: str, base: LabelSet, rows: Sequence[int]) -> ModelError:
    if len(rows) > 1:
        which = ", ".join(f"{base[row].name} ({base.ids[row] or row})" for row in rows[:4])
        message = f"{path}, {where}: {_shown(key)} names several classes: {which}"
        return ModelError(message, "name the class by its id or number")
    message = f"{path}, {where}: none of the {len(base)} classes is called {_shown(key)}"
    if key.isdecimal():
        return ModelError(message, f"use numbers from 0 to {len(base) - 1}")
    if is_id(key):
        return ModelError(message, "leave the line out: this model has no class with that WordNet id")
    from difflib import get_close_matches

    near = get_close_matches(key, base.names, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "name a class by its number, its WordNet id or its name"
    return ModelError(message, hint)


def _grouped(path: Path, base: LabelSet, names_of_rows: Sequence[str | None], merge: bool) -> LabelSet:
    """A label set from one name a row, None for a hidden row; equal names are merged or made unique."""
    rows = [row for row, name in enumerate(names_of_rows) if name is not None]
    if not rows:
        raise ModelError(f"the label file {path} hides every class", "give at least one class a name")
    names = [names_of_rows[row] or "" for row in rows]
    if not merge:
        names = _apart(base, rows, names)
    members: dict[str, list[int]] = {}
    for row, name in zip(rows, names, strict=True):
        members.setdefault(name, []).append(row)
    plain = len(members) == len(base)
    return LabelSet(
        name=path.name,
        ids=base.ids,
        names=tuple(members),
        lemmas=tuple(base.lemmas[r] if base.ids[r] else (names_of_rows[r] or base.lemmas[r]) for r in range(len(base))),
        definitions=base.definitions,
        groups=None if plain else tuple(tuple(rows) for rows in members.values()),
        parents=base.parents,
    )


def _apart(base: LabelSet, rows: list[int], names: list[str]) -> list[str]:
    """Make equal names unique: by the name of the class in ``base``, alone or in brackets."""
    often = Counter(names)
    named = any(base.ids)
    own = [
        base[row].name if named and often[name] > 1 and bundled.says(base, row, name) else name
        for row, name in zip(rows, names, strict=True)
    ]
    hints = [base[row].name.replace(" (", ", ").replace(")", "") if named else str(row) for row in rows]
    return list(tell_apart(own, hints))
