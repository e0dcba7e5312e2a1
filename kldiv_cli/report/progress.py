"""Progress on stderr, on a terminal only."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from kldiv_cli.reductions import Reduction
from kldiv_cli.report.console import Format, console_for, drawn, is_terminal, resolve_format
from kldiv_cli.shapes import map_shape
from kldiv_cli.sources import Inputs
from kldiv_cli.spec import Spec

if TYPE_CHECKING:
    from kldiv_cli.report.batch_live import LiveBatch

__all__ = ["batch_progress", "progress_of"]

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


def batch_progress(
    spec: Spec, reduction: Reduction | None, sizes: Mapping[str, int], format: Format, *, wanted: bool | None
) -> contextlib.AbstractContextManager[LiveBatch | None]:
    """What is seen of a batch while it runs: the pairs where tables are shown at the end, else a bar.

    `sizes` has the name of each pair, with the bytes that are to be read for it.

    None where stderr is no terminal or one that can't redraw, and where results appear on the same
    screen one by one.
    """
    shown, on_screen = resolve_format(format), is_terminal(sys.stdout)
    lines = on_screen and shown in ("plain", "csv", "jsonl")
    if wanted is False or lines or not is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
        return contextlib.nullcontext()
    from kldiv_cli.report.batch_live import live_batch

    return live_batch(spec, reduction, sizes, table=on_screen and shown == "table")


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
    bar = Progress(*columns, console=console_for(sys.stderr), transient=True)
    with drawn(bar):
        task = bar.add_task("", total=size)
        yield lambda done: bar.advance(task, done * bytes_per_element)
