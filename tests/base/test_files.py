"""Files and folders that take the place of others: a kill leaves the one or the other."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from convnext_cli.base import files


def folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are exchanged in one step by Linux alone")
def test_a_kill_while_a_folder_is_replaced_leaves_one_of_the_two(tmp_path: Path) -> None:
    target, step, statuses = tmp_path / "folder", 0, []
    folder(target, "old")
    if not files.exchange(folder(tmp_path / "one", "1"), folder(tmp_path / "two", "2")):
        pytest.skip("this file system cannot exchange names")
    while True:
        child = os.fork()
        if not child:
            kill_at(step)
            with files.replacing_folder(target) as place:
                (place / "file").write_text("new")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        statuses.append(status)
        assert (target / "file").read_text() in ("old", "new"), step
        if not os.WIFSIGNALED(status):
            break
        (target / "file").write_text("old")
        step += 1
    assert (target / "file").read_text() == "new"
    assert step >= 1


def kill_at(step: int) -> None:
    """End this process without notice before or after its so manieth change of a name."""
    left = [step]

    def killing(real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            for moment in ("before", "after"):
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                if moment == "before":
                    answer = real(*arguments)
            return answer

        return call

    for name in ("rename", "replace"):
        setattr(Path, name, killing(getattr(Path, name)))
    files.exchange = killing(files.exchange)


def test_without_that_a_folder_is_replaced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "exchange", lambda *_: False)
    target = folder(tmp_path / "folder", "old")
    with files.replacing_folder(target) as place:
        (place / "file").write_text("new")
    assert (target / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
