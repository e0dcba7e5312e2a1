from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import FormatError, InputChanged
from kldiv_cli.sources import AnyArray, open_source
from kldiv_cli.sources.npy import LONGEST_HEADER, MAGIC

BlockCheck = Callable[..., None]
RandomArray = Callable[..., AnyArray]

SHAPES = [(), (1,), (17,), (0,), (4, 0, 3), (40, 7), (3, 5, 6), (2, 300, 2), (5, 1, 4, 1), (9, 3, 600)]
DTYPES = ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "?", "i1", "u1", "<i2", ">u4", "<i8", ">i8", "<u8"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_of_any_shape_and_order_equal_numpys_slices(
    tmp_path: Path, random_array: RandomArray, check_blocks: BlockCheck, shape: tuple[int, ...], order: Any
) -> None:
    array = random_array(shape)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    check_blocks(open_source(str(tmp_path / "a.npy")), array)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_any_dtype_and_byte_order_equal_numpys_slices(
    tmp_path: Path, random_array: RandomArray, check_blocks: BlockCheck, dtype: str, order: Any
) -> None:
    array = random_array((6, 5, 4), dtype)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    check_blocks(open_source(str(tmp_path / "a.npy")), array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(
    tmp_path: Path, random_array: RandomArray, check_blocks: BlockCheck, version: tuple[int, int]
) -> None:
    array = random_array((6, 5))
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, array, version=version)
    check_blocks(open_source(str(tmp_path / "a.npy")), array)


def test_fortran_order_is_known_from_the_header(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.zeros((3, 4)))
    np.save(tmp_path / "f.npy", np.zeros((3, 4), order="F"))
    assert not open_source(str(tmp_path / "c.npy")).fortran_order
    assert open_source(str(tmp_path / "f.npy")).fortran_order


def test_the_name_of_the_file_does_not_matter(tmp_path: Path, check_blocks: BlockCheck) -> None:
    np.save(tmp_path / "a.npy", np.arange(4.0))
    os.rename(tmp_path / "a.npy", tmp_path / "a.dump")
    check_blocks(open_source(str(tmp_path / "a.dump")), np.arange(4.0))


@pytest.mark.parametrize("order", ["C", "F"])
def test_threads_read_blocks_of_one_source_at_once(
    tmp_path: Path, random_array: RandomArray, order: Any
) -> None:
    array = random_array((200, 33))
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    source = open_source(str(tmp_path / "a.npy"))

    def equal(first: int) -> bool:
        block = (slice(first, first + 20), slice(3, 30))
        return np.array_equal(source.read(block, Buffer()), array[block])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(equal, range(180)))
    source.close()


def test_a_file_truncated_between_two_blocks_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((1000, 100)))
    source = open_source(str(path))
    block = (slice(0, 10), slice(0, 100))
    source.read(block, Buffer())
    os.truncate(path, 50_000)
    source.read(block, Buffer())
    with pytest.raises(InputChanged, match=r"a\.npy: ended at byte 50000 of"):
        source.read((slice(0, 1000), slice(0, 100)), Buffer())
    source.close()


def test_a_file_modified_between_two_blocks_does_not_verify(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((1000, 100)))
    os.utime(path, ns=(0, 0))
    source = open_source(str(path))
    source.read((slice(0, 10), slice(0, 100)), Buffer())
    source.verify()
    with open(path, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"modified")
    with pytest.raises(InputChanged, match=r"a\.npy: changed while it was read"):
        source.verify()
    source.close()


# What is not an array of numbers


def npy(header: str | bytes, contents: bytes = b"", version: int = 1) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return MAGIC + bytes([version, 0]) + length + text + contents


