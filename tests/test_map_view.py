"""What is gathered of a map that is shown, whichever way its blocks come by."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from kldiv_cli.blocks import Block
from kldiv_cli.map_view import EDGE, THRESHOLD, MapView, MapWindow, open_window

Floats = npt.NDArray[np.float64]
Selection = tuple[slice | int, ...]


def numbered(*shape: int) -> Floats:
    """A map whose every value tells its place."""
    return np.arange(math.prod(shape), dtype=np.float64).reshape(shape)


def blocks(shape: tuple[int, ...], step: int) -> Iterator[Block]:
    ranges = [range(0, length, step) for length in shape]
    for starts in itertools.product(*ranges):
        yield tuple(
            slice(start, min(start + step, length)) for start, length in zip(starts, shape, strict=True)
        )


def gather(
    values: Floats, selection: Selection | None = None, *, full: bool = False, step: int = 3
) -> MapView:
    window = open_window(values.shape, selection, full=full)
    for block in blocks(values.shape, step):
        window.write(block, values[block])
    return window.view()


def whole(view: MapView, values: Floats) -> Floats:
    """What the view should hold, read from the map at once."""
    return values[np.ix_(*view.indices)] if view.indices else values


def test_a_small_map_is_shown_whole() -> None:
    view = gather(numbered(4, 5))
    assert view.shape == (4, 5)
    assert view.indices == ((0, 1, 2, 3), (0, 1, 2, 3, 4))
    np.testing.assert_array_equal(view.values, numbered(4, 5))
    assert view.asked == 20
    assert not view.cut


def test_a_map_of_exactly_the_threshold_is_shown_whole_and_one_more_element_cuts_it() -> None:
    assert gather(numbered(THRESHOLD), step=100).values.size == THRESHOLD
    view = gather(numbered(THRESHOLD + 1), step=100)
    assert view.indices == ((0, 1, 2, 998, 999, 1000),)
    assert view.asked == THRESHOLD + 1
    assert view.cut
    assert view.values.tolist() == [0, 1, 2, 998, 999, 1000]


def test_a_cut_map_keeps_the_edges_of_every_long_dimension() -> None:
    view = gather(numbered(40, 50), step=7)
    assert view.indices == ((0, 1, 2, 37, 38, 39), (0, 1, 2, 47, 48, 49))
    np.testing.assert_array_equal(view.values, whole(view, numbered(40, 50)))


def test_a_dimension_is_not_cut_to_leave_out_one_index() -> None:
    view = gather(numbered(2 * EDGE + 1, 200), step=50)
    assert view.indices[0] == tuple(range(2 * EDGE + 1))
    assert len(gather(numbered(2 * EDGE + 2, 200), step=50).indices[0]) == 2 * EDGE


def test_full_shows_all_of_a_large_map() -> None:
    view = gather(numbered(40, 50), full=True, step=11)
    np.testing.assert_array_equal(view.values, numbered(40, 50))
    assert not view.cut


def test_a_selection_takes_slices_and_single_indices() -> None:
    values = numbered(4, 5, 6)
    view = gather(values, (2, slice(1, 4), slice(0, 6)))
    assert view.indices == ((2,), (1, 2, 3), (0, 1, 2, 3, 4, 5))
    assert view.selection == (2, slice(1, 4), slice(0, 6))
    assert view.asked == 18
    assert not view.cut
    np.testing.assert_array_equal(view.values, values[2:3, 1:4])


def test_a_small_selection_of_a_large_map_is_not_cut() -> None:
    values = numbered(100, 100)
    view = gather(values, (slice(50, 60), slice(0, 100)), step=30)
    assert not view.cut
    np.testing.assert_array_equal(view.values, values[50:60])


def test_a_large_selection_is_cut_at_its_own_edges() -> None:
    values = numbered(100, 100)
    view = gather(values, (slice(10, 90), slice(20, 60)), step=30)
    assert view.indices == ((10, 11, 12, 87, 88, 89), (20, 21, 22, 57, 58, 59))
    assert view.asked == 80 * 40
    assert view.cut
    np.testing.assert_array_equal(view.values, whole(view, values))


def test_one_selected_element_is_one_element() -> None:
    view = gather(numbered(4, 5), (1, 2))
    assert (view.asked, view.cut, view.values.tolist()) == (1, False, [[7.0]])


def test_a_map_without_dimensions_is_one_value() -> None:
    window = open_window((), None, full=False)
    window.write((), np.array(0.5))
    view = window.view()
    assert (view.indices, view.values.tolist(), view.asked, view.cut) == ((), 0.5, 1, False)


def test_an_empty_map_and_an_empty_selection_show_nothing() -> None:
    assert open_window((0, 5), None, full=False).view().values.shape == (0, 5)
    view = gather(numbered(4, 5), (slice(2, 2), slice(0, 5)))
    assert (view.asked, view.cut, view.values.shape) == (0, False, (0, 5))


@pytest.mark.parametrize("step", [1, 2, 5, 64])
@pytest.mark.parametrize("selection", [None, (slice(3, 40), slice(1, 38), 0), (7, slice(0, 41), slice(0, 2))])
def test_neither_the_cut_into_blocks_nor_their_order_changes_the_view(
    step: int, selection: Selection | None
) -> None:
    values = numbered(41, 41, 2)
    window = open_window(values.shape, selection, full=False)
    order = list(blocks(values.shape, step))
    np.random.default_rng(step).shuffle(order)
    for block in order:
        window.write(tuple(block), values[tuple(block)])
    np.testing.assert_array_equal(window.view().values, whole(window.view(), values))


def test_blocks_may_come_from_several_threads_at_once() -> None:
    values = numbered(60, 60)
    window = open_window(values.shape, None, full=True)
    parts = list(blocks(values.shape, 4))

    def write(mine: Sequence[Block]) -> None:
        for block in mine:
            window.write(block, values[block])

    threads = [threading.Thread(target=write, args=(parts[k::4],)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(window.view().values, values)


def test_a_block_that_was_never_written_is_nan_and_not_zero() -> None:
    window = MapWindow((2, 2), (slice(0, 2), slice(0, 2)), full=False)
    window.write((slice(0, 1), slice(0, 2)), np.array([[1.0, 2.0]]))
    np.testing.assert_array_equal(window.view().values, [[1, 2], [np.nan, np.nan]])


def test_values_of_every_kind_arrive_unchanged() -> None:
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324])
    view = gather(values)
    assert view.values.tobytes() == values.tobytes()
