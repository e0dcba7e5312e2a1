"""Files that match a pattern, as a shell would have it, but with nothing lost in silence.

The standard library's glob passes over directories that it can't list; a gate that checks what is
left would pass. Here they raise OSError, and a link that leads nowhere is a match.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kldiv_cli.patterns import WILDCARDS, fits_parts

__all__ = [
    "Glob",
    "directory_entries",
    "files_below",
    "find_matches",
    "is_directory",
    "name_filter",
    "parse_glob",
    "parts_filter",
]


class Glob(NamedTuple):
    """A pattern of files: the directory that exists literally, and the parts of the path behind it."""

    base: str
    parts: tuple[str, ...]

    @property
    def file_pattern(self) -> str:
        """What the name of a match matches."""
        return "*" if self.parts[-1] == "**" else self.parts[-1]


def parse_glob(path: str) -> Glob | None:
    """A path as a pattern; None if it exists as it is written, or has no wildcard behind what exists.

    Wildcards are ``*``, ``?``, ``[ab]``, ``[!ab]``, and ``**`` for any number of directories.
    """
    base, parts = path, list[str]()
    while base and not os.path.lexists(base):
        head, part = os.path.split(base)
        if head == base:
            break
        base, parts = head, [part, *parts] if part else parts
    return Glob(base, tuple(parts)) if any(map(WILDCARDS.search, parts)) else None


def find_matches(glob: Glob) -> list[str]:
    """All that match and are no directories, in order.

    Raises
    ------
    OSError
        A directory can't be listed.
    """
    tops = {glob.base}
    for part in glob.parts[:-1]:
        tops = {path for top in tops for path in _steps(top, part)}
    if glob.parts[-1] == "**":
        tops = {path for top in tops for path in _steps(top, "**")}
    return sorted(path for top in tops for path in _fitting(top, glob.file_pattern, directories=False))


def name_filter(pattern: str) -> Callable[[str], bool]:
    """Whether a name matches; one that begins with a dot only if the pattern does."""
    match = re.compile(fnmatch.translate(os.path.normcase(pattern))).match
    hidden = pattern.startswith(".")

    def fits(name: str) -> bool:
        return (hidden or not name.startswith(".")) and match(os.path.normcase(name)) is not None

    return fits


def parts_filter(parts: Sequence[str]) -> Callable[[Sequence[str]], bool]:
    """Whether the names on the way to a file match the parts of a pattern."""
    last = "*" if parts[-1] == "**" else None
    filters = [None if part == "**" else name_filter(part) for part in parts]
    filters += [name_filter(last)] if last else []
    return lambda names: fits_parts(filters, names)


def files_below(top: str) -> list[str]:
    """The paths below `top`, between slashes and in order, of all that is not hidden and no directory.

    Raises
    ------
    OSError
        A directory can't be listed.
    """
    found: list[str] = []
    for directory in _all_below(top):
        below = directory[len(top) :].lstrip(os.sep).replace(os.sep, "/")
        names = (os.path.basename(path) for path in _fitting(directory, "*", directories=False))
        found += (f"{below}/{name}" if below else name for name in names)
    return sorted(found)


def is_directory(path: str) -> bool:
    """Whether files are looked for in it: not in a .zarr, which is one array or a few, as a file is."""
    return os.path.isdir(path) and not _is_zarr(path)


def _is_zarr(path: str) -> bool:
    return path.rstrip(os.sep).lower().endswith(".zarr")


def directory_entries(directory: str) -> list[os.DirEntry[str]]:
    """What is in a directory: nothing where there is none, but OSError where it can't be listed."""
    try:
        with os.scandir(directory or os.curdir) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _steps(top: str, part: str) -> Iterator[str]:
    """The directories that a part of a pattern leads to."""
    return _all_below(top) if part == "**" else _fitting(top, part, directories=True)


def _fitting(top: str, part: str, *, directories: bool) -> Iterator[str]:
    """What there is in a directory by a name that fits: directories, or all else."""
    if not WILDCARDS.search(part):
        path = os.path.join(top, part)
        if os.path.lexists(path) and is_directory(path) == directories:
            yield path
        return
    fits = name_filter(part)
    for entry in directory_entries(top):
        if fits(entry.name) and (entry.is_dir() and not _is_zarr(entry.name)) == directories:
            yield os.path.join(top, entry.name)


def _all_below(top: str) -> Iterator[str]:
    """`top` and all directories below that are not hidden; a link to one above it is not followed."""
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [(top, frozenset())]
    while pending:
        directory, above = pending.pop()
        status = os.stat(directory or os.curdir)
        identity = (status.st_dev, status.st_ino)
        if identity not in above:
            yield directory
            below = above | {identity}
            pending += ((path, below) for path in _fitting(directory, "*", directories=True))
