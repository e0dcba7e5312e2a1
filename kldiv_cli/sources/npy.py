"""NumPy's .npy files; the header is bounded and checked before anything is believed."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from kldiv_cli.errors import FormatError
from kldiv_cli.sources.base import check_dtype
from kldiv_cli.sources.raw import RawSource
from kldiv_cli.sources.readable import ReadableFile

__all__ = ["LONGEST_HEADER", "MAGIC", "Header", "open_npy", "read_header"]

MAGIC: Final = b"\x93NUMPY"
LONGEST_HEADER: Final = 65536


class Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    length: int
    """Bytes before the array."""


def open_npy(address: str, file: ReadableFile, *, start: int = 0, size: int | None = None) -> RawSource:
    """Open the .npy that begins at `start` of a file and is `size` bytes long (default: the rest)."""
    size = file.size - start if size is None else size
    header = read_header(address, lambda offset, length: file.read(start + offset, length), size)
    check_dtype(address, header.dtype)
    expected = math.prod(header.shape) * header.dtype.itemsize
    found = size - header.length
    if found != expected:
        problem = "truncated" if found < expected else "longer than its header says"
        raise FormatError(
            f"{address}: {problem}: {found} bytes of data, "
            f"expected {expected} for {header.shape} {header.dtype}; write it again"
        )
    return RawSource(
        address,
        file,
        offset=start + header.length,
        shape=header.shape,
        dtype=header.dtype,
        fortran_order=header.fortran_order,
    )


def read_header(address: str, read: Callable[[int, int], bytes], size: int) -> Header:
    """Read the header of `size` bytes that `read(offset, length)` gives."""
    prefix = read(0, min(12, size))
    if not prefix.startswith(MAGIC):
        raise FormatError(f"{address}: not an .npy file: starts with {prefix[:6]!r}, expected {MAGIC!r}")
    if len(prefix) < 10:
        raise FormatError(f"{address}: truncated in its header after {size} bytes; write it again")
    major = prefix[6]
    if major not in (1, 2, 3):
        raise FormatError(f"{address}: .npy version {major}, expected 1, 2 or 3")
    width = 2 if major == 1 else 4
    length = int.from_bytes(prefix[8 : 8 + width], "little")
    begin = 8 + width
    if begin + length > size:
        raise FormatError(
            f"{address}: header of {length} bytes in a file of {size}: truncated or damaged; write it again"
        )
    if length > LONGEST_HEADER:
        raise FormatError(
            f"{address}: header of {length} bytes, expected at most {LONGEST_HEADER}; "
            "write it again as a plain array"
        )
    text = read(begin, length).decode("utf-8" if major == 3 else "latin-1", "replace")
    try:
        shape, dtype, fortran_order = _fields_of(text)
    except (ValueError, SyntaxError, TypeError, KeyError, IndexError, MemoryError, RecursionError):
        raise FormatError(f"{address}: damaged .npy header; write it again") from None
    plausible = isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 2**63 for n in shape)
    if not plausible or type(fortran_order) is not bool or len(shape) > 64:
        raise FormatError(f"{address}: damaged .npy header: shape {shape!r}; write it again")
    return Header(shape, dtype, fortran_order, begin + length)


@functools.lru_cache(maxsize=64)  # the files of a dump are alike
def _fields_of(text: str) -> tuple[Any, np.dtype[Any], Any]:
    fields = ast.literal_eval(text.strip())
    return fields["shape"], np.lib.format.descr_to_dtype(fields["descr"]), fields["fortran_order"]
