"""Regular files, read by position and watched for change."""

from __future__ import annotations

import os
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from kldiv_cli.errors import FormatError, InputChanged, InputError, InputNotFound
from kldiv_cli.sources.arrival import SAME_FOR_ALL, a_worker, unseen

__all__ = ["DescriptorFile", "Identity", "RegularFile", "check_regular", "is_empty"]


class Identity(NamedTuple):
    """What must stay the same while a file is read."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def check_regular(path: str) -> Identity:
    """Return the identity of a regular file; refuse all else without opening it (a FIFO would hang)."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputNotFound(f"{path}: no such file{_selection_hint(path)}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: {_kind(status.st_mode)}, expected a regular file")
    if status.st_size == 0:
        raise FormatError(f"{path}: empty file (0 bytes), expected an array")
    return Identity.of(status)


def is_empty(path: str) -> bool:
    """Whether a regular file has nothing in it, of which `check_regular` says that it is no array.

    Raises
    ------
    InputError
        There is no regular file.
    """
    try:
        check_regular(path)
    except FormatError:
        return True
    return False


def _selection_hint(path: str) -> str:
    name, bracket, selection = path.partition("[")
    if bracket and os.path.exists(name):
        return f"; a part of {name} is named {name}::[{selection}"
    return ""


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe (FIFO)",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


class DescriptorFile(ABC):
    """What is read through a descriptor, opened at the first read; several threads may read at once."""

    request_bytes = 0
    is_local = True

    def __init__(self, path: str) -> None:
        self._descriptor: int | None = None
        self._lock = threading.Lock()
        self.path = path

    @property
    @abstractmethod
    def size(self) -> int: ...

    @abstractmethod
    def verify(self) -> None:
        """Raise `InputChanged` if the file was written to since it was opened."""

    @abstractmethod
    def _new_descriptor(self) -> int: ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from `offset`; a file that is too short by now has changed."""
        descriptor = self._descriptor if self._descriptor is not None else self._open()
        done = 0
        while done < len(buffer):
            try:
                count = self._read_at(descriptor, buffer[done:], offset + done)
            except OSError as error:
                raise InputError(f"{self.path}: {error.strerror} at byte {offset + done}") from None
            if count == 0:
                raise InputChanged(
                    f"{self.path}: ended at byte {offset + done} of {self.size}: it was truncated "
                    "while it was read; run again when nothing writes to it"
                )
            done += count

    def read_pieces(self, pieces: Sequence[tuple[memoryview, int]]) -> None:
        for buffer, offset in pieces:
            self.read_into(buffer, offset)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes, or as many as there are."""
        contents = bytearray(max(0, min(length, self.size - offset)))
        self.read_into(memoryview(contents), offset)
        return bytes(contents)

    def close(self) -> None:
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _open(self) -> int:
        with self._lock:
            if self._descriptor is None:
                try:
                    self._descriptor = self._new_descriptor()
                except InputError:
                    raise
                except OSError as error:
                    raise InputError(f"{self.path}: {error.strerror or error}") from None
            return self._descriptor

    if hasattr(os, "preadv"):

        def _read_at(self, descriptor: int, buffer: memoryview, offset: int) -> int:
            return os.preadv(descriptor, [buffer], offset)

    else:

        def _read_at(self, descriptor: int, buffer: memoryview, offset: int) -> int:
            with self._lock:
                os.lseek(descriptor, offset, os.SEEK_SET)
                contents = os.read(descriptor, len(buffer))
            buffer[: len(contents)] = contents
            return len(contents)

    def __del__(self) -> None:
        self.close()


class RegularFile(DescriptorFile):
    """A regular file."""

    def __init__(self, path: str, identity: Identity | None = None, location: str | None = None) -> None:
        super().__init__(path)
        self.location = location or path
        """What is opened: the same file where the working directory is another one."""
        self._was_sent = location is not None
        self.identity = identity or check_regular(path)

    @property
    def size(self) -> int:
        return self.identity.size

    def stream(self) -> str:
        return self.location

    def check_arrival(self) -> None:
        """Look for it where it was sent to: on another machine only its inode may be another.

        Raises
        ------
        InputNotFound
            It is not there, so that it lies where only the sender sees it.
        InputChanged
            It is there, but not the same one.
        """
        if self._was_sent:
            os.close(self._new_descriptor())

    def verify(self) -> None:
        try:
            now = check_regular(self.path)
        except InputError:
            now = None
        if now != self.identity:
            raise self._changed()

    def _changed(self) -> InputChanged:
        return InputChanged(f"{self.path}: changed while it was read; run again when nothing writes to it")

    def _new_descriptor(self) -> int:
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        if not self._was_sent:
            return os.open(self.location, flags)
        try:
            # Opened first: what is known without that of a file on another machine may be of long ago.
            descriptor = os.open(self.location, flags)
        except OSError as error:
            raise unseen(self.path, self.location, error) from None
        try:
            self._check_same(Identity.of(os.fstat(descriptor)))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check_same(self, there: Identity) -> None:
        """Refuse another file in the place of the one that was sent."""
        if there == self.identity:
            return
        if there[:2] == self.identity[:2]:
            raise self._changed()
        if there.size != self.identity.size:
            found, expected = f"{there.size} bytes", f"{self.identity.size}"
        elif there.mtime_ns != self.identity.mtime_ns:
            found = f"a file written at {_moment(there.mtime_ns)}"
            expected = f"one written at {_moment(self.identity.mtime_ns)}"
        else:
            return
        raise InputChanged(
            f"{self.path}: {a_worker()} sees {found} at {self.location}, expected {expected}; {SAME_FOR_ALL}"
        )

    def __reduce__(self) -> tuple[type, tuple[str, Identity, str]]:
        return type(self), (self.path, self.identity, os.path.abspath(self.location))


def _moment(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:09} UTC"
