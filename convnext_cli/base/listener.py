"""How a verb reports while it works: notes, stages and progress."""

from __future__ import annotations


class Listener:
    """Receives the progress of a verb. Every method does nothing: a subclass overrides those that it needs."""

    def note(self, text: str) -> None:
        """A remark that the user should see, in one line."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A part of the work begins.

        Args:
            name: of the part, in a word or two.
            total: how many items it has; None where that is not known.
        """

    def advance(self, done: int = 1, *, failed: int = 0) -> None:
        """Items of the stage were finished.

        Args:
            done: how many, since the last call.
            failed: how many of these failed.
        """


SILENT = Listener()
