"""Keywords in an XMP packet, put in and taken out so that everything else stays byte for byte as it was.

A parser finds the positions; our keywords are then cut out of the text, or inserted. Nothing else is written again, so
foreign namespaces, comments, the order of elements, line ends and padding cannot be lost.

Our own keywords are known for certain: a property in a namespace of our own, ``convnext:added``, lists the words that
we added. A word that a person had typed before is not among them, and stays when ours go. The paths below our root are
ours too where that list was lost. Where several photos share a sidecar, ``convnext:photo`` says which one ours are of.
"""

from __future__ import annotations

import codecs
import re
from xml.sax.saxutils import escape, quoteattr

from convnext_cli.jobs.keywords.rdf import RDF, Document, MetadataError, Name, Node, cut
from convnext_cli.jobs.keywords.words import BAR, Keywords

_FLAT = ("http://purl.org/dc/elements/1.1/", "subject")
_TREE = ("http://ns.adobe.com/lightroom/1.0/", "hierarchicalSubject")
_OWN = "urn:uuid:3d0f7c52-8f0b-4f7e-9d0a-6a1f3c1b9e57#"
_ADDED = (_OWN, "added")
_PHOTO = (_OWN, "photo")
_LISTS = {_FLAT: "dc:subject", _TREE: "lr:hierarchicalSubject", _ADDED: "convnext:added", _PHOTO: "convnext:photo"}
_ABOUT = ((RDF, "about"), ("", "about"))  # the second is of XMP's first years

# A packet that says nothing. One that becomes equal to it held nothing but ours.
EMPTY = f"""\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="convnext">
 <rdf:RDF xmlns:rdf="{RDF}">
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
""".encode()

