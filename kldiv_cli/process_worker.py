"""The other end of `processes`: a process that takes tasks from its stdin and answers on its stdout."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import IO, Any, Final

from kldiv_cli.errors import sendable

__all__ = ["read_frame", "serve", "write_frame"]

_LENGTH: Final = 8
_SOON: Final = 0.01
"""Seconds."""


def read_frame(stream: IO[bytes]) -> bytes | None:
    """What was written as one; None at the end, or if the end is in the middle of it."""
    length = stream.read(_LENGTH)
    if len(length) < _LENGTH:
        return None
    size = int.from_bytes(length, "little")
    contents = stream.read(size)
    return contents if len(contents) == size else None


def write_frame(stream: IO[bytes], contents: bytes) -> None:
    stream.write(len(contents).to_bytes(_LENGTH, "little"))
    stream.write(contents)
    stream.flush()


class _Dismissed(BaseException):
    """SIGTERM, raised so that unfinished outputs are removed on the way out."""


def serve() -> None:
    """Answer requests until there are no more: a task, and what makes a worker if that is new.

    A worker is kept, with its memory, for as long as its run is among those that have not ended. An
    answer is a result, or the error in its place, and the numbers of the workers that are kept.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Results make no cycles, yet looking for some takes a share of each small task.
    gc.set_threshold(100_000)
    signal.signal(signal.SIGTERM, _dismiss)
    try:
        _serve()
    except BrokenPipeError:
        # Whoever asked is gone; what is left in the buffer would be complained about at an orderly exit.
        os._exit(0)
    except _Dismissed:
        from kldiv_cli.atomic import remove_unfinished

        remove_unfinished()
        # So that it is known what ended it.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _serve() -> None:
    requests, answers = _streams()
    workers: dict[int, Callable[[Any], Any]] = {}
    while (request := read_frame(requests)) is not None:
        write_frame(answers, _answer(request, workers))


def _dismiss(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.unraisablehook = _dismiss_again
    raise _Dismissed


def _dismiss_again(unraisable: sys.UnraisableHookArgs) -> None:
    """A callback can't pass the exception on; it is raised anew behind it."""
    if unraisable.exc_type is not _Dismissed:
        sys.__unraisablehook__(unraisable)
    elif hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _dismiss)
        signal.setitimer(signal.ITIMER_REAL, _SOON)


def _streams() -> tuple[IO[bytes], IO[bytes]]:
    """For the frames alone: what a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, answers


def _answer(request: bytes, workers: dict[int, Callable[[Any], Any]]) -> bytes:
    try:
        # From the process that started this one.
        number, make_worker, task, running = pickle.loads(request)  # noqa: S301
        for ended in workers.keys() - running:
            del workers[ended]
        if number not in workers:
            workers[number] = pickle.loads(make_worker)()  # noqa: S301
        return pickle.dumps((workers[number](task), None, tuple(workers)), pickle.HIGHEST_PROTOCOL)
    except _Dismissed:
        raise
    except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
        return pickle.dumps((None, sendable(error), tuple(workers)), pickle.HIGHEST_PROTOCOL)
