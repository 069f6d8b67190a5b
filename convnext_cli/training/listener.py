"""How a training run reports: what every verb reports, and its steps and evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convnext_cli.base.listener import Listener

if TYPE_CHECKING:
    from convnext_cli.training.records import Evaluation, RunFacts, Step
    from convnext_cli.training.settings import TrainingSettings


class TrainListener(Listener):
    """Hears how a run gets on, in the first process. Every method does nothing until a subclass overrides it."""

    __stage, __done = "", 0

    def begins(self, settings: TrainingSettings, facts: RunFacts) -> None:
        """Everything is ready for the first step.

        Args:
            settings: all of them, with those that the data decided.
            facts: what run.json holds from now on.
        """

    def step(self, done: float, values: Step) -> None:
        """A step was logged.

        Args:
            done: the share of the run, 0 to 1.
            values: the line of log.jsonl.
        """

    def evaluated(self, done: float, values: Evaluation) -> None:
        """The network was evaluated on the photos for val.

        Args:
            done: the share of the run, 0 to 1.
            values: the line of log.jsonl.
        """

    def progress(self, stage: str, done: int, total: int) -> None:
        """Turn the number of items that are done into calls of ``stage`` and ``advance``; not to be overridden.

        Args:
            stage: its name, such as "reading train".
            done: items so far.
            total: items of the stage.
        """
        if stage != self.__stage or done < self.__done:
            self.__stage, self.__done = stage, 0
            self.stage(stage, total)
        self.advance(done - self.__done)
        self.__done = done


SILENT = TrainListener()
