"""What tells a file from the same one after a change, without reading it."""

from __future__ import annotations

from typing import NamedTuple

from kldiv_cli.sources.regular import check_regular

__all__ = ["FileStamp", "file_stamp"]


class FileStamp(NamedTuple):
    """Of a regular file."""

    size: int
    mtime_ns: int


def file_stamp(path: str) -> FileStamp:
    """The size of a file, and when it was last written to.

    Raises
    ------
    InputError
        There is no such file, it is not a regular one, or it is empty, as when it is opened.
    """
    identity = check_regular(path)
    return FileStamp(identity.size, identity.mtime_ns)
