"""Keywords for photo managers: other programs read them, nothing else changes, and they go without a trace."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from convnext_cli.base.errors import OutputError, UnavailableError, UsageError
from convnext_cli.jobs.entry import Entry
from convnext_cli.jobs.keywords import exiftool, packet, xmp
from convnext_cli.jobs.keywords import words as keywords
from convnext_cli.jobs.keywords.words import Keywords
from convnext_cli.labels import wordnet
from convnext_cli.predict.rows import Prediction, Row, Status
from tests.helpers.photos import encoded, exif_orientation, picture

needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
needs_exiv2 = pytest.mark.skipif(shutil.which("exiv2") is None, reason="exiv2 is not installed")
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
SUBJECT = "{http://purl.org/dc/elements/1.1/}subject"
TREE = "{http://ns.adobe.com/lightroom/1.0/}hierarchicalSubject"
CAT = Keywords(("tabby",), ("AI|animal|cat|tabby",))
NONE = Keywords()

# As Lightroom writes them: plain values as attributes, no header, a list in it that is no keyword.
LIGHTROOM = """\
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0-c000 1.000000, 0000/00/00-00:00:00        ">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
   xmp:Rating="4"
   crs:Exposure2012="+0.35"
   crs:Note="a > b">
   <dc:subject>
    <rdf:Bag>
     <rdf:li>Müller &amp; Söhne</rdf:li>
     <rdf:li>trip</rdf:li>
    </rdf:Bag>
   </dc:subject>
   <lr:hierarchicalSubject>
    <rdf:Bag>
     <rdf:li>travel|trip</rdf:li>
    </rdf:Bag>
   </lr:hierarchicalSubject>
   <crs:ToneCurve>
    <rdf:Seq>
     <rdf:li>0, 0</rdf:li>
    </rdf:Seq>
   </crs:ToneCurve>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
