"""Fixtures that several test files share."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from kldiv_cli.buffers import Buffer
from kldiv_cli.sources import AnyArray, Source

BlockCheck = Callable[..., None]
RandomArray = Callable[..., AnyArray]


def pytest_configure() -> None:
    """Let signals end what tests start, also where `nohup` or a shell's ``&`` has the tests ignore them."""
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As a script is: the command, which other tests run in this process, leaves its own handlers."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261124)


@pytest.fixture
def random_array(rng: np.random.Generator) -> RandomArray:
    """Arrays of any shape and real dtype in which hardly two values are alike."""

    def make(shape: tuple[int, ...], dtype: Any = "<f4") -> AnyArray:
        dtype = np.dtype(dtype)
        if dtype.kind == "f":
            return np.asarray(rng.standard_normal(shape)).astype(dtype)
        if dtype.kind == "b":
            return np.asarray(rng.random(shape) < 0.5)
        limits = np.iinfo(dtype)
        return np.asarray(
            rng.integers(limits.min, limits.max, shape, endpoint=True, dtype=dtype.newbyteorder("="))
        ).astype(dtype)

    return make


def _random_block(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[slice, ...]:
    bounds = [sorted(rng.integers(0, length, 2, endpoint=True).tolist()) for length in shape]
    return tuple(slice(first, last) for first, last in bounds)


@pytest.fixture
def check_blocks(rng: np.random.Generator) -> BlockCheck:
    """Assert that a source, and its pickled copy if `pickled`, read blocks as NumPy slices `expected`."""

    def check_reads(source: Source, expected: AnyArray) -> None:
        buffer = Buffer()
        whole = tuple(slice(0, length) for length in expected.shape)
        for block in [whole, *(_random_block(rng, expected.shape) for _ in range(25))]:
            obtained = source.read(block, buffer)
            assert obtained.dtype == expected.dtype
            np.testing.assert_array_equal(obtained, np.asarray(expected[block], expected.dtype), strict=True)
        source.verify()

    def check(source: Source, expected: AnyArray, *, pickled: bool = True) -> None:
        assert source.shape == expected.shape
        assert source.dtype == expected.dtype
        try:
            check_reads(source, expected)
            if not pickled:
                return
            copy = pickle.loads(pickle.dumps(source))
            try:
                assert (copy.shape, copy.dtype, copy.address) == (source.shape, source.dtype, source.address)
                check_reads(copy, expected)
            finally:
                copy.close()
            source.close()
            check_reads(source, expected)
        finally:
            source.close()

    return check
