"""The order in which the files of tests are handed to the processes that run them side by side."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

# They fork a process that runs a network. A lock that a thread holds at that moment is never released in the child, so
# these files come before those that leave threads of servers and runtimes behind.
FORKING = ("tests/training/", "tests/jobs/test_label_overwrite.py")
# Long ones begin early, so that no process is left with one at the end
LONG = (
    "tests/test_docs.py",
    "tests/jobs/test_label.py",
    "tests/jobs/test_suspects.py",
    "tests/runtimes/test_engines.py",
    "tests/runtimes/test_export_executorch.py",
    "tests/runtimes/test_export_torch.py",
    "tests/storage/test_remote_s3.py",
    "tests/benchmarking/",
)
# A node of Ray changes what the process does on a signal
LAST = ("tests/jobs/cluster/test_ray.py",)


def in_order(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The tests, file by file as they should begin; files of the same group keep the order that they have."""
    return sorted(items, key=lambda item: _group(item.nodeid))


def _group(name: str) -> int:
    for group, files in enumerate((FORKING, LONG)):
        if name.startswith(files):
            return group
    return 3 if name.startswith(LAST) else 2
