"""How a thread learns that nobody waits for it any more, which it looks at while it waits for others."""

from __future__ import annotations

import threading

__all__ = ["Abandoned", "heed", "heeded"]

_here = threading.local()


class Abandoned(BaseException):
    """The thread was told to stop while it waited; no `Exception`, for nothing that it did was wrong."""


def heed(stopped: threading.Event) -> None:
    """Wait for others in this thread only until this is set."""
    _here.stopped = stopped


def heeded() -> threading.Event | None:
    """What tells this thread to stop, if anything does."""
    stopped: threading.Event | None = getattr(_here, "stopped", None)
    return stopped
