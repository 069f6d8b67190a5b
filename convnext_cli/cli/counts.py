"""Counts of files that were left alone."""

from __future__ import annotations

from collections.abc import Mapping

from convnext_cli.base.text import counted

MOST_TYPES = 20  # of files that were passed over


def passed_over(types: Mapping[str, int]) -> str:
    """The files that were left alone, by type, the most frequent first."""
    total = sum(types.values())
    kinds = [
        counted(count, kind) if kind.endswith("folder") else f"{count} {kind}"
        for kind, count in sorted(types.items(), key=lambda item: -item[1])
    ]
    more = f", {len(kinds) - MOST_TYPES} more types" if len(kinds) > MOST_TYPES else ""
    return f"skipped {total} file{'s' * (total != 1)} ({', '.join(kinds[:MOST_TYPES])}{more})"
