"""A cluster of Dask that runs tasks, once it is found and its workers are such that results are the same.

It is the user's: it is neither started nor stopped here, and nothing of a run is left on it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, Self, TypeVar

from kldiv_cli.cluster_probe import check_scheduler
from kldiv_cli.cluster_run import ClusterRun
from kldiv_cli.cluster_worker import check_alike, dumped, versions
from kldiv_cli.errors import UsageError, WorkerDied
from kldiv_cli.execution import MakeWorker
from kldiv_cli.streams import one_line

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Cluster", "connect"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_PATIENCE: Final = 10.0
"""Seconds that a scheduler has to answer, and then to have a worker."""
_FAREWELL: Final = 2.0
_GREETINGS: Final = 3
"""How often the greeting of a scheduler may be missed."""
_ADDRESS: Final = "an address such as tcp://10.0.0.1:8786"
_FILE: Final = "that which dask scheduler --scheduler-file FILE writes"
_LOGGERS: Final = (
    "asyncio",
    "distributed",
    "distributed.client",
    "distributed.gc",
    "tornado",
    "tornado.application",
)


def connect(address: str, patience: float = _PATIENCE) -> Cluster:
    """The cluster whose scheduler is at `address`, or in the file of that name which a scheduler wrote.

    Raises
    ------
    UsageError
        Dask is not installed, there is no scheduler within `patience` seconds or it has no workers, or
        these have no kldiv, or another version of it.
    """
    Client = _client_class()  # noqa: N806 - a class
    where = f"scheduler {address}"
    found = _address(where, address)
    check_scheduler(where, found, patience)
    try:
        client = _greeted(Client, found, patience)
    except (OSError, ImportError) as error:
        raise UsageError(
            f"{where}: no answer from a Dask scheduler ({one_line(error)}); start one with dask scheduler"
        ) from None
    try:
        return Cluster(client, _threads(client, where, patience), where)
    except BaseException:
        client.close(timeout=_FAREWELL)
        raise


class Cluster:
    """An executor of all threads of a cluster, whose files must be those that are seen here.

    Any thread may run tasks. Workers that join later get tasks too; those of one that is lost are run
    again elsewhere.
    """

    shared = False
    here = False

    def __init__(self, client: Client, workers: int, where: str) -> None:
        self.workers = workers
        self._client, self._where = client, where
        self._runs: set[ClusterRun] = set()
        self._aborted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, which forgets what it was asked."""
        with contextlib.suppress(OSError):
            self._client.close(timeout=_FAREWELL)

    def run(
        self,
        tasks: Iterable[Task],
        make_worker: MakeWorker[Task, Result],
        *,
        merge: Callable[[Result, Result], Result] | None = None,
        told: Callable[[Task], None] | None = None,
        failed: Callable[[Task, Exception], Result] | None = None,
    ) -> Iterator[Result]:
        # What is merged is lost together.
        together = merge is not None and failed is None
        run = ClusterRun(self._client, self.workers, self._where, together, failed)
        self._runs.add(run)
        try:
            # Who aborts before this is seen here, and who does later cancels the run.
            if self._aborted:
                raise WorkerDied(f"{self._where}: the computation has ended")
            run.begin(dumped(make_worker), dumped(merge))
            yield from run.results(iter(tasks), told or (lambda task: None))
        except BaseException:
            run.cancel()
            raise
        finally:
            self._runs.discard(run)

    def abort(self) -> None:
        """Take off the cluster what runs there."""
        self._aborted = True
        for run in list(self._runs):
            run.cancel()


def _greeted(kind: type[Client], address: str, patience: float) -> Client:
    """A client whose scheduler greeted it with nothing else in the same message, which Dask asserts."""
    for tries in itertools.count(1):
        # It is to be closed whether it is ever finished or not.
        client: Client = object.__new__(kind)
        try:
            kind.__init__(client, address, timeout=patience, set_as_default=False)
        except AssertionError:
            client.close(timeout=_FAREWELL)
            if tries == _GREETINGS:
                raise
        else:
            break
    return client


def _client_class() -> type[Client]:
    """Dask's client; where it is imported for us alone, its own log and warnings stay off stderr.

    What they tell of is told as an error, if it is one.
    """
    ours = "distributed" not in sys.modules
    try:
        from distributed import Client
        from distributed.versions import VersionMismatchWarning
    except ModuleNotFoundError as error:
        raise UsageError(
            f"scheduler: needs Dask, {error.name} is not installed; pip install 'kldiv-cli[dask]'"
        ) from None
    if ours:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        warnings.filterwarnings("ignore", category=VersionMismatchWarning)
    chosen: type[Client] = Client
    return chosen


def _address(where: str, given: str) -> str:
    """The address itself, or that in a file which a scheduler wrote."""
    from distributed.comm import get_address_host_port

    if _is_file(given) and not os.path.lexists(given):
        raise UsageError(f"{where}: no such file; expected {_FILE}, or {_ADDRESS}")
    address = _written_in(where, given) if os.path.isfile(given) else given
    try:
        get_address_host_port(address)
    except ValueError as error:
        raise UsageError(f"{where}: {one_line(error)}; expected {_ADDRESS}, or {_FILE}") from None
    return address


def _written_in(where: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            written = json.load(file)
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}; expected {_FILE}, or {_ADDRESS}") from None
    except (ValueError, RecursionError):
        written = None
    address = written.get("address") if isinstance(written, dict) else None
    if not isinstance(address, str):
        raise UsageError(f"{where}: not a scheduler's file; expected {_FILE}, or {_ADDRESS}")
    return address


def _is_file(given: str) -> bool:
    """Whether it can only be meant as the name of a file."""
    return "://" not in given and (given.endswith(".json") or os.path.basename(given) != given)


def _threads(client: Client, where: str, patience: float) -> int:
    """How many threads the cluster has, once it has any, all of them with what is installed here."""
    try:
        client.wait_for_workers(1, timeout=patience)
    except TimeoutError:
        raise UsageError(
            f"{where}: has no workers after {patience:g} s; start one with "
            f"dask worker {client.scheduler.address} --nthreads 1"
        ) from None
    threads = client.nthreads()
    for worker, there in client.run(versions, on_error="return").items():
        if isinstance(there, BaseException):
            raise UsageError(
                f"{where}: worker {worker} can't import kldiv ({one_line(there)}); "
                f"pip install kldiv-cli=={versions().kldiv} there"
            )
        check_alike(there, versions(), f"{where}: worker {worker}")
    return sum(threads.values())
