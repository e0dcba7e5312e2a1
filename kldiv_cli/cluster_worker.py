"""The other end of `cluster`: what a worker of Dask does for a run; all of it is sent and answered in bytes.

Dask would look into what it is given for futures, and measure it; bytes it passes on as they are.
"""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from kldiv_cli.errors import UsageError
from kldiv_cli.process_worker import sendable

__all__ = ["Run", "Versions", "check_alike", "dumped", "merge_results", "run_tasks", "versions"]


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


def run_tasks(run: Run, tasks: bytes, *, together: bool) -> bytes:
    """The results of tasks, a list of them or all merged into one."""
    try:
        results = list(map(run.work(), pickle.loads(tasks)))  # noqa: S301
        return dumped(run.merged(results) if together else results)
    except Exception as error:  # noqa: BLE001 - raised again where the results are read
        raise sendable(error) from None


def merge_results(run: Run, results: list[bytes]) -> bytes:
    return dumped(run.merged(list(map(pickle.loads, results))))
