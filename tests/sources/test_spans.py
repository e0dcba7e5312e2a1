"""Runs and streams over a file whose requests cost, whatever it is read from."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kldiv_cli.sources.remote_stream import RemoteStream
from kldiv_cli.sources.spans import read_runs

MIB = 1 << 20


class Counted:
    """Bytes in memory, and the ranges that were asked for."""

    path = "counted"
    is_local = False

    def __init__(self, contents: bytes, request_bytes: int) -> None:
        self.contents = contents
        self.request_bytes = request_bytes
        self.ranges: list[tuple[int, int]] = []
        self.together: list[int] = []

    @property
    def size(self) -> int:
        return len(self.contents)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.ranges.append((offset, len(buffer)))
        buffer[:] = self.contents[offset : offset + len(buffer)]

    def read_pieces(self, pieces: Sequence[tuple[memoryview, int]]) -> None:
        self.together.append(sum(len(buffer) for buffer, _ in pieces))
        for buffer, offset in pieces:
            self.read_into(buffer, offset)

    def read(self, offset: int, length: int) -> bytes:
        return self.contents[offset : offset + length]

    def verify(self) -> None: ...

    def close(self) -> None: ...


CONTENTS = np.random.default_rng(5).bytes(40 * MIB)


@settings(max_examples=50, deadline=None)
@given(
    gaps=st.lists(st.integers(0, 3000), min_size=1, max_size=30),
    run=st.integers(1, 500),
    request_bytes=st.integers(1, 2000),
)
def test_runs_are_those_bytes_and_no_gap_is_read_that_costs_more_than_a_request(
    gaps: list[int], run: int, request_bytes: int
) -> None:
    starts = np.cumsum([gap + (run if number else 0) for number, gap in enumerate(gaps)]).tolist()
    file = Counted(CONTENTS, request_bytes)
    view = memoryview(bytearray(run * len(starts)))
    read_runs(file, view, run, starts)
    assert bytes(view) == b"".join(CONTENTS[start : start + run] for start in starts)
    assert len(file.ranges) == 1 + sum(gap > request_bytes for gap in gaps[1:])


def test_no_more_than_8_mib_are_held_besides_the_array() -> None:
    file = Counted(CONTENTS, MIB)
    starts = range(0, 40 * MIB, MIB)
    view = memoryview(bytearray(1000 * len(starts)))
    read_runs(file, view, 1000, starts)
    assert bytes(view) == b"".join(CONTENTS[start : start + 1000] for start in starts)
    assert max(file.together) <= 8 * MIB
    assert len(file.ranges) == 5


# Streams


def test_a_stream_is_read_as_a_file_in_memory_is() -> None:
    stream, model = RemoteStream(Counted(CONTENTS, MIB)), io.BytesIO(CONTENTS)
    rng = np.random.default_rng(3)
    for _ in range(60):
        offset, length = int(rng.integers(0, len(CONTENTS))), int(10 ** rng.uniform(0, 7))
        for file in (stream, model):
            file.seek(offset)
        assert stream.read(length) == model.read(length)
        assert stream.tell() == model.tell()
    assert stream.seek(-5, io.SEEK_END) == len(CONTENTS) - 5
    assert stream.seek(2, io.SEEK_CUR) == len(CONTENTS) - 3
    assert stream.read() == CONTENTS[-3:]
    assert stream.read(1) == b""
    with pytest.raises(OSError, match="seek to -1"):
        stream.seek(-1)


def test_a_stream_reads_ahead_and_each_byte_once() -> None:
    file = Counted(CONTENTS, MIB)
    stream = RemoteStream(file)
    while stream.read(10_000):
        pass
    assert sum(length for _, length in file.ranges) == len(CONTENTS)
    assert len(file.ranges) < 10


def test_a_stream_keeps_a_bounded_number_of_bytes() -> None:
    stream = RemoteStream(Counted(CONTENTS, MIB))
    while stream.read(10_000):
        pass
    assert sum(map(len, stream._pages.values())) <= 12 * MIB


def test_scattered_reads_fetch_one_page_each() -> None:
    file = Counted(CONTENTS, MIB)
    stream = RemoteStream(file)
    for offset in (30 * MIB, 5 * MIB, 17 * MIB, 5 * MIB + 7):
        stream.seek(offset)
        assert stream.read(4) == CONTENTS[offset : offset + 4]
    assert [length for _, length in file.ranges] == [MIB] * 3
