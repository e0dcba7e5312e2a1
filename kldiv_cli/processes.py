"""Processes that run tasks, where threads would wait for each other: started anew, never forked.

They are not those of `multiprocessing`, which imports the caller's script again in each of them: it
need not be written for that. A process that dies takes the task with it that it had begun, and
another one is started in its place.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import IO, Any, Final, Self, TypeVar

from kldiv_cli import execution
from kldiv_cli.errors import WorkerDied
from kldiv_cli.execution import MakeWorker, with_task
from kldiv_cli.process_worker import read_frame, write_frame

__all__ = ["Processes"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_PATIENCE: Final = 5.0
"""Seconds that a process has to end by itself, when it has nothing to do."""
_GRACE: Final = 3.0
"""Seconds that those have together which are to end in the middle of something."""
_NUMBERS = itertools.count()
_SHORTAGES: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
"""Errors of which there are fewer with fewer processes."""


class Processes:
    """An executor of so many processes, which are started as they are needed; any thread may run tasks.

    They end with the `with` block; if that is left by an exception, whatever they were about.
    """

    shared = False
    here = True

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._idle = _Idle(workers)
        self._lock = threading.Lock()
        self._alive: set[_Process] = set()
        self._running: frozenset[int] = frozenset()
        """The numbers of the runs that have not ended."""
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(kill=error is not None)

    def run(
        self,
        tasks: Iterable[Task],
        make_worker: MakeWorker[Task, Result],
        *,
        merge: Callable[[Result, Result], Result] | None = None,
        told: Callable[[Task], None] | None = None,
        failed: Callable[[Task, Exception], Result] | None = None,
    ) -> Iterator[Result]:
        with self._numbered() as number:
            call = _Call(self, number, pickle.dumps(make_worker, pickle.HIGHEST_PROTOCOL))
            done = execution.run(tasks, lambda: with_task(call, failed), self.workers, self.abort)
            with contextlib.closing(done):
                for task, result in done:
                    if told is not None:
                        told(task)
                    yield result

    def abort(self) -> None:
        """End all processes at once; what is still asked of them is that they died.

        They are left a moment to remove what they have not finished writing.
        """
        with self._lock:
            self._closed = True
            alive = list(self._alive)
        for process in alive:
            process.terminate()
        end = time.monotonic() + _GRACE
        for process in alive:
            process.kill_at(end)

    def close(self, *, kill: bool = False) -> None:
        """End all processes: at once, or as soon as they have done what they were asked."""
        if kill:
            self.abort()
        with self._lock:
            self._closed = True
            alive, self._alive = self._alive, set()
        for process in alive:
            process.dismiss()
        for process in alive:
            process.end()

    @contextlib.contextmanager
    def lend(self) -> Iterator[_Process]:
        """A process that has nothing else to do; one that is lost meanwhile is replaced."""
        process = self._idle.get()
        try:
            process = self._start() if process is None else process
            yield process
        finally:
            if process is not None and process.killed:
                with self._lock:
                    self._alive.discard(process)
                process.end()
                process = None
            self._idle.put(process)

    @contextlib.contextmanager
    def _numbered(self) -> Iterator[int]:
        """The number of a run, whose workers are kept until it has ended."""
        number = next(_NUMBERS)
        with self._lock:
            self._running |= {number}
        try:
            yield number
        finally:
            with self._lock:
                self._running -= {number}

    @property
    def running(self) -> frozenset[int]:
        return self._running

    def _start(self) -> _Process:
        with self._lock:
            if self._closed:
                raise WorkerDied("no worker: the computation has ended")
            process = _Process()
            self._alive.add(process)
            return process


class _Idle:
    """Processes that have nothing to do; None stands for one that is not started.

    Who waited longest gets the next: else a run that has many tasks would keep another one from its first.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._processes: list[_Process | None] = [None] * count
        self._waiting: deque[queue.SimpleQueue[_Process | None]] = deque()

    def get(self) -> _Process | None:
        with self._lock:
            if self._processes:
                return self._processes.pop()
            turn: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
            self._waiting.append(turn)
        return turn.get()

    def put(self, process: _Process | None) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(process)
            else:
                self._processes.append(process)


class _Call:
    """Runs a task in whichever process has nothing to do."""

    def __init__(self, processes: Processes, number: int, make_worker: bytes) -> None:
        self._processes, self._number, self._make_worker = processes, number, make_worker

    def __call__(self, task: Any) -> Any:
        with self._processes.lend() as process:
            return process.call(self._number, self._make_worker, task, self._processes.running)


class _Process:
    """One process; one thread at a time may call it."""

    def __init__(self) -> None:
        # It may be imported from wherever this process has it from; imports pass over what is no text.
        path = [entry for entry in sys.path if isinstance(entry, str)]
        code = f"import sys; sys.path[:] = {path!r}; from kldiv_cli.process_worker import serve; serve()"
        # A terminal's interrupt is for this process alone, which tells the others what to do.
        windows = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        apart: dict[str, Any] = {"creationflags": windows} if windows else {"process_group": 0}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **apart
            )
        except OSError as error:
            raise WorkerDied(f"a worker process can't be started: {_obstacle(error)}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        self._known: tuple[int, ...] = ()
        """The workers that it has by now."""
        self.killed = False

    def call(self, number: int, make_worker: bytes, task: Any, running: frozenset[int]) -> Any:
        """The result of a task, or the error that it ended in.

        Raises
        ------
        WorkerDied
            The process did not live to tell.
        """
        known = number in self._known
        request = pickle.dumps(
            (number, None if known else make_worker, task, running), pickle.HIGHEST_PROTOCOL
        )
        answer = self._answer(request)
        if answer is None:
            raise WorkerDied(_obituary(self._process.wait()))
        result, error, self._known = pickle.loads(answer)  # noqa: S301 - from our own process
        if error is not None:
            raise error
        return result

    def _answer(self, request: bytes) -> bytes | None:
        """The answer to a request, all of it; without one the process is killed."""
        answer = None
        try:
            with contextlib.suppress(OSError):
                write_frame(self._requests, request)
                answer = read_frame(self._answers)
        finally:
            # What was left of half an answer would be taken for that to the next request.
            if answer is None:
                self.kill()
        return answer

    def kill(self) -> None:
        self.killed = True
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    def kill_at(self, end: float) -> None:
        """Wait until it has ended, but no longer than until then."""
        try:
            self._process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()

    def dismiss(self) -> None:
        """Tell it that there is nothing more to do."""
        with contextlib.suppress(OSError):
            self._requests.close()

    def end(self) -> None:
        """Wait until it has ended, and leave nothing open."""
        self.dismiss()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()


def _obstacle(error: OSError) -> str:
    """Why there is no process, and what helps."""
    said = error.strerror or str(error)
    if error.errno in _SHORTAGES:
        return f"{said}; take fewer --workers"
    return f"{sys.executable}: {said}; see that this interpreter can be started, or run kldiv with another"


def _obituary(code: int) -> str:
    if code >= 0:
        return f"a worker process ended with exit code {code} and no result; look for what it wrote to stderr"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = name == "SIGKILL"
    why = "out of memory? take fewer --workers, or less --memory" if memory else "a crash in a library?"
    return f"a worker process was killed by {name}: {why}"
