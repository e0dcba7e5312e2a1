from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from kldiv_cli.blocks import (
    Block,
    Layout,
    ascends,
    axis_windows,
    block_shape,
    contiguous_from,
    cut,
    fits_whole,
    run_starts,
    spread,
)
from kldiv_cli.kernels import SEGMENT

repeatable = settings(derandomize=True, deadline=None, max_examples=100)


@st.composite
def layouts(draw: st.DrawFn, *, longest: int = 8) -> Layout:
    shape = tuple(draw(st.lists(st.integers(0, longest), max_size=4)))
    axis = draw(st.sampled_from([None, *range(len(shape))]))
    chunks = draw(st.none() | st.tuples(*(st.integers(1, max(1, length)) for length in shape)))
    return Layout(shape=shape, axis=axis, fortran_order=draw(st.booleans()), chunks=chunks or None)


@st.composite
def chunked_layouts(draw: st.DrawFn) -> Layout:
    shape = tuple(draw(st.lists(st.integers(1, 8), min_size=1, max_size=4)))
    chunks = draw(st.tuples(*(st.integers(1, length) for length in shape)))
    axis = draw(st.integers(0, len(shape) - 1))
    return Layout(shape=shape, axis=axis, fortran_order=draw(st.booleans()), chunks=chunks)


@st.composite
def large_layouts(draw: st.DrawFn) -> Layout:
    """Distributions longer than a segment, so that most budgets are too small for one."""
    shape = list(draw(st.lists(st.integers(1, 5), max_size=2)))
    axis = draw(st.integers(0, len(shape)))
    shape.insert(axis, draw(st.integers(SEGMENT + 1, 6 * SEGMENT)))
    return Layout(shape=tuple(shape), axis=axis, fortran_order=draw(st.booleans()))


@st.composite
def shapes_and_blocks(draw: st.DrawFn) -> tuple[tuple[int, ...], Block]:
    shape = tuple(draw(st.lists(st.integers(1, 7), max_size=4)))
    block = []
    for length in shape:
        start = draw(st.integers(0, length - 1))
        whole = draw(st.booleans())
        block.append(slice(0, length) if whole else slice(start, draw(st.integers(start + 1, length))))
    return shape, tuple(block)


def coverage(shape: tuple[int, ...], blocks: list[Block]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    counts = np.zeros(shape, np.int64)
    for block in blocks:
        counts[block] += 1
    return counts


def flat_positions(shape: tuple[int, ...], block: Block) -> list[int]:
    positions = np.arange(math.prod(shape)).reshape(shape)[block]
    return [int(position) for position in np.ravel(positions)]


@repeatable
@given(layouts(), st.integers(1, 600))
def test_blocks_cover_every_element_once(layout: Layout, budget: int) -> None:
    assert (coverage(layout.shape, list(cut(layout, budget))) == 1).all()


@repeatable
@given(layouts(), st.integers(1, 600))
def test_blocks_have_a_slice_a_dimension_with_start_and_stop(layout: Layout, budget: int) -> None:
    for block in cut(layout, budget):
        for piece, length in zip(block, layout.shape, strict=True):
            assert piece.step is None
            assert 0 <= piece.start < piece.stop <= length


@repeatable
@given(layouts(), st.integers(1, 600))
def test_the_axis_is_whole_in_every_block(layout: Layout, budget: int) -> None:
    if layout.axis is not None:
        whole = slice(0, layout.shape[layout.axis])
        assert all(block[layout.axis] == whole for block in cut(layout, budget))


@repeatable
@given(layouts(), st.integers(1, 600))
def test_a_block_of_whole_distributions_is_never_larger_than_the_budget(layout: Layout, budget: int) -> None:
    assume(fits_whole(layout, budget))
    assert all(math.prod(block_shape(block)) <= budget for block in cut(layout, budget))


@repeatable
@given(large_layouts(), st.integers(SEGMENT, 20 * SEGMENT))
def test_of_distributions_too_large_one_segment_each_fits_the_budget(layout: Layout, budget: int) -> None:
    assume(not fits_whole(layout, budget))
    assert layout.axis is not None
    for block in cut(layout, budget):
        lanes = math.prod(block_shape(block)) // layout.shape[layout.axis]
        assert lanes * SEGMENT <= budget


@repeatable
@given(layouts(), st.integers(1, 600))
def test_blocks_come_in_storage_order(layout: Layout, budget: int) -> None:
    corners = [tuple(block[d].start for d in layout.order) for block in cut(layout, budget)]
    assert corners == sorted(corners)


@repeatable
@given(layouts(), st.integers(1, 600))
def test_without_an_axis_and_chunks_each_block_follows_the_one_before_in_storage(
    layout: Layout, budget: int
) -> None:
    layout = Layout(shape=layout.shape, axis=None, fortran_order=layout.fortran_order)
    order: Literal["C", "F"] = "F" if layout.fortran_order else "C"
    positions = np.arange(math.prod(layout.shape)).reshape(layout.shape, order=order)
    read = [positions[block].ravel(order=order) for block in cut(layout, budget)]
    assert np.array_equal(np.concatenate([*read, []]), np.arange(math.prod(layout.shape)))


@repeatable
@given(layouts(), st.integers(1, 600))
def test_blocks_are_as_large_as_the_budget_allows(layout: Layout, budget: int) -> None:
    """Half full at least, unless there are fewer elements, or chunks set the size."""
    layout = Layout(shape=layout.shape, axis=layout.axis, fortran_order=layout.fortran_order)
    assume(math.prod(layout.shape) > 0 and fits_whole(layout, budget))
    largest = max(math.prod(block_shape(block)) for block in cut(layout, budget))
    axis_length = 1 if layout.axis is None else layout.shape[layout.axis]
    free = [length for d, length in enumerate(layout.shape) if d != layout.axis]
    if math.prod(layout.shape) <= budget:
        assert largest == math.prod(layout.shape)
    elif free:
        assert largest >= min(axis_length, budget)
        assert 2 * largest > budget or largest * max(free) > budget


@repeatable
@given(chunked_layouts(), st.integers(1, 600))
def test_blocks_begin_on_chunk_boundaries_where_a_chunk_fits(layout: Layout, budget: int) -> None:
    assert layout.chunks is not None
    assert layout.axis is not None
    free = [d for d in range(len(layout.shape)) if d != layout.axis]
    needed = math.prod(layout.chunks[d] for d in free) * layout.shape[layout.axis]
    event(f"a chunk fits: {needed <= budget}")
    if needed <= budget:
        for block in cut(layout, budget):
            assert all(block[d].start % layout.chunks[d] == 0 for d in free)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 0, 3)])
