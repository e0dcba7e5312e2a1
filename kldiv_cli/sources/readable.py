"""What is read by position, whatever it is read from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Protocol

from kldiv_cli.sources.arrival import Sent

__all__ = ["File", "ReadableFile"]


class ReadableFile(Protocol):
    """Bytes that are read by position, from several threads at once, and watched for change; picklable."""

    path: str
    """As it may be shown: without what is secret in a URL."""
    is_local: bool
    """Whether `path` is that of a file here."""
    request_bytes: int
    """Reading so many bytes more takes no longer than another read; 0 where reads cost nothing."""

    @property
    def size(self) -> int: ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from `offset`."""

    def read_pieces(self, pieces: Sequence[tuple[memoryview, int]]) -> None:
        """Fill each buffer from its offset, in any order."""

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes, or as many as there are."""

    def verify(self) -> None:
        """Raise `InputChanged` if it was written to since it was opened."""

    def close(self) -> None:
        """Close what is open here; reading opens it again."""


class File(ReadableFile, Sent, Protocol):
    """A file that libraries can read by themselves as well."""

    def stream(self) -> str | io.RawIOBase:
        """What they open: a path, or something that seeks and reads."""
