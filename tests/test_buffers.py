from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kldiv_cli.buffers import Buffer, Workspace

repeatable = settings(derandomize=True, deadline=None, max_examples=60)

SHAPES = st.lists(st.integers(0, 6), max_size=4).map(tuple)
DTYPES = st.sampled_from(["f2", ">f4", "<f8", "i1", ">u2", "i8", "?"])


@repeatable
@given(st.lists(st.tuples(SHAPES, DTYPES), min_size=1, max_size=6))
def test_a_buffer_gives_arrays_of_whatever_shape_and_dtype_is_asked(
    requests: list[tuple[tuple[int, ...], str]],
) -> None:
    buffer = Buffer()
    for shape, dtype in requests:
        array = buffer.array(shape, dtype)
        assert array.shape == shape
        assert array.dtype == np.dtype(dtype)
        assert array.flags.c_contiguous
        assert array.flags.aligned
        assert array.flags.writeable


def test_a_buffer_holds_float64_unless_told_otherwise() -> None:
    assert Buffer().array((2, 3)).dtype == np.float64


def test_smaller_and_equal_arrays_reuse_the_memory_of_the_largest() -> None:
    buffer = Buffer()
    largest = buffer.array((10, 10))
    for shape, dtype in [((10, 10), "f8"), ((100,), "f8"), ((3,), "f4"), ((800,), "u1")]:
        assert np.shares_memory(largest, buffer.array(shape, dtype))


def test_a_larger_array_gets_memory_of_its_own() -> None:
    buffer = Buffer()
    first = buffer.array((4,))
    first[:] = 1.0
    second = buffer.array((4, 5))
    second[:] = 2.0
    assert not np.shares_memory(first, second)
    assert first.tolist() == [1.0] * 4


@pytest.mark.parametrize("shape", [(), (0,), (0, 7), (3, 0)])
def test_a_buffer_gives_scalars_and_empty_arrays(shape: tuple[int, ...]) -> None:
    assert Buffer().array(shape).size == math.prod(shape)


def test_a_workspace_keeps_one_buffer_a_name() -> None:
    workspace = Workspace()
    assert workspace["loss"] is workspace["loss"]
    assert workspace["loss"] is not workspace["scratch"]


def test_arrays_of_different_names_share_no_memory() -> None:
    workspace = Workspace()
    assert not np.shares_memory(workspace.floats("loss", (5,)), workspace.floats("scratch", (5,)))


def test_arrays_of_one_name_share_memory_and_are_float64() -> None:
    workspace = Workspace()
    first, second = workspace.floats("loss", (4, 5)), workspace.floats("loss", (2, 3))
    assert np.shares_memory(first, second)
    assert second.dtype == np.float64
    assert second.shape == (2, 3)
