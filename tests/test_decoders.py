"""Threads that decode: order, limits, and none that holds the others up."""

from __future__ import annotations

import threading

import pytest

from convnext_cli.decoders import Decoders, Task
from convnext_cli.threads import Budget


def test_answers_come_for_their_items_and_errors_too() -> None:
    def work(item: int, task: Task[int, int]) -> int:
        task.compute()
        return 10 // item

    decoders = Decoders(3, work, Budget(2))
    tasks = [decoders.submit(item) for item in (5, 2, 0, 1)]
    assert [task.result() for task in tasks[:2]] == [2, 5]
    with pytest.raises(ZeroDivisionError):
        tasks[2].result()
    assert tasks[3].result() == 10
    decoders.close()


def test_what_takes_too_long_is_given_up_and_gives_back_what_it_holds() -> None:
    never, budget = threading.Event(), Budget(1)

    def work(item: str, task: Task[str, str]) -> str:
        task.compute()
        if item == "hangs":
            never.wait()
        return item

    decoders = Decoders(1, work, budget, limit=0.1)
    tasks = [decoders.submit(item) for item in ("a", "hangs", "b")]
    assert [task.result() for task in tasks] == ["a", None, "b"]
    with budget.whole():  # nothing is held any more
        pass
    never.set()
    decoders.close()


def test_waiting_for_the_engine_is_not_counted() -> None:
    budget, begun, go = Budget(1), threading.Event(), threading.Event()

    def work(item: str, task: Task[str, str]) -> str:
        begun.set()
        task.compute()
        return item

    decoders = Decoders(1, work, budget, limit=0.05)
    with budget.whole():
        task = decoders.submit("a")
        begun.wait()
        go.wait(0.3)  # the engine is at work for longer than a photo may take
    assert task.result() == "a"
    decoders.close()


def test_what_is_given_up_while_it_waits_for_a_processor_keeps_none() -> None:
    budget, asked = Budget(1), threading.Event()
    task: Task[str, str] = Task("a", budget)
    task.start()

    def work() -> None:
        asked.set()
        task.compute()

    with budget.whole():
        thread = threading.Thread(target=work)
        thread.start()
        asked.wait()
        assert task.end()  # its time was up
    thread.join()
    with budget.whole():
        pass


def test_more_threads_read_than_compute() -> None:
    reading, most, now, lock = threading.Barrier(6), 0, 0, threading.Lock()

    def work(item: int, task: Task[int, int]) -> int:
        nonlocal most, now
        reading.wait(10)  # passes when six threads are here together
        task.compute()
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1
        return item

    decoders = Decoders(1, work, Budget(4))
    decoders.grow(6)
    tasks = [decoders.submit(item) for item in range(6)]
    assert [task.result() for task in tasks] == list(range(6))
    assert most == 1
    decoders.close()
