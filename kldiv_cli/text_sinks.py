"""Text that is written beside the results: reports and baselines, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from kldiv_cli.atomic import (
    NewFile,
    check_local,
    check_place,
    explained,
    new_temporary,
    remove_temporary,
)

__all__ = ["TextFile", "append_text", "check_output_text", "write_text"]


def check_output_text(
    option: str, address: str, inputs: Iterable[str], *, mark: str = "", force: bool = False
) -> Path:
    """Where a file goes; an earlier one, which begins with the same `mark`, is replaced without `force`.

    Raises
    ------
    OutputError
        Something else is there, it is one of `inputs`, or it can't be written there.
    """
    check_local(address, option)
    with explained(Path(address)):
        path = Path(os.path.realpath(address))
    check_place(f"{option} {address}", path, inputs, force=force or _begins_with(path, mark))
    with explained(path):
        remove_temporary(new_temporary(path))  # the work before the writing may be long
    return path


def write_text(path: Path, contents: str, *, force: bool) -> None:
    """Write a file in one step; without `force` only where there is none.

    Raises
    ------
    OutputError
        It can't be written; what was there before still is.
    """
    file = TextFile(path)
    try:
        file.write(contents)
        file.commit(force=force)
    finally:
        file.discard()


class TextFile(NewFile):
    """A file that grows for as long as the work takes, and takes its name when it is finished."""

    def _begin(self) -> None:
        # Closed by commit or discard.
        self._file = open(self.temporary, "w", encoding="utf-8", newline="\n")  # noqa: SIM115

    def write(self, text: str) -> None:
        """Add to it.

        Raises
        ------
        OutputError
            The file can't take it.
        """
        with explained(self.path):
            self._file.write(text)

    def _close(self, *, durable: bool) -> None:
        if durable:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()


def append_text(path: Path, contents: str) -> None:
    """Add to a file that others write to as well."""
    with explained(path), open(path, "a", encoding="utf-8", newline="\n") as file:
        file.write(contents)


def _begins_with(path: Path, mark: str) -> bool:
    beginning = mark.encode()
    try:
        if not mark or not path.is_file():  # a pipe would wait for a writer
            return False
        with open(path, "rb") as file:
            return file.read(len(beginning)) == beginning
    except OSError:
        return False
