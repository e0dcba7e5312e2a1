"""Where tasks run: here, on threads that share one queue of them, or where another executor says."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Final, Protocol, TypeVar

from kldiv_cli.stopping import heed

__all__ = ["POLL_SECONDS", "Executor", "MakeWorker", "Threads", "available_workers", "run", "with_task"]

Task = TypeVar("Task")
Result = TypeVar("Result")
MakeWorker = Callable[[], Callable[[Task], Result]]

POLL_SECONDS: Final = 0.2
"""On Windows a wait without a timeout can't be interrupted."""
_AHEAD = 4
"""Results that each worker may have made before they are taken: more would only pile up."""


def available_workers() -> int:
    """The number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Executor(Protocol):
    """Where tasks run."""

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""

    @property
    def shared(self) -> bool:
        """Whether what a task writes to memory is seen here; else all that it takes is pickled."""

    @property
    def here(self) -> bool:
        """Whether tasks run on this machine, and in this directory."""

    def run(
        self,
        tasks: Iterable[Task],
        make_worker: MakeWorker[Task, Result],
        *,
        merge: Callable[[Result, Result], Result] | None = None,
        told: Callable[[Task], None] | None = None,
        failed: Callable[[Task, Exception], Result] | None = None,
    ) -> Iterator[Result]:
        """Yield the results of all tasks in no particular order; the first error ends it.

        `make_worker` is called wherever tasks run, for what a worker reuses from task to task. Where
        there is a `merge`, some results may be merged before they are yielded. `told` is told of
        each task that is done, in this thread. What `failed` returns of a task and its error counts
        as its result, in place of ending it all.
        """

    def abort(self) -> None:
        """End what runs without waiting for it, as far as that is possible; nothing runs after it."""


class Threads:
    """Threads of this process; one alone is the calling one."""

    shared = True
    here = True

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(
        self,
        tasks: Iterable[Task],
        make_worker: MakeWorker[Task, Result],
        *,
        merge: Callable[[Result, Result], Result] | None = None,
        told: Callable[[Task], None] | None = None,
        failed: Callable[[Task, Exception], Result] | None = None,
    ) -> Iterator[Result]:
        for task, result in run(tasks, lambda: with_task(make_worker(), failed), self.workers):
            if told is not None:
                told(task)
            yield result

    def abort(self) -> None:
        """Threads can't be ended from outside."""


def with_task(
    work: Callable[[Task], Result], failed: Callable[[Task, Exception], Result] | None = None
) -> Callable[[Task], tuple[Task, Result]]:
    """The same work, whose result has its task beside it; of one that failed, what `failed` returns."""

    def attempt(task: Task) -> tuple[Task, Result]:
        try:
            return task, work(task)
        except Exception as error:
            if failed is None:
                raise
            return task, failed(task, error)

    return attempt


def run(
    tasks: Iterable[Task],
    make_worker: MakeWorker[Task, Result],
    workers: int,
    abort: Callable[[], None] | None = None,
) -> Generator[Result, None, None]:
    """Yield the results of all tasks in no particular order; the first error ends it.

    `make_worker` is called once in each thread, for what a worker reuses from task to task. `abort`
    makes the tasks under way end at once, where an interrupt can't wait for them.
    """
    if workers == 1 and abort is None:
        yield from map(make_worker(), tasks)
        return
    pool = _Pool(tasks, make_worker, workers)
    try:
        yield from pool.results()
    except BaseException as error:
        if abort is not None and not isinstance(error, (Exception, GeneratorExit)):
            abort()
        raise
    finally:
        pool.stop()


class _Pool:
    def __init__(self, tasks: Iterable[Task], make_worker: MakeWorker[Task, Result], workers: int) -> None:
        self._tasks = iter(tasks)
        self._make_worker = make_worker
        self._workers = workers
        self._room = threading.Semaphore(_AHEAD * workers)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._outcomes: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def results(self) -> Iterator[Result]:
        for number in range(self._workers):
            thread = threading.Thread(target=self._work, name=f"kldiv-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        running = self._workers
        while running:
            try:
                outcome, error = self._outcomes.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            self._room.release()
            if error is not None:
                raise error
            if outcome is _DONE:
                running -= 1
            else:
                yield outcome  # type: ignore[misc]

    def stop(self) -> None:
        self._stopped.set()
        self._room.release(self._workers)
        for thread in self._threads:
            # One whose start was interrupted can't be joined; if it runs after all, it finds no task.
            with contextlib.suppress(RuntimeError):
                thread.join()

    def _work(self) -> None:
        # Else who stops this would wait as long as a server lets a request wait.
        heed(self._stopped)
        try:
            worker = self._make_worker()
            for task in iter(self._next, _DONE):
                self._outcomes.put((worker(task), None))  # type: ignore[arg-type]
            self._outcomes.put((_DONE, None))
        except BaseException as error:  # noqa: BLE001 - raised again where the results are read
            self._outcomes.put((None, error))

    def _next(self) -> object:
        """The next task, once there is room for what it comes to."""
        self._room.acquire()
        with self._lock:
            return _DONE if self._stopped.is_set() else next(self._tasks, _DONE)


_DONE = object()