# As darktable does: a declaration, sequences, edits as attributes of items.
DARKTABLE = """\
<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:darktable="http://darktable.sf.net/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
   darktable:xmp_version="5"
   darktable:history_end="1">
   <darktable:history>
    <rdf:Seq>
     <rdf:li
      darktable:num="0"
      darktable:operation="exposure"
      darktable:params="gz02eJxjYGBgYAFi"/>
    </rdf:Seq>
   </darktable:history>
   <dc:subject>
    <rdf:Seq>
     <rdf:li>darktable</rdf:li>
    </rdf:Seq>
   </dc:subject>
   <lr:hierarchicalSubject>
    <rdf:Seq>
     <rdf:li>darktable|format|jpg</rdf:li>
    </rdf:Seq>
   </lr:hierarchicalSubject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
# As digiKam does: a header and padding, one description a namespace in old files, lists of its own.
DIGIKAM = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2"><!-- by hand -->
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="uuid:faf5bdd5" xmlns:digiKam="http://www.digikam.org/ns/1.0/" digiKam:ColorLabel="2">
   <digiKam:TagsList>
    <rdf:Seq>
     <rdf:li>people/Ada</rdf:li>
    </rdf:Seq>
   </digiKam:TagsList>
  </rdf:Description>
  <rdf:Description rdf:about="uuid:faf5bdd5" xmlns:dc="http://purl.org/dc/elements/1.1/"
   ><dc:subject><rdf:Bag><rdf:li>Ada</rdf:li></rdf:Bag></dc:subject><?mine stays?></rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
DIGIKAM += (" " * 80 + "\n") * 5 + '<?xpacket end="w"?>'
HEAD = '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
SIDECARS = {
    "lightroom": LIGHTROOM.encode(),
    "darktable": DARKTABLE.encode(),
    "digikam": DIGIKAM.encode(),
    "bom": b"\xef\xbb\xbf" + LIGHTROOM.encode(),
    "utf-16": DARKTABLE.replace("UTF-8", "UTF-16").encode("utf-16"),
    "utf-16 without a mark": LIGHTROOM.encode("utf-16-be"),
    "latin-1": DARKTABLE.replace("UTF-8", "ISO-8859-1").replace("sf.net", "s\xe9.net").encode("latin-1"),
    "crlf": LIGHTROOM.replace("\n", "\r\n").encode(),
    "one line": re.sub(r">\s+<", "><", LIGHTROOM).encode(),
    "other prefixes": LIGHTROOM.replace("rdf:", "r:")
    .replace(":rdf=", ":r=")
    .replace("dc:", "_:")
    .replace(":dc=", ":_=")
    .encode(),
    "no prefix": (
        b'<RDF xmlns="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><Description xmlns:d="http://purl.org/dc/elements/1.1/">'
        b"<d:subject><Bag><li>trip</li></Bag></d:subject></Description></RDF>"
    ),
    "nothing": f'{HEAD}<rdf:RDF xmlns:rdf="{RDF[1:-1]}"></rdf:RDF></x:xmpmeta>'.encode(),
}


def entry(
    file: str | Path, label: str = "tabby", identity: str | None = "n02123045", status: Status = "ok", *more: str
) -> Entry:
    """A photo and its answer; more: further guesses."""
    guesses = (
        Prediction(1, 0, identity, label, 0.8),
        *(Prediction(2, i, None, name, 0.1) for i, name in enumerate(more)),
    )
    return Entry(str(file), Row(str(file), status, 60, 50, guesses, "model", "sha"))


def parsed(data: bytes) -> tuple[list[str], list[str]]:
    """Flat words and paths, as a parser of the standard library sees them."""
    root = ElementTree.fromstring(data)
    return tuple(
        [li.text or "" for each in root.iter(name) for li in each.iter(f"{RDF}li")] for name in (SUBJECT, TREE)
    )


def by_exiftool(*files: Path) -> list[tuple[list[str], list[str]]]:
    """The same, as exiftool sees them."""
    command = ["exiftool", "-j", "-struct", "-XMP-dc:Subject", "-XMP-lr:HierarchicalSubject", *map(str, files)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    listed = [[each.get(key, []) for key in ("Subject", "HierarchicalSubject")] for each in found]
    return [tuple(words if isinstance(words, list) else [str(words)] for words in each) for each in listed]


def by_exiv2(file: Path) -> tuple[list[str], list[str]]:
    """The same, as exiv2 does, and so digiKam and darktable."""
    found = []
    for key in ("Xmp.dc.subject", "Xmp.lr.hierarchicalSubject"):
        done = subprocess.run(["exiv2", "-K", key, "-Pt", "pr", str(file)], capture_output=True, text=True)
        found.append([word for word in done.stdout.strip().split(", ") if word])
    return tuple(found)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# what is written


@pytest.mark.parametrize(
    ("label", "identity", "path"),
    [
        ("tabby", "n02123045", "AI|animal|cat|tabby"),
        ("cat", "n02121620", "AI|animal|cat"),  # a shelf of its own
        ("Animal", "n02123045", "AI|Animal"),  # several classes under a name of the user's
        ("pizza", "n07873807", "AI|food|dish|pizza"),
        ("traffic light", "n06874185", "AI|traffic light"),  # on no shelf
        ("cat", None, "AI|cat"),
        ("cat", "n00000000", "AI|cat"),
        ("cat|dog", "mine", "AI|cat¦dog"),
        (" a\n\tb\x00\x85\udcff ", None, "AI|a b"),
    ],
)
def test_a_label_stands_on_a_shelf(label: str, identity: str | None, path: str) -> None:
    words = keywords.keywords(entry("a.jpg", label, identity).row)
    assert words == Keywords((path.rpartition("|")[2],), (path,))


def test_more_guesses_no_tree_and_no_answer() -> None:
    row = entry("a.jpg", "tabby", "n02123045", "ok", "dog", "tabby", "\x01").row
    assert keywords.keywords(row, top=9).flat == ("tabby", "dog")
    assert keywords.keywords(row, top=9, root="A|B").tree == ("A|B|animal|cat|tabby", "A|B|dog")
    assert keywords.keywords(row, tree=False) == Keywords(("tabby",))
    for status in ("unknown", "failed", "vanished"):
        assert keywords.keywords(entry("a.jpg", status=status).row) == NONE


def test_every_shelf_is_in_wordnet() -> None:
    assert all(wordnet.lemma(identity) for identity in keywords._SHELVES)


def test_a_root_has_no_empty_level(tmp_path: Path) -> None:
    for root in ("", "AI||x", "\n"):
        with pytest.raises(UsageError, match="empty level"):
            xmp.write_sidecars([], root=root)


@pytest.mark.parametrize(("naming", "name"), [("append", "a.b.jpg.xmp"), ("replace", "a.b.xmp")])
def test_a_sidecar_comes_and_goes(tmp_path: Path, naming: xmp.Naming, name: str) -> None:
    photo = tmp_path / "a.b.jpg"
    photo.write_bytes(b"")
    assert xmp.write_sidecars([entry(photo)], naming=naming).counts == {"changed": 1}
    assert parsed((tmp_path / name).read_bytes()) == (list(CAT.flat), list(CAT.tree))
    assert xmp.remove_sidecars([entry(photo)]).counts == {"removed": 1}
    assert names_in(tmp_path) == ["a.b.jpg"]


@needs_exiftool
@needs_exiv2
@pytest.mark.parametrize("kind", ["", "lightroom", "darktable", "digikam", "crlf", "one line"])
def test_other_programs_read_sidecars(tmp_path: Path, kind: str) -> None:
    sidecar = tmp_path / "a.jpg.xmp"
    if kind:
        sidecar.write_bytes(SIDECARS[kind])
    xmp.write_sidecars([entry(tmp_path / "a.jpg")])
    flat, tree = parsed(sidecar.read_bytes())
    assert flat[-1:] == ["tabby"] and tree[-1:] == ["AI|animal|cat|tabby"]
    assert by_exiftool(sidecar) == [(flat, tree)]
    assert by_exiv2(sidecar) == (flat, tree)


@needs_exiftool
@pytest.mark.parametrize("kind", [kind for kind in SIDECARS if kind not in ("no prefix", "utf-16 without a mark")])
def test_nothing_else_of_a_sidecar_changes(tmp_path: Path, kind: str) -> None:
    def everything() -> dict[str, object]:
        done = subprocess.run(["exiftool", "-j", "-G1", "-struct", str(sidecar)], capture_output=True, check=True)
        return {k: v for k, v in json.loads(done.stdout)[0].items() if not k.startswith(("System:", "XMP-convnext"))}

    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_bytes(SIDECARS[kind])
    before = everything()
    xmp.write_sidecars([entry(tmp_path / "a.jpg")])
    after = everything()
    for key in ("XMP-dc:Subject", "XMP-lr:HierarchicalSubject"):
        before.pop(key, None)
        assert after.pop(key)
    assert after == before


# what was there


@pytest.mark.parametrize("kind", SIDECARS)
def test_a_sidecar_gets_back_what_it_had(tmp_path: Path, kind: str) -> None:
    photo, sidecar = tmp_path / "a.jpg", tmp_path / "a.jpg.xmp"
    sidecar.write_bytes(SIDECARS[kind])
    old_flat, old_tree = parsed(SIDECARS[kind])
    xmp.write_sidecars([entry(photo)])
    assert parsed(sidecar.read_bytes()) == ([*old_flat, *CAT.flat], [*old_tree, *CAT.tree])
    assert xmp.remove_sidecars([entry(photo)]).counts == {"changed": 1}
    assert sidecar.read_bytes() == SIDECARS[kind]


@pytest.mark.parametrize("kind", SIDECARS)
def test_a_second_run_writes_nothing_and_another_label_replaces(tmp_path: Path, kind: str) -> None:
    photo, sidecar = tmp_path / "a.jpg", tmp_path / "a.jpg.xmp"
    sidecar.write_bytes(SIDECARS[kind])
    xmp.write_sidecars([entry(photo)])
    before, state = sidecar.read_bytes(), sidecar.stat()
    assert xmp.write_sidecars([entry(photo)]).counts == {"unchanged": 1}
    assert (sidecar.read_bytes(), sidecar.stat().st_mtime_ns) == (before, state.st_mtime_ns)
    xmp.write_sidecars([entry(photo, "pizza", "n07873807")], root="KI")
    assert parsed(sidecar.read_bytes())[1][-1:] == ["KI|food|dish|pizza"]
    assert b"tabby" not in sidecar.read_bytes().replace(b"\0", b"")
    xmp.write_sidecars([entry(photo)])
    assert sidecar.read_bytes() == before
    assert xmp.write_sidecars([entry(photo, status="unknown")]).counts == {"changed": 1}
    assert sidecar.read_bytes() == SIDECARS[kind]


def test_a_word_that_was_there_before_survives(tmp_path: Path) -> None:
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_text(LIGHTROOM)
    xmp.write_sidecars([entry(tmp_path / "a.jpg", "trip", None)])
    assert parsed(sidecar.read_bytes()) == (["Müller & Söhne", "trip"], ["travel|trip", "AI|trip"])
    xmp.write_sidecars([entry(tmp_path / "a.jpg", "other", None)])
    assert parsed(sidecar.read_bytes())[0] == ["Müller & Söhne", "trip", "other"]
    xmp.remove_sidecars([entry(tmp_path / "a.jpg")])
    assert sidecar.read_text() == LIGHTROOM


@needs_exiftool
def test_ours_are_known_after_another_program_has_written_everything_anew(tmp_path: Path) -> None:
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_text(LIGHTROOM)
    xmp.write_sidecars([entry(tmp_path / "a.jpg")])
    edit = ["-XMP-dc:Subject+=new", "-XMP:Rating=1", "-api", "Compact=Shorthand"]
    subprocess.run(["exiftool", "-q", "-overwrite_original", *edit, str(sidecar)], check=True)
    assert parsed(sidecar.read_bytes())[0] == ["Müller & Söhne", "trip", "tabby", "new"]
    xmp.remove_sidecars([entry(tmp_path / "a.jpg")])
    assert parsed(sidecar.read_bytes()) == (["Müller & Söhne", "trip", "new"], ["travel|trip"])
    assert b"convnext:" not in sidecar.read_bytes()


def test_paths_below_the_root_are_ours_where_our_list_was_lost() -> None:
    lost = re.sub(
        rb"\s*<convnext:added>.*</convnext:added>", b"", packet.put(LIGHTROOM.encode(), CAT, "AI"), flags=re.S
    )
    assert parsed(packet.put(lost, NONE, "AI")) == (["Müller & Söhne", "trip", "tabby"], ["travel|trip"])


@pytest.mark.parametrize("form", ["<rdf:Bag/>", "<rdf:Bag></rdf:Bag>", "<rdf:Seq>\n</rdf:Seq>", ""])
def test_an_empty_list_makes_room(form: str) -> None:
    empty = re.sub(r"<rdf:Bag>.*?</rdf:Bag>", form, LIGHTROOM, flags=re.S).encode()
    assert packet.put(empty, NONE, "AI") == empty
    once = packet.put(empty, CAT, "AI")
    assert once.count(b"<dc:subject") == 1
    assert parsed(once) == (["tabby"], ["AI|animal|cat|tabby"])
    assert packet.put(once, CAT, "AI") == once
    assert parsed(packet.put(once, NONE, "AI")) == ([], [])


def test_a_document_without_room() -> None:
    short = SIDECARS["nothing"].replace(b"></rdf:RDF>", b"/>")
    once = packet.put(short, CAT, "AI")
    assert parsed(once) == (["tabby"], ["AI|animal|cat|tabby"])
    assert packet.put(once, CAT, "AI") == once
    assert packet.put(once, NONE, "AI") == SIDECARS["nothing"]


TEXT = st.text(st.characters(), max_size=30) | st.text("<>&|\"' ]\t\n\x00a\udcff\ufffe😀", max_size=12)


@given(TEXT, TEXT, st.sampled_from([packet.EMPTY, *SIDECARS.values()]))
def test_any_label_leaves_xml_whole(label: str, other: str, before: bytes) -> None:
    words = keywords.keywords(entry("a.jpg", label, None, "ok", other).row, top=2)
    written = packet.put(before, words, "AI", "x")
    flat, tree = parsed(before)
    new = [word for word in words.flat if word not in flat]
    assert parsed(written) == ([*flat, *new], [*tree, *words.tree])
    assert packet.put(written, words, "AI", "x") == written
    assert packet.put(written, NONE, "AI") == before
    for word in words.flat:
        assert all(c in label + other + " ¦" for c in word)


# sidecars and files


def test_two_photos_share_a_sidecar(tmp_path: Path) -> None:
    raw, photo, sidecar = tmp_path / "a.cr2", tmp_path / "a.jpg", tmp_path / "a.xmp"
    for file in (raw, photo):
        file.write_bytes(b"")
    both = [entry(raw, "one", None), entry(photo, "two", None)]
    for counts in ({"changed": 1, "shared": 1}, {"unchanged": 1, "shared": 1}):
        assert xmp.write_sidecars(both, naming="replace").counts == counts
        assert parsed(sidecar.read_bytes())[0] == ["one"]
    raw.unlink()
    vanished = [entry(raw, "one", None, "vanished"), both[1]]
    assert xmp.write_sidecars(vanished, naming="replace").counts == {"skipped": 1, "changed": 1}
    assert parsed(sidecar.read_bytes())[0] == ["two"]
    assert xmp.remove_sidecars(vanished).counts == {"removed": 1, "unchanged": 1}


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
BROKEN = {
    "empty": b"",
    "no XML": b"P6 1 1 255 \x00\x01\x02",
    "cut short": DARKTABLE.encode()[:-40],
    "DOCTYPE": DARKTABLE.replace("?>\n", f"?>\n{BOMB}", 1).replace("darktable</rdf", "&b;</rdf").encode(),
    "no rdf": b"<svg/>",
    "not in its encoding": DARKTABLE.replace("sf.net", "s\xe9.net").encode("latin-1"),
    "no encoding": DARKTABLE.replace("UTF-8", "no-such").encode(),
    "says the same otherwise": DARKTABLE.replace("UTF-8", "utf-7").replace("jpg", "+AGo-pg").encode(),
    "an attribute": DARKTABLE.replace("darktable:xmp_version=", 'dc:subject="x" darktable:v=').encode(),
    "a mere value": re.sub(
        r"<rdf:Seq>\s+<rdf:li>darktable</rdf:li>.*?</rdf:Seq>", "x", DARKTABLE, count=1, flags=re.S
    ).encode(),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_sidecar_is_told_and_left_alone(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jpg.xmp").write_bytes(BROKEN[kind])
    done = xmp.write_sidecars([entry(tmp_path / "a.jpg"), entry(tmp_path / "b.jpg")])
    assert done.counts == {"failed": 1, "changed": 1}
    assert [failure.file for failure in done.failures] == [str(tmp_path / "a.jpg")]
    assert done.failures[0].message
    assert (tmp_path / "a.jpg.xmp").read_bytes() == BROKEN[kind]
    assert names_in(tmp_path) == ["a.jpg.xmp", "b.jpg.xmp"]


def test_what_is_no_sidecar_or_too_much_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg.xmp").mkdir()
    os.mkfifo(tmp_path / "b.jpg.xmp")
    (tmp_path / "c.jpg.xmp").write_text(LIGHTROOM)
    monkeypatch.setattr("convnext_cli.jobs.keywords.rdf._MOST", 5)
    done = xmp.write_sidecars([entry(tmp_path / f"{name}.jpg") for name in "abc"])
    assert [failure.message for failure in done.failures] == [
        *("a.jpg.xmp is not a sidecar", "b.jpg.xmp is not a sidecar", "the XMP has too many keywords")
    ]


@pytest.mark.parametrize("name", ["-a.jpg", "line\nbreak %f $@ \\'\".jpg", "caf\udce9.jpg", "ä|<&.jpg", "no suffix"])
@pytest.mark.parametrize("naming", ["append", "replace"])
def test_odd_names(tmp_path: Path, name: str, naming: xmp.Naming) -> None:
    photo = tmp_path / name
    for counts in ({"changed": 1}, {"unchanged": 1}):
        assert xmp.write_sidecars([entry(photo)], naming=naming).counts == counts
    assert Path(xmp.sidecar_of(str(photo), naming)).is_file()
    assert xmp.remove_sidecars([entry(photo)]).counts == {"removed": 1}
    assert not names_in(tmp_path)


def test_permissions_stay(tmp_path: Path) -> None:
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_text(LIGHTROOM)
    sidecar.chmod(0o640)
    xmp.write_sidecars([entry(tmp_path / "a.jpg")])
    assert b"tabby" in sidecar.read_bytes()
    assert sidecar.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("naming", ["append", "replace"])
@pytest.mark.parametrize("to", ["nothing", "another", "ours"])
def test_a_sidecar_that_is_a_link_is_left_alone(tmp_path: Path, naming: xmp.Naming, to: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "photos").mkdir()
    photo = entry(tmp_path / "photos" / "a.jpg")
    link, real = Path(xmp.sidecar_of(photo.file, naming)), outside / "real.xmp"
    if to == "ours":
        xmp.write_sidecars([photo], naming=naming)
        link.rename(real)
    elif to == "another":
        real.write_text(LIGHTROOM)
    before = real.read_bytes() if real.exists() else None
    link.symlink_to(real)
    other = entry(tmp_path / "photos" / "a.jpg", "Chihuahua")
    done = xmp.write_sidecars([other], naming=naming)
    assert done.counts == {"failed": 1}
    assert "is a link" in done.failures[0].message
    assert xmp.remove_sidecars([photo]).counts == {"failed" if to == "ours" else "unchanged": 1}
    assert link.is_symlink()
    assert (real.read_bytes() if real.exists() else None) == before


def test_what_a_killed_run_left_beside_photos_goes(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stale = tmp_path / f".convnext-{gone.pid}-0123abcd.part"
    mine, others = tmp_path / f".convnext-{os.getpid()}-0123abcd.part", tmp_path / f".convnext-{gone.pid}.part"
    for path in (stale, mine, others):
        path.touch()
    xmp.write_sidecars([entry(tmp_path / "a.jpg")])
    assert not stale.exists()
    assert mine.exists()
    assert others.exists()


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder that may be read and not written to."""
    with tempfile.TemporaryDirectory() as folder:
        xmp.write_sidecars([entry(Path(folder) / "old.jpg")])
        Path(folder).chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)
            Path(folder).chmod(0o755)


