"""The process's own streams: stdout takes results whole or says why not, stderr takes all else."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Final

from kldiv_cli.errors import OutputError

__all__ = ["ClosedPipe", "Stdout", "abandon_stdout", "excerpt", "harmless", "one_line", "printable", "say"]

_COMMAND: Final = re.compile(r"(?<![^\r\n])(?P<blanks>[^\S\r\n]*):(?=:)|(?P<marks>##\w*)\[")
"""``::`` at the beginning of a line, ``##[`` and ``##vso[`` anywhere."""


class ClosedPipe(Exception):
    """Whoever read our output has gone away."""


class Stdout(io.TextIOWrapper):
    """Standard output that is always buffered, so that no write is taken for whole when it was not."""

    def __init__(self) -> None:
        raw = io.FileIO(sys.__stdout__.fileno(), "w", closefd=False)  # type: ignore[union-attr]
        encoding = sys.__stdout__.encoding  # type: ignore[union-attr]
        super().__init__(io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace")

    def write(self, text: str) -> int:
        with _explained():
            return super().write(text)

    def flush(self) -> None:
        with _explained():
            super().flush()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ClosedPipe from None
    except OSError as error:
        raise OutputError(f"stdout: {error.strerror}; the result was not written whole") from None


def abandon_stdout() -> None:
    """Keep the interpreter from writing on its way out what could not be written."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str, *, command: bool = False) -> None:
    """Write a line to stderr, where there is one; only a `command` is one to a CI runner."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text if command else harmless(text)}\n")
        sys.stderr.flush()


def one_line(error: BaseException) -> str:
    """What an error of a library says, without its line breaks."""
    return " ".join(str(error).split())


def printable(text: str) -> str:
    """Text from outside, such as a file name, on one line, with control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def excerpt(text: str, most: int = 60) -> str:
    """Text from outside on one line and of bounded length."""
    return printable(text if len(text) <= most else f"{text[:most]}…")


def harmless(text: str) -> str:
    """Text in which a CI runner finds no command, whatever a file is called; JSON stays the same JSON.

    >>> print(harmless("::error::q.npy ##[group]"))
    \\u003a:error::q.npy ##\\u005bgroup]
    """
    return _COMMAND.sub(_escaped, text) if "::" in text or "##" in text else text


def _escaped(found: re.Match[str]) -> str:
    if found["marks"] is not None:
        return f"{found['marks']}\\u005b"
    return f"{found['blanks']}\\u003a"
