"""The other end of `cluster`: what a worker of Dask does for a run; all of it is sent and answered in bytes.

Dask would look into what it is given for futures, and measure it; bytes it passes on as they are.
"""

from __future__ import annotations

import pickle
import sys
import threading
import time
from collections.abc import Callable
from functools import reduce
from typing import Any, Final, NamedTuple

import numpy as np

from kldiv_cli.errors import UsageError, sendable
from kldiv_cli.sources.arrival import a_worker, work_for_others

__all__ = [
    "Answer",
    "Run",
    "TaskFailed",
    "Versions",
    "check_alike",
    "dumped",
    "merge_answers",
    "run_tasks",
    "versions",
]

_SUMMARY: Final = 500
"""Characters of an error in a worker's own log."""


class Versions(NamedTuple):
    """What must be the same everywhere for a result to be the same to the last bit."""

    kldiv: str
    numpy: str


def versions() -> Versions:
    # The package stands on the roof: its modules are not to import it.
    return Versions(sys.modules["kldiv_cli"].__version__, np.__version__)


def check_alike(there: Versions, here: Versions, where: str) -> None:
    """Refuse a worker whose results could be others.

    Raises
    ------
    UsageError
        It has another version of kldiv, or of NumPy.
    """
    for name, obtained, expected in zip(("kldiv-cli", "numpy"), there, here, strict=True):
        if obtained != expected:
            raise UsageError(
                f"{where}: has {name} {obtained}, expected {expected}, which is here; "
                f"pip install {name}=={expected} there"
            )


def dumped(value: object) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


class Run:
    """What the tasks of a run have in common, and on each worker what its threads reuse from task to task.

    Dask lets go of it with the run, and so of the memory and the open files; where it is sent on to
    another worker, these stay behind.
    """

    def __init__(self, make_worker: bytes, merge: bytes, versions: Versions) -> None:
        self.make_worker, self.merge, self.versions = make_worker, merge, versions
        self._of_thread = threading.local()

    def work(self) -> Callable[[Any], Any]:
        """What this thread does with a task."""
        if not hasattr(self._of_thread, "work"):
            check_alike(versions(), self.versions, "a worker of the cluster")
            self._of_thread.work = pickle.loads(self.make_worker)()  # noqa: S301 - from who uses this cluster
        work: Callable[[Any], Any] = self._of_thread.work
        return work

    def merged(self, results: list[Any]) -> Any:
        return reduce(pickle.loads(self.merge), results)  # noqa: S301

    def __reduce__(self) -> tuple[type, tuple[bytes, bytes, Versions]]:
        return type(self), (self.make_worker, self.merge, self.versions)


class TaskFailed(Exception):
    """An error in bytes: Dask has ways of its own to pickle errors, in which some of ours are lost."""

    def __str__(self) -> str:
        return str(self.args[0])

    @classmethod
    def of(cls, error: Exception) -> TaskFailed:
        return cls(repr(error)[:_SUMMARY], dumped(sendable(error)))

    def error(self) -> BaseException:
        """The error itself, and as a note where it was raised."""
        error: BaseException = pickle.loads(self.args[1])  # noqa: S301 - from the user's cluster
        return error


class Answer(NamedTuple):
    """What tasks came to, and how long they took."""

    tasks: int
    seconds: float
    results: list[Any]
    """One of each task, or a single one that they were merged into."""


def run_tasks(run: Run, tasks: bytes, *, together: bool) -> bytes:
    """The answer to tasks, in bytes."""
    work_for_others()
    try:
        work = run.work()
        start = time.perf_counter()
        results = list(map(work, pickle.loads(tasks)))  # noqa: S301
        seconds = time.perf_counter() - start
        return dumped(Answer(len(results), seconds, [run.merged(results)] if together else results))
    except ModuleNotFoundError as error:
        failed = TaskFailed.of(_not_installed(error))
    except Exception as error:  # noqa: BLE001 - raised again where the results are read
        failed = TaskFailed.of(error)
    # Not where the error is caught: it would be sent along as the context.
    raise failed


def _not_installed(error: ModuleNotFoundError) -> UsageError:
    package = str(error.name).partition(".")[0]
    return UsageError(
        f"{a_worker()}: the package {package} is not installed there; all machines need the extras of what "
        "is read, as in pip install 'kldiv-cli[dask,zarr]'"
    )


def merge_answers(run: Run, answers: list[bytes]) -> bytes:
    """Answers of a single result each, merged into one of them."""
    tasks, seconds, results = zip(*map(pickle.loads, answers), strict=True)
    return dumped(Answer(sum(tasks), sum(seconds), [run.merged([result for (result,) in results])]))