def test_a_folder_that_is_locked(locked: Path) -> None:
    done = xmp.write_sidecars([entry(locked / "a.jpg"), entry(locked / "b.jpg")])
    assert done.counts == {"failed": 2}
    assert "a.jpg.xmp cannot be written: Permission denied" in done.failures[0].message
    done = xmp.remove_sidecars([entry(locked / "old.jpg")])
    assert done.failures == [xmp.Failure(str(locked / "old.jpg"), f"{locked / 'old.jpg.xmp'}: Permission denied")]


def test_a_sidecar_that_is_written_by_others_meanwhile_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_text(LIGHTROOM)

    def meddle(_part: str, path: Path) -> None:
        path.write_text(DARKTABLE)

    monkeypatch.setattr(xmp, "_become", meddle)
    done = xmp.write_sidecars([entry(tmp_path / "a.jpg")])
    assert [failure.message for failure in done.failures] == ["another program has changed it meanwhile"]
    assert files_in(tmp_path) == {str(sidecar): DARKTABLE.encode()}


def test_failures_are_counted_and_a_hundred_told(tmp_path: Path) -> None:
    seen: list[int] = []
    entries = (entry(tmp_path / "none" / f"{len(seen)}.jpg") for _ in range(150))  # drawn one by one
    done = xmp.write_sidecars(entries, progress=lambda _: seen.append(1))
    assert done.counts == {"failed": 150}
    assert [Path(failure.file).stem for failure in done.failures] == [str(n) for n in range(100)]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_a_kill_leaves_what_was(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg.xmp").write_text(LIGHTROOM)

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        xmp.write_sidecars([entry(tmp_path / "a.jpg"), entry(tmp_path / "b.jpg")])
    if isinstance(caught.value, OutputError):
        assert caught.value.exit_status == 74
    assert files_in(tmp_path) == {str(tmp_path / "a.jpg.xmp"): LIGHTROOM.encode()}


# into photos


FORMATS = {
    **{"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF", "heic": "HEIF", "avif": "AVIF", "gif": "GIF"},
}
EXACT = ("jpg", "png", "webp", "tif")  # formats that are the same again when keywords have come and gone


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """A photo of each format, with an orientation where Pillow writes one."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    made = []
    for suffix, form in FORMATS.items():
        options = {"exif": exif_orientation(1)} if form in ("JPEG", "PNG", "WEBP", "HEIF") else {}
        made.append(tmp_path / f"a.{suffix}")
        made[-1].write_bytes(encoded(picture(60, 50), form, **options))
    return made


@pytest.fixture
def human(tmp_path: Path) -> Path:
    """A photo with EXIF, IPTC, a profile and keywords of a person."""
    photo = tmp_path / "human.jpg"
    photo.write_bytes(encoded(picture(60, 50), "JPEG", comment=b"hello"))
    tags = ["-EXIF:Make=Maker", "-GPSLatitude=12.5", "-IPTC:Keywords=trip", "-XMP:Rating=3", "-XMP-dc:Subject=trip"]
    tags += ["-XMP-dc:Subject=tabby", "-XMP-lr:HierarchicalSubject=travel|trip", "-XMP-photoshop:City=Köln"]
    subprocess.run(["exiftool", "-q", "-overwrite_original", *tags, str(photo)], check=True)
    photo.chmod(0o640)
    return photo


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


@needs_exiftool
@pytest.mark.parametrize("space", ["", "\n"])
def test_photos_whose_packet_has_no_wrapper_hold_keywords(tmp_path: Path, space: str) -> None:
    """As Apple writes it; exiftool adds the wrapper."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    bare = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 6.0.0">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:xmp="http://ns.adobe.com/xap/1.0/"><xmp:CreatorTool>17.1</xmp:CreatorTool></rdf:Description></rdf:RDF>'
        f"</x:xmpmeta>{space}"
    )
    photos = []
    for suffix, form in FORMATS.items():
        if form in ("GIF", "TIFF"):  # for which Pillow writes no packet
            continue
        chunks = PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", bare)
        options = {"pnginfo": chunks} if form == "PNG" else {"xmp": bare.encode()}
        photos.append(tmp_path / f"a.{suffix}")
        photos[-1].write_bytes(encoded(picture(60, 50), form, **options))
    done = xmp.embed(map(entry, photos))
    assert (done.counts, done.failures) == ({"changed": len(photos)}, [])
    assert by_exiftool(*photos) == [(list(CAT.flat), list(CAT.tree))] * len(photos)
    with exiftool.ExifTool() as tool:
        assert all(b"<xmp:CreatorTool>17.1<" in (tool.read(photo) or b"") for photo in photos)
    assert xmp.embed(map(entry, photos)).counts == {"unchanged": len(photos)}
    assert xmp.remove_embedded(map(entry, photos)).counts == {"changed": len(photos)}
    assert by_exiftool(*photos) == [([], [])] * len(photos)


