"""Where rows go: standard output, or a file that is never left half written under its name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from convnext_cli.base.errors import OutputError, UsageError
from convnext_cli.base.files import remove_stale_parts, unwritten
from convnext_cli.cli import render
from convnext_cli.storage.addresses import check_output


def check(target: str | None, *, overwrite: bool, inputs: Iterable[str | None]) -> None:
    """Refuse what cannot be written, before a model is loaded.

    inputs: files that are read; none of them may be the output. Raises UsageError and OutputError.
    """
    if target is None:
        return
    check_output(target)
    if _is_special(Path(target)):
        return
    for name in inputs:
        if name and Path(name).exists() and Path(target).exists() and Path(name).samefile(target):
            raise UsageError(f"{target} is one of the inputs", "choose another name for the output")
    if Path(target).exists() and not overwrite:
        raise UsageError(f"{target} already exists", "choose another name, or replace it with --overwrite")
    if not Path(target).absolute().parent.is_dir():
        raise OutputError(f"the folder of {target} does not exist", f"mkdir -p {Path(target).parent}")
    if not os.access(Path(target).absolute().parent, os.W_OK | os.X_OK):
        raise OutputError(f"the folder of {target} cannot be written to", "choose a folder that you may write to")


@contextmanager
def opened(target: str | None) -> Iterator[IO[bytes]]:
    """Where rows go. A file takes its name when all is written; before that, or if it never is, it is FILE.PID.part.

    Raises OutputError.
    """
    if target is None:
        yield render.screen(sys.stdout.buffer) if sys.stdout.isatty() else sys.stdout.buffer
        return
    path = Path(os.path.realpath(target))  # through a link, as the shell's > goes
    if _is_special(Path(target)):
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


def _is_special(path: Path) -> bool:
    """A pipe or a device, also where /dev/stdout leads to a file."""
    return path.is_relative_to("/dev") or (path.exists() and not path.is_file())
