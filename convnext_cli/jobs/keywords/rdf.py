"""Where in XMP's XML things are: a parser's answer, as places in the text, so that it can be changed in place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from xml.parsers.expat import ExpatError, ParserCreate

Name = tuple[str, str]  # namespace, local name

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DESCRIPTION = (RDF, "Description")
_FORMS = [[(RDF, form)] for form in ("Bag", "Seq", "Alt")]
_MOST = 100_000  # elements of ours to see; photos have a few hundred keywords at most
_SPACE = b" \t\r\n"
_BETWEEN = "\x01"  # between namespace and name: a character that XML cannot hold
_TAG = re.compile(rb"""<(?:[^"'>]++|"[^"]*"|'[^']*')*+>""")  # in XML that a parser has found to be right


class MetadataError(Exception):
    """The metadata of one file cannot be read or changed. It is reported, and never ends a run."""


@dataclass(slots=True)
class Node:
    """An element. level: rdf:RDF is 0, descriptions 1, properties 2, what holds a list 3, its items 4.

    tag: its name as it is written. start, end: of the element. inside, close: of what stands between its tags.
    """

    name: Name
    tag: str
    level: int
    attributes: dict[Name, str]
    start: int
    inside: int
    close: int
    end: int
    children: list[Node] = field(default_factory=list)
    text: str = ""

    @property
    def is_list(self) -> bool:
        """Of a property: whether it has the form of a list, maybe an empty one."""
        named = [child.name for child in self.children]
        return not self.attributes and not self.text.strip() and (not named or named in _FORMS)

    @property
    def items(self) -> list[Node]:
        """Of a property: the items of its list."""
        return self.children[0].children if self.children and self.is_list else []

    @property
    def word(self) -> str:
        """Of an item: its text; empty where it is more than text."""
        return "" if self.children else self.text.strip()


class Document:
    """The descriptions in a text, and those of their properties that are asked for.

    Args:
        text: UTF-8, even if it declares another encoding.
        names: of the properties.

    Raises:
        MetadataError: the text is not XMP.
    """

    def __init__(self, text: bytes, names: Collection[Name]) -> None:
        self.text = text
        self._names = names
        self._rdf: Node | None = None
        self._open: list[Node | None] = []
        self._seen = 0
        self._parser = parser = ParserCreate("utf-8", _BETWEEN)
        parser.namespace_prefixes = True
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(text, True)
        except ExpatError as error:
            raise MetadataError(f"the XMP is not XML: {error}") from error
        if self._rdf is None:
            raise MetadataError("the XML is not XMP: it has no rdf:RDF")
        self.rdf: Node = self._rdf

    @property
    def descriptions(self) -> list[Node]:
        return self.rdf.children

    def properties(self, name: Name) -> list[Node]:
        """The properties of this name; by the rules there is one at most."""
        return [child for description in self.descriptions for child in description.children if child.name == name]

    def words(self, name: Name) -> list[str]:
        """The items of the list of this name."""
        return [item.word for node in self.properties(name) for item in node.items]

    def blank(self, node: Node, without: Iterable[Node]) -> bool:
        """Whether nothing is left between an element's tags when these of its children are gone."""
        spans = [(child.start, child.end) for child in without]
        return not cut(self.text[: node.close], spans, node.inside).strip(_SPACE)

    def before(self, node: Node) -> bytes:
        """The white space before an element."""
        return self.text[self.begin(node) : node.start]

    def begin(self, node: Node) -> int:
        """Where the white space before an element begins."""
        at = node.start
        while at and self.text[at - 1] in _SPACE:
            at -= 1
        return at

    def _doctype(self, *_: object) -> None:
        # no XMP has one, and entities can be made to explode
        raise MetadataError("the XMP has a DOCTYPE, which is refused")

    def _start(self, written: str, attributes: dict[str, str]) -> None:
        name, tag = _split(written)
        above = self._open[-1] if self._open else None
        level = above.level + 1 if above is not None else 0
        is_ours = (
            *(self._rdf is None and name == (RDF, "RDF"), name == _DESCRIPTION, name in self._names),
            *(True, True, True),  # what an item holds, so that it is not taken for text
        )
        if level >= len(is_ours) or not is_ours[level]:
            self._open.append(None)
            return
        self._seen += 1
        if self._seen > _MOST:
            raise MetadataError("the XMP has too many keywords")
        start = self._parser.CurrentByteIndex
        match = _TAG.match(self.text, start)
        assert match is not None
        end = match.end()
        named = {_split(key)[0]: value for key, value in attributes.items()}
        node = Node(name, tag, level, named, start, end, end, end)
        self._open.append(node)
        if above is None:
            self._rdf = node
        else:
            above.children.append(node)

    def _end(self, _: str) -> None:
        node = self._open.pop()
        if node is not None and not self.text.endswith(b"/>", node.start, node.inside):
            node.close = self._parser.CurrentByteIndex
            node.end = self.text.index(b">", node.close) + 1

    def _characters(self, text: str) -> None:
        if self._open and (node := self._open[-1]) is not None and node.level >= 2:
            node.text += text


def cut(text: bytes, spans: Iterable[tuple[int, int]], start: int = 0) -> bytes:
    """The text from start on without these spans, which do not overlap."""
    kept = []
    for begin, end in sorted(spans):
        kept.append(text[start:begin])
        start = end
    return b"".join((*kept, text[start:]))


def _split(written: str) -> tuple[Name, str]:
    """What expat calls a name: as namespace and local name, and as it is written."""
    parts = written.split(_BETWEEN)
    if len(parts) == 1:
        return ("", written), written
    return (parts[0], parts[1]), ":".join((*parts[2:], parts[1]))