@needs_exiftool
def test_photos_of_every_format_hold_keywords(photos: list[Path]) -> None:
    before = {photo: photo.read_bytes() for photo in photos}
    times = {photo: photo.stat().st_mtime_ns for photo in photos}
    touched: dict[str, tuple[xmp.State, xmp.State]] = {}
    done = xmp.embed(map(entry, photos), touched=lambda file, was, now: touched.update({file: (was, now)}))
    assert (done.counts, done.failures) == ({"changed": len(photos)}, [])
    assert by_exiftool(*photos) == [(list(CAT.flat), list(CAT.tree))] * len(photos)
    for photo in photos:
        assert pixels(photo.read_bytes()) == pixels(before[photo])
        now = (photo.stat().st_size, photo.stat().st_mtime_ns)
        assert touched[str(photo)] == ((len(before[photo]), times[photo]), now)
        assert now[1] == times[photo] + 10**9
    after = {photo: photo.read_bytes() for photo in photos}
    assert xmp.embed(map(entry, photos)).counts == {"unchanged": len(photos)}
    assert {photo: photo.read_bytes() for photo in photos} == after
    assert xmp.remove_embedded([*map(entry, photos), entry("/none.jpg")]).counts == {
        "changed": len(photos),
        "skipped": 1,
    }
    assert by_exiftool(*photos) == [([], [])] * len(photos)
    for photo in photos:
        assert pixels(photo.read_bytes()) == pixels(before[photo])
        assert photo.suffix[1:] not in EXACT or photo.read_bytes() == before[photo]
    assert len(names_in(photos[0].parent)) == len(photos)


