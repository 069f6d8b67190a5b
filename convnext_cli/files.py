"""Files that are never seen half written."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from convnext_cli.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when all is written and on the disk; until then what was there stays.

    Raises OutputError when it cannot be written.
    """
    path = Path(os.path.realpath(path))  # through a link, as the shell's > goes
    # short, since the name itself may be as long as names can be
    part = path.with_name(f".convnext-{os.getpid()}-{zlib.crc32(os.fsencode(path.name)):08x}.part")
    try:
        with part.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if path.exists():
            part.chmod(path.stat().st_mode & 0o7777)
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        denied = isinstance(error, PermissionError)
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}",
            "choose a folder that you may write to" if denied else "free some space, or write elsewhere",
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut, where the system can do that."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
