"""The two tiers of the tests: what `make test` runs, and what is marked slow and runs in `make test-all` alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_except(cases: Iterable[Any], *fast: Any) -> list[Any]:
    """The cases of a parametrized test, all of them marked slow but those that are named.

    Args:
        cases: Values of the parameter, or tuples where there are several parameters.
        fast: The cases that stay in the fast tier.
    """
    cases = list(cases)
    _check(cases, fast)
    return [case if case in fast else _slow(case) for case in cases]


def slow(cases: Iterable[Any], *names: Any) -> list[Any]:
    """The cases of a parametrized test, of which those that are named are marked slow.

    Args:
        cases: Values of the parameter, or tuples where there are several parameters.
        names: The cases that run in the slow tier.
    """
    cases = list(cases)
    _check(cases, names)
    return [_slow(case) if case in names else case for case in cases]


def _check(cases: Collection[Any], names: Collection[Any]) -> None:
    unknown = [name for name in names if name not in cases]
    if unknown:
        raise ValueError(f"no case of this test: {unknown}")


def _slow(case: Any) -> Any:
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