@needs_exiftool
@needs_exiv2
def test_exiv2_reads_photos(photos: list[Path]) -> None:
    # it overlooks what exiftool adds to a HEIC of libheif's; Pillow reads it
    xmp.embed(map(entry, photos))
    for photo in photos:
        if photo.suffix in (".jpg", ".png", ".webp", ".tif"):
            assert by_exiv2(photo) == (list(CAT.flat), list(CAT.tree)), photo
        elif photo.suffix in (".heic", ".avif"):
            assert parsed(Image.open(photo).info["xmp"].rstrip(b"\0")) == (list(CAT.flat), list(CAT.tree))


@needs_exiftool
def test_nothing_else_in_a_photo_changes(human: Path) -> None:
    def everything() -> dict[str, object]:
        done = subprocess.run(["exiftool", "-j", "-a", "-G1", str(human)], capture_output=True, check=True)
        mine = ("System:", "ExifTool:", "XMP-lr", "XMP-dc:Subject", "XMP-convnext", "SourceFile")
        return {key: value for key, value in json.loads(done.stdout)[0].items() if not key.startswith(mine)}

    before, data = everything(), human.read_bytes()
    assert {"IFD0:Make", "GPS:GPSLatitude", "IPTC:Keywords", "XMP-xmp:Rating", "File:Comment"} <= before.keys()
    for label, flat in (("pizza", ["trip", "tabby", "pizza"]), ("tabby", ["trip", "tabby"])):
        assert xmp.embed([entry(human, label, None)]).counts == {"changed": 1}
        assert by_exiftool(human) == [(flat, ["travel|trip", f"AI|{label}"])]
        assert everything() == before
    assert xmp.embed([entry(human, status="failed"), entry(human, status="vanished")]).counts == {"skipped": 2}
    assert xmp.embed([entry(human, status="unknown")]).counts == {"changed": 1}
    assert human.read_bytes() == data
    assert human.stat().st_mode & 0o777 == 0o640


