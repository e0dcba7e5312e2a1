"""The process's own streams: stdout takes results whole or says why not, stderr takes all else."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from kldiv_cli.errors import OutputError

__all__ = ["ClosedPipe", "Stdout", "abandon_stdout", "printable", "say"]


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


def say(text: str) -> None:
    """Write a line to stderr, where there is one."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def printable(text: str) -> str:
    """Text from outside, such as a file name, on one line, with control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
