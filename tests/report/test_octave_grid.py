"""Two histograms side by side: nothing is lost, and bars are as long as shares are large."""

from __future__ import annotations

import re

import numpy as np
import pytest
from cases import repeatable
from hypothesis import given
from hypothesis import strategies as st

from kldiv_cli.octaves import Octaves, octaves_of
from kldiv_cli.report.layout import Grid
from kldiv_cli.report.octaves import octave_grid

EIGHTHS = "▏▎▍▌▋▊▉█"
ROWS = 24


def of(*values: float) -> Octaves:
    return octaves_of(np.array(values, np.float64))


def histograms() -> st.SearchStrategy[Octaves]:
    values = st.sampled_from([0.0, -1.0, 0.5, 1.0, 3.0, 5e-324, 1e-300, 1.7e308, np.inf, -np.inf, np.nan])
    return st.lists(values | st.floats(width=64), max_size=40).map(lambda values: of(*values))


def length(bar: str) -> int:
    """In eighths of a character."""
    return sum(EIGHTHS.index(c) + 1 for c in bar)


def counts(grid: Grid) -> list[tuple[str, int, int]]:
    return [(label, int(before), int(now)) for label, before, _, now, _ in grid.rows]


def test_counts_stand_beside_bars_that_show_shares() -> None:
    grid = octave_grid("kl", of(1.0, 1.5, 2.0, 0.0), of(2.0, 3.0))
    assert grid == Grid(
        columns=("kl", "baseline", "", "now", ""),
        rows=(
            ("0 or less", "1", "████", "0", ""),
            ("1 to 2", "2", "████████", "0", ""),
            ("2 to 4", "1", "████", "2", "█" * 16),
        ),
        words=(2, 4),
    )


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1.0], ["1 to 2"]),
        ([1.0, 8.0], ["1 to 2", "2 to 4", "4 to 8", "8 to 16"]),
        ([0.001], ["0.0009766 to 0.001953"]),
        ([5e-324], ["4.941e-324 to 9.881e-324"]),
        ([1.7e308], ["8.988e+307 up"]),
        ([0.0], ["0 or less"]),
        ([-np.inf], ["0 or less"]),
        ([np.inf], ["inf"]),
        ([np.nan], ["nan"]),
        ([np.nan, 1.0, np.inf, 0.0], ["0 or less", "1 to 2", "inf", "nan"]),
        ([], []),
    ],
)
def test_a_row_is_an_octave_and_only_what_there_is_has_one(values: list[float], labels: list[str]) -> None:
    assert [label for label, *_ in octave_grid("kl", of(*values), of(*values)).rows] == labels


@pytest.mark.parametrize("other", [of(), of(0.0), of(np.inf)])
def test_one_of_them_may_have_nothing_to_show(other: Octaves) -> None:
    for before, now in ((of(1.0), other), (other, of(1.0))):
        assert ("1 to 2", before.counts[0] if before.counts else 0, len(now.counts)) in counts(
            octave_grid("kl", before, now)
        )


def test_octaves_far_below_the_uppermost_are_counted_together() -> None:
    low, high = of(*(2.0**-k for k in range(40))), of(1.0, 0.0)
    grid = octave_grid("kl", low, high)
    assert len(grid.rows) == ROWS + 1
    assert counts(grid)[0] == ("below 1.192e-07", 40 - ROWS, 1)
    assert counts(grid)[-1] == ("1 to 2", 1, 1)


@repeatable(300)
@given(histograms(), histograms())
def test_every_loss_is_counted_once_and_the_longest_bar_is_of_the_largest_share(
    before: Octaves, now: Octaves
) -> None:
    grid = octave_grid("kl", before, now)
    rows = counts(grid)
    assert len(rows) <= ROWS + 3
    assert sum(count for _, count, _ in rows) == before.total
    assert sum(count for _, _, count in rows) == now.total
    assert len({label for label, *_ in rows}) == len(rows)
    shares = [
        (row[k + 1] / max(1, total)) for row in rows for k, total in enumerate((before.total, now.total))
    ]
    bars = [length(row[k]) for row in grid.rows for k in (2, 4)]
    assert all(
        len(row[k]) <= 16 and re.fullmatch("█*[▏▎▍▌▋▊▉]?", row[k]) for row in grid.rows for k in (2, 4)
    )
    assert all((share > 0) == (bar > 0) for share, bar in zip(shares, bars, strict=True))
    ranked = sorted(zip(shares, bars, strict=True))
    assert bars == [] or max(bars) == 8 * 16
    assert [bar for _, bar in ranked] == sorted(bars)


def test_the_same_losses_look_the_same_however_many_there_are() -> None:
    grid = octave_grid("kl", of(1.0, 2.0, 2.0), of(*[1.0] * 10, *[2.0] * 20))
    assert all(before == now for _, _, before, _, now in grid.rows)
