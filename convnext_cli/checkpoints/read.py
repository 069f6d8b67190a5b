"""Open a weights file: safetensors, or a pickle of plain data.

Files are memory-mapped where their format allows it, so tensors are views of the file and cost memory only when they
are used. A pickle can ask for any code when it is opened; torch's restricted unpickler refuses all but tensors and
plain values, and nothing is ever read without it. Two kinds of harmless objects that training scripts leave in their
checkpoints are allowed: ``argparse.Namespace`` and numpy scalars.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

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
    'if you trust it, save only its tensors where it was made: torch.save({"model": model.state_dict()}, "weights.pth")'
)
_MOST_TENSORS = 20_000
_PICKLES = (
    5  # of a file that is not a zip: a magic number, a version, the system, the tensors, the keys of their storages
)
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
    """The contents of a weights file, not yet interpreted.

    Args:
        state: the top-level dict: tensors, dicts of tensors, or other values of the training script.
        metadata: the string pairs of safetensors.
        notes: for the user.
    """

    state: Mapping[str, object]
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(path: Path) -> Contents:
    """Open one weights file, or the index of a sharded one.

    Raises:
        ModelError: the file is not PyTorch weights, is damaged, or asks to run code.
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
        if not _is_utf_8(path):  # the library cannot open such a path
            from safetensors.torch import load

            return Contents({name: _aligned(tensor) for name, tensor in load(path.read_bytes()).items()}, metadata)
        with safe_open(path, framework="pt") as file:
            # Other writers do not always align tensors; arithmetic needs it, so those are copied.
            state = {name: _aligned(file.get_tensor(name)) for name in names}
    except (SafetensorError, RuntimeError, AttributeError) as error:
        raise ModelError(f"{path.name} is a damaged safetensors file: {error}", "download the file again") from error
    return Contents(state, metadata)


def _check_header(path: Path, size: int, head: bytes) -> tuple[dict[str, str], list[str]]:
    """The metadata and tensor names of a safetensors file, after a check that the tensors fill the file exactly."""

    def damaged(why: str, hint: str = "download the file again, or save it again where it was made") -> ModelError:
        return ModelError(f"{path.name} is not a valid safetensors file: {why}", hint)

    if head[8:9] != b"{" and head.startswith((b"PK\x03\x04", b"\x80")):
        raise damaged("it is a pickle with the wrong suffix", "rename it to .pth if you trust its source")
    length = int.from_bytes(head[:8], "little")
    if size < 8 or length > HEADER_LIMIT:
        raise damaged(f"its first bytes are not the length of a header of at most {HEADER_LIMIT // 10**6} MB")
    if 8 + length > size:
        raise damaged(f"its header should have {length} bytes, but the file has only {size}", FETCH_AGAIN)
    try:
        header = read_header(path)
        metadata = header.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict):
            raise TypeError("its metadata is not a JSON object")
        if len(header) > _MOST_TENSORS:
            raise damaged(f"it has {len(header):,} tensors; at most {_MOST_TENSORS:,} are supported")
        spans = sorted((*info["data_offsets"], name, info["dtype"], info["shape"]) for name, info in header.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(f"its header is not readable ({error})") from error
    at = 0
    for begin, end, name, dtype, shape in spans:
        if not (isinstance(begin, int) and isinstance(end, int)):
            raise damaged(f"the offsets of {name!r} are not a pair of numbers")
        if begin != at or end < begin:
            raise damaged(f"tensor {name!r} overlaps the one before it, or there is a gap between them")
        if not (isinstance(shape, list) and all(type(edge) is int for edge in shape)):
            raise damaged(f"the shape of {name!r} is not a list of whole numbers")
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
    """Read all files that an index names, which are in its folder."""
    try:
        where = read_json(index)["weight_map"]
        files = sorted(set(where.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{index.name} is not an index of shards: {error}", "download it again") from error
    if bad := [name for name in files if Path(name).name != name]:
        raise ModelError(f"{index.name} names files outside its folder: {bad[0]}", "download the model again")
    if absent := [name for name in files if not (index.parent / name).is_file()]:
        raise ModelError(
            f"{len(absent)} of the {len(files)} parts of {index.name} are missing: {', '.join(absent[:5])}",
            "download the missing parts into the same folder",
        )
    state, metadata = dict[str, object](), dict[str, str]()
    for name in files:
        part = _read_file(index.parent / name)
        state |= part.state
        metadata |= part.metadata
    if lost := sorted(set(where) - set(state)):
        raise ModelError(
            f"the parts of {index.name} lack {len(lost)} tensors, such as {lost[0]}", "download them again"
        )
    return Contents(state, metadata)


def _read_file(path: Path) -> Contents:
    """Read one file by itself, even if its name says that it is a part."""
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
            f"{path.name} is one of {int(part[2])} parts, and {index.name}, which lists them, is missing in its folder",
            "download all files of the model, and name the folder",
        )
    joined = _read_shards(index)
    joined.notes.append(f"{path.name} is one part of a model: all parts that {index.name} names were read")
    return joined


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
    except Exception as error:  # torch, zipfile and pickle raise many types for damaged files, even AssertionError
        raise ModelError(f"{path.name} is damaged or truncated: {_first_line(error)}", FETCH_AGAIN) from error
    if not isinstance(state, dict):
        raise ModelError(f"{path.name} contains a {type(state).__name__}, not a dict of tensors", _RE_SAVE)
    return Contents({str(name): value for name, value in state.items()})


def _check_cost(path: Path, zipped: bool) -> None:
    """Raise ModelError for a pickle that would take too much memory or time to open."""
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
    except Exception:  # a damaged pickle, which torch reports in more detail
        return


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Path | IO[bytes]]:
    """The argument for torch.load: the path, or the open file where torch cannot open the path."""
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


def _allowed() -> list[Callable[..., object] | tuple[Callable[..., object], str]]:
    """The objects that training scripts leave beside the weights: arguments, and numpy scalars such as the best score.

    A numpy scalar needs its maker, its dtype and the dtype's class; files pickled under numpy 1 name the maker
    by its old module.
    """
    import argparse

    import numpy as np
    from numpy._core.multiarray import scalar

    kinds = (type(np.dtype(kind)) for kind in _PLAIN)
    return [argparse.Namespace, scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def _refusal(path: Path, error: Exception, zipped: bool) -> ModelError:
    """The error for a pickle that torch's restricted unpickler refuses, with the names of the code that it asks for."""
    import torch

    globals_: list[str] = []
    if zipped:
        with contextlib.suppress(Exception), torch.serialization.safe_globals(_allowed()):
            globals_ = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    elif match := re.search(r"GLOBAL ([\w.]+)", str(error)):  # torch leaves the module of builtins out
        globals_ = [match[1] if "." in match[1] else f"builtins.{match[1]}"]
    globals_ = globals_ or named_globals(path)
    if not globals_ and (match := re.search(r"but got <class '([\w.]+)'>", str(error))):
        # not named in the pickle, but made by an allowed object, such as the class of a numpy dtype
        return ModelError(f"{path.name} is refused: it contains a {match[1]}, which is not plain data", _RE_SAVE)
    if not globals_:
        return ModelError(f"{path.name} is damaged, truncated or not a PyTorch checkpoint", FETCH_AGAIN)
    return ModelError(
        f"{path.name} is refused, because opening it may run code: it asks for {', '.join(globals_)}", _RE_SAVE
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
