"""Two histograms of losses side by side: those of a baseline, and those of now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kldiv_cli.octaves import Octaves
from kldiv_cli.report.layout import Grid

__all__ = ["octave_grid"]

_ROWS: Final = 24
"""Octaves shown, the uppermost; those below are counted together."""
_WIDTH: Final = 16
_EIGHTHS: Final = "▏▎▍▌▋▊▉█"


def octave_grid(name: str, baseline: Octaves, now: Octaves) -> Grid:
    """How many losses lie in each octave, as numbers and as bars that show shares of all."""
    labels, rows = _counted(baseline, now)
    totals = [max(1, octaves.total) for octaves in (baseline, now)]
    shares = (count / total for row in rows for count, total in zip(row, totals, strict=True))
    peak = max(shares, default=1.0)
    cells = []
    for label, row in zip(labels, rows, strict=True):
        bars = [_bar(count / total / peak) for count, total in zip(row, totals, strict=True)]
        cells.append((label, str(row[0]), bars[0], str(row[1]), bars[1]))
    return Grid(columns=(name, "baseline", "", "now", ""), rows=tuple(cells), words=(2, 4))


def _counted(baseline: Octaves, now: Octaves) -> tuple[list[str], list[tuple[int, int]]]:
    """Labels, and counts of both, from the smallest losses to those that are no number."""
    both = (baseline, now)
    known = [octaves for octaves in both if octaves.counts]
    first = min((octaves.first for octaves in known), default=0)
    stop = max((octaves.first + len(octaves.counts) for octaves in known), default=0)
    lowest = max(first, stop - _ROWS)
    labels = [f"below {2.0**lowest:.4g}" if lowest > first else "0 or less"]
    rows = [_pair(octaves.below + _within(octaves, first, lowest) for octaves in both)]
    for octave in range(lowest, stop):
        labels.append(
            f"{2.0**octave:.4g} to {2.0 ** (octave + 1):.4g}" if octave < 1023 else f"{2.0**octave:.4g} up"
        )
        rows.append(_pair(_within(octaves, octave, octave + 1) for octaves in both))
    labels += ["inf", "nan"]
    rows += [_pair(octaves.infinite for octaves in both), _pair(octaves.nan for octaves in both)]
    shown = [k for k, row in enumerate(rows) if any(row) or 0 < k < len(rows) - 2]
    return [labels[k] for k in shown], [rows[k] for k in shown]


def _pair(counts: Iterable[int]) -> tuple[int, int]:
    first, second = counts
    return first, second


def _within(octaves: Octaves, start: int, stop: int) -> int:
    low, high = (min(max(k - octaves.first, 0), len(octaves.counts)) for k in (start, stop))
    return sum(octaves.counts[low:high])


def _bar(share: float) -> str:
    """A bar of eighths of a character; what there is any of shows at least one."""
    eighths = max(round(8 * _WIDTH * share), int(share > 0))
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8 - 1] if eighths % 8 else "")
