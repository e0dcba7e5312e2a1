"""Several streams of results as one, each of which runs in a thread of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final, TypeAlias, TypeVar

from kldiv_cli.execution import POLL_SECONDS

__all__ = ["interleaved"]

_WAITING: Final = 64
"""Results that may wait to be taken; behind them the workers wait."""

Result = TypeVar("Result")
_Results: TypeAlias = "queue.Queue[Result | BaseException | None]"


def interleaved(
    streams: Sequence[Generator[Result, None, None]], abort: Callable[[], None], stopped: threading.Event
) -> Iterator[Result]:
    """Yield the results of all, the first error ends it.

    Who stops asking for more sets `stopped`, and `abort` is to end at once what is under way.
    """
    results: _Results[Result] = queue.Queue(_WAITING)
    threads = [
        threading.Thread(target=_drain, args=(stream, results, stopped), daemon=True) for stream in streams
    ]
    try:
        for thread in threads:
            thread.start()
        running = len(threads)
        while running:
            try:
                result = results.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if result is None:
                running -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    except BaseException:
        stopped.set()
        abort()
        raise
    finally:
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _drain(
    stream: Generator[Result, None, None],
    results: _Results[Result],
    stopped: threading.Event,
) -> None:
    try:
        with contextlib.closing(stream):
            for result in stream:
                _put(results, result, stopped)
                if stopped.is_set():
                    break
        _put(results, None, stopped)
    except BaseException as error:  # noqa: BLE001 - raised again where the results are read
        _put(results, error, stopped)


def _put(
    results: _Results[Result],
    result: Result | BaseException | None,
    stopped: threading.Event,
) -> None:
    """Wait until there is room for a result, or until nobody wants it any more."""
    while not stopped.is_set():
        with contextlib.suppress(queue.Full):
            results.put(result, timeout=POLL_SECONDS)
            return
