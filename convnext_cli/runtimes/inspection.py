"""The card of a file of ``convnext export``, read from its container: nothing of the file is run, and no runtime opens
it. ``models info`` is the command that people use to find out whether to trust a file."""

from __future__ import annotations

from pathlib import Path

from convnext_cli.base.errors import ConvNextError, ModelError
from convnext_cli.model.card import Card
from convnext_cli.runtimes.card_text import AGAIN
from convnext_cli.runtimes.checksum import is_whole
from convnext_cli.runtimes.registry import format_of


def inspect(path: Path) -> tuple[Card | None, list[str]]:
    """The card in a file or package, None when there is none, and remarks.

    Raises ModelError for a file that is damaged, UnavailableError where a library is missing that reads the container.
    """
    if not path.exists():
        raise ModelError(f"{path} does not exist", "check the path")
    form = format_of(path)
    assert form is not None, f"{path.name} is not a program"
    notes: list[str] = []
    if path.is_file() and not is_whole(path):
        if form.reader:  # other programs write no such file
            raise ModelError(f"{path.name} is damaged", AGAIN)
        notes.append(f"{path.name} is damaged, or another program changed it after it was exported")
    try:
        text = form.load_card_reader().read_card(path)
        return (None if text is None else Card.from_json(text)), notes
    except (ConvNextError, MemoryError):
        raise
    except Exception as error:  # parsers of eight formats
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{path.name} is damaged: {why}", AGAIN) from error
