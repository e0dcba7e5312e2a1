"""A batch on a terminal while it runs: the pairs that finished last, the worst so far, and one bar.

What is drawn is made when it is drawn, a few times a second: taking a pair costs next to nothing,
however many come.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kldiv_cli.pair_result import PairResult
from kldiv_cli.record import value_at
from kldiv_cli.reductions import Reduction
from kldiv_cli.report.batch_grids import byte_size, leading
from kldiv_cli.report.console import console_for, drawn
from kldiv_cli.report.layout import ELLIPSIS, number
from kldiv_cli.report.table import DIGITS, TONES
from kldiv_cli.spec import Spec
from kldiv_cli.streams import printable

__all__ = ["LiveBatch", "live_batch"]

_KEPT: Final = 200
"""Pairs that the tallest terminal could show."""
_FRAMES: Final = 4
"""A second."""
_AROUND: Final = 5
"""Lines that are not rows: the head of the columns, the worst so far, the bar, the cursor's."""
_NARROW: Final = 64
"""Columns; on fewer less is shown of each pair and of how fast it goes."""


class _Finished(NamedTuple):
    name: str
    records: Sequence[Mapping[str, Any]]
    """None of a pair that failed."""


class LiveBatch:
    """What is known of a running batch; pairs may come from any thread."""

    def __init__(
        self, spec: Spec, reduction: Reduction | None, sizes: Mapping[str, int], *, table: bool
    ) -> None:
        """Of the pairs of these names, with the bytes that are to be read for each."""
        self._leading = leading(spec, reduction)
        self._sizes, self._table = sizes, table
        self._pairs, self._size = len(sizes), sum(sizes.values())
        self._lock = threading.Lock()
        self._recent: deque[_Finished] = deque(maxlen=_KEPT)
        self._begun = time.monotonic()
        self._done = self._from_journal = self._failed = self._spared = 0
        self._read = 0.0
        self._worst: tuple[str, float] | None = None

    def add(self, result: PairResult, *, from_journal: bool = False) -> None:
        """Take the next pair; what is in the journal tells nothing of how long the others take."""
        with self._lock:
            self._done += 1
            self._failed += result.error is not None
            if from_journal:
                self._from_journal += 1
                self._spared += self._sizes.get(result.name, 0)
            if self._table:
                self._recent.append(_Finished(result.name, result.records))
                self._compare(result)

    def advance(self, read: float) -> None:
        """Take that so many more bytes were read."""
        with self._lock:
            self._read += read

    def _compare(self, result: PairResult) -> None:
        value = value_at(result.records[0], self._leading) if result.records else None
        if value is not None and (self._worst is None or _badness(value) > _badness(self._worst[1])):
            self._worst = (result.name, value)

    def frame(self, console: Console) -> RenderableType:
        """What a console of this size shows now."""
        narrow = console.width < _NARROW
        with self._lock:
            bar = self._bar(narrow=narrow)
            recent, worst = tuple(self._recent), self._worst
        if not self._table:
            return bar
        parts: list[RenderableType] = [self._finished(recent, console, narrow=narrow)] if recent else []
        if worst is not None:
            said = f"worst so far: {self._leading} {number(worst[1], DIGITS)}  {printable(worst[0])}"
            parts.append(Text(said, style="bold", no_wrap=True, overflow="ellipsis"))
        return Group(*parts, bar)

    def _finished(self, recent: Sequence[_Finished], console: Console, *, narrow: bool) -> Text:
        """As many pairs as there is room for, the newest at the bottom."""
        room = max(console.height - _AROUND, 1)
        keys = [(self._leading,)] if narrow else [(self._leading,), *_SPREAD]
        head = ("pair", "loss", *(key[-1] for key in keys))
        rows = [row for finished in recent[-room:] for row in _rows(finished, keys)][-room:]
        return _laid_out(head, rows, console.width)

    def _bar(self, *, narrow: bool) -> Table:
        """How much is done, how fast, and how long the rest will take if it goes on like this."""
        elapsed = time.monotonic() - self._begun
        done, total, before = self._shares()
        left = elapsed / (done - before) * (total - done) if done > before else math.nan
        said = [f"{self._done}/{self._pairs}" if narrow else f"{self._done}/{self._pairs} pairs"]
        rate = self._read / elapsed if elapsed else 0.0
        speed = [] if narrow else [f"{byte_size(self._read)}, {byte_size(rate)}/s"]
        bar = ProgressBar(total=max(total, 1), completed=min(done, total))
        failed = [Text(f"{self._failed} failed", style=TONES["bad"])] if self._failed else []
        line = Table.grid(padding=(0, 1), expand=True)
        cells: list[RenderableType] = [
            *map(Text, said),
            bar,
            *map(Text, [*speed, _duration(left)]),
            *failed,
        ]
        for cell in cells:
            line.add_column(no_wrap=True, ratio=1 if cell is bar else None)
        line.add_row(*cells)
        return line

    def _shares(self) -> tuple[float, float, float]:
        """What is done, of how much, and what of it was before: in bytes, or in pairs if none are known."""
        if self._size:
            return self._spared + self._read, self._size, self._spared
        return self._done, self._pairs, self._from_journal


