"""From what the user names to photos."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convnext_cli.base.errors import UsageError
from convnext_cli.photos.find import Finder
from convnext_cli.photos.local_photos import split

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b/2.jpg", "b/1.jpg", "a.PNG", "b/notes.txt", "b/jpeg-without-suffix", ".hidden/x.jpg", "z.mp4", "q"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG if "suffix" in name else b"text")
    return tmp_path


def paths(photos: object) -> list[str]:
    return [photo.path for photo in photos]


def test_a_walk_goes_by_name_and_counts_what_it_passes_over(tree: Path) -> None:
    finder = Finder(recursive=True)
    found = [os.path.relpath(p, tree) for p in paths(finder.named([str(tree)]))]
    assert found == ["a.PNG", "b/1.jpg", "b/2.jpg", "b/jpeg-without-suffix"]
    assert finder.passed_over == {".txt": 1, ".mp4": 1, "no suffix": 1, "hidden": 1}


def test_named_files_are_never_passed_over(tree: Path) -> None:
    assert paths(Finder().named([str(tree / "b/notes.txt"), str(tree / "gone.jpg")])) == [
        str(tree / "b/notes.txt"),
        str(tree / "gone.jpg"),
    ]


def test_a_named_folder_is_walked_and_kept_to_be_said(tree: Path) -> None:
    finder = Finder()
    assert len(paths(finder.named([str(tree)]))) == 4
    assert finder.looked_into == [str(tree)]


def test_a_folder_of_a_list_without_recursion_is_a_row_that_says_so(tree: Path) -> None:
    (photo,) = Finder().listed(io.BytesIO(f"{tree}\n".encode()))
    assert photo.problem is not None
    assert photo.problem.kind == "not_a_file"
    assert "-r" in photo.problem.message


def test_globs(tree: Path) -> None:
    assert paths(Finder().named([f"{tree}/b/*.jpg"])) == [str(tree / "b/1.jpg"), str(tree / "b/2.jpg")]
    assert len(paths(Finder().named([f"{tree}/**/*.jpg"]))) == 2
    with pytest.raises(UsageError, match="no file matches"):
        Finder().named([f"{tree}/*.webp"])


def test_a_name_that_looks_like_a_glob_is_a_name(tree: Path) -> None:
    (tree / "[red].jpg").write_bytes(JPEG)
    assert paths(Finder().named([f"{tree}/[red].jpg"])) == [f"{tree}/[red].jpg"]


def test_a_glob_without_a_match_is_a_missing_row_beside_others(tree: Path) -> None:
    assert paths(Finder().named([f"{tree}/photo[1].jpg", f"{tree}/a.PNG"])) == [f"{tree}/photo[1].jpg", f"{tree}/a.PNG"]


def test_globs_leave_hidden_files_alone_unless_asked(tree: Path) -> None:
    assert len(paths(Finder().named([f"{tree}/.hidden/*.jpg"]))) == 1
    assert len(paths(Finder().named([f"{tree}/.h*/*.jpg"]))) == 1


def test_a_url_beside_photos_is_a_row(tree: Path) -> None:
    photos = list(Finder().named([str(tree / "a.PNG"), "http://localhost/a.jpg"]))
    assert [p.problem and p.problem.kind for p in photos] == [None, "missing"]


def test_standard_input_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(JPEG)))
    first, second = Finder().named(["-", "-"])
    assert first.data == JPEG
    assert second.problem is not None
    assert "read already" in second.problem.message


def test_standard_input_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convnext_cli.photos.decode.MAX_FILE_BYTES", 10)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(bytes(11))))
    (photo,) = Finder().named(["-"])
    assert photo.problem is not None
    assert photo.problem.kind == "too_large"


def test_folders_deeper_than_pythons_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):
        Path("d").mkdir()
        os.chdir("d")
    Path("deep.jpg").write_bytes(JPEG)
    (tmp_path / "z.jpg").write_bytes(JPEG)
    found = paths(Finder(recursive=True).named([str(tmp_path)]))
    assert [Path(p).name for p in found] == ["deep.jpg", "z.jpg"]
    Path("deep.jpg").unlink()  # by steps: what cleans up after tests goes no deeper than Python's stack either
    for _ in range(1100):
        os.chdir("..")
        Path("d").rmdir()


@pytest.mark.parametrize("url", ["http://example.org/a.jpg", "HTTPS://example.org/a.jpg"])
def test_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not fetched"):
        Finder().named([url])


def test_nothing_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        Finder().named([str(tmp_path / "x")])
    with pytest.raises(UsageError, match="none of the 2"):
        Finder().named([str(tmp_path / "x"), str(tmp_path / "y")])


@pytest.mark.skipif(os.name == "nt", reason="Windows needs a right to make links")
def test_link_loops_end(tree: Path) -> None:
    (tree / "b" / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "b" / "link.jpg").symlink_to(tree / "b" / "1.jpg")
    (tree / "b" / "again").symlink_to(tree, target_is_directory=True)
    (tree / "dangling").symlink_to(tree / "nowhere")
    assert len(paths(Finder().named([f"{tree}/**/*.jpg"]))) == 3
    finder = Finder(recursive=True)
    assert len(paths(finder.named([str(tree)]))) == 5
    assert finder.passed_over["linked folder"] == 2
    assert finder.passed_over["broken link"] == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_special_files_are_not_opened(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    finder = Finder(recursive=True)
    assert len(paths(finder.named([str(tree)]))) == 4
    assert finder.passed_over["special file"] == 1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_without_permission_is_a_row(tree: Path) -> None:
    (tree / "b").chmod(0)
    try:
        photos = list(Finder(recursive=True).named([str(tree)]))
    finally:
        (tree / "b").chmod(0o700)
    assert [p.problem.kind for p in photos if p.problem] == ["permission"]


def test_lists_of_paths() -> None:
    assert paths(Finder().listed(io.BytesIO(b"a.jpg\r\nb c.jpg\n\nlast"))) == ["a.jpg", "b c.jpg", "last"]
    assert paths(Finder().listed(io.BytesIO(b"a\nb.jpg\0bad\xfc.jpg\0"), null=True)) == ["a\nb.jpg", "bad\udcfc.jpg"]


def test_a_list_without_ends() -> None:
    long = b"a" * (1 << 20)
    assert paths(Finder().listed(io.BytesIO(long + b"\nb.jpg"))) == [long.decode(), "b.jpg"]
    for null, hint in ((False, "add -0"), (True, "leave -0 out")):
        photos = Finder().listed(io.BytesIO(b"first.jpg" + (b"\0" if null else b"\n") + b"x" * (5 << 20)), null=null)
        assert next(photos).path == "first.jpg"
        with pytest.raises(UsageError, match="a path of more than 1 MiB") as error:
            next(photos)
        assert hint in str(error.value.hint)


@given(st.lists(st.binary(max_size=5).filter(lambda line: b"\n" not in line and b"\r" not in line)), st.integers(1, 7))
def test_a_list_that_comes_in_pieces(lines: list[bytes], size: int) -> None:
    class Slow(io.BytesIO):
        def read1(self, most: int | None = -1) -> bytes:
            return self.read(size)

    for tail in (b"", b"\n"):
        text = b"\n".join(lines) + tail
        assert list(split(Slow(text), b"\n")) == text.removesuffix(b"\n").split(b"\n") * bool(text)


def test_long_lists_are_read_as_they_come() -> None:
    """The first path is there before the list has ended, and nothing is cut at a block's end."""
    read, write = os.pipe()
    os.write(write, b"first.jpg\nsec")
    with os.fdopen(read, "rb") as stream:
        photos = Finder().listed(stream)
        assert next(photos).path == "first.jpg"
        os.write(write, b"ond.jpg\n" + b"".join(b"%06d.jpg\n" % i for i in range(3000)))
        os.close(write)
        rest = paths(photos)
    assert rest[0] == "second.jpg"
    assert rest[1:] == [f"{i:06d}.jpg" for i in range(3000)]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"depth": 1}, ["a.PNG"]),
        ({"hidden": True}, [".hidden/x.jpg", "a.PNG", "b/1.jpg", "b/2.jpg", "b/jpeg-without-suffix"]),
        ({"include": ("*.jpg",)}, ["b/1.jpg", "b/2.jpg"]),
        ({"include": ("b/*",), "exclude": ("2*",)}, ["b/1.jpg", "b/jpeg-without-suffix"]),
        ({"exclude": ("b",)}, ["a.PNG"]),
        ({"exclude": ("/b/1.jpg", "q")}, ["a.PNG", "b/2.jpg", "b/jpeg-without-suffix"]),
    ],
)
def test_a_walk_takes_what_is_wanted(tree: Path, options: dict, found: list[str]) -> None:
    walked = Finder(recursive=True, **options).named([str(tree)])
    assert [os.path.relpath(p, tree) for p in paths(walked)] == found


def test_linked_folders_are_followed_when_asked_and_never_in_a_circle(tree: Path) -> None:
    (tree / "b" / "back").symlink_to(tree)
    (tree / "c").symlink_to(tree / "b")
    finder = Finder(recursive=True, links=True)
    found = [os.path.relpath(p, tree) for p in paths(finder.named([str(tree)]))]
    assert found == [
        *("a.PNG", "b/1.jpg", "b/2.jpg", "b/jpeg-without-suffix", "c/1.jpg", "c/2.jpg", "c/jpeg-without-suffix")
    ]
    assert finder.passed_over["link in a circle"] == 2
    plain = Finder(recursive=True)
    assert [os.path.relpath(p, tree) for p in paths(plain.named([str(tree)]))] == found[:4]
    assert plain.passed_over["linked folder"] == 2