@needs_exiftool
def test_odd_names_and_wrong_suffixes_are_written(tmp_path: Path) -> None:
    data = encoded(picture(60, 50), "JPEG")
    names = ["-a.jpg", "line\nbreak %f $@ \\'\".jpg", "#[CSTR]\\n.jpg", "caf\udce9.jpg", " a.png", "none"]
    tiff = tmp_path / "a.t\nif"
    tiff.write_bytes(encoded(picture(60, 50), "TIFF"))
    assert xmp.embed([entry(tiff)]).counts == {"changed": 1}
    photos = [tmp_path / name for name in names]
    for photo in photos:
        photo.write_bytes(data)
    (tmp_path / "link.jpg").symlink_to(photos[0])
    assert xmp.embed(map(entry, photos)).counts == {"changed": len(photos)}
    before = photos[0].read_bytes()
    assert xmp.embed([entry(tmp_path / "link.jpg", "pizza", None)]).counts == {"failed": 1}
    assert photos[0].read_bytes() == before  # it may lie outside of the folder
    with exiftool.ExifTool() as tool:
        found = [parsed(tool.read(photo) or b"")[0] for photo in photos]
    assert found == [["tabby"]] * 6
    assert (tmp_path / "link.jpg").is_symlink()
    assert xmp.remove_embedded(map(entry, photos)).counts == {"changed": len(photos)}
    assert {photo.read_bytes() for photo in photos} == {data}