def test_an_empty_array_has_no_blocks(shape: tuple[int, ...]) -> None:
    assert list(cut(Layout(shape=shape, axis=0), 100)) == []


def test_a_scalar_is_one_block_without_dimensions() -> None:
    assert list(cut(Layout(shape=(), axis=None), 100)) == [()]


def test_rows_of_a_matrix_are_read_a_few_at_a_time() -> None:
    blocks = list(cut(Layout(shape=(5, 10), axis=1), 20))
    assert [block[0] for block in blocks] == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_columns_of_a_matrix_are_read_a_few_at_a_time() -> None:
    blocks = list(cut(Layout(shape=(10, 5), axis=0), 20))
    assert [block[1] for block in blocks] == [slice(0, 2), slice(2, 4), slice(4, 5)]


@pytest.mark.parametrize(
    ("axis", "budget", "fits"), [(None, 1, True), (1, 7, True), (1, 6, False), (0, 5, True), (0, 4, False)]
)
def test_a_distribution_fits_where_the_budget_holds_it_whole(
    axis: int | None, budget: int, fits: bool
) -> None:
    assert fits_whole(Layout(shape=(5, 7), axis=axis), budget) is fits


@repeatable
@given(large_layouts(), st.integers(1, 20 * SEGMENT))
def test_windows_cover_a_block_once_in_whole_segments(layout: Layout, budget: int) -> None:
    assert layout.axis is not None
    for block in cut(layout, budget):
        windows = list(axis_windows(block, layout.axis, budget))
        pieces = [window[layout.axis] for window in windows]
        assert pieces[0].start == 0
        assert pieces[-1].stop == layout.shape[layout.axis]
        assert all(left.stop == right.start for left, right in itertools.pairwise(pieces))
        assert all(piece.start % SEGMENT == 0 and piece.stop > piece.start for piece in pieces)
        for window in windows:
            others = [d for d in range(len(block)) if d != layout.axis]
            assert all(window[d] == block[d] for d in others)


@repeatable
@given(large_layouts(), st.integers(SEGMENT, 20 * SEGMENT))
def test_windows_of_a_block_are_never_larger_than_the_budget(layout: Layout, budget: int) -> None:
    assume(not fits_whole(layout, budget))
    assert layout.axis is not None
    for block in cut(layout, budget):
        for window in axis_windows(block, layout.axis, budget):
            assert math.prod(block_shape(window)) <= budget


@repeatable
@given(shapes_and_blocks())
def test_a_block_lies_in_one_piece_from_the_named_dimension_on(
    case: tuple[tuple[int, ...], Block],
) -> None:
    shape, block = case
    inner = contiguous_from(shape, block_shape(block))
    corner = (*(slice(piece.start, piece.start + 1) for piece in block[:inner]), *block[inner:])
    positions = flat_positions(shape, corner)
    assert positions == list(range(positions[0], positions[0] + len(positions)))


