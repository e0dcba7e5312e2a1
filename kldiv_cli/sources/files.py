"""What arrays are read from: a regular file, or an object that is read over the network."""

from __future__ import annotations

from kldiv_cli.sources.readable import File
from kldiv_cli.sources.regular import RegularFile
from kldiv_cli.urls import is_remote

__all__ = ["open_file"]


def open_file(path: str) -> File:
    """The file or object of that name.

    Raises
    ------
    InputNotFound
        There is none.
    InputError
        It can't be read, or not in parts.
    """
    if is_remote(path):
        from kldiv_cli.sources.remote import open_remote

        return open_remote(path)
    return RegularFile(path)
