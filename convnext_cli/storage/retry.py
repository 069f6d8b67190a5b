"""Trying again, with longer and longer pauses, what may yet succeed."""

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
    """How often and after what pauses.

    tries: in all. first, longest: pauses in seconds, each twice the one before. Of each, a random half is left out, so
    that readers who were refused together do not come back together. sleep, draw: the clock, and numbers of 0 to 1.
    """

    tries: int = 6
    first: float = 0.5
    longest: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = random.random

    def __call__(self, work: Callable[[], T]) -> T:
        """What ``work`` returns; raises what it raised at last, at once where another try would be in vain."""
        for number in range(self.tries):
            try:
                return work()
            except Exception as error:
                if number + 1 == self.tries or not is_passing(error):
                    raise
            self.sleep(self.pause(number))
        raise AssertionError("tries is at least 1")

    def pause(self, number: int) -> float:
        """Seconds to wait after so many failures."""
        return float(min(self.longest, self.first * 2**number) * (0.5 + 0.5 * self.draw()))


# Of reads and listings; and of the first contact, where a person waits to be told of a wrong name.
patience = Patience()
first_contact = Patience(tries=3)