def header(descr: str = "'<f8'", shape: str = "(2,)", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


EIGHT_BYTES_TWICE = bytes(16)


def test_a_plain_header_as_these_tests_write_it_is_read(tmp_path: Path, check_blocks: BlockCheck) -> None:
    (tmp_path / "a.npy").write_bytes(npy(header(), EIGHT_BYTES_TWICE))
    check_blocks(open_source(str(tmp_path / "a.npy")), np.zeros(2))


BAD: dict[str, tuple[bytes, str]] = {
    "magic only": (MAGIC, "truncated in its header"),
    "magic and version": (MAGIC + b"\x01\x00", "truncated in its header"),
    "half a length": (MAGIC + b"\x02\x00\x10\x00", "header of .* truncated or damaged"),
    "version 0": (
        npy(header(), EIGHT_BYTES_TWICE, version=1).replace(b"NUMPY\x01", b"NUMPY\x00"),
        "version 0",
    ),
    "version 4": (npy(header(), EIGHT_BYTES_TWICE, version=4), "version 4, expected 1, 2 or 3"),
    "header cut off": (npy(header())[:40], "truncated or damaged"),
    "header of 4 GiB, version 2": (
        MAGIC + b"\x02\x00\xff\xff\xff\xff{}",
        "header of 4294967295 bytes in a file of",
    ),
    "header of 4 GiB, version 3": (
        MAGIC + b"\x03\x00\xff\xff\xff\xff{}",
        "header of 4294967295 bytes in a file of",
    ),
    "header that is too long": (
        npy(header() + " " * LONGEST_HEADER, EIGHT_BYTES_TWICE, version=2),
        f"expected at most {LONGEST_HEADER}",
    ),
    "data cut off": (npy(header(), bytes(15)), "truncated: 15 bytes of data, expected 16"),
    "no data": (npy(header()), "truncated: 0 bytes of data, expected 16"),
    "data left over": (npy(header(), bytes(24)), "longer than its header says"),
    "empty header": (npy(""), r"damaged \.npy header"),
    "header of no dictionary": (npy("[1, 2]"), r"damaged \.npy header"),
    "header of a number": (npy("3"), r"damaged \.npy header"),
    "header that calls": (npy("__import__('os').getcwd()"), r"damaged \.npy header"),
    "header with a null byte": (npy("{'descr': '<f8'\0}"), r"damaged \.npy header"),
    "header nested too deep": (npy("(" * 30_000), r"damaged \.npy header"),
    "header of a sum": (npy("1" + "+1" * 9_000), r"damaged \.npy header"),
    "header with an unhashable key": (npy("{[]: 1}"), r"damaged \.npy header"),
    "header in Latin-1": (npy(b"\xff\xfe{}"), r"damaged \.npy header"),
    "header without descr": (npy("{'fortran_order': False, 'shape': (2,)}"), r"damaged \.npy header"),
    "header without shape": (npy("{'fortran_order': False, 'descr': '<f8'}"), r"damaged \.npy header"),
    "descr unknown": (npy(header("'<q9'"), EIGHT_BYTES_TWICE), r"damaged \.npy header"),
    "descr a number": (npy(header("8"), EIGHT_BYTES_TWICE), r"damaged \.npy header|dtype"),
    "descr None": (npy(header("None"), EIGHT_BYTES_TWICE), r"damaged \.npy header"),
    "descr of commas": (npy(header("'f4,f4'"), EIGHT_BYTES_TWICE), "structured dtype|damaged"),
    "shape no tuple": (npy(header(shape="2"), EIGHT_BYTES_TWICE), r"damaged \.npy header: shape 2"),
    "shape negative": (npy(header(shape="(-2,)"), EIGHT_BYTES_TWICE), r"damaged \.npy header: shape"),
    "shape of floats": (npy(header(shape="(2.0,)"), EIGHT_BYTES_TWICE), r"damaged \.npy header: shape"),
    "shape of bools": (npy(header(shape="(True, 2)"), EIGHT_BYTES_TWICE), r"damaged \.npy header: shape"),
    "shape of 65 dimensions": (npy(header(shape=str((1,) * 64 + (2,))), EIGHT_BYTES_TWICE), "damaged"),
    "shape beyond the file": (
        npy(header(shape="(10**9,)".replace("10**9", str(10**18))), EIGHT_BYTES_TWICE),
        "truncated",
    ),
    "shape beyond 64 bits": (
        npy(header(shape=f"({2**70}, {2**70})"), EIGHT_BYTES_TWICE),
        "truncated|damaged",
    ),
    "shape beyond 64 bits without elements": (
        npy(header(shape=f"({2**70}, 0)")),
        r"damaged \.npy header: shape",
    ),
    "order no bool": (npy(header(order="1"), EIGHT_BYTES_TWICE), r"damaged \.npy header"),
    "objects": (saved(np.array([1, "x"], dtype=object)), "dtype object"),
    "objects in fields": (saved(np.zeros(2, [("a", "O")])), "dtype object"),
    "fields": (saved(np.zeros(2, [("a", "f4"), ("b", "f4")])), "structured dtype with fields a, b"),
    "complex": (saved(np.zeros(2, "c8")), "dtype complex64, expected real numbers"),
    "unicode": (saved(np.array(["x", "yz"])), "dtype <U2, expected real numbers"),
    "bytes": (saved(np.array([b"x", b"yz"])), r"dtype \|S2, expected real numbers"),
    "dates": (saved(np.zeros(2, "M8[s]")), r"dtype datetime64\[s\], expected real numbers"),
    "bfloat16": (saved(np.zeros(2, "V2")), "is it bfloat16"),
    "subarrays": (npy(header("('<f4', (2,))"), EIGHT_BYTES_TWICE), "expected real numbers"),
}


@pytest.mark.parametrize(("contents", "message"), BAD.values(), ids=BAD)
def test_a_file_that_is_no_array_of_numbers_is_refused_in_one_line(
    tmp_path: Path, contents: bytes, message: str
) -> None:
    path = tmp_path / "bad.npy"
    path.write_bytes(contents)
    with pytest.raises(FormatError, match=message) as caught:
        open_source(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_pickled_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "trap.npy").write_bytes(saved(np.array([Trap(), Trap()], dtype=object)))
    with pytest.raises(FormatError, match="pickles run code"):
        open_source(str(tmp_path / "trap.npy"))
    assert not (tmp_path / "sprung").exists()


def test_a_damaged_header_is_either_read_or_a_format_error(tmp_path: Path, rng: np.random.Generator) -> None:
    good = saved(np.arange(12.0).reshape(3, 4))
    path = tmp_path / "a.npy"
    for _ in range(400):
        damaged = bytearray(good)
        for place in rng.integers(0, 128, rng.integers(1, 4)):
            damaged[place] = rng.choice(list(b"()[]{}',:0123456789<>fiuOVS\\\0\xff "))
        path.write_bytes(damaged)
        with contextlib.suppress(FormatError):
            open_source(str(path)).close()
