"""Open a weights file: safetensors, or a pickle that holds plain data. Nothing else in the project opens one.

Files are memory-mapped where their format allows it, so tensors are views of the file and cost memory only when they
are used. A pickle can ask for any code when it is opened; torch's restricted unpickler refuses all but tensors and
plain values, and nothing is ever read without it. Two kinds of harmless objects that training scripts leave in their
checkpoints are let in: ``argparse.Namespace`` and numpy scalars.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from convnext_cli.base.errors import ModelError
from convnext_cli.base.files import read_json
from convnext_cli.base.safetensors_header import HEADER_LIMIT, read_header
from convnext_cli.checkpoints import pickle_check
from convnext_cli.checkpoints.foreign_files import (
    FETCH_AGAIN,
    PYTORCH_ONLY,
    check_zip,
    is_safetensors,
    named_globals,
    pickle_of,
    refuse_foreign,
)

if TYPE_CHECKING:
    from torch import Tensor

_RE_SAVE = (
    "if you trust it, save its tensors alone where it was made: "
    'torch.save({"model": model.state_dict()}, "weights.pth")'
)
_MOST_TENSORS = 20_000
_PICKLES = 5  # of a file that is no zip: a magic number, a version, the system, the tensors, the keys of their storages
_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32,
    "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip

# numpy's scalars that are plain values
_PLAIN = (
    *("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    *("bool", "complex64", "complex128", "str"),
)


@dataclass
class Contents:
    """What a weights file holds, before anyone has asked what it means.

    state: a checkpoint's top-level dict; values are tensors, or dicts of them, or what training left beside them.
    metadata: safetensors' string pairs.
    notes: what to tell the user.
    """

    state: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(path: Path) -> Contents:
    """Open one weights file, or the index of a sharded one.

    Raises ModelError, in plain words, for anything that is not PyTorch weights, is damaged, or asks for code.
    """
    try:
        size = path.stat().st_size
        if path.name.endswith(".index.json"):
            return _read_shards(path)
        if part := re.fullmatch(r"(.+)-\d{5}-of-(\d{5})(\.\w+)", path.name):
            return _read_part(path, part)
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    if size == 0:
        raise ModelError(f"{path.name} is empty", FETCH_AGAIN)
    refuse_foreign(path, head)
    if is_safetensors(path, head):
        return _read_safetensors(path, size, head)
    return _read_pickle(path, head)


# safetensors ----------------------------------------------------------------------------------------------------------


def _read_safetensors(path: Path, size: int, head: bytes) -> Contents:
    from safetensors import SafetensorError, safe_open

    metadata, names = _check_header(path, size, head)
    try:
        if not _is_utf_8(path):  # its library takes no such path
            from safetensors.torch import load

            return Contents({name: _aligned(tensor) for name, tensor in load(path.read_bytes()).items()}, metadata)
        with safe_open(path, framework="pt") as file:
            # Other writers do not always align tensors; arithmetic needs it, so those are copied.
            state = {name: _aligned(file.get_tensor(name)) for name in names}
    except (SafetensorError, RuntimeError, AttributeError) as error:
        raise ModelError(f"{path.name} is a damaged safetensors file: {error}", "fetch it again") from error
    return Contents(state, metadata)


def _check_header(path: Path, size: int, head: bytes) -> tuple[dict[str, str], list[str]]:
    """The metadata and tensor names of a safetensors file whose header is sound: the tensors tile the file."""

    def damaged(why: str, hint: str = "fetch the file again, or export it again where it was made") -> ModelError:
        return ModelError(f"{path.name} is not a sound safetensors file: {why}", hint)

    if head[8:9] != b"{" and head.startswith((b"PK\x03\x04", b"\x80")):
        raise damaged("it is a pickle under a wrong name", "rename it to .pth if you know where it comes from")
    length = int.from_bytes(head[:8], "little")
    if size < 8 or length > HEADER_LIMIT:
        raise damaged(f"its first bytes are not the length of a header, which is at most {HEADER_LIMIT // 10**6} MB")
    if 8 + length > size:
        raise damaged(f"its header should be {length} bytes, but the whole file has {size}", FETCH_AGAIN)
    try:
        header = read_header(path)
        metadata = header.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict):
            raise TypeError("its metadata is no JSON object")
        if len(header) > _MOST_TENSORS:
            raise damaged(f"it has {len(header):,} tensors; {_MOST_TENSORS:,} are the most that are read")
        spans = sorted((*info["data_offsets"], name, info["dtype"], info["shape"]) for name, info in header.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(f"its header is not readable ({error})") from error
    at = 0
    for begin, end, name, dtype, shape in spans:
        if not (isinstance(begin, int) and isinstance(end, int)):
            raise damaged(f"the place of {name!r} is not a pair of numbers")
        if begin != at or end < begin:
            raise damaged(f"tensor {name!r} overlaps its neighbour, or there is a hole before it")
        if not (isinstance(shape, list) and all(type(edge) is int for edge in shape)):
            raise damaged(f"the shape of {name!r} is no list of whole numbers")
        try:
            pickle_check.check_shape(shape)
        except pickle_check.CostlyError as error:
            raise damaged(f"{name!r}: {error}") from error
        if dtype in _DTYPE_BITS and end - begin != math.prod(shape) * _DTYPE_BITS[dtype] // 8:
            raise damaged(f"tensor {name!r} of shape {shape} and type {dtype} does not fill its {end - begin} bytes")
        at = end
    if 8 + length + at != size:
        missing = 8 + length + at - size
        if missing > 0:
            raise damaged(f"{missing:,} of its {8 + length + at:,} bytes are missing", FETCH_AGAIN)
        raise damaged(f"{-missing:,} bytes follow the last tensor")
    return {str(k): str(v) for k, v in metadata.items()}, [name for _, _, name, _, _ in spans]


def _aligned(tensor: Tensor) -> Tensor:
    return tensor if tensor.data_ptr() % tensor.element_size() == 0 else tensor.clone()


# Shards ---------------------------------------------------------------------------------------------------------------


def _read_shards(index: Path) -> Contents:
    """The union of the files that an index names, all of which lie beside it."""
    try:
        where = read_json(index)["weight_map"]
        files = sorted(set(where.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{index.name} is not an index of shards: {error}", "fetch it again") from error
    if bad := [name for name in files if Path(name).name != name]:
        raise ModelError(f"{index.name} names files outside its folder: {bad[0]}", "fetch the model again")
    if absent := [name for name in files if not (index.parent / name).is_file()]:
        raise ModelError(
            f"{len(absent)} of the {len(files)} parts of {index.name} are missing: {', '.join(absent[:5])}",
            "fetch the missing parts into the same folder",
        )
    whole = Contents({})
    for name in files:
        part = _read_file(index.parent / name)
        whole.state |= part.state
        whole.metadata |= part.metadata
    if lost := sorted(set(where) - set(whole.state)):
        raise ModelError(f"the parts of {index.name} lack {len(lost)} tensors, {lost[0]} first", "fetch them again")
    return whole


def _read_file(path: Path) -> Contents:
    """One file as it stands, even when its name says that it is a part."""
    with path.open("rb") as file:
        head = file.read(512)
    size = path.stat().st_size
    refuse_foreign(path, head)
    return _read_safetensors(path, size, head) if is_safetensors(path, head) else _read_pickle(path, head)


def _read_part(path: Path, part: re.Match[str]) -> Contents:
    if int(part[2]) == 1:
        return _read_file(path)
    index = path.with_name(f"{part[1]}{part[3]}.index.json")
    if not index.is_file():
        raise ModelError(
            f"{path.name} is one of {int(part[2])} parts, and {index.name}, which lists them, is not beside it",
            "fetch the whole folder and name the folder",
        )
    whole = _read_shards(index)
    whole.notes.append(f"{path.name} is one part of a model: read all parts that {index.name} names")
    return whole


# Pickles --------------------------------------------------------------------------------------------------------------


def _read_pickle(path: Path, head: bytes) -> Contents:
    import pickle

    import torch

    zipped = head.startswith(b"PK\x03\x04")
    if not zipped and head[:1] != b"\x80":
        raise ModelError(f"{path.name} is not a file of weights", PYTORCH_ONLY)
    mapped = check_zip(path) if zipped else False
    _check_cost(path, zipped)
    try:
        with torch.serialization.safe_globals(_allowed()), _quiet(), _opened(path) as source:
            state = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped and source is path)
    except pickle.UnpicklingError as error:
        raise _refusal(path, error, zipped) from error
    except MemoryError:
        raise
    except Exception as error:  # torch, zipfile and pickle raise all kinds for damaged files, AssertionError too
        raise ModelError(f"{path.name} is damaged or cut off: {_first_line(error)}", FETCH_AGAIN) from error
    if not isinstance(state, dict):
        raise ModelError(f"{path.name} holds a {type(state).__name__}, not a dict of tensors", _RE_SAVE)
    return Contents({str(name): value for name, value in state.items()})


def _check_cost(path: Path, zipped: bool) -> None:
    """Raise ModelError for a pickle that would take all memory, or no end, to open."""
    try:
        if zipped:
            with _quiet(), zipfile.ZipFile(path) as archive, archive.open(pickle_of(archive)) as stream:
                pickle_check.check(stream)
            return
        with _quiet(), path.open("rb") as stream:
            for _ in range(_PICKLES):
                pickle_check.check(stream)
    except pickle_check.CostlyError as error:
        raise ModelError(f"{path.name} is refused: {error}", _RE_SAVE) from error
    except MemoryError:
        raise
    except Exception:  # a damaged pickle, of which torch says more
        return


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Path | IO[bytes]]:
    """What torch.load takes: the path, or the open file where torch cannot take the path."""
    if _is_utf_8(path):
        yield path
        return
    with path.open("rb") as file:
        yield file


def _is_utf_8(path: Path) -> bool:
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _allowed() -> list[Any]:
    """The objects that training scripts leave beside the weights: arguments, and numpy scalars such as the best score.

    A numpy scalar needs its maker, its dtype and the dtype's class; files pickled under numpy 1 name the maker
    by its old module.
    """
    import argparse

    import numpy as np
    from numpy._core.multiarray import scalar

    return [argparse.Namespace, scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype] + [
        type(np.dtype(kind)) for kind in _PLAIN
    ]


def _refusal(path: Path, error: Exception, zipped: bool) -> ModelError:
    """What to say when torch's restricted unpickler would not go on: the names of the code that was asked for."""
    import torch

    wanted: list[str] = []
    if zipped:
        with contextlib.suppress(Exception), torch.serialization.safe_globals(_allowed()):
            wanted = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    elif found := re.search(r"GLOBAL ([\w.]+)", str(error)):  # torch leaves the module of builtins out
        wanted = [found[1] if "." in found[1] else f"builtins.{found[1]}"]
    wanted = wanted or named_globals(path)
    if not wanted and (found := re.search(r"but got <class '([\w.]+)'>", str(error))):
        # not named in the pickle: what something of the list made, such as the class of a numpy dtype
        return ModelError(f"{path.name} is refused: it holds a {found[1]}, which is no plain value", _RE_SAVE)
    if not wanted:
        return ModelError(f"{path.name} is damaged, cut off or no PyTorch checkpoint", FETCH_AGAIN)
    return ModelError(f"{path.name} is refused: opening it may run code: it asks for {', '.join(wanted)}", _RE_SAVE)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
