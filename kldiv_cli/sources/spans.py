"""Reading many runs of bytes where each request costs: across small gaps, several at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from kldiv_cli.sources.readable import ReadableFile

__all__ = ["read_runs"]

_LONGEST: Final = 8 << 20
"""Bytes read across gaps at once, which bounds what is held besides the array."""


class _Span(NamedTuple):
    """Runs that are read by one request."""

    first: int
    """The number of the first run."""
    starts: list[int]


def read_runs(file: ReadableFile, view: memoryview, run: int, starts: Iterable[int]) -> None:
    """Fill `view` with runs of `run` bytes, one after another, that begin at ascending `starts`."""
    held: list[tuple[_Span, memoryview, int]] = []
    size = 0
    for span in _spans(starts, run, file.request_bytes):
        length = span.starts[-1] + run - span.starts[0]
        if held and size + length > _LONGEST:
            _read(file, view, run, held)
            held, size = [], 0
        held.append((span, _target(view, run, span, length), span.starts[0]))
        size += length
    _read(file, view, run, held)


def _spans(starts: Iterable[int], run: int, gap: int) -> Iterator[_Span]:
    """Runs so close together that reading across costs less than another request."""
    span: _Span | None = None
    for number, start in enumerate(starts):
        if (
            span is not None
            and start - span.starts[-1] - run <= gap
            and start + run - span.starts[0] <= _LONGEST
        ):
            span.starts.append(start)
            continue
        if span is not None:
            yield span
        span = _Span(number, [start])
    if span is not None:
        yield span


def _target(view: memoryview, run: int, span: _Span, length: int) -> memoryview:
    """Where a span is read to: where it belongs, if it is a single run."""
    if len(span.starts) == 1:
        return view[span.first * run : (span.first + 1) * run]
    return memoryview(bytearray(length))


def _read(file: ReadableFile, view: memoryview, run: int, held: list[tuple[_Span, memoryview, int]]) -> None:
    file.read_pieces([(target, offset) for _, target, offset in held])
    for span, target, offset in held:
        if len(span.starts) == 1:
            continue
        for number, start in enumerate(span.starts, span.first):
            view[number * run : (number + 1) * run] = target[start - offset : start - offset + run]
