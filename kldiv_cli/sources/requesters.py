"""Threads that make requests for who waits, so that a signal is heard before the answer is there.

obstore waits for a server in Rust, where Python hears no signal: one that accepts a connection and never
answers would hold up an interrupt for minutes. So whoever is to be interrupted waits here, in Python, and
a request that nobody waits for any more is left to itself. Its thread is a daemon: Python ends without it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, Final, ParamSpec, TypeVar

from kldiv_cli.stopping import Abandoned, heeded

__all__ = ["Requesters", "answer_of", "apart", "await_all", "awaited"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_POLL_SECONDS: Final = 0.2
"""On Windows a wait without a timeout can't be interrupted."""
_MOST: Final = 1 << 16
"""Threads that all callers share: as many as wait at once, and those that were left to themselves."""

_Calls = queue.SimpleQueue["_Call | None"]


class Requesters:
    """So many threads at most, which are started as they are needed and kept until `close`."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._team = _Team(at_once)

    def submit(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Future[Result]:
        """Have a function called by the next thread that has nothing to do."""
        team = self._team
        if team.process != os.getpid():
            # Of a process only the thread that forks it goes on in the other one.
            self._team = team = _Team(self._at_once)
        return team.submit(_Call(function, args, kwargs))

    def close(self) -> None:
        """Cancel what has not begun; what has is not waited for, and its thread ends after it."""
        self._team.close()
        self._team = _Team(self._at_once)


class _Call:
    """A function that is to be called, and where its result is awaited."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.future: Future[Any] = Future()
        self._function, self._args, self._kwargs = function, args, kwargs

    def __call__(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._function(*self._args, **self._kwargs)
        except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class _Team:
    """The threads of one process; they don't hold it, and end with it."""

    def __init__(self, at_once: int) -> None:
        self.process = os.getpid()
        self._at_once = at_once
        self._lock = threading.Lock()
        self._calls: _Calls = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        """How many threads more there are than calls: a call is counted off as it comes, on as it is done."""
        self._count = 0
        weakref.finalize(self, self._calls.put, None).atexit = False

    def submit(self, call: _Call) -> Future[Any]:
        with self._lock:
            self._calls.put(call)
            if not self._idle.acquire(blocking=False) and self._count < self._at_once:
                self._start(call)
        return call.future

    def _start(self, call: _Call) -> None:
        """Start a thread for what no other one has the time for, be it this call or one before it."""
        serving = (self._calls, self._idle)
        try:
            threading.Thread(target=_serve, args=serving, name="kldiv-request", daemon=True).start()
        except RuntimeError:
            # There can be no more threads; those that are there do it, if there are some.
            if not self._count:
                call.future.cancel()
                raise
        else:
            self._count += 1

    def close(self) -> None:
        with contextlib.suppress(queue.Empty):
            while (call := self._calls.get_nowait()) is not None:
                call.future.cancel()
        self._calls.put(None)


def _serve(calls: _Calls, idle: threading.Semaphore) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # its result belongs to who waits for it
        idle.release()
    calls.put(None)  # for the next thread


_shared: Final = Requesters(_MOST)


def awaited(future: Future[Result]) -> Result:
    """The result, or the error, of what another thread does; a signal is heard meanwhile.

    Raises
    ------
    Abandoned
        This thread is to stop.
    """
    stopped = heeded()
    while not future.done():
        if stopped is not None and stopped.is_set():
            future.cancel()
            raise Abandoned
        with contextlib.suppress(TimeoutError):
            future.exception(_POLL_SECONDS)
    return future.result()


def await_all(futures: Sequence[Future[Any]]) -> None:
    """Wait until all are done; the first error cancels those that have not begun.

    It is raised once the others have ended, which might still write where somebody else reads by then.
    A signal is passed on at once.
    """
    failed: Exception | None = None
    try:
        for future in futures:
            try:
                awaited(future)
            except CancelledError:
                pass
            except Exception as error:  # noqa: BLE001 - raised below
                failed = failed or error
                _cancel(futures)
    except BaseException:
        _cancel(futures)
        raise
    if failed is not None:
        raise failed


def _cancel(futures: Sequence[Future[Any]]) -> None:
    for future in futures:
        future.cancel()


def apart(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """What a function returns in a thread of its own."""
    return awaited(_shared.submit(function, *args, **kwargs))


def answer_of(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """What a request returns, made apart from the main thread and from those that may be told to stop."""
    if heeded() is not None or threading.current_thread() is threading.main_thread():
        return apart(function, *args, **kwargs)
    return function(*args, **kwargs)