_BEGIN = re.compile(rb"<\?xpacket\s+begin=[^>]*\?>")
_END = re.compile(rb"""<\?xpacket\s+end=["'][rw]["']\s*\?>\s*\Z""")
_ENCODING = re.compile(rb"""<\?xml\s[^>]*?encoding\s*=\s*["']([\w.-]+)["']""")
_MARKS = (
    *((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")),
    *((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be")),
)


def put(packet: bytes, keywords: Keywords, root: str, photo: str | None = None) -> bytes:
    """The packet with these keywords of ours in the place of all that are in it.


    Args:
        packet: XMP.
        keywords: to write.
        root: of the paths that are ours.
        photo: which photo they are of, if several share the packet.

    Raises:
        MetadataError: the packet is not XMP, or holds keywords in a form that ours cannot be added to.
    """
    text, codec = _decoded(packet)
    text = _with(_without(text, root), keywords, photo)
    return text.decode().encode(codec, "xmlcharrefreplace")


def alike(packet: bytes, other: bytes) -> bool:
    """Whether packets are the same but for what depends on the format and the program that wrote the file.

    That is whether the packet may be written over, and the wrapper itself: Apple writes none, and exiftool adds one.
    """
    one, two = (_unwrapped(either) for either in (packet, other))
    return one == two


def _unwrapped(packet: bytes) -> bytes:
    """Without the processing instructions around it, and the space that they enclose."""
    text = packet.removeprefix(codecs.BOM_UTF8).strip()
    if begin := _BEGIN.match(text):
        text = text[begin.end() :]
    if end := _END.search(text):
        text = text[: end.start()]
    return text.strip()


def photo_of(packet: bytes) -> str | None:
    """Which of several photos the keywords in a packet are of, if it says so. Raises MetadataError for no XMP."""
    return next(iter(Document(_decoded(packet)[0], _LISTS).words(_PHOTO)), None)


def _decoded(packet: bytes) -> tuple[bytes, str]:
    """The packet as UTF-8, and what it is encoded in."""
    match = _ENCODING.match(packet)
    declared = match[1].decode("ascii", "replace") if match else "utf-8"
    codec = next((codec for mark, codec in _MARKS if packet.startswith(mark)), declared)
    try:
        text = packet.decode(codec)
        same = text.encode(codec) == packet
    except (LookupError, UnicodeError) as error:
        raise MetadataError(f"the XMP is not text in {codec}") from error
    if not same:
        raise MetadataError(f"the XMP is in {codec}, which would not be the same when it is written")
    return text.encode(), codec


def _without(text: bytes, root: str) -> bytes:
    """The text without our keywords, and without elements that held nothing else."""
    document = Document(text, _LISTS)
    added = set(document.words(_ADDED))
    cuts: list[Node] = []
    for description in document.descriptions:
        gone: list[Node] = []
        for child in description.children:
            ours = [] if child.name[0] == _OWN else _ours(child, added, root)
            alone = ours and document.blank(child.children[0], ours) and document.blank(child, child.children)
            if alone or child.name[0] == _OWN:
                gone.append(child)
            else:
                cuts += ours
        alone = document.blank(description, gone) and all(name in _ABOUT for name in description.attributes)
        cuts += [description] if gone and alone else gone
    return cut(text, [(document.begin(node), node.end) for node in cuts])


def _ours(node: Node, added: set[str], root: str) -> list[Node]:
    """The items of a list of keywords that are ours; of a word that is there twice the last, where ours were put."""
    paths = node.name == _TREE
    words = {word for word in added if (BAR in word) == paths}
    ours = []
    for item in reversed(node.items):
        if item.word in words or (paths and f"{item.word}{BAR}".startswith(f"{root}{BAR}")):
            words.discard(item.word)
            ours.append(item)
    return ours


def _with(text: bytes, keywords: Keywords, photo: str | None) -> bytes:
    """The text, in which nothing is ours, with our keywords. What is a keyword already is not added."""
    document = Document(text, _LISTS)
    own: dict[Name, list[str]] = {}
    added: list[str] = []
    changes: list[tuple[int, int, bytes]] = []
    for name, words in ((_FLAT, keywords.flat), (_TREE, keywords.tree)):
        present = set(document.words(name))
        new = [word for word in words if word not in present]
        if not new:
            continue
        lists = document.properties(name)
        as_attribute = any(name in description.attributes for description in document.descriptions)
        if as_attribute or not all(node.is_list for node in lists):
            raise MetadataError(f"its {_LISTS[name]} is not a list")
        last = next((node.items[-1] for node in lists if node.items), None)
        if last is not None:
            space = document.before(last)
            changes.append((last.end, last.end, b"".join(space + _element(last.tag, word) for word in new)))
        else:
            # an empty list says nothing, and two properties of one name are against the rules
            changes += [(document.begin(node), node.end, b"") for node in lists]
            own[name] = new
        added += new
    if not added:
        return text
    own[_ADDED] = added
    if photo is not None:
        own[_PHOTO] = [photo]
    changes.append(_description(document, own))
    for start, end, instead in sorted(changes, reverse=True):
        text = text[:start] + instead + text[end:]
    return text


def _description(document: Document, lists: dict[Name, list[str]]) -> tuple[int, int, bytes]:
    """A description of our own behind all others and laid out like them: where it goes, and its text."""
    rdf, others = document.rdf, document.descriptions
    space = document.before(others[-1]) if others else b"\n  "
    step = b" " if b"\n" in space else b""
    declared = {} if rdf.tag == "rdf:RDF" else {RDF: "rdf"}
    declared |= {name[0]: _LISTS[name].partition(":")[0] for name in lists}
    # all descriptions are about the same, or readers refuse the packet
    about = next((node.attributes[name] for node in others for name in _ABOUT if name in node.attributes), "")
    spaces = "".join(f" xmlns:{prefix}={quoteattr(uri)}" for uri, prefix in declared.items())
    lines = [(0, f"<rdf:Description rdf:about={quoteattr(about)}{spaces}>".encode())]
    for name, words in lists.items():
        lines += [(1, f"<{_LISTS[name]}>".encode()), (2, b"<rdf:Bag>")]
        lines += [(3, _element("rdf:li", word)) for word in words]
        lines += [(2, b"</rdf:Bag>"), (1, f"</{_LISTS[name]}>".encode())]
    lines.append((0, b"</rdf:Description>"))
    block = b"".join(space + step * depth + line for depth, line in lines)
    if rdf.close == rdf.end:  # <rdf:RDF/>
        return rdf.end - 2, rdf.end, b">" + block + f"</{rdf.tag}>".encode()
    at = others[-1].end if others else rdf.inside
    return at, at, block


def _element(tag: str, word: str) -> bytes:
    return f"<{tag}>{escape(word)}</{tag}>".encode()
