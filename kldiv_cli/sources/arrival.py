"""What a worker on another machine says of inputs that it doesn't see as who sent them, or can't read."""

from __future__ import annotations

import platform
from typing import Final, Protocol

from kldiv_cli.errors import InputNotFound

__all__ = ["SAME_FOR_ALL", "Sent", "a_worker", "seen_here", "unseen", "work_for_others"]

SAME_FOR_ALL: Final = (
    "all workers must see the same input: share its file system, or copy it with its time (rsync -a, cp -p)"
)

_for_others = False


class Sent(Protocol):
    """An input that is sent to a worker, which looks whether it sees the same one."""

    def check_arrival(self) -> None:
        """Raise `InputError` where it was sent to another machine that can't see it, or sees another."""


def a_worker() -> str:
    return f"a worker on {platform.node()}"


def work_for_others() -> None:
    """From now on this process is a worker, and says so."""
    global _for_others
    _for_others = True


def seen_here(where: str) -> str:
    """How an error begins that may be none on another machine, of other networks, settings and packages."""
    return f"{where}: {a_worker()}" if _for_others else where


def unseen(where: str, location: str, error: OSError) -> InputNotFound:
    """What to say of an input that is not to be had where it was sent to."""
    return InputNotFound(
        f"{where}: {a_worker()} can't see {location} ({error.strerror}); inputs must lie on a file system "
        "that all workers see at the same place"
    )
