"""Small shards and zips that claim much, or expand to much: refused at once, in a few words."""

from __future__ import annotations

import io
import random
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convnext_cli.base.errors import ModelError, PhotoError
from convnext_cli.base.threads import Budget
from convnext_cli.datasets import decoding, open_data
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.decode import decode
from convnext_cli.photos.find import Finder
from convnext_cli.photos.photo import Photo
from convnext_cli.predict import byte_budget, preprocess
from convnext_cli.predict.byte_budget import ByteBudget
from convnext_cli.predict.preprocess import Preprocessor
from tests.helpers.photos import encoded, picture

PHOTO = encoded(picture(20, 16))


def opened(path: Path) -> list[Photo]:
    return list(Finder(shards="opened").named([str(path)]))


def header(name: bytes, size: bytes, kind: bytes = b"0", rest: bytes = b"") -> bytes:
    """A tar header of GNU's form. size: its field of 12 bytes. rest: what follows at byte 386."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:124] = b"0000644\0" + b"0000000\0" * 2
    block[124:148] = size + b"%011o\0" % 0
    block[156:157], block[257:265] = kind, b"ustar  \0"
    block[386 : 386 + len(rest)] = rest
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def octal(size: int) -> bytes:
    return b"%011o\0" % size


def sparse() -> bytes:
    """A file of 500 MiB of holes in 512 bytes."""
    size = octal(500 << 20)
    return header(b"a.jpg", octal(0), b"S", size + octal(0) + bytes(72) + b"\0" + size) + bytes(1024)


def pax(**records: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("a.png")
        entry.size, entry.pax_headers = len(PHOTO), records
        tar.addfile(entry, io.BytesIO(PHOTO))
    return stream.getvalue()


TARS = {
    "longer than the shard": header(b"a.png", octal(10 << 20)) + PHOTO + bytes(1024),
    "a hundred terabytes": pax(size="99999999999999"),
    "more than a file can have": pax(size="9" * 40),
    "below nothing": pax(size="-1024"),
    "below nothing, in base 256": header(b"a.png", b"\xff" * 11 + b"\x00") + PHOTO + bytes(1024),
    "a long name of terabytes": header(b"a.png", b"\x80" + bytes(5) + b"\x10" + bytes(5), b"L") + bytes(1024),
    "attributes of terabytes": header(b"a.png", b"\x80" + bytes(5) + b"\x10" + bytes(5), b"x") + bytes(1024),
    "a bad map of holes": pax(**{"GNU.sparse.map": "0,1,5,-9,x", "GNU.sparse.size": "5"}),
}


@pytest.mark.parametrize("name", TARS)
def test_a_tar_with_an_impossible_size_is_damaged(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(TARS[name])
    (photo,) = opened(path)
    assert photo.path == str(path) and photo.problem is not None
    assert photo.problem.kind == "corrupt" and photo.problem.message.startswith(
        "the shard is truncated or damaged at its"
    )
    with pytest.raises(ModelError, match="cannot be read as a tar"):
        open_data(str(path))


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(sparse())
    (photo,) = opened(path)
    assert photo.problem is not None and photo.problem.kind == "unsupported" and "sparse" in photo.problem.message
    with pytest.raises(ModelError, match="sparse"):
        open_data(str(path))


def test_what_is_no_photo_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("weights.bin", b"\1" * 5_000_000), ("a.png", PHOTO), ("noname", PHOTO), ("empty.txt", b"")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    sizes: list[int] = []
    read = tarfile.ExFileObject.read
    monkeypatch.setattr(tarfile.ExFileObject, "read", lambda self, n=-1: sizes.append(n) or read(self, n))
    finder = Finder(shards="opened")
    assert [(Path(p.path).name, p.data) for p in finder.named([str(tmp_path / "a.tar")])] == [
        ("a.png", PHOTO),
        ("noname", PHOTO),
    ]
    assert finder.passed_over == {".bin": 1, ".txt": 1} and sizes == [len(PHOTO)] * 2


def test_labels_that_are_nested_deeply(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("a.png", PHOTO), ("a.json", b"[" * 60_000), ("b.png", PHOTO), ("b.cls", b"x")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    assert [photo.label for photo in open_data(str(tmp_path / "a.tar")).photos] == [None, "x"]


class TestZip:
    def test_what_expands_and_is_no_photo_is_not_expanded(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("x/a.jpg", bytes(40 << 20))
            file.writestr("x/b.png", PHOTO)
        dataset = open_data(str(tmp_path / "a.zip"))
        tracemalloc.start()
        data = [dataset.read(photo) for photo in dataset.photos]
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert data == [bytes(4096), PHOTO] and most < 4 << 20

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_methods_that_expand_all_at_once_are_refused(self, tmp_path: Path, method: int) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as file:
            file.writestr("x/a.jpg", bytes(40 << 20))
            file.writestr("x/noname", bytes(40 << 20))
        tracemalloc.start()
        dataset = open_data(str(tmp_path / "a.zip"))
        with pytest.raises(PhotoError, match="other than deflate") as error:
            dataset.read(dataset.photos[0])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert error.value.kind == "unsupported" and most < 4 << 20
        assert [photo.problem and photo.problem.kind for photo in opened(tmp_path / "a.zip")] == ["unsupported"]

    def test_what_expands_a_hundredfold_is_refused(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("x/a.png", PHOTO + bytes(33 << 20))
            file.writestr("x/b.png", PHOTO + bytes(1 << 20))
        dataset = open_data(str(tmp_path / "a.zip"))
        with pytest.raises(PhotoError, match=r"expands from [0-9,]+ bytes to 33 MiB, as photos never do") as error:
            dataset.read(dataset.photos[0])
        assert error.value.kind == "too_large"
        assert dataset.read(dataset.photos[1]).startswith(PHOTO)
        first, second = opened(tmp_path / "a.zip")
        assert first.problem is not None and str(first.problem) == str(error.value)
        assert second.data == dataset.read(dataset.photos[1])

    def test_what_expands_and_begins_as_a_photo_is_held_once(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("x/a.png", PHOTO + bytes(20 << 20))
        dataset = open_data(str(tmp_path / "a.zip"))
        tracemalloc.start()
        assert len(dataset.read(dataset.photos[0])) == len(PHOTO) + (20 << 20)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 30 << 20

    def test_a_name_of_many_parts(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr("x/" + "d/" * 20_000 + "a.png", PHOTO)
            file.writestr("y/b.png", PHOTO)
            file.writestr("z/" + "d/" * 20_000, b"")
        dataset = open_data(str(tmp_path / "a.zip"))
        assert [photo.label for photo in dataset.photos] == ["x", "y"] and dataset.classes == ("x", "y", "z")

    def test_a_size_that_is_too_small(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("x/a.png", PHOTO + bytes(1 << 20))
        data = (tmp_path / "a.zip").read_bytes()
        size = (len(PHOTO) + (1 << 20)).to_bytes(4, "little")
        (tmp_path / "a.zip").write_bytes(data.replace(size, (100).to_bytes(4, "little")))
        dataset = open_data(str(tmp_path / "a.zip"))
        with pytest.raises(PhotoError, match="damaged at this file"):
            dataset.read(dataset.photos[0])


class TestParquet:
    """Values that many rows share stand in a dictionary, once."""

    def shared(self, path: Path, value: bytes, rows: int, *, nested: bool = False, **more: list[str]) -> Path:
        image: Any = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value], pa.binary()))
        if nested:
            image = pa.StructArray.from_arrays([image, pa.array(["a"] * rows)], ["bytes", "path"])
        table = pa.table({"image": image, "label": pa.array(["x"] * rows)} | more)
        options = {"compression": "zstd", "dictionary_pagesize_limit": 2 << 30, "store_schema": False}
        pq.write_table(table, path, write_statistics=False, **options)
        return path

    @pytest.mark.parametrize("nested", [False, True])
    def test_what_expands_as_photos_never_do_is_refused(self, tmp_path: Path, nested: bool) -> None:
        path = self.shared(tmp_path / "a.parquet", b"\xff\xd8\xff" + bytes(40 << 20), 64, nested=nested)
        (photo,) = opened(path)
        assert photo.problem is not None and photo.problem.kind == "too_large"
        assert "column image expands from" in photo.problem.message
        with pytest.raises(ModelError, match=r"column image(\.bytes)? expands from"):
            open_data(str(path))

    @pytest.mark.parametrize("nested", [False, True])
    def test_a_shared_value_is_held_once(self, tmp_path: Path, nested: bool) -> None:
        value = random.Random(0).randbytes(1 << 20)
        path = self.shared(tmp_path / "a.parquet", value, 300, nested=nested)
        before = pa.total_allocated_bytes()
        finder = Finder(shards="opened")
        for photo in finder.members(Photo(str(path))):
            assert photo.data is None  # it is not an image, so it is passed over
            assert pa.total_allocated_bytes() - before < 20 << 20
        assert finder.passed_over == {"no suffix": 300}
        dataset = open_data(str(path))
        assert dataset.read(dataset.photos[0]) == dataset.read(dataset.photos[299]) == value
        assert pa.total_allocated_bytes() - before < 20 << 20
        assert {photo.label for photo in dataset.photos} == {"x"}

    def test_a_label_that_many_rows_share(self, tmp_path: Path) -> None:
        label = random.Random(0).randbytes(300_000).hex()
        path = self.shared(tmp_path / "a.parquet", PHOTO, 1000, label=[label] * 1000)
        before = pa.total_allocated_bytes()
        dataset = open_data(str(path))
        assert pa.total_allocated_bytes() - before < 20 << 20
        assert len({id(photo.label) for photo in dataset.photos}) == 1 and dataset.classes == (label,)

    def test_a_table_of_paths_with_a_label_that_expands(self, tmp_path: Path) -> None:
        table = pa.table({"path": [f"{i}.png" for i in range(50)], "label": ["x" * (40 << 20)] + ["y"] * 49})
        pq.write_table(table, tmp_path / "a.parquet", compression="zstd", dictionary_pagesize_limit=2 << 30)
        with pytest.raises(ModelError, match="column label expands from"):
            open_data(str(tmp_path / "a.parquet"))


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 20))
@settings(max_examples=30)
def test_bytes_in_flight_stay_below_their_budget(sizes: list[int], most: int) -> None:
    budget, waiting = ByteBudget(most), SimpleQueue[bytearray | None]()
    held, largest, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal held
        while (item := waiting.get()) is not None:
            with lock:
                held -= len(item)
            budget.give(item)
            budget.give(item)  # what is given back already stays so

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for size in sizes:
        item = bytearray(size)
        budget.take(item, size)
        with lock:
            held += size
            largest = max(largest, held)
        waiting.put(item)
    for _ in threads:
        waiting.put(None)
    for thread in threads:
        thread.join()
    assert held == 0 and largest <= max([most, *sizes])
    budget.take(object(), 10 * most)
    budget.close()
    budget.take(object(), 10 * most)  # nobody waits for a budget that is closed


def test_photos_of_a_shard_wait_by_bytes_and_not_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "IN_FLIGHT", 3 * len(PHOTO))
    alive, most, lock = 0, 0, threading.Lock()

    class Data(bytes):
        def __del__(self) -> None:
            nonlocal alive
            with lock:
                alive -= 1

    def photos() -> Iterator[Photo]:
        nonlocal alive, most
        for number in range(30):
            with lock:
                alive += 1
                most = max(most, alive)
            yield Photo(f"{number}", Data(PHOTO))

    prepared = Preprocessor(preprocessing=Preprocessing(size=16), workers=2).prepared(photos(), Budget(2), ahead=20)
    rows = list(prepared)
    assert [ready.photo.path for ready in rows] == [f"{number}" for number in range(30)]
    assert all(ready.tensor is not None and ready.photo.data is None for ready in rows)
    # the budget's, one that waits for room, and one that each thread is about to let go; alive are none now
    assert most <= 3 + 1 + 2 and alive <= 1


@pytest.mark.parametrize("kind", ["files", "members"])
def test_photos_at_full_size_are_held_by_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """For models that resize photos by themselves. The size of each is that of its own."""
    sizes = [(40 + 10 * (number % 3), 30) for number in range(30)]
    photos = [Photo(f"{number}", encoded(picture(*size), "PNG")) for number, size in enumerate(sizes)]
    if kind == "files":
        for photo in photos:
            assert photo.data is not None
            (tmp_path / photo.path).write_bytes(photo.data)
        photos = [Photo(str(tmp_path / photo.path)) for photo in photos]
    monkeypatch.setattr(preprocess, "DECODED", 3 * 3 * 60 * 30)
    done = threading.Semaphore(0)

    def counted(data: bytes, **options: Any) -> Any:
        try:
            return decode(data, **options)
        finally:
            done.release()

    monkeypatch.setattr(preprocess, "decode", counted)
    preprocessor = Preprocessor(preprocessing=Preprocessing(size=16), as_photos=True, workers=2)
    prepared = preprocessor.prepared(iter(photos), Budget(2), ahead=20)
    rows, waiting = [next(prepared)], -1
    while done.acquire(timeout=1):  # all that it does when nobody takes what is ready
        waiting += 1
    assert waiting <= 4, waiting  # 3 × 3 × 60 × 30 bytes hold three or four of them
    rows += prepared
    assert [row.tensor.shape[:2] for row in rows if row.tensor is not None] == [(h, w) for w, h in sizes]


def test_a_photo_larger_than_all_that_may_be_held_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "DECODED", 100)
    photos = (Photo(f"{number}", PHOTO if number != 2 else b"no photo") for number in range(9))
    preprocessor = Preprocessor(preprocessing=Preprocessing(size=16), as_photos=True, workers=3)
    rows = list(preprocessor.prepared(photos, Budget(1), ahead=5))
    assert [row.photo.path for row in rows] == [f"{number}" for number in range(9)]
    assert [row.error is None for row in rows] == [number != 2 for number in range(9)]


def test_large_files_are_held_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_budget, "LARGE", 100)
    budget = ByteBudget(3 * len(PHOTO))
    monkeypatch.setattr(byte_budget, "_large_files", lambda: budget)
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(PHOTO)
    (tmp_path / "huge.png").write_bytes(PHOTO + bytes(10 * len(PHOTO)))  # goes alone
    now, most, lock = 0, 0, threading.Lock()

    def slow(data: bytes, **options: Any) -> Any:
        nonlocal now, most
        with lock:
            now += len(data)
            most = max(most, now)
        image = decode(data, **options)
        with lock:
            now -= len(data)
        return image

    monkeypatch.setattr(preprocess, "decode", slow)
    photos = Finder(recursive=True).named([str(tmp_path)])
    rows = list(Preprocessor(preprocessing=Preprocessing(size=16), workers=6).prepared(photos, Budget(6), ahead=9))
    assert len(rows) == 13 and all(ready.tensor is not None for ready in rows)
    assert most <= 11 * len(PHOTO)
    monkeypatch.setattr(decoding, "decode", slow)
    for data in (zip_of(tmp_path), tar_of(tmp_path)):
        dataset = open_data(str(data))
        answers = list(decoding.decoded(dataset, dataset.photos, lambda photo: photo.size, threads=6))
        assert [answer for _, answer in answers] == [(20, 16)] * 13
    assert most <= 11 * len(PHOTO)


def zip_of(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        for photo in sorted(folder.glob("*.png")):
            file.write(photo, f"x/{photo.name}")
    return folder / "a.zip"


def tar_of(folder: Path) -> Path:
    with tarfile.open(folder / "a.tar", "w") as file:
        for photo in sorted(folder.glob("*.png")):
            file.add(photo, photo.name)
    return folder / "a.tar"


def test_a_photo_of_a_tar_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(PHOTO)
    dataset = open_data(str(tar_of(tmp_path)))
    assert dataset.source is not None
    with pytest.raises(PhotoError, match="512 MiB is the limit"):
        dataset.source.read((0, 512, 600 << 20))
