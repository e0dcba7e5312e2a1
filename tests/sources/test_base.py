"""Arrays in memory, and views on other sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import FormatError
from kldiv_cli.sources import ArraySource, BroadcastSource, ExpandedSource, Inputs, SliceSource, Source
from kldiv_cli.sources.base import AnyArray, Block, ObservedSource


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["?", "u1", ">i4", "<f8"])
def test_an_expanded_source_has_one_more_dimension_of_length_1(
    random_array: Any, axis: int, dtype: str
) -> None:
    array = random_array((4, 5), dtype)
    expected = np.expand_dims(array, axis)
    source = ExpandedSource(ArraySource(array, "m.npy"), axis)
    assert (source.shape, source.dtype, source.address) == (expected.shape, array.dtype, "m.npy")
    for rows, columns in ((slice(0, 4), slice(0, 5)), (slice(1, 3), slice(4, 5)), (slice(2, 2), slice(0, 3))):
        block = [rows, columns]
        block.insert(axis, slice(0, 1))
        np.testing.assert_array_equal(
            source.read(tuple(block), Buffer()), expected[tuple(block)], strict=True
        )


def test_an_expanded_scalar_is_a_vector_of_one() -> None:
    source = ExpandedSource(ArraySource(np.array(2.0)), 0)
    assert source.read((slice(0, 1),), Buffer()).tolist() == [2.0]


@pytest.mark.parametrize(
    ("own", "shape"),
    [
        ((4, 1), (4, 5)),
        ((1, 5), (4, 5)),
        ((5,), (4, 5)),
        ((), (4, 5)),
        ((3, 1, 1), (3, 4, 5)),
        ((1, 4, 1), (3, 4, 1)),
        ((4, 5), (3, 4, 5)),
    ],
)
def test_a_broadcast_source_reads_as_numpy_broadcasts(
    random_array: Any, check_blocks: Any, own: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    array = random_array(own)
    check_blocks(BroadcastSource(ArraySource(array), shape), np.broadcast_to(array, shape))


def test_views_may_be_views_of_views(random_array: Any, check_blocks: Any) -> None:
    array = random_array((6, 5))
    part = SliceSource(ArraySource(array), "a.npy::[1:5, 2]", (slice(1, 5), 2))
    check_blocks(BroadcastSource(ExpandedSource(part, 1), (4, 3)), np.tile(array[1:5, 2:3], 3))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_view_keeps_what_is_known_of_its_source(order: Any) -> None:
    base = ArraySource(np.zeros((2, 3), order=order), "m.npy")
    for view in (ExpandedSource(base, 0), BroadcastSource(base, (4, 2, 3))):
        assert (view.address, view.dtype, view.path) == ("m.npy", base.dtype, None)
        assert view.fortran_order == base.fortran_order == (order == "F")


def test_views_pass_on_what_concerns_the_file() -> None:
    told: list[str] = []

    class Told(ArraySource):
        def verify(self) -> None:
            told.append("verify")

        def close(self) -> None:
            told.append("close")

        @property
        def path(self) -> str:
            return "a.npy"

    base = Told(np.zeros(3))
    views: tuple[Source, ...] = (
        ExpandedSource(base, 0),
        BroadcastSource(base, (2, 3)),
        SliceSource(base, "a.npy::[0:1]", (slice(0, 1),)),
    )
    for view in views:
        view.verify()
        view.close()
        assert view.path == "a.npy"
    assert told == ["verify", "close"] * 3


def test_inputs_are_those_that_there_are() -> None:
    predictions, targets, mask = (ArraySource(np.zeros(2), name) for name in ("q", "p", "m"))
    assert Inputs(predictions, targets).all() == (predictions, targets)
    assert Inputs(predictions, targets, mask=mask).all() == (predictions, targets, mask)


def test_a_masked_array_is_refused_since_its_mask_would_be_lost() -> None:
    with pytest.raises(FormatError, match="a masked array, whose mask would be lost"):
        ArraySource(np.ma.masked_array([1.0, 2.0], [True, False]), "m")


def test_an_observed_source_shows_the_very_blocks_that_it_reads(random_array: Any, check_blocks: Any) -> None:
    array, seen = random_array((5, 4)), list[tuple[Block, AnyArray]]()
    source = ObservedSource(ArraySource(array, "x"), lambda block, part: seen.append((block, part.copy())))
    check_blocks(source, array, pickled=False)
    assert len(seen) > 1
    for block, part in seen:
        np.testing.assert_array_equal(part, array[block], strict=True)
