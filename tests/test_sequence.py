"""Sources from the first element to the last: in the right order, once each, and in few reads."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cases import SEEDS, repeatable, shapes, stored, strided
from hypothesis import given
from hypothesis import strategies as st

from kldiv_cli.blocks import Block, block_shape, contiguous_from
from kldiv_cli.buffers import Buffer
from kldiv_cli.sequence import in_sequence
from kldiv_cli.sources import ArraySource, SliceSource, Source, open_source

AnyArray = npt.NDArray[Any]


class Stored(Source):
    """An array that lies in Fortran order or in chunks, and knows what of its storage was read."""

    def __init__(
        self, array: AnyArray, *, fortran: bool = False, chunks: tuple[int, ...] | None = None
    ) -> None:
        self.array, self.address = array, "stored"
        self.shape, self.dtype = array.shape, array.dtype
        self.fortran_order, self.chunks = fortran, chunks
        self.blocks: list[Block] = []

    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        self.blocks.append(block)
        part = buffer.array(block_shape(block)[::-1], self.dtype).T
        np.copyto(part, self.array[block])
        return part

    @property
    def runs(self) -> int:
        """Pieces of the file that were read, if it lies in Fortran order."""
        lengths = [block_shape(block)[::-1] for block in self.blocks]
        return sum(math.prod(n[: contiguous_from(self.shape[::-1], n)]) for n in lengths)

    @property
    def elements(self) -> int:
        return sum(math.prod(block_shape(block)) for block in self.blocks)


def read_through(source: Source, memory: int) -> AnyArray:
    """All elements, in the order in which they come."""
    parts = [np.asarray(part).flatten() for part in in_sequence(source, memory)]
    return np.concatenate([np.empty(0, source.dtype), *parts])


@repeatable(120)
@given(shapes(min_dims=0), SEEDS, st.integers(1, 4000), st.data())
def test_every_format_is_read_in_c_order_in_any_memory(
    shape: tuple[int, ...], seed: int, memory: int, data: st.DataObject
) -> None:
    array = np.random.default_rng(seed).random(shape)
    with tempfile.TemporaryDirectory() as directory:
        source = open_source(stored(Path(directory) / "x", array, data))
        try:
            np.testing.assert_array_equal(read_through(source, memory), array.ravel())
        finally:
            source.close()


@repeatable(75)
@given(shapes(min_dims=2, longest=12), SEEDS, st.integers(1, 2000), st.data())
def test_slices_of_fortran_order_are_read_in_c_order(
    shape: tuple[int, ...], seed: int, memory: int, data: st.DataObject
) -> None:
    array = np.random.default_rng(seed).random(shape)
    selection: list[slice | int] = []
    for length in shape:
        start = data.draw(st.integers(0, length - 1))
        whole = slice(start, data.draw(st.integers(start + 1, length)))
        selection.append(start if data.draw(st.booleans()) else whole)
    source = SliceSource(Stored(array, fortran=True), "x", tuple(selection))
    np.testing.assert_array_equal(read_through(source, memory), array[tuple(selection)].ravel())


def test_an_array_in_memory_is_one_part_of_no_copies(random_array: Any) -> None:
    array = strided(random_array((4, 5)))
    (part,) = in_sequence(ArraySource(array), 1)
    assert part is array


@pytest.mark.parametrize("memory", [1 << 12, 1 << 16])
def test_parts_stay_within_the_memory(random_array: Any, memory: int) -> None:
    array = random_array((60, 50, 4), "<f8")
    for source in (Stored(array), Stored(array, fortran=True), Stored(array, chunks=(7, 8, 4))):
        parts = [part.nbytes for part in in_sequence(source, memory)]
        read = [math.prod(block_shape(block)) * 8 for block in source.blocks]
        assert max(parts) <= memory // 2
        assert max(read) <= memory // 2


def test_rows_of_chunks_are_read_whole(random_array: Any) -> None:
    source = Stored(random_array((100, 30), "<f8"), chunks=(8, 7))
    list(in_sequence(source, 2 * 8 * 20 * 30))
    assert [rows.start for rows, _ in source.blocks] == list(range(0, 100, 16))
    assert source.elements == 3000


def test_an_array_of_a_few_large_matrices_in_fortran_order_is_not_read_element_by_element(
    random_array: Any,
) -> None:
    array = random_array((6, 300, 40), "<f4")
    source = Stored(array, fortran=True)
    np.testing.assert_array_equal(read_through(source, 1 << 14), array.ravel())
    assert source.runs < array.size / 20
    assert source.elements <= 6 * array.size


def test_a_matrix_in_fortran_order_is_read_once_in_runs_as_long_as_the_memory_allows(
    random_array: Any,
) -> None:
    array = random_array((500, 20), "<f4")
    source = Stored(array, fortran=True)
    np.testing.assert_array_equal(read_through(source, 2 * 4 * 20 * 100), array.ravel())
    assert source.elements == array.size
    assert source.runs == 5 * 20
