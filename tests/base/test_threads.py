"""The shared budget, and what the machine grants."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from convnext_cli.base.threads import Budget, abandoned, call_in_time, quotas, usable_threads


def test_never_more_threads_than_the_budget() -> None:
    budget, lock, running, most = Budget(3), threading.Lock(), 0, 0

    def work(engine: bool) -> None:
        nonlocal running, most
        with budget.all_threads() if engine else budget.one():
            with lock:
                running += 3 if engine else 1
                most = max(most, running)
            for _ in range(1000):
                pass
            with lock:
                running -= 3 if engine else 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [i % 7 == 0 for i in range(300)]))
    assert running == 0
    assert 1 <= most <= 3


def test_the_budget_is_given_back_after_an_error() -> None:
    budget = Budget(1)
    with pytest.raises(ZeroDivisionError), budget.all_threads():
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), budget.one():
        raise ZeroDivisionError
    with budget.all_threads():
        pass


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no processor affinity")
def test_affinity_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_threads() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_quota_of_cgroup_v2_rounds_down(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/user/job\n")
    (tmp_path / "user" / "job").mkdir(parents=True)
    (tmp_path / "user" / "job" / "cpu.max").write_text("350000 100000\n")
    (tmp_path / "user" / "cpu.max").write_text("250000 100000\n")
    assert sorted(quotas(tmp_path, tmp_path / "own")) == [2, 3]


def test_quota_of_cgroup_v1(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("3:cpu,cpuacct:/job\n1:memory:/job\n")
    (tmp_path / "cpu" / "job").mkdir(parents=True)
    (tmp_path / "cpu" / "job" / "cpu.cfs_quota_us").write_text("150000")
    (tmp_path / "cpu" / "job" / "cpu.cfs_period_us").write_text("100000")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert quotas(tmp_path, tmp_path / "own") == [1]


def test_no_cgroups(tmp_path: Path) -> None:
    assert quotas(tmp_path, tmp_path / "missing") == []


def test_a_call_in_time_gives_its_answer_or_its_error() -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    assert call_in_time(lambda: 3, 60.0) == 3
    with pytest.raises(TimeoutError, match="its own"):
        call_in_time(fail, 60.0)


def test_a_call_that_does_not_end_is_given_up_and_known_until_it_ends() -> None:
    go_on = threading.Event()
    with pytest.raises(TimeoutError):
        call_in_time(go_on.wait, 0.001)  # it waits, so time counts a tenth
    (future,) = abandoned
    go_on.set()
    assert future.result() is True
    while abandoned:
        threading.Event().wait(0.01)
