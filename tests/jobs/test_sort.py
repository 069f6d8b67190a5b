"""Sorting into folders: no name leads astray, nothing is lost whenever it is stopped, and undo puts all of it back."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convnext_cli.base.errors import OutputError, UsageError
from convnext_cli.jobs.actions import move_files, sort
from convnext_cli.jobs.actions.folder_names import Folders, file_names
from convnext_cli.jobs.actions.sort import Step, apply, plan
from convnext_cli.jobs.actions.undo import Kept, Log, Undone, undo
from convnext_cli.jobs.entry import Entry
from convnext_cli.predict.rows import Prediction, Row
from tests.helpers.tiers import slow_except

MODES: list[Any] = ["copy", "link", "hardlink", "move"]
Tree = dict[str, tuple[Any, ...]]


def entry(path: Path, label: str = "cat", status: Any = "ok", identity: str | None = None) -> Entry:
    best = (Prediction(1, 0, identity, label, 0.9),) if status in ("ok", "unknown") else ()
    return Entry(str(path), Row(str(path), status, 1, 1, best, "m", "0" * 64))


def photo(path: Path, content: bytes, age: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    time = 1_600_000_000_123_456_789 + age
    os.utime(path, ns=(time, time))
    path.chmod(0o640)
    return path


def tree_of(root: Path) -> Tree:
    """All that is in a folder: bytes, times, rights, where links lead; of folders only that they are there."""
    found: Tree = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder) / name
            state = path.lstat()
            what: tuple[Any, ...] = ("folder",)
            if path.is_symlink():
                what = ("link", str(path.readlink()))
            elif not path.is_dir():
                what = ("file", path.read_bytes(), state.st_mtime_ns, state.st_mode)
            found[os.path.relpath(path, root)] = what
    return found


def names(root: Path) -> set[str]:
    return {name for name, what in tree_of(root).items() if what[0] != "folder"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder in which everything is that the test looks at; logs are beside it."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def album(root: Path) -> list[Entry]:
    """Two photos of the same name, one with a name that is not UTF-8, one below the floor, and one that is no photo."""
    raw = root / os.fsdecode(b"b/caf\xe9.jpg")
    return [
        entry(photo(root / "a/IMG_0001.jpg", b"one", 1), "Siamese cat"),
        entry(photo(root / "b/IMG_0001.jpg", b"two", 2), "Siamese cat"),
        entry(photo(raw, b"three", 3), "AC/DC"),
        entry(photo(root / "c/d/x.png", b"four", 4), "Siamese cat", "unknown"),
        entry(photo(root / "c/broken.jpg", b"five", 5), status="failed"),
    ]


# names of folders

NASTY = ["", ".", "..", "/", "a/b", "a\\b", "a:b", "cat.", "cat ", " cat", ".cat", "CON", "con.txt", "nul", "COM1"]
NASTY += ["lpt¹", "unknown", "Unknown", "x" * 300, "é" * 150, "\0", "a\nb", "\ud800", "\udcff", "cat\u200b", "_", "__"]
NASTY += ["cat~00000000", "../../etc/passwd", "Chihuahua", "chihuahua", "CHIHUAHUA", "straße", "STRASSE", "~", "\t"]
NASTY += ["ﬁ", "fi", "\u212a", "K", "k", "I", "ı", "İ"]
text = st.one_of(st.text(st.characters(exclude_categories=())), st.sampled_from(NASTY))
variants: list[Callable[[str], str]] = [
    str.upper,
    str.lower,
    str.title,
    str.casefold,
    str.strip,
    lambda label: label + ".",
    lambda label: label + " ",
    lambda label: label + "\udc80",
    lambda label: label.replace("/", "_"),
    lambda label: label + "x" * 300,
    lambda label: unicodedata.normalize("NFD", label),
    lambda label: unicodedata.normalize("NFC", label),
    lambda label: unicodedata.normalize("NFKC", label),
    lambda label: Folders().name(label),
]


def alike(name: str) -> set[str]:
    """What file systems may take a name for."""
    composed = unicodedata.normalize("NFC", name).casefold()
    return {composed, unicodedata.normalize("NFC", composed), unicodedata.normalize("NFD", name).casefold()}


def assert_good(name: str) -> None:
    assert name not in ("", ".", "..")
    assert not set(name) & set('/\\:*?"<>|\0\n') and name.isprintable()
    assert len(name.encode()) <= 255
    assert name == name.strip(" .") == unicodedata.normalize("NFC", name)
    assert name.split(".")[0].strip().lower() not in ("con", "prn", "aux", "nul", "com1", "lpt¹")


@given(text)
def test_no_label_leads_out_of_the_folder(label: str) -> None:
    name = Folders().name(label)
    assert_good(name)
    assert Path("/into", name).parent == Path("/into") and os.path.normpath(f"/into/{name}") == f"/into/{name}"
    assert alike(name).isdisjoint({"unknown"})


@given(st.one_of(st.tuples(text, text), st.builds(lambda a, f: (a, f(a)), text, st.sampled_from(variants))))
def test_different_labels_have_different_folders(labels: tuple[str, str]) -> None:
    one, other = labels
    if one != other:
        assert alike(Folders().name(one)).isdisjoint(alike(Folders().name(other)))
        known = Folders(labels)
        assert alike(known.name(one)).isdisjoint(alike(known.name(other)))


def test_every_letter_has_a_folder_of_its_own() -> None:
    folders = Folders()
    letters = [c for c in map(chr, range(0x20000)) if c.casefold() != c or unicodedata.normalize("NFD", c) != c]
    letters += {c.casefold() for c in letters} | {c.upper() for c in letters}
    taken = Counter(key for label in set(letters) for key in alike(folders.name(label)))
    assert len(letters) > 10_000
    assert not [key for key, times in taken.items() if times > 1]


def test_nasty_labels_have_folders_on_a_real_disk(tmp_path: Path) -> None:
    for label in set(NASTY):
        (tmp_path / Folders().name(label)).mkdir()
    assert len(list(tmp_path.iterdir())) == len(set(NASTY))


def test_good_labels_are_the_names_of_their_folders() -> None:
    plain = ["tabby", "Siamese cat", "crane (bird)", "Shih-Tzu", "naïve café", "日本", "n02123045", "hen-of-the-woods"]
    for label in plain:
        assert Folders().name(label) == label
    assert Folders().name("AC/DC").startswith("AC_DC~")


def test_a_model_s_own_spelling_is_plain() -> None:
    assert Folders().name("Cat") != "Cat"
    assert Folders(["Cat", "CAT"]).name("Cat") == "Cat"
    assert Folders(["Cat", "CAT"]).name("CAT") != "CAT"
    assert Folders(["Cat"]).name("cat") != "cat"
    for label in ("unknown", "Unknown", "a/b", "e\u0301", "cat~00000000"):
        assert Folders([label]).name(label) != label


# plans


def test_rows_go_where_their_status_says(root: Path) -> None:
    steps = plan(album(root), root / "into", mode="copy")
    found = [(step.source.name, step.target.relative_to(root / "into").parent, step.label) for step in steps]
    ac_dc = Folders().name("AC/DC")
    assert [str(folder) for _, folder, _ in found] == ["Siamese cat", "Siamese cat", ac_dc, "unknown"]
    assert [label for *_, label in found] == ["Siamese cat", "Siamese cat", "AC/DC", "unknown"]
    assert steps.left == {"failed": 1}
    assert not (root / "into").exists()


def test_folders_by_wordnet_id(root: Path) -> None:
    entries = [entry(photo(root / "a.jpg", b"a"), "cat", identity="n02121808")]
    entries.append(entry(photo(root / "b.jpg", b"b"), "dog"))
    steps = list(plan(entries, root / "into", mode="link", by="id"))
    assert [step.target.parent.name for step in steps] == ["n02121808", "dog"]


def test_photos_of_one_name_do_not_meet(root: Path, log: Path) -> None:
    alike_on_some_disks = ["a/IMG.jpg", "b/IMG.jpg", "c/IMG.jpg", "d/img.JPG"], ["d/\u00e9", "e/e\u0301"]
    entries = [entry(photo(root / name, b"same")) for names in alike_on_some_disks for name in names]
    steps = list(plan(entries, root / "into", mode="copy"))
    assert len({unicodedata.normalize("NFC", str(step.target).casefold()) for step in steps}) == len(steps) == 6
    assert steps[0].target.name == "IMG.jpg"
    assert list(plan(entries, root / "into", mode="copy")) == steps
    assert apply(steps, log, "copy").placed == {"cat": 6}


def test_names_stay_within_the_limit_and_have_no_end() -> None:
    long = ["x" * 251 + ".jpg", "é" * 125 + ".jpg", "x" + "." * 200, "y." + "z" * 250, os.fsdecode(b"\xff" * 250)]
    for name in long:
        found = file_names(Path("/a") / name)
        four = [next(found) for _ in range(4)]
        assert len(set(four)) == 4
        assert all(len(os.fsencode(one)) <= 255 for one in four)
    _, second, third = (next(found) for found in [file_names(Path("/a/x.jpg"))] for _ in range(3))
    assert second.startswith("x~") and second.endswith(".jpg") and third == second.replace(".jpg", "-2.jpg")


def test_photos_in_the_folder_are_not_sorted_into_it(root: Path) -> None:
    (root / "way").symlink_to(root / "into")
    entries = [entry(photo(root / "into/dog/x.jpg", b"x")), entry(root / "way/dog/x.jpg"), entry(root / "gone.jpg")]
    steps = plan(entries, root / "way", mode="move")
    assert list(steps) == []
    assert steps.left == {"inside": 2, "vanished": 1}


def test_the_folder_may_not_be_a_file(root: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        plan([], photo(root / "into", b""), mode="copy")


# each mode, and back


WAYS = ["copy", "link", "hardlink", "move", "move far", "move by links", "move looking"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Path]]:
    """A mode, and a folder to sort into; also on another disk, and on disks that can do less."""
    mode, _, how = request.param.partition(" ")
    if how != "far":
        if how:
            monkeypatch.setattr(move_files, "_renamed_at_once", lambda *_: False)
        if how == "looking":
            monkeypatch.setattr(os, "link", refuse(errno.EPERM))
        yield mode, root / "x/into"
        return
    shm = Path("/dev/shm")
    if shm.is_dir() and os.access(shm, os.W_OK) and shm.stat().st_dev != root.stat().st_dev:
        with tempfile.TemporaryDirectory(dir=shm) as folder:
            yield mode, Path(folder).resolve() / "into"
        return
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        rename = move_files.rename

        def over_there(source: Path, target: Path) -> None:
            if source.parent != target.parent:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            rename(source, target)

        monkeypatch.setattr(move_files, "rename", over_there)
        yield mode, Path(folder).resolve() / "into"


def refuse(number: int) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return call


def test_undo_leaves_all_as_it_was(way: tuple[Any, Path], root: Path, log: Path) -> None:
    mode, into = way
    entries = album(root)
    before = tree_of(root)
    done = apply(plan(entries, into, mode=mode), log, mode)
    assert (done.placed.total(), done.failed) == (4, {})
    assert done.placed["Siamese cat"] == 2
    there = tree_of(into)
    assert len(names(into)) == 4
    if mode != "link":
        (first,) = [what for name, what in there.items() if name == "Siamese cat/IMG_0001.jpg"]
        assert first == before["a/IMG_0001.jpg"]
    else:
        assert there["Siamese cat/IMG_0001.jpg"] == ("link", str(root / "a/IMG_0001.jpg"))
    assert ("a/IMG_0001.jpg" in tree_of(root)) == (mode != "move")
    assert (into / "Siamese cat/IMG_0001.jpg").samefile(root / "a/IMG_0001.jpg") if mode == "hardlink" else True

    undone = undo(log)
    assert tree_of(root) == before
    assert not into.exists()
    assert undone.kept == []
    assert undone.removed + undone.moved_back == 4
    assert (undone.moved_back == 4) == (mode == "move")
    assert undone.folders >= 4  # three labels', and the one that they are in
    assert undo(log) == Undone()
    assert tree_of(root) == before


@pytest.mark.parametrize("mode", MODES)
def test_sorting_twice_is_sorting_once(mode: Any, root: Path, log: Path) -> None:
    entries = album(root)
    apply(plan(entries, root / "into", mode=mode), log, mode)
    after = tree_of(root)
    again = plan(entries, root / "into", mode=mode)
    more = log.with_name("more")
    assert apply(again, more, mode).placed == {}
    assert tree_of(root) == after
    assert again.left == {"failed": 1, "vanished" if mode == "move" else "already": 4}
    assert not more.exists()


def test_a_new_photo_of_an_old_name_comes_beside_it(root: Path, log: Path) -> None:
    old = entry(photo(root / "b/IMG.jpg", b"old"))
    apply(plan([old], root / "into", mode="copy"), log, "copy")
    entries = [entry(photo(root / "a/IMG.jpg", b"new")), old]  # of the same size and time
    apply(plan(entries, root / "into", mode="copy"), log.with_name("more"), "copy")
    contents = Counter(path.read_bytes() for path in (root / "into/cat").iterdir())
    assert contents == {b"old": 1, b"new": 1}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ["file", "folder", "link to nowhere"])
def test_nothing_is_overwritten(mode: Any, what: str, root: Path, log: Path) -> None:
    entries = [entry(photo(root / "a/IMG.jpg", b"mine"))]
    taken = root / "into/cat/IMG.jpg"
    photo(taken / "in it" if what == "folder" else taken, b"hers")
    if what == "link to nowhere":
        taken.unlink()
        taken.symlink_to("nowhere")
    before = tree_of(root)
    assert apply(plan(entries, root / "into", mode=mode), log, mode).placed == {"cat": 1}
    after = tree_of(root)
    assert after["into/cat/IMG.jpg"] == before["into/cat/IMG.jpg"]
    assert len(list((root / "into/cat").iterdir())) == 2
    undo(log)
    assert tree_of(root) == before


def test_nothing_is_overwritten_that_comes_up_meanwhile(way: tuple[Any, Path], root: Path, log: Path) -> None:
    mode, into = way
    steps = list(plan(album(root), into, mode=mode))
    before = tree_of(root)
    photo(into / "unknown/x.png", b"four", 4)  # the same, but somebody else's
    between = tree_of(root)
    done = apply(steps, log, mode)
    assert done.failed == {"File exists": 1}
    assert done.placed.total() == 3
    undo(log)
    assert tree_of(root) == between
    assert (into / "unknown/x.png").read_bytes() == b"four"
    assert before.items() <= between.items()


def test_links_are_copied_through_and_not_moved(root: Path, log: Path) -> None:
    photo(root / "real.jpg", b"real")
    (root / "a").mkdir()
    (root / "a/link.jpg").symlink_to("../real.jpg")
    before = tree_of(root)
    for mode in MODES:
        done = apply(plan([entry(root / "a/link.jpg")], root / mode, mode=mode), log.with_name(mode), mode)
        assert done.failed == ({"is a link, and links are not moved": 1} if mode == "move" else {})
    assert tree_of(root)["copy/cat/link.jpg"] == before["real.jpg"]
    assert (root / "hardlink/cat/link.jpg").samefile(root / "real.jpg")
    assert not (root / "hardlink/cat/link.jpg").is_symlink()
    for mode in reversed(MODES):
        assert undo(log.with_name(mode)).kept == []
    assert tree_of(root) == before


# killed


def killed_at(call: int, work: Callable[..., object], *arguments: Any) -> bool:
    """Do it in a process that dies just before its n-th change to the disk; False when it ended before."""
    child = os.fork()
    if child == 0:
        try:
            left = iter(range(call))

            def dying(function: Callable[..., Any]) -> Callable[..., Any]:
                def wrapped(*given: Any, **options: Any) -> Any:
                    if next(left, None) is None:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*given, **options)

                return wrapped

            for name in ("mkdir", "rmdir", "unlink", "link", "symlink", "rename", "utime", "fsync"):
                setattr(os, name, dying(getattr(os, name)))
            move_files._renamed_at_once = dying(move_files._renamed_at_once)
            work(*arguments)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def do(entries: list[Entry], into: Path, mode: Any, log: Path) -> None:
    apply(plan(entries, into, mode=mode), log, mode)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process that was forked")


def kills(root: Path, into: Path) -> Iterator[tuple[int, list[Entry], Tree]]:
    """For every moment a fresh album, and how it was."""
    for call in range(1_000):
        shutil.rmtree(root)
        shutil.rmtree(into, ignore_errors=True)
        entries = album(root)
        yield call, entries, tree_of(root)
    raise AssertionError("it never ends")


def assert_none_is_lost(before: Tree, *roots: Path) -> None:
    whole = {what[1] for root in roots for what in tree_of(root).values() if what[0] == "file"}
    assert {what[1] for what in before.values() if what[0] == "file"} <= whole


@needs_fork
@pytest.mark.parametrize("way", slow_except(WAYS, "copy", "move"), indirect=True)
def test_a_killed_sort_can_be_undone(
    way: tuple[Any, Path], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode, into = way
    monkeypatch.setattr(sort, "_GROUP", 2)
    for call, entries, before in kills(root, into):
        log = tmp_path / f"log{call}"
        killed = killed_at(call, do, entries, into, mode, log)
        assert_none_is_lost(before, root, into)
        if log.exists():
            assert undo(log).kept == []
        assert tree_of(root) == before
        assert not into.exists()
        if not killed:
            assert call > 15  # it was killed at many moments
            return


@needs_fork
@pytest.mark.parametrize("way", slow_except(WAYS, "copy", "move"), indirect=True)
def test_a_killed_sort_goes_on(
    way: tuple[Any, Path], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode, into = way
    if move_files._renameat2() is None or not move_files._renamed_at_once.__name__.startswith("_renamed"):
        pytest.skip("between its two steps a move by links is told from a photo's second name by nothing")
    monkeypatch.setattr(sort, "_GROUP", 2)
    wanted: list[Tree] = []
    for call, entries, before in kills(root, into):
        if call == 0:
            apply(plan(entries, into, mode=mode), tmp_path / "whole", mode)
            wanted = [tree_of(into), tree_of(root)]
            undo(tmp_path / "whole")
            assert tree_of(root) == before
        first, second = tmp_path / f"first{call}", tmp_path / f"second{call}"
        killed = killed_at(call, do, entries, into, mode, first)
        apply(plan(entries, into, mode=mode), second, mode)
        after = [tree_of(into), tree_of(root)]
        assert [{name: what for name, what in tree.items() if not name.endswith(".part")} for tree in after] == wanted
        assert_none_is_lost(before, root, into)
        for log in (second, first):
            if log.exists():
                undone = undo(log)
        assert undone.kept == []
        assert tree_of(root) == before
        assert not into.exists()
        if not killed:
            return


@needs_fork
@pytest.mark.parametrize("way", slow_except(WAYS, "copy", "move"), indirect=True)
def test_a_killed_undo_goes_on(way: tuple[Any, Path], root: Path, tmp_path: Path) -> None:
    mode, into = way
    for call, entries, before in kills(root, into):
        log = tmp_path / f"log{call}"
        apply(plan(entries, into, mode=mode), log, mode)
        killed = killed_at(call, undo, log)
        assert_none_is_lost(before, root, into)
        assert undo(log).kept == []
        assert tree_of(root) == before
        assert not into.exists()
        if not killed:
            assert call > 7
            return


def test_a_log_may_end_anywhere(root: Path, log: Path) -> None:
    """Cut where a power failure cut it: what is not on the disk whole was not done."""
    apply(plan(album(root), root / "into", mode="copy"), log, "copy")
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"do": "copy", "source": "/a')
    undone = undo(log)
    assert (undone.removed, undone.kept) == (4, [])
    head = whole.index(b"\n") + 1
    for end in range(head):
        log.write_bytes(whole[:end])
        assert undo(log) == Undone()


def test_every_line_is_on_the_disk_before_its_action(
    way: tuple[Any, Path], root: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode, into = way
    monkeypatch.setattr(sort, "_GROUP", 2)
    safe = [b""]
    looked: list[str] = []
    fsync = os.fsync

    def synced(handle: int) -> None:
        fsync(handle)
        if log.exists() and os.path.samestat(os.fstat(handle), log.stat()):
            safe[0] = log.read_bytes()

    def looking(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            touched = [str(a) for a in arguments if isinstance(a, Path) and a.is_relative_to(into)]
            lines = [json.loads(line) for line in safe[0].splitlines()[1:]]
            said = {line.get("path", line.get("target")) for line in lines}
            for path in touched:
                looked.append(path)
                assert path in said or path.endswith(".part")
            return function(*arguments, **options)

        return wrapped

    monkeypatch.setattr(os, "fsync", synced)
    for name in ("mkdir", "link", "symlink", "rename"):
        monkeypatch.setattr(os, name, looking(getattr(os, name)))
    monkeypatch.setattr(move_files, "_renamed_at_once", looking(move_files._renamed_at_once))
    steps = [*plan(album(root), into, mode=mode), Step(root / "gone.jpg", into / "cat/gone.jpg", "cat")]
    assert apply(steps, log, mode).placed.total() == 4
    assert safe[0] == log.read_bytes() and b'"failed"' in safe[0]
    assert len({path for path in looked if not path.endswith(".part")}) >= 7  # four photos, three folders


# what goes wrong


def test_one_photo_s_trouble_is_its_own(root: Path, log: Path) -> None:
    entries = album(root)
    before = tree_of(root)
    steps = list(plan(entries, root / "into", mode="move"))
    Path(entries[0].file).unlink()
    photo(root / "into/unknown", b"a file where a folder should be")
    done = apply(steps, log, "move")
    assert done.placed.total() == 2
    assert done.failed == {"No such file or directory": 1, "File exists": 1}
    failed = [json.loads(line) for line in log.read_bytes().splitlines() if b'"failed"' in line]
    assert {line["source"] for line in failed} == {entries[0].file, entries[3].file}
    (root / "into/unknown").unlink()
    assert undo(log).moved_back == 2
    before.pop("a/IMG_0001.jpg")
    assert tree_of(root) == before | {"into": ("folder",)}


def test_a_folder_that_is_a_link_leads_nowhere(root: Path, log: Path) -> None:
    (root / "into").mkdir()
    (root / "elsewhere").mkdir()
    (root / "into/cat").symlink_to(root / "elsewhere")
    done = apply(plan([entry(photo(root / "a.jpg", b"a"))], root / "into", mode="copy"), log, "copy")
    assert done.failed == {"its folder is a link": 1}
    assert list((root / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_it_and_says_what_was_done(
    number: int, root: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = album(root)
    before = tree_of(root)
    copyfileobj = shutil.copyfileobj

    def filling(source: Any, target: Any, *more: Any) -> None:
        if source.name.endswith(".png"):
            target.write(b"h")
            raise OSError(number, os.strerror(number))
        copyfileobj(source, target, *more)

    monkeypatch.setattr(shutil, "copyfileobj", filling)
    with pytest.raises(OutputError, match="the disk is full; 3 photos were copied") as caught:
        apply(plan(entries, root / "into", mode="copy"), log, "copy")
    assert caught.value.exit_status == 74
    assert f"convnext label --undo {log}" in str(caught.value.hint)
    assert len(names(root / "into")) == 3
    assert undo(log).kept == []
    assert tree_of(root) == before


def test_a_log_that_cannot_be_written_ends_it_before_it_begins(
    root: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = album(root)
    before = tree_of(root)
    with pytest.raises(OutputError, match="no photos were moved"):
        apply(plan(entries, root / "into", mode="move"), root / "none/log", "move")
    monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    with pytest.raises(OutputError, match="the disk is full; no photos were moved"):
        apply(plan(entries, root / "into", mode="move"), log, "move")
    assert tree_of(root) == before
    assert not log.exists()


def test_a_log_that_cannot_be_written_any_more_ends_it(root: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = album(root)
    before = tree_of(root)
    left = iter(range(2))  # for the header and the first photo

    def failing(self: Log) -> None:
        if next(left, None) is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(self)

    sync = Log.sync
    monkeypatch.setattr(Log, "sync", failing)
    monkeypatch.setattr(sort, "_GROUP", 1)
    with pytest.raises(OutputError, match=r"log cannot be written: Input/output error; 1 photo was linked"):
        apply(plan(entries, root / "into", mode="link"), log, "link")
    assert undo(log).removed == 1
    assert tree_of(root) == before


def test_a_log_is_never_overwritten(root: Path, log: Path) -> None:
    log.write_text("precious")
    with pytest.raises(UsageError, match="already exists"):
        apply(plan(album(root), root / "into", mode="copy"), log, "copy")
    assert log.read_text() == "precious"
    assert not (root / "into").exists()


OTHERS = [b"hello\n", b"\xff\0" * 5000, b"[]\n", b'{"log": "other", "version": 1}\n', b"{}\n"]


@pytest.mark.parametrize("content", OTHERS)
def test_other_files_are_no_logs(content: bytes, log: Path) -> None:
    log.write_bytes(content)
    with pytest.raises(UsageError, match="is not the log of a sort") as caught:
        undo(log)
    assert caught.value.hint


def test_logs_that_are_not_there_or_of_another_release(log: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        undo(log)
    log.write_text('{"log": "convnext sort", "version": 2, "mode": "copy", "date": ""}\n')
    with pytest.raises(UsageError, match="another release"):
        undo(log)


def test_damaged_lines_are_told_and_passed_over(root: Path, log: Path) -> None:
    apply(plan(album(root), root / "into", mode="copy"), log, "copy")
    head, *lines = log.read_bytes().splitlines(keepends=True)
    damaged = [b"[]\n", b'{"do": "burn", "target": "/"}\n', b"\0\0\n", b'{"do": ["x"], "target": 1}\n']
    log.write_bytes(b"".join([head, *damaged, *lines]))
    undone = undo(log)
    assert undone.removed == 4
    assert len(undone.kept) == 4
    assert not (root / "into").exists()


@pytest.mark.parametrize("size", ["Infinity", "1e999", "NaN", '"3"', "true", "null", "3.0", "[3]"])
def test_numbers_of_a_damaged_log_are_told(root: Path, log: Path, size: str) -> None:
    apply(plan(album(root), root / "into", mode="move"), log, "move")
    before = names(root)
    log.write_text(re.sub(r'"size": \d+', f'"size": {size}', log.read_text()))
    undone = undo(log)
    assert (undone.moved_back, names(root)) == (0, before)
    assert sum("cannot be read" in kept.why for kept in undone.kept) == 4


@pytest.mark.parametrize("header", ['"into": 3', '"into": ["/"]', '"from": 3', '"from": [3]', '"from": [null]'])
def test_a_header_of_other_types_is_damaged(root: Path, log: Path, header: str) -> None:
    apply(plan(album(root), root / "into", mode="move"), log, "move")
    before = names(root)
    name = header.split(":")[0]
    head, rest = log.read_text().split("\n", 1)
    head = re.sub(name + r': ("[^"]*"|\[[^]]*\]|null)', lambda _: header, head)
    assert header in head
    log.write_text(head + "\n" + rest)
    with pytest.raises(UsageError, match="damaged"):
        undo(log)
    assert names(root) == before


@pytest.mark.parametrize("mode", ["copy", "move", "link", "hardlink"])
def test_undo_stays_inside_its_folders(root: Path, log: Path, mode: Any) -> None:
    """A log that somebody changed takes nothing away elsewhere, and brings nothing there."""
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    apply(plan(album(root), root / "into", mode=mode), log, mode, roots=[str(root)])
    (elsewhere / "empty").mkdir()
    target, *_ = (path for path in (root / "into").rglob("*") if not path.is_dir())
    if mode == "link":
        (elsewhere / "x.jpg").symlink_to(target.readlink())
    elif mode == "hardlink":
        os.link(target, elsewhere / "x.jpg")
    else:
        shutil.copy2(target, elsewhere / "x.jpg")
    before = tree_of(elsewhere)
    lines = log.read_text().splitlines()
    forged = [line.replace(json.dumps(str(target)), json.dumps(str(elsewhere / "x.jpg"))) for line in lines[1:]]
    folder = json.dumps({"do": "folder", "path": str(elsewhere / "empty")})
    log.write_text("\n".join([lines[0], folder, *forged, ""]))
    undone = undo(log)
    assert tree_of(elsewhere) == before
    assert sum("which the log is for" in kept.why for kept in undone.kept) == 2


@pytest.mark.parametrize("forged", [False, True])
def test_undo_brings_photos_to_no_other_place(root: Path, log: Path, tmp_path: Path, forged: bool) -> None:
    apply(plan(album(root), root / "into", mode="move"), log, "move", roots=[str(root)])
    before, outside = names(root), tmp_path / "outside"
    head, rest = log.read_text().split("\n", 1)
    head = head.replace(f'["{root}"]', "[]") if forged else head
    log.write_text(head + "\n" + rest.replace(f'"source": "{root}/', f'"source": "{outside}/'))
    undone = undo(log)
    assert (undone.moved_back, names(root)) == (0, before)
    assert not outside.exists()
    assert "not in a folder that the log is for" in undone.kept[0].why


def test_undo_follows_no_link_out_of_its_folders(root: Path, log: Path) -> None:
    apply(plan(album(root), root / "into", mode="copy"), log, "copy", roots=[str(root)])
    outside = root / "outside"
    folder = next(path for path in (root / "into").iterdir() if path.is_dir())
    folder.rename(outside)
    folder.symlink_to(outside)
    before = tree_of(outside)
    undo(log)
    assert tree_of(outside) == before


# a move to another disk


def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on everything is on another disk, except names in one folder."""
    rename = move_files.rename

    def call(source: Path, target: Path) -> None:
        if source.parent != target.parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target)

    monkeypatch.setattr(move_files, "rename", call)


