"""Files that take their name in one step: until then the old one, if there was one, is untouched.

A failure or a signal leaves nothing else behind, but for what kills a process outright.
"""

from __future__ import annotations

import contextlib
import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from kldiv_cli.errors import OutputError
from kldiv_cli.streams import one_line
from kldiv_cli.urls import is_url, shown

__all__ = [
    "NewFile",
    "check_local",
    "check_place",
    "commit_all",
    "explained",
    "new_temporary",
    "publish",
    "remove_temporary",
    "remove_unfinished",
    "sync_directory",
]

_ELSEWHERE: Final = "choose another place"
_REMEDIES: Final = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), f"mend its permissions, or {_ELSEWHERE}"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), f"make room, or {_ELSEWHERE}"),
    errno.ENAMETOOLONG: "choose a shorter name",
}

_unfinished: set[Path] = set()
"""Temporary files of this process, from before they are there until they are gone."""


def check_place(address: str, path: Path, inputs: Iterable[str], *, force: bool) -> None:
    """Refuse a place that can't be written to, or that holds something else.

    Raises
    ------
    OutputError
        A file is there and `force` is not given, it is one of `inputs`, or there is no such directory.
    """
    with explained(path):
        if path.is_dir():
            raise OutputError(f"{address}: is a directory, expected a file name; name a file in it")
        if not path.parent.is_dir():
            raise OutputError(f"{address}: no directory {path.parent}; create it first")
        if path.exists() and not path.is_file():
            raise OutputError(f"{address}: is not a regular file, expected one; choose another name")
        if path.exists() and not force:
            raise OutputError(f"{address}: exists; overwrite it with --force")
    for source in inputs:
        if _is_same_file(path, source):
            raise OutputError(f"{address}: is the input {source}; choose another name")


def check_local(address: str, option: str = "") -> None:
    """Refuse what is no place on a disk here; `option` is what asked for it.

    Raises
    ------
    OutputError
        It is a URL.
    """
    if is_url(address):
        where = f"{option} {shown(address)}".lstrip()
        raise OutputError(f"{where}: a URL, expected a file; write it here and copy it there")


class NewFile(ABC):
    """A file that is written beside its place and takes its name when it is finished.

    `commit`, or `finish` and `publish`, is followed by `discard`, which removes what has no name by then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with explained(path):
            self.temporary = new_temporary(path)
            try:
                self._begin()
            except BaseException:
                self.discard()
                raise

    @abstractmethod
    def _begin(self) -> None:
        """Open the temporary file to be written to."""

    @abstractmethod
    def _close(self, *, durable: bool) -> None:
        """Close it, if `durable` with all that was written on the disk; it may be closed already."""

    def commit(self, *, force: bool) -> None:
        """Give the finished file its name, in one step; without `force` only if none has it by now.

        Raises
        ------
        OutputError
            It can't be written; what was there before still is.
        """
        self.finish()
        self.publish(force=force)

    def finish(self) -> None:
        """See all of it onto the disk, after which little can go wrong; the errors are those of `commit`."""
        with explained(self.path):
            self._close(durable=True)

    def publish(self, *, force: bool) -> None:
        """Give it its name; the errors are those of `commit`."""
        with explained(self.path):
            publish(self.temporary, self.path, force=force)

    def discard(self) -> None:
        """Remove what was written, unless it has its name already."""
        with contextlib.suppress(OSError, RuntimeError, ValueError, AttributeError):
            self._close(durable=False)
        remove_temporary(self.temporary)


def commit_all(files: Sequence[NewFile], *, force: bool) -> None:
    """Give all their names, or none of them; but what a file has replaced by `force` is gone."""
    for file in files:
        file.finish()
    new: list[tuple[Path, os.stat_result]] = []
    try:
        for file in files:
            if not os.path.lexists(file.path):
                new.append((file.path, os.stat(file.temporary)))
            file.publish(force=force)
    except BaseException:
        for path, written in new:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(path), written):
                    path.unlink()
        raise


def new_temporary(path: Path) -> Path:
    """An empty file beside the one that it is to become; a private one if it is to replace that."""
    temporary = path.parent / f".{path.name[:40]}.{os.urandom(8).hex()}.tmp"
    mode = 0o600 if path.exists() else 0o666
    # Before it is there, for a signal may come at any moment.
    _unfinished.add(temporary)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    except OSError:
        _unfinished.discard(temporary)
        raise
    return temporary


def remove_temporary(temporary: Path) -> None:
    """Remove such a file, unless it has become what it was to become."""
    temporary.unlink(missing_ok=True)
    _unfinished.discard(temporary)


def remove_unfinished() -> None:
    """Remove what no one else is left to remove, on the way out of the process.

    An exception that a signal raises may arrive between two lines: when a file is there already, and
    not yet in the hands of what would put it away.
    """
    for temporary in tuple(_unfinished):
        with contextlib.suppress(OSError):
            remove_temporary(temporary)


def publish(temporary: Path, path: Path, *, force: bool) -> None:
    """Give a finished file its name; without `force` only if none has it by now.

    It has the permissions of the one that it replaces, else those that the umask left it at first.
    """
    with contextlib.suppress(FileNotFoundError):
        os.chmod(temporary, path.stat().st_mode & 0o777)
    if force:
        os.replace(temporary, path)
    else:
        _rename_new(temporary, path)
    sync_directory(path.parent)


@contextlib.contextmanager
def explained(path: Path, rest: str = "nothing was written there") -> Iterator[None]:
    """Say in one line what the system said, of which file, what of it holds nevertheless, and what helps."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else one_line(error)
        remedy = _REMEDIES.get(number or 0, _ELSEWHERE)
        raise OutputError(f"{path}: {reason}, {rest}; {remedy}") from None


def _is_same_file(path: Path, source: str) -> bool:
    try:
        return os.path.samefile(path, source)
    except (OSError, ValueError):
        return False


def _rename_new(temporary: Path, path: Path) -> None:
    """Rename to a name that nothing has yet; a link fails where a rename would overwrite."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise OutputError(f"{path}: exists by now; overwrite it with --force") from None
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise OutputError(f"{path}: exists by now; overwrite it with --force") from None
        os.replace(temporary, path)


def sync_directory(path: Path) -> None:
    """Make new names in it durable, where directories can be opened; without that it is done all the same."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
