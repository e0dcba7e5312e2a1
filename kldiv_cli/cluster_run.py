"""One run of tasks on a cluster: bundles of them are under way, and merged there before they are fetched."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import pickle
import queue
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kldiv_cli.cluster_worker import Answer, Run, TaskFailed, dumped, merge_answers, run_tasks, versions
from kldiv_cli.errors import ClusterGone, UsageError, WorkerDied
from kldiv_cli.execution import POLL_SECONDS
from kldiv_cli.pace import Pace

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["ClusterRun"]

_IN_FLIGHT: Final = 3
"""Bundles for each thread of the cluster: one that runs, and others that are there when it is done."""
_BUNDLE_SECONDS: Final = 0.075
"""Of work in a bundle, of which Dask takes about a millisecond for itself."""
_LARGEST_BUNDLE: Final = 64
_BUNDLE_BYTES: Final = 1 << 20
"""Of results in a bundle that are not merged."""
_FAN_IN: Final = 8
_LEVELS: Final = 3
"""So often results are merged before they are fetched: until then Dask remembers what they are made of."""
_DESERTED: Final = 30.0
"""Seconds without any worker, in which those that were lost may be started again."""
_MOST_SENT: Final = 64 << 20
"""Bytes of inputs in memory."""


class _Bundle(NamedTuple):
    """What a future is of: tasks, or what has been merged of them."""

    tasks: tuple[Any, ...]
    level: int = 0


class ClusterRun:
    """One run of tasks."""

    def __init__(
        self,
        client: Client,
        workers: int,
        where: str,
        together: bool,
        failed: Callable[[Any, Exception], Any] | None,
    ) -> None:
        """Where tasks may have `failed` each has a future of its own, for that of another would be lost."""
        self._client, self._where, self._together, self._failed = client, where, together, failed
        self._completed: queue.SimpleQueue[Future] = queue.SimpleQueue()
        """What is done; `as_completed` of Dask may miss it and then looks again after 0.1 s only."""
        # A task that waits on a worker when another kills it is suspected too.
        self._most = workers if failed else _IN_FLIGHT * workers
        self._pace = Pace(_BUNDLE_SECONDS, _LARGEST_BUNDLE)
        self._to_learn = 2 * workers
        """Answers to wait for before any are merged: a thread's first task takes longer than others."""
        self._pending: dict[Future, _Bundle] = {}
        self._merged: list[list[Future]] = [[] for _ in range(_LEVELS)]
        """By how often they were merged: what waits until there is enough to merge."""
        self._known: dict[Callable[..., Any], weakref.WeakSet[Future]] = {
            function: weakref.WeakSet() for function in (merge_answers, run_tasks, Run)
        }
        """All that something still refers to, be it the trace of an error: what is made of others first."""
        self._lock = threading.Lock()
        self._cancelled = False
        self._deserted: float | None = None
        """Since when there has been no worker."""

    def begin(self, make_worker: bytes, merge: bytes) -> None:
        """Send what all tasks have in common to all workers, that none of them has to ask for it."""
        if len(make_worker) > _MOST_SENT:
            raise UsageError(
                f"{self._where}: {len(make_worker)} bytes of arrays in memory, expected at most "
                f"{_MOST_SENT} to be sent there; save them and name the file"
            )
        with self._lock:
            self._run = self._client.submit(Run, make_worker, merge, versions(), pure=False)
            self._known[Run].add(self._run)
        self._check(self._run)
        with self._faults():
            self._awaited(self._client.replicate([self._run], asynchronous=True))

    def results(self, tasks: Iterator[Any], told: Callable[[Any], None]) -> Iterator[Any]:
        while self._fill(tasks):
            # What is lost with its worker from here on is computed again when it is fetched, or merged.
            done = [(future, self._pending.pop(future)) for future in self._next()]
            for future, bundle in done:
                if self._failed is None:
                    self._check(future)
                for task in bundle.tasks:
                    told(task)
            yield from self._fetched([each for each in done if self._is_ready(*each)])
        yield from self._fetched([(future, _Bundle(())) for future in self._rest()])

    def cancel(self) -> None:
        """Let nothing of it run on or begin, and let go of what it holds there; from any thread."""
        with self._lock:
            self._cancelled = True
            known = [list(futures) for futures in self._known.values()]
        with contextlib.suppress(OSError):
            # All at once the scheduler fails over a task that we let go of and that others are made of.
            for futures in known:
                self._client.cancel(futures)

    def _fill(self, tasks: Iterator[Any]) -> bool:
        """Submit as many tasks as may be under way; whether any are."""
        while len(self._pending) < self._most:
            bundle = tuple(itertools.islice(tasks, 1 if self._failed else self._pace.bundle()))
            if not bundle:
                break
            self._submit(_Bundle(bundle), run_tasks, dumped(bundle), together=self._together)
        return bool(self._pending)

    def _submit(
        self, bundle: _Bundle, function: Callable[..., bytes], *arguments: Any, **options: Any
    ) -> Future:
        with self._lock:
            if self._cancelled:
                raise WorkerDied(f"{self._where}: the computation has ended")
            future = self._client.submit(function, self._run, *arguments, pure=False, **options)
            self._known[function].add(future)
        self._pending[future] = bundle
        future.add_done_callback(self._completed.put)
        return future

    def _next(self) -> list[Future]:
        """All that is done, once anything is."""
        finished: list[Future] = []
        while not finished or not self._completed.empty():
            # On Windows a wait without a timeout can't be interrupted.
            try:
                finished.append(self._completed.get(timeout=POLL_SECONDS))
            except queue.Empty:
                self._look()
        return finished

    def _awaited(self, asked: Coroutine[Any, Any, Any]) -> Any:
        """What Dask comes to, for which it would wait for ever where nobody is left to answer."""
        answer = asyncio.run_coroutine_threadsafe(asked, self._client.loop.asyncio_loop)
        try:
            while not _is_done(answer):
                self._look()
            return answer.result()
        finally:
            answer.cancel()

    def _look(self) -> None:
        """See whether there is anybody to wait for."""
        # What is submitted while there is no connection is never heard of again.
        if self._client.status != "running":
            raise self._gone() from None
        with self._faults():
            deserted = not self._client.nthreads()
        now = time.monotonic()
        self._deserted = (self._deserted or now) if deserted else None
        if self._deserted is not None and now - self._deserted > _DESERTED:
            raise ClusterGone(
                f"{self._where}: has had no workers for {_DESERTED:g} s; look into the log of the last ones "
                "(out of memory?), start others and run again"
            )

    def _check(self, future: Future) -> None:
        """Raise what a future ended in that has no result."""
        if future.status == "finished":
            return
        with self._faults():
            # It has none either if it was lost with its worker, and has been made again.
            error = self._awaited(future.exception(asynchronous=True))
            if error is not None:
                raise error
        # As all are when the connection is lost.
        if future.cancelled():
            raise self._gone()

    def _is_ready(self, future: Future, bundle: _Bundle) -> bool:
        """Whether it is to be fetched; else it waits for others that it is merged with."""
        if not self._together or bundle.level == _LEVELS or self._pace.seen < self._to_learn:
            return True
        waiting = self._merged[bundle.level]
        waiting.append(future)
        if len(waiting) == _FAN_IN:
            self._submit(_Bundle((), bundle.level + 1), merge_answers, list(waiting))
            waiting.clear()
        return False

    def _rest(self) -> list[Future]:
        """All that still waits, merged into one."""
        rest = [future for waiting in self._merged for future in waiting]
        while len(rest) > 1:
            groups = [rest[start : start + _FAN_IN] for start in range(0, len(rest), _FAN_IN)]
            rest = [self._submit(_Bundle(()), merge_answers, group) for group in groups]
        return rest

    def _fetched(self, done: list[tuple[Future, _Bundle]]) -> Iterator[Any]:
        """The results of what is done; what failed, where it may, is found by fetching each alone."""
        try:
            fetched = self._gathered([future for future, _ in done])
        except Exception as error:
            if self._failed is None or isinstance(error, ClusterGone):
                raise
            if len(done) > 1:
                yield from (result for each in done for result in self._fetched([each]))
            else:
                yield from (self._failed(task, error) for _, bundle in done for task in bundle.tasks)
            return
        for contents in fetched:
            answer: Answer = pickle.loads(contents)  # noqa: S301 - from the user's cluster
            fitting = None if self._together else _BUNDLE_BYTES * answer.tasks // len(contents)
            self._pace.learn(answer.tasks, answer.seconds, most=fitting)
            yield from answer.results

    def _gathered(self, futures: list[Future]) -> list[bytes]:
        if not futures:
            return []
        with self._faults():
            gathered: list[bytes] = self._awaited(self._client.gather(futures, asynchronous=True))
        return gathered

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """What went wrong in a task as it is, and with the cluster in our words."""
        from distributed import CancelledError, KilledWorker
        from distributed.comm import CommClosedError

        try:
            yield
        except TaskFailed as error:
            raise error.error() from None
        except KilledWorker as error:
            raise WorkerDied(
                f"{self._where}: {error.allowed_failures + 1} workers died over the same blocks, last "
                f"{error.last_worker.address}; out of memory? see its log, or give --memory a smaller SIZE"
            ) from None
        except (CancelledError, CommClosedError):
            raise self._gone() from None

    def _gone(self) -> ClusterGone:
        return ClusterGone(f"{self._where}: is gone, and with it what was under way there; run again")


def _is_done(answer: concurrent.futures.Future[Any]) -> bool:
    """Whether it is there after a moment; on Windows a wait without a timeout can't be interrupted."""
    return bool(concurrent.futures.wait([answer], POLL_SECONDS).done)
