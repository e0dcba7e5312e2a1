from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kldiv_cli.execution import available_workers, run

repeatable = settings(derandomize=True, deadline=None, max_examples=40)

WORKERS = [1, 2, 3, 8]


class Failure(Exception):
    """What a worker raises here; nothing else would be mistaken for it."""


def doubled() -> Callable[[int], int]:
    return lambda task: 2 * task


def failing_at(bad: int) -> Callable[[], Callable[[int], int]]:
    def work(task: int) -> int:
        if task == bad:
            raise Failure(f"task {task}")
        return task

    return lambda: work


@pytest.fixture(autouse=True)
def _no_thread_survives() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("tasks", [0, 1, 2, 100])
def test_every_task_yields_its_result_once(workers: int, tasks: int) -> None:
    assert sorted(run(range(tasks), doubled, workers)) == [2 * task for task in range(tasks)]


@repeatable
@given(st.lists(st.integers()), st.integers(1, 6))
def test_tasks_may_be_any_iterable_in_any_number(tasks: list[int], workers: int) -> None:
    assert sorted(run(iter(tasks), doubled, workers)) == sorted(2 * task for task in tasks)


@pytest.mark.parametrize("workers", WORKERS)
def test_none_is_a_result_like_any_other(workers: int) -> None:
    def make_worker() -> Callable[[int], None]:
        return lambda task: None

    assert list(run(range(5), make_worker, workers)) == [None] * 5


@pytest.mark.parametrize("workers", WORKERS)
def test_a_worker_is_made_once_in_each_thread(workers: int) -> None:
    made: list[threading.Thread] = []
    used: set[threading.Thread] = set()

    def make_worker() -> Callable[[int], int]:
        made.append(threading.current_thread())

        def work(task: int) -> int:
            used.add(threading.current_thread())
            return task

        return work

    assert len(list(run(range(50), make_worker, workers))) == 50
    assert len(made) == len(set(made)) == workers
    assert used <= set(made)


def test_one_worker_runs_in_the_calling_thread_and_in_order() -> None:
    threads: set[threading.Thread] = set()

    def make_worker() -> Callable[[int], int]:
        def work(task: int) -> int:
            threads.add(threading.current_thread())
            return task

        return work

    assert list(run(range(20), make_worker, 1)) == list(range(20))
    assert threads == {threading.current_thread()}


def test_workers_run_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=30)

    def make_worker() -> Callable[[int], int]:
        def work(task: int) -> int:
            together.wait()
            return task

        return work

    assert sorted(run(range(3), make_worker, 3)) == [0, 1, 2]


@pytest.mark.parametrize("workers", WORKERS)
def test_the_error_of_a_task_is_raised_where_the_results_are_read(workers: int) -> None:
    with pytest.raises(Failure, match="task 7"):
        list(run(range(20), failing_at(7), workers))


@pytest.mark.parametrize("workers", WORKERS)
def test_an_error_ends_an_endless_run(workers: int) -> None:
    with pytest.raises(Failure):
        for _ in run(itertools.count(), failing_at(30), workers):
            pass


@pytest.mark.parametrize("workers", WORKERS)
def test_of_several_errors_one_is_raised(workers: int) -> None:
    def make_worker() -> Callable[[int], int]:
        def work(task: int) -> int:
            raise Failure(f"task {task}")

        return work

    with pytest.raises(Failure, match=r"task \d"):
        list(run(range(10), make_worker, workers))


@pytest.mark.parametrize("workers", WORKERS)
def test_an_error_while_making_a_worker_is_raised(workers: int) -> None:
    def make_worker() -> Callable[[int], int]:
        raise Failure("no memory")

    with pytest.raises(Failure, match="no memory"):
        list(run(range(10), make_worker, workers))


@pytest.mark.parametrize("workers", WORKERS)
def test_an_error_among_the_tasks_is_raised(workers: int) -> None:
    def tasks() -> Iterator[int]:
        yield from range(3)
        raise Failure("no more tasks")

    with pytest.raises(Failure, match="no more tasks"):
        list(run(tasks(), doubled, workers))


@pytest.mark.parametrize("workers", WORKERS)
def test_an_interrupt_in_a_worker_is_raised_too(workers: int) -> None:
    def make_worker() -> Callable[[int], int]:
        def work(task: int) -> int:
            raise KeyboardInterrupt

        return work

    with pytest.raises(KeyboardInterrupt):
        list(run(range(10), make_worker, workers))


@pytest.mark.parametrize("workers", WORKERS)
def test_leaving_early_stops_the_threads_and_takes_no_more_tasks(workers: int) -> None:
    taken = itertools.count()
    results = run(taken, doubled, workers)
    next(results)
    results.close()
    first = next(taken)
    time.sleep(0.02)
    assert next(taken) == first + 1


@pytest.mark.parametrize("workers", [2, 3])
def test_results_that_nobody_takes_do_not_pile_up(workers: int) -> None:
    taken = itertools.count()
    results = run(taken, doubled, workers)
    next(results)
    time.sleep(0.05)
    assert next(taken) <= 1 + 5 * workers
    results.close()


@pytest.mark.parametrize("workers", WORKERS)
def test_threads_end_when_the_loop_over_the_results_raises(workers: int) -> None:
    def consume() -> None:
        for result in run(itertools.count(), doubled, workers):
            raise Failure(f"result {result}")

    before = threading.active_count()
    with pytest.raises(Failure):
        consume()
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [2, 3])
def test_stopping_waits_for_the_tasks_under_way(workers: int) -> None:
    running = set[int]()

    def make_worker() -> Callable[[int], int]:
        def work(task: int) -> int:
            running.add(task)
            time.sleep(0.01)
            running.discard(task)
            return task

        return work

    results = run(itertools.count(), make_worker, workers)
    next(results)
    results.close()
    assert not running


def test_nothing_runs_before_the_first_result_is_asked_for() -> None:
    before = threading.active_count()
    results = run(range(3), failing_at(0), 2)
    assert threading.active_count() == before
    results.close()


def test_there_is_at_least_one_processor_to_use() -> None:
    assert available_workers() >= 1


def test_an_interrupt_while_a_thread_is_started_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "kldiv-1":
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        list(run(range(100), failing_at(1000), 3))
    assert caught.value.__context__ is None