def test_a_copy_that_is_not_the_same_does_not_cost_the_photo(
    root: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far(monkeypatch)
    entries = album(root)
    before = tree_of(root)

    def lying(source: Any, target: Any, *_: Any) -> None:
        target.write(b"x" * len(source.read()))

    monkeypatch.setattr(shutil, "copyfileobj", lying)
    done = apply(plan(entries, root / "into", mode="move"), log, "move")
    assert done.failed == {"was not written as it was read": 4}
    assert names(root) == {name for name, what in before.items() if what[0] == "file"}
    undo(log)
    assert tree_of(root) == before


def test_a_photo_that_grows_while_it_is_copied_stays(root: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = photo(root / "a.jpg", b"a")
    copyfileobj = shutil.copyfileobj

    def growing(original: Any, *more: Any) -> None:
        copyfileobj(original, *more)
        with source.open("ab") as stream:
            stream.write(b"b")

    monkeypatch.setattr(shutil, "copyfileobj", growing)
    done = apply(plan([entry(source)], root / "into", mode="copy"), log, "copy")
    assert done.failed == {"was changed while it was copied": 1}
    assert names(root / "into") == set()


@pytest.mark.parametrize("where", ["here", "far"])
def test_a_photo_that_may_not_be_taken_away_stays_alone(
    where: str, root: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "far":
        far(monkeypatch)
    monkeypatch.setattr(move_files, "_renamed_at_once", lambda *_: False)
    entries = album(root)
    unlink = os.unlink

    def protected(path: Any) -> None:
        if "into" not in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(path)

    monkeypatch.setattr(os, "unlink", protected)
    done = apply(plan(entries, root / "into", mode="move"), log, "move")
    assert done.failed == {"Permission denied": 4}
    assert names(root / "into") == set()


def test_nothing_is_copied_from_where_nothing_may_be_taken(
    root: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far(monkeypatch)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(shutil, "copyfileobj", refuse(errno.EIO))
    done = apply(plan(album(root), root / "into", mode="move"), log, "move")
    assert done.failed == {"may not be taken from its folder": 4}


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_copy_is_on_the_disk_before_its_name_and_that_before_the_photo_goes(
    mode: Any, root: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far(monkeypatch)
    source = photo(root / "a.jpg", b"a")
    happened: list[str] = []

    def noting(what: Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            happened.append(what(*arguments))
            return function(*arguments, **options)

        return wrapped

    def synced(handle: int) -> str:
        return f"sync {Path(f'/proc/self/fd/{handle}').readlink().suffix or 'folder'}"

    monkeypatch.setattr(os, "fsync", noting(synced, os.fsync))
    monkeypatch.setattr(os, "link", noting(lambda *_: "name", os.link))
    monkeypatch.setattr(move_files, "_renamed_at_once", noting(lambda *_: "name", move_files._renamed_at_once))
    monkeypatch.setattr(os, "unlink", noting(lambda path: f"remove {Path(path).suffix}", os.unlink))
    apply(plan([entry(source)], root / "into", mode=mode), log, mode)
    begin = happened.index("sync .part")
    end = {"copy": [], "move": ["sync folder", "remove .jpg", "remove .part"]}[mode]
    assert happened[begin:-1] == ["sync .part", "name", *end]


def test_a_new_photo_under_the_name_of_one_that_was_half_moved_costs_neither(root: Path, log: Path) -> None:
    source, target = sorted_one(root, log, "move")
    os.link(target, move_files.part_of(source, target))  # killed just before its end
    photo(source, b"newer")
    apply(plan([entry(source)], root / "into", mode="move"), log.with_name("more"), "move")
    assert {path.read_bytes() for path in target.parent.glob("*.jpg")} == {b"photo", b"newer"}
    assert not source.exists()


def test_hard_links_to_another_disk_say_so(root: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse(errno.EXDEV))
    done = apply(plan(album(root), root / "into", mode="hardlink"), log, "hardlink")
    assert done.failed == {"is on another disk, where no hard link leads": 4}


# what was changed since


def sorted_one(root: Path, log: Path, mode: Any) -> tuple[Path, Path]:
    source = photo(root / "a/IMG.jpg", b"photo")
    apply(plan([entry(source)], root / "into", mode=mode), log, mode)
    return source, root / "into/cat/IMG.jpg"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("content", "age"), [(b"other", 7), (b"photo of the same time", 0)])
def test_what_was_replaced_since_is_kept(mode: Any, content: bytes, age: int, root: Path, log: Path) -> None:
    _, target = sorted_one(root, log, mode)
    target.unlink()
    photo(target, content, age)
    after = tree_of(root)
    undone = undo(log)
    assert tree_of(root) == after
    assert undone.removed == undone.moved_back == 0
    assert [kept.path for kept in undone.kept] == [str(target), str(target.parent), str(root / "into")]
    assert "changed since" in undone.kept[0].why
    assert undone.kept[1].why == "is not empty"


def test_a_link_that_leads_elsewhere_by_now_is_kept(root: Path, log: Path) -> None:
    _, target = sorted_one(root, log, "link")
    target.unlink()
    target.symlink_to("elsewhere")
    assert undo(log).kept[0] == Kept(str(target), "has changed since")
    assert target.is_symlink()


def test_a_place_that_was_taken_is_left(root: Path, log: Path) -> None:
    source, target = sorted_one(root, log, "move")
    photo(source, b"newer", 9)
    undone = undo(log)
    assert undone.kept[0] == Kept(str(target), "something else is in its old place")
    assert (source.read_bytes(), target.read_bytes()) == (b"newer", b"photo")
    source.unlink()
    assert undo(log).moved_back == 1
    assert source.read_bytes() == b"photo"


@pytest.mark.parametrize("mode", ["copy", "hardlink"])
@pytest.mark.parametrize("fate", ["gone", "edited", "a link to the copy", "in a linked folder"])
def test_the_last_copy_is_kept(mode: Any, fate: str, root: Path, log: Path) -> None:
    source, target = sorted_one(root, log, mode)
    source.unlink()
    if fate == "edited":
        photo(source, b"other", 9)
    elif fate == "a link to the copy":
        source.symlink_to(target)
    elif fate == "in a linked folder":
        source.parent.rmdir()
        source.parent.symlink_to(target.parent)
    undone = undo(log)
    assert undone.removed == 0
    assert undone.kept[0].path == str(target)
    assert target.read_bytes() == b"photo"


def test_a_copy_goes_when_its_original_has_only_another_time(root: Path, log: Path) -> None:
    source, target = sorted_one(root, log, "copy")
    os.utime(source, ns=(5, 5))
    assert undo(log).removed == 1
    assert not target.exists()


def test_an_emptied_folder_comes_back_with_its_photo(root: Path, log: Path) -> None:
    source, _ = sorted_one(root, log, "move")
    source.parent.rmdir()
    assert undo(log).moved_back == 1
    assert source.read_bytes() == b"photo"


def test_a_photo_that_is_nowhere_is_told(root: Path, log: Path) -> None:
    source, target = sorted_one(root, log, "move")
    target.unlink()
    assert undo(log).kept == [Kept(str(source), f"no longer exists, and neither does {target}")]


def test_what_is_left_of_a_copy_is_kept_when_nothing_else_is(root: Path, log: Path) -> None:
    source, target = sorted_one(root, log, "move")
    part = move_files.part_of(source, target)
    target.rename(part)
    assert undo(log).kept[0] == Kept(str(part), "is part of a copy, and no whole one exists")
    assert part.read_bytes() == b"photo"


def test_a_second_name_of_a_changed_photo_goes_and_the_photo_stays(root: Path, log: Path) -> None:
    source, target = sorted_one(root, log, "move")
    os.link(target, move_files.part_of(source, target))
    with target.open("ab") as stream:
        stream.write(b" with a moustache")
    assert undo(log).kept[0] == Kept(str(target), "has changed since")
    assert [path.read_bytes() for path in target.parent.iterdir()] == [b"photo with a moustache"]


def test_a_link_in_the_old_place_is_not_the_photo(root: Path, log: Path) -> None:
    source, target = sorted_one(root, log, "move")
    source.symlink_to(photo(root / "third.jpg", b"photo"))
    assert undo(log).kept[0] == Kept(str(target), "something else is in its old place")
    source.unlink()
    source.parent.rmdir()
    source.parent.symlink_to(target.parent)  # the old place is the new one
    assert undo(log).kept[0].path == str(target)
    assert target.read_bytes() == b"photo"


@pytest.mark.parametrize("kept", [100, 1_000, 10_000_000, 2_000_000_000])
def test_coarse_times_of_a_disk_are_no_change(
    kept: int, root: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = photo(root / "a.jpg", b"a")
    before = tree_of(root)
    far(monkeypatch)
    apply(plan([entry(source)], root / "into", mode="move"), log, "move")
    target = root / "into/cat/a.jpg"
    coarse = target.stat().st_mtime_ns // kept * kept
    os.utime(target, ns=(coarse, coarse))
    assert undo(log).kept == []
    assert tree_of(root) == before
