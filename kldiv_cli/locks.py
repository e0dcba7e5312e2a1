"""A lock on an open file that the system takes back when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

__all__ = ["lock"]

_HELD: Final = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})
_UNSUPPORTED: Final = frozenset(
    number
    for name in ("ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL")
    if (number := getattr(errno, name, None)) is not None
)


def lock(descriptor: int) -> bool:
    """Take a file for this process alone, without waiting; False where the file system has no locks.

    Raises
    ------
    BlockingIOError
        Another process has it.
    """
    try:
        _lock_now(descriptor)
    except OSError as error:
        if error.errno in _HELD:
            raise BlockingIOError(error.errno, "locked by another process") from None
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


if sys.platform == "win32":
    import msvcrt

    _FAR_BEHIND: Final = (1 << 31) - 2
    """A locked byte can't be read by others, so it is the last one that `msvcrt.locking` can reach."""

    def _lock_now(descriptor: int) -> None:
        os.lseek(descriptor, _FAR_BEHIND, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock_now(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
