"""Where rows go: standard output, or a file that is never left half written under its name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from convnext_cli.base.files import remove_stale_parts, unwritten
from convnext_cli.cli import render
from convnext_cli.storage import output_file


@contextmanager
def opened(target: str | None) -> Iterator[IO[bytes]]:
    """Where rows go. A file takes its name when all is written; before that, or if it never is, it is FILE.PID.part.

    Raises OutputError.
    """
    if target is None:
        yield render.screen(sys.stdout.buffer) if sys.stdout.isatty() else sys.stdout.buffer
        return
    path = Path(os.path.realpath(target))  # through a link, as the shell's > goes
    if output_file.is_special(Path(target)):
        with Path(target).open("wb") as stream:
            yield stream
        return
    remove_stale_parts(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise unwritten(target, error, _kept(part)) from error
    except BaseException:
        if remark := _kept(part):
            render.note(f"not finished{remark}; the same command starts over")
        raise


def _kept(part: Path) -> str:
    if part.exists() and part.stat().st_size:
        return f"; the rows that were done are in {part}"
    part.unlink(missing_ok=True)
    return ""
