"""Completion in real shells: paths as before, and names beside them."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LIMIT = 120  # seconds for a line, however busy the machine is
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'PS1="%s"; eval "$(convnext completion bash)"\r'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'PROMPT="%s"; unsetopt auto_remove_slash; autoload -U compinit; compinit -u -D; '
        'eval "$(convnext completion zsh)"\r',
    ),
    "fish": (
        ["fish", "--no-config", "-i"],
        "function fish_prompt; echo '%s'; end; convnext completion fish | source\r",
    ),
}
READY = "ready> "
# What is typed before TAB, and the line that it becomes.
LINES = {
    "convnext hol": "convnext holiday/",
    "convnext classify hol": "convnext classify holiday/",
    "convnext classify holiday/IM": "convnext classify holiday/IMG.HEIC",
    "convnext classify -k 1 hol": "convnext classify -k 1 holiday/",
    "convnext -k 1 hol": "convnext -k 1 holiday/",
    "convnext label hol": "convnext label holiday/",
    "convnext label --undo sor": "convnext label --undo sorted.log",
    "convnext evaluate hol": "convnext evaluate holiday/",
    "convnext train hol": "convnext train holiday/",
    "convnext classify --labels own": "convnext classify --labels own_names.txt",
    "convnext export -o sor": "convnext export -o sorted.log",
    "convnext models info my_w": "convnext models info my_weights.pth",
    "convnext classify -m my_w": "convnext classify -m my_weights.pth",
    "convnext classify -m convnextv2_atto.fcmae_": "convnext classify -m convnextv2_atto.fcmae_ft_in1k",
    "convnext models pull convnextv2_atto.fcmae_": "convnext models pull convnextv2_atto.fcmae_ft_in1k",
    "convnext compl": "convnext completion",
}


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, master: int) -> None:
        self._master, self._lines = master, 0

    def send(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, pattern: str) -> re.Match[str]:
        """What the shell shows, up to the first match."""
        seen, deadline = "", time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            if select.select([self._master], [], [], 1)[0]:
                seen += re.sub(r"\x1b(\[[0-9;?>=]*[a-zA-Z]|\][^\x07]*\x07|[=>()][0AB]?)", "", self._read())
                if found := re.search(pattern, seen):
                    return found
        raise AssertionError(f"never came: {pattern!r}; the shell showed: {seen!r}")

    def _read(self) -> str:
        data = os.read(self._master, 65536)
        if b"\x1b[c" in data or b"\x1b[0c" in data:  # fish asks what the terminal is
            os.write(self._master, b"\x1b[?6c")
        return data.decode(errors="replace")

    def completed(self, line: str) -> str:
        """The line after TAB: the shell echoes it as words that were typed behind `echo`."""
        self._lines += 1
        self.send(f"{line}\t\x01echo :{self._lines}: \r")
        return self.until(rf"[\r\n]:{self._lines}: ([^\r\n]*)[\r\n]")[1].rstrip()


@contextmanager
def started(shell: str, folder: Path) -> Iterator[Shell]:
    command, setup = SHELLS[shell]
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": paths, "HOME": str(folder / "home"), "TERM": "xterm", "COLUMNS": "200"}
    process, master = pty.fork()  # a terminal that controls the shell, as fish needs
    if not process:
        os.chdir(folder)
        os.execvpe(command[0], command, environment)
    try:
        opened = Shell(master)
        opened.send(setup % READY)
        opened.until(rf"[\r\n]{READY}")
        yield opened
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(master)


@pytest.mark.parametrize("shell", SHELLS)
def test_paths_and_names_in_a_real_shell(shell: str, tmp_path: Path, home: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "home").mkdir()
    for name in ("holiday/IMG.HEIC", "sorted.log", "own_names.txt", "my_weights.pth", "spaced out.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with started(shell, tmp_path) as opened:
        for line, completed in LINES.items():
            assert opened.completed(line) == completed
        assert opened.completed("convnext classify spac").replace("\\", "") == "convnext classify spaced out.jpg"