@repeatable
@given(shapes_and_blocks())
def test_no_earlier_dimension_would_do(case: tuple[tuple[int, ...], Block]) -> None:
    shape, block = case
    lengths = block_shape(block)
    inner = contiguous_from(shape, lengths)
    if inner > 0:
        assert lengths[inner] < shape[inner]
        assert lengths[inner + 1 :] == shape[inner + 1 :]


@repeatable
@given(shapes_and_blocks())
def test_runs_are_the_elements_of_a_block_in_order(case: tuple[tuple[int, ...], Block]) -> None:
    shape, block = case
    lengths = block_shape(block)
    inner = contiguous_from(shape, lengths)
    run = math.prod(lengths[inner:])
    read = [start + step for start in run_starts(shape, block, inner) for step in range(run)]
    assert read == flat_positions(shape, block)


def test_a_layout_names_its_dimensions_from_slow_to_fast() -> None:
    assert Layout(shape=(2, 3, 4), axis=1).order == (0, 1, 2)
    assert Layout(shape=(2, 3, 4), axis=1, fortran_order=True).order == (2, 1, 0)


@pytest.mark.parametrize(
    ("shape", "axis", "fortran_order", "whole"),
    [
        ((1_000_000, 8), 0, False, False),
        ((150_000, 64), 0, False, False),
        ((64, 150_000), 1, True, False),
        ((64, 150_000), 1, False, True),
        ((4096, 1_000_000), 0, False, True),
        ((1000, 3), 0, False, True),
    ],
)
def test_blocks_are_not_so_narrow_that_they_lie_in_the_file_in_many_short_runs(
    shape: tuple[int, ...], axis: int, fortran_order: bool, whole: bool
) -> None:
    fastest = 0 if fortran_order else 1
    layout = Layout(shape=shape, axis=axis, fortran_order=fortran_order, runs=((fastest, 4),))
    budget = 1 << 20
    assert fits_whole(layout, budget) == whole
    block = next(iter(cut(layout, budget)))
    window = block if whole else next(iter(axis_windows(block, axis, budget)))
    run = window[fastest].stop - window[fastest].start
    assert run * 4 >= 1024 or run == shape[fastest]


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("fortran_order", [False, True])
@pytest.mark.parametrize("chunks", [None, (4, 6)])
@pytest.mark.parametrize("most", [1, 2, 5, 1000])
def test_spread_blocks_are_some_of_those_that_are_cut_from_the_first_to_the_last(
    axis: int | None, fortran_order: bool, chunks: tuple[int, ...] | None, most: int
) -> None:
    layout = Layout(shape=(23, 31), axis=axis, fortran_order=fortran_order, chunks=chunks)
    blocks = list(cut(layout, 40))
    chosen = list(spread(layout, 40, most))
    assert len(chosen) == min(most, len(blocks))
    places = [blocks.index(block) for block in chosen]
    steps = np.diff(places)
    assert places[0] == 0
    assert most == 1 or places[-1] == len(blocks) - 1
    assert steps.size == 0 or 0 < steps.min() <= steps.max() <= steps.min() + 1


def test_nothing_is_spread_over_nothing() -> None:
    assert list(spread(Layout(shape=(0, 3), axis=None), 10, 4)) == []
    assert list(spread(Layout(shape=(), axis=None), 10, 4)) == [()]


# In the order of an array


@repeatable
@given(layouts(), st.integers(1, 80), st.data())
def test_blocks_ascend_exactly_where_each_continues_the_one_before(
    layout: Layout, budget: int, data: st.DataObject
) -> None:
    every = range(len(layout.shape))
    dimensions = sorted(data.draw(st.sets(st.sampled_from(every)) if every else st.just(set())))
    shape = [layout.shape[d] for d in dimensions]
    places = np.arange(math.prod(shape)).reshape(shape)
    parts = [places[tuple(block[d] for d in dimensions)].ravel() for block in cut(layout, budget)]
    in_order = [place for part in parts for place in part.tolist()] == list(range(places.size))
    obtained = ascends(layout, budget, dimensions)
    event(f"ascending: {obtained}")
    if not fits_whole(layout, budget):
        assert not obtained
    elif math.prod(layout.shape):
        assert obtained == in_order


def test_where_there_are_no_blocks_nothing_is_out_of_order() -> None:
    assert ascends(Layout((3, 0, 2), 1), 1, [0, 1, 2])
    assert ascends(Layout((), None), 1, [])