def _laid_out(head: tuple[str, ...], rows: Sequence[tuple[tuple[str, ...], bool]], width: int) -> Text:
    """Columns in one piece of text, which is drawn ten times as fast as a table; long names are cut."""
    cells = [head, *(row for row, _ in rows)]
    widths = [max(map(len, column)) for column in list(zip(*cells, strict=True))[1:]]
    names = max(map(cell_len, (row[0] for row in cells)))
    names = max(min(names, width - sum(widths) - 2 * len(widths) - 1), 1)

    def line(row: tuple[str, ...]) -> str:
        name, loss, *values = row
        padded = (value.rjust(size) for value, size in zip(values, widths[1:], strict=True))
        cut = cell_len(name) > names
        name = set_cell_size(name, names - 1) + ELLIPSIS if cut else set_cell_size(name, names)
        return "  ".join((name, loss.ljust(widths[0]), *padded)) + "\n"

    text = Text(line(head) + "─" * (names + sum(widths) + 2 * len(widths)) + "\n", no_wrap=True, end="")
    for row, failed in rows:
        text.append(line(row), style=TONES["bad" if failed else ""])
    return text


_SPREAD: Final = [("statistics", "p99"), ("statistics", "maximum")]


def _rows(finished: _Finished, keys: Sequence[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The cells of a row for each loss, and whether the pair failed."""
    name = printable(finished.name)
    if not finished.records:
        yield (name, "error", *("" for _ in keys)), True
    for record in finished.records:
        values = (value_at(record, *key) for key in keys)
        cells = ("" if value is None else number(value, DIGITS) for value in values)
        yield (name, record["loss"], *cells), False


def _badness(value: float) -> tuple[bool, float]:
    """What is not known is worse than anything that is."""
    unknown = math.isnan(value)
    return unknown, 0.0 if unknown else value


def _duration(seconds: float) -> str:
    """As a clock shows it.

    >>> _duration(3725.4), _duration(float("nan"))
    ('1:02:05', '-:--:--')
    """
    if not math.isfinite(seconds):
        return "-:--:--"
    minutes, whole = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{whole:02}"


@contextlib.contextmanager
def live_batch(
    spec: Spec, reduction: Reduction | None, sizes: Mapping[str, int], *, table: bool
) -> Iterator[LiveBatch]:
    """Draw on stderr, which must be a terminal, and leave nothing there; without `table` the bar alone."""
    console = console_for(sys.stderr)
    batch = LiveBatch(spec, reduction, sizes, table=table)
    # Results go to stdout as they are: only what is said on stderr is moved above what is drawn.
    live = Live(
        console=console,
        get_renderable=lambda: batch.frame(console),
        refresh_per_second=_FRAMES,
        transient=True,
        redirect_stdout=False,
    )
    with drawn(live):
        yield batch
