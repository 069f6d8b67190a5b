"""Retries, with longer and longer pauses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from convnext_cli.storage.failures import is_passing

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """A policy of retries.

    Args:
        tries: calls in all.
        first, longest: pauses in seconds; each is twice the one before. Up to half of each is left out at random, so
            that readers that were refused together do not return together.
        sleep, draw: the clock, and random numbers from 0 to 1.
    """

    tries: int = 6
    first: float = 0.5
    longest: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = random.random

    def __call__(self, work: Callable[[], T]) -> T:
        """The result of ``work``. Its last error is passed on, at once where a retry cannot help."""
        for number in range(self.tries):
            try:
                return work()
            except Exception as error:
                if number + 1 == self.tries or not is_passing(error):
                    raise
            self.sleep(self.pause(number))
        raise AssertionError("tries is at least 1")

    def pause(self, number: int) -> float:
        """Seconds to wait after this number of failures."""
        return float(min(self.longest, self.first * 2**number) * (0.5 + 0.5 * self.draw()))


# For reads and listings; and for the first request, where a person waits to learn of a wrong name.
patience = Patience()
first_contact = Patience(tries=3)
