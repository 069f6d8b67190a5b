"""The two tiers of the tests: `make test` runs the fast ones, `make test-slow` those that are marked slow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(cases: Iterable[Any], *fast: Any) -> list[Any]:
    """The cases of a parametrized test, all of them marked slow except those that are named.

    Args:
        cases: Values of the parameter, or tuples where there are several parameters.
        fast: The cases that stay in the fast tier.
    """
    cases = list(cases)
    unknown = [case for case in fast if case not in cases]
    if unknown:
        raise ValueError(f"no case of this test: {unknown}")
    return [case if case in fast else _slow(case) for case in cases]


def _slow(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)
