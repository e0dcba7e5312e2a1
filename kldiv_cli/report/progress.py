"""A progress bar on stderr, on a terminal only."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator

from kldiv_cli.report.console import console_for, is_terminal
from kldiv_cli.shapes import map_shape
from kldiv_cli.sources import Inputs
from kldiv_cli.spec import Spec

__all__ = ["progress_of"]

_WORTH_A_BAR = 64 << 20
"""Bytes; less is done before anybody has read a bar."""


def progress_of(
    spec: Spec, inputs: Inputs, *, wanted: bool | None
) -> contextlib.AbstractContextManager[Callable[[int], None] | None]:
    """The bar of a computation, as long as what it reads.

    Raises
    ------
    InputError
        The inputs do not fit each other.
    """
    elements = math.prod(map_shape(spec, inputs))
    size = sum(math.prod(source.shape) * source.dtype.itemsize for source in inputs.all())
    return _bar(elements, size / max(elements, 1), wanted=wanted)


@contextlib.contextmanager
def _bar(
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
