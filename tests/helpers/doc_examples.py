"""The examples of README and docs: code blocks, the commands in them, and the answers that are printed there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^ *```", re.S | re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    heading: str
    language: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page}: {self.code.split(chr(10))[0]}"

    def commands(self) -> list[str]:
        """The commands of a block of shell lines, without their comments."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line for line in (line.split("  #")[0].strip() for line in lines) if line and not line.startswith("#")]

    def answers(self) -> list[tuple[str, str]]:
        """The commands of a console block, and what is printed after each."""
        parts = re.split(r"^\$ ", self.code, flags=re.M)[1:]
        return [(command.strip(), answer) for command, _, answer in (part.partition("\n") for part in parts)]


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text()
    blocks = []
    for match in FENCE.finditer(text):
        outside = FENCE.sub("", text[: match.start()])
        headings = re.findall(r"^#+ (.*)$", outside, re.M)
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.M)
        blocks.append(Block(page.name, headings[-1] if headings else "", match["language"], code))
    return blocks


BLOCKS = [block for page in PAGES for block in read_blocks(page)]


def agrees(answer: str, output: str) -> bool:
    """Whether a program's output is what a page prints: … and ... stand for any text, white space is not compared."""
    pattern = re.escape(" ".join(answer.split())).replace(re.escape("..."), "…").replace("…", ".*?")
    return re.fullmatch(pattern, " ".join(output.split()), re.S) is not None
