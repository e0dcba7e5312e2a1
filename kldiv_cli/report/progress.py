"""A progress bar on stderr, on a terminal only."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from kldiv_cli.report.console import console_for, is_terminal

__all__ = ["progress_bar"]

_WORTH_A_BAR = 64 << 20
"""Bytes; less is done before anybody has read a bar."""


@contextlib.contextmanager
def progress_bar(
    elements: int, bytes_per_element: float, *, wanted: bool | None
) -> Iterator[Callable[[int], None] | None]:
    """Show how much is done, how fast and how long it will take; None where no bar is shown."""
    size = elements * bytes_per_element
    if wanted is None:
        wanted = is_terminal(sys.stderr) and size >= _WORTH_A_BAR
    if not wanted or not is_terminal(sys.stderr):
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("reading"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console_for(sys.stderr), transient=True) as bar:
        task = bar.add_task("", total=size)
        yield lambda done: bar.advance(task, done * bytes_per_element)