@needs_exiftool
def test_what_cannot_be_written_is_told_and_left_alone(
    tmp_path: Path, human: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, data = tmp_path / "good.jpg", encoded(picture(60, 50), "JPEG")
    bad = {
        "a.bmp": (encoded(picture(60, 50), "BMP"), "BMP"),
        "b.jpg": (b"", "empty"),
        "c.jpg": (data[:400], "JPEG"),
        "d.jpg": (data, "several parts"),
        "e.jpg": (data, "write-protected"),
        "f.jpg": (data, "another program"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    good.write_bytes(data)
    long = ["-XMP-dc:Subject=trip", f"-XMP-dc:Description={'x' * 70_000}"]  # more than one segment holds
    subprocess.run(["exiftool", "-q", "-overwrite_original", *long, str(tmp_path / "d.jpg")], check=True)
    before = files_in(tmp_path)
    really = xmp._become

    def meddle(part: str, path: Path) -> None:
        really(part, path)
        if path.name == "f.jpg":
            os.utime(path)

    monkeypatch.setattr(xmp, "_become", meddle)
    monkeypatch.setattr("os.access", lambda path, _: Path(path).name != "e.jpg")
    done = xmp.embed([*(entry(tmp_path / name) for name in bad), entry(good)])
    assert done.counts == {"failed": len(bad), "changed": 1}
    for failure, (_, said) in zip(done.failures, bad.values(), strict=True):
        assert said in failure.message, failure
    assert {**files_in(tmp_path), str(good): data} == before


@needs_exiftool
@pytest.mark.parametrize("where", ["beside the photo", "for the copy"])
def test_a_full_disk_ends_it(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, data = tmp_path / "a.jpg", encoded(picture(60, 50), "JPEG")
    photo.write_bytes(data)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "beside the photo":
        monkeypatch.setattr("os.fsync", full)
    else:
        monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OutputError, match=r"a\.jpg cannot be written: No space left"):
        xmp.embed([entry(photo)])
    assert files_in(tmp_path) == {str(photo): data}


# the program


def test_without_exiftool_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for call in (xmp.embed, xmp.remove_embedded):
        with pytest.raises(UnavailableError, match="needs exiftool") as caught:
            call([entry("a.jpg")])
        assert caught.value.exit_status == 4
        assert "apt install libimage-exiftool-perl" in str(caught.value.hint)


FAKE = """\
#!/bin/sh
# answers the first question, which is for its release; what then?
read line; read line; echo 9.9; echo "{ready${line#-execute}}"
"""
ANSWER = 'case $line in -exec*) echo "{ready${line#-execute}}";; esac'


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A program that calls itself exiftool 9.9."""
    made = tmp_path / "fake"
    made.write_text(FAKE)
    made.chmod(0o755)
    return made


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("exec sleep 60", "took longer than 0.1 s"),
        ("exit 1", "broke off"),
        (f"while read line; do {ANSWER}; done", "9.9 cannot write this kind of file"),
        (f'while read line; do case $line in */new) : > "$line";; esac; {ANSWER}; done', "as they were given"),
    ],
)
def test_a_program_that_fails_is_told_and_begun_anew(fake: Path, tmp_path: Path, then: str, said: str) -> None:
    photo = tmp_path / "a.jpg"
    fake.write_text(FAKE + then)
    photo.write_bytes(b"")
    with exiftool.ExifTool(str(fake)) as tool:
        if "sleep" in then:
            tool._seconds = 0.1
        for _ in range(2):
            with pytest.raises(exiftool.MetadataError, match=said):
                tool.write(photo, b"packet")


def test_a_program_that_does_not_run_is_told(fake: Path) -> None:
    fake.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UnavailableError, match="does not run: exiftool broke off"):
        exiftool.ExifTool(str(fake))


def test_no_room_for_the_copy_is_a_full_disk(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"photo")
    fake.write_text(f"{FAKE}while read line; do {ANSWER}; done")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    with exiftool.ExifTool(str(fake)) as tool, pytest.raises(OSError, match="no space for a copy"):
        tool.write(photo, b"packet")


@needs_exiftool
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_program_ends_when_we_are_killed() -> None:
    code = "from convnext_cli.jobs.keywords.exiftool import ExifTool as T; t = T(); import os, signal; "
    code += "print(*[p.pid for p in t._processes], t._folder, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    *numbers, folder = done.stdout.split()
    shutil.rmtree(folder)
    until = time.monotonic() + 20
    while any(alive(number) for number in numbers):
        assert time.monotonic() < until


def alive(number: str) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
