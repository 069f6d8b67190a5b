"""Threads that decode: order, limits, and none that holds the others up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from convnext_cli.base.errors import ConvNextError
from convnext_cli.base.threads import Budget, abandoned, held
from convnext_cli.predict.decode_threads import Decoders, GivenUp, Limit, Task


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
    with budget.all_threads():  # nothing is held any more
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
    with budget.all_threads():
        task = decoders.submit("a")
        begun.wait()
        go.wait(0.3)  # the engine is at work for longer than a photo may take
    assert task.result() == "a"
    decoders.close()


def test_what_is_given_up_while_it_waits_for_a_processor_keeps_none() -> None:
    budget, asked, stopped = Budget(1), threading.Event(), threading.Event()
    task: Task[str, str] = Task("a", budget)
    task.start()

    def work() -> None:
        asked.set()
        with pytest.raises(GivenUp):
            task.compute()
        stopped.set()

    with budget.all_threads():
        thread = threading.Thread(target=work)
        thread.start()
        asked.wait()
        assert task.end()  # its time was up
    thread.join()
    assert stopped.is_set()
    with budget.all_threads():
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


class Item(str):
    """A photo by its path."""

    @property
    def path(self) -> str:
        return str(self)


def pooled(work: Callable[[Item, Task[Item, str]], str], *, count: int = 2, limit: float = 0.05) -> Decoders[Item, str]:
    return Decoders(count, work, Budget(count), limit=limit)


def test_waiting_for_a_place_among_few_is_not_counted() -> None:
    place, begun, go = threading.Lock(), threading.Event(), threading.Event()

    def work(item: Item, task: Task[Item, str]) -> str:
        task.compute()
        begun.set()
        with held(place):
            return str(item)

    decoders = pooled(work)
    with place:
        task = decoders.submit(Item("a"))
        begun.wait()
        go.wait(1.0)  # another photo has the place for longer than this one may take
    assert task.result() == "a"
    assert not place.locked()
    decoders.close()


def test_what_is_given_up_gives_its_place_to_the_next_and_takes_it_from_nobody() -> None:
    place, go_on = threading.Lock(), threading.Event()
    held_by: list[str] = []

    def work(item: Item, task: Task[Item, str]) -> str:
        task.compute()
        with held(place):
            held_by.append(item)
            if item == "hangs":
                go_on.wait()
        return str(item)

    before = set(abandoned)
    decoders = pooled(work, count=1)
    hanging, after = decoders.submit(Item("hangs")), decoders.submit(Item("after"))
    assert hanging.result() is None
    assert after.result() == "after"
    assert held_by == ["hangs", "after"]
    with place:  # a third photo has it when the first one comes to its end at last
        go_on.set()
        while set(abandoned) - before:
            go_on.wait(0.01)
        assert place.locked()
    decoders.close()


def test_processor_time_counts_and_not_the_time_of_other_programs() -> None:
    if not hasattr(time, "pthread_getcpuclockid"):
        pytest.skip("this system does not tell the processor time of a thread")
    task: Task[str, str] = Task("a", Budget(1))
    task.start()
    task.compute()
    limit = Limit(reading=10, computing=10)
    for _ in range(3):
        task.tick(30)  # 60 seconds of the clock, in which the thread did not have a processor
    assert not task.exceeds(limit)
    for _ in range(3):
        task.tick(30)
    assert task.exceeds(limit)  # nor for ever
    busy: Task[str, str] = Task("a", Budget(1))
    busy.start()
    busy.compute()
    while time.thread_time() < busy._from + 0.05:
        pass
    assert busy.exceeds(Limit(reading=10, computing=0.01))


def test_threads_left_to_themselves_are_few_and_then_an_error_names_the_photos() -> None:
    never = threading.Event()

    def work(item: Item, task: Task[Item, str]) -> str:
        never.wait()
        return str(item)

    before = threading.active_count()
    decoders = pooled(work, count=2, limit=0.02)
    tasks = [decoders.submit(Item(f"{n}.jpg")) for n in range(12)]
    assert [task.result() for task in tasks[:4]] == [None] * 4
    with pytest.raises(ConvNextError, match=r"5 photos .*0\.jpg, 1\.jpg, 2\.jpg, 3\.jpg, [45]\.jpg") as raised:
        for task in tasks[4:]:
            task.result()
    assert raised.value.hint
    assert threading.active_count() - before <= 4 + 2 + 1
    decoders.close()
    never.set()
