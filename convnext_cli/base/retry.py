"""Retries, with longer and longer pauses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """A policy of retries.

    Args:
        is_passing: whether a retry may succeed after this error.
        tries: calls in all that may fail in a row.
        first, longest: pauses in seconds; each is twice the one before. Up to half of each is left out at random, so
            that readers that were refused together do not return together.
        enough: the progress that a call must bring in order not to count as failed. A smaller bound would let a server
            that sends a few bytes at each try be asked for ever.
        sleep, draw: the clock, and random numbers from 0 to 1.
    """

    is_passing: Callable[[Exception], bool]
    tries: int = 6
    first: float = 0.5
    longest: float = 20.0
    enough: int = 1
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = random.random

    def __call__(self, work: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """The result of ``work``. Its last error is passed on, at once where a retry cannot help.

        Args:
            work: the call.
            progress: how far all calls have come, such as the bytes of a file that they continue.
        """
        failures, furthest = 0, progress()
        while True:
            try:
                return work()
            except Exception as error:
                reached = progress()
                failures = 0 if reached - furthest >= self.enough else failures + 1
                furthest = max(furthest, reached)
                if failures >= self.tries or not self.is_passing(error):
                    raise
            self.sleep(self.pause(max(failures - 1, 0)))

    def pause(self, number: int) -> float:
        """Seconds to wait after this number of failures."""
        return float(min(self.longest, self.first * 2**number) * (0.5 + 0.5 * self.draw()))
