"""A file that lines are only ever added to, by one process at a time, and that outlives its writer.

A line is with the system as soon as `LineFile.append` returns, so that no death of the process can
take it back. It is on the disk with the first line that comes a second later or more, or when the file is
closed: a power cut takes the lines of a second, however long ago that was.
What others did to the file is not trusted: no line of it takes more than a bounded part of memory.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from kldiv_cli.atomic import explained, sync_directory
from kldiv_cli.errors import OutputError
from kldiv_cli.locks import lock

__all__ = ["Line", "LineFile", "open_line_file", "read_line_file"]

_FLAGS: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_WRITING: Final = os.O_RDWR | os.O_APPEND | _FLAGS
_KEPT: Final = "what was written there before is kept"
_SYNC_EVERY: Final = 1.0
"""Seconds; waiting for the disk costs as much as hundreds of lines."""
_CHUNK: Final = 1 << 20
_LONGEST: Final = 64 << 20
"""Bytes of a line; those that are written have a tenth of it at the most."""


class Line(NamedTuple):
    """A line as it was found."""

    offset: int
    contents: bytes
    """With its newline; nothing of a line that is longer than any that is written."""
    ended: bool
    """Whether it has a newline, which the last may lack."""


class LineFile:
    """An open file of lines, locked while it is open to be written to."""

    def __init__(self, path: Path, descriptor: int, *, locked: bool) -> None:
        self.path = path
        self.locked = locked
        """False where the file system has no locks, or the file is only read."""
        self._descriptor = descriptor
        self._writing = threading.Lock()
        self._torn = False
        self._unsynced = False
        self._synced = time.monotonic()
        _open_files.add(self)

    def append(self, line: bytes) -> int:
        """Add a line, which ends in a newline, in one write where the system takes it; return its offset.

        Raises
        ------
        OutputError
            It can't be written, or only a part of it: the next line begins on a line of its own.
        """
        with self._writing, explained(self.path, _KEPT):
            # After a failure, or an exception from a signal, the end of the file is part of a line.
            rest = memoryview(b"\n" + line if self._torn else line)
            self._torn = self._unsynced = True
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            self._torn = False
            offset = os.lseek(self._descriptor, 0, os.SEEK_CUR) - len(line)
            if time.monotonic() - self._synced >= _SYNC_EVERY:
                self._sync()
            return offset

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes, or as many as there are."""
        with self._writing, explained(self.path, _KEPT):
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            parts = []
            while length and (part := os.read(self._descriptor, length)):
                parts.append(part)
                length -= len(part)
            return b"".join(parts)

    def lines(self, offset: int = 0) -> Iterator[Line]:
        """Every line from an offset on."""
        with explained(self.path, _KEPT), open(os.dup(self._descriptor), "rb", buffering=_CHUNK) as file:
            file.seek(offset)
            while contents := file.readline(_LONGEST):
                start, offset = offset, offset + len(contents)
                ended = contents.endswith(b"\n")
                if not ended and len(contents) == _LONGEST:
                    contents = b""
                    ended = _pass_over(file)
                    offset = file.tell()
                yield Line(start, contents, ended)

    def truncate(self, size: int) -> None:
        """Drop what is behind."""
        with self._writing, explained(self.path, _KEPT):
            os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        """See everything onto the disk, and let others have the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            with explained(self.path, _KEPT):
                if self._unsynced:
                    os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def abandon(self) -> None:
        """Close what a fork has copied: a child that outlives its parent must not keep the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _sync(self) -> None:
        os.fsync(self._descriptor)
        self._unsynced = False
        self._synced = time.monotonic()


def _pass_over(file: BinaryIO) -> bool:
    """Skip the rest of a line; return whether it ends."""
    while part := file.readline(_CHUNK):
        if part.endswith(b"\n"):
            return True
    return False


_open_files: weakref.WeakSet[LineFile] = weakref.WeakSet()


def _abandon_all() -> None:
    for file in list(_open_files):
        file.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def open_line_file(path: Path) -> LineFile:
    """Open a file, or make an empty one, and lock it.

    Raises
    ------
    OutputError
        Another process has it, or it can't be written.
    """
    with explained(path, _KEPT):
        while True:
            descriptor, new = _opened(path)
            try:
                locked = _locked(path, descriptor)
                if _is_still_there(path, descriptor):
                    if new:
                        sync_directory(path.parent)
                    return LineFile(path, descriptor, locked=locked)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def read_line_file(path: Path) -> LineFile:
    """Open a file that is there to read it alone, whoever writes to it.

    Raises
    ------
    OutputError
        It can't be read.
    """
    with explained(path, "expected a file that can be read"):
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
        try:
            _check_regular(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
    return LineFile(path, descriptor, locked=False)


def _opened(path: Path) -> tuple[int, bool]:
    """A descriptor, and whether the file is new."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, _WRITING), False
        with contextlib.suppress(FileExistsError):
            return os.open(path, _WRITING | os.O_CREAT | os.O_EXCL, 0o666), True


def _locked(path: Path, descriptor: int) -> bool:
    _check_regular(path, descriptor)
    try:
        return lock(descriptor)
    except BlockingIOError:
        raise OutputError(
            f"{path}: another process is writing to it; wait until that has ended, or choose another file"
        ) from None


def _check_regular(path: Path, descriptor: int) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OutputError(f"{path}: is not a regular file, expected one; choose another name")


def _is_still_there(path: Path, descriptor: int) -> bool:
    """Whether nobody has replaced the file between its opening and its locking."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
