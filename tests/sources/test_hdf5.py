from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import DatasetError, FormatError, InputChanged, InputError
from kldiv_cli.sources import AnyArray, open_source
from kldiv_cli.sources.hdf5 import Hdf5Source
from kldiv_cli.sources.raw import RawSource

BlockCheck = Callable[..., None]
RandomArray = Callable[..., AnyArray]

STORAGES: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": (4, 3, 5)},
    "one chunk": {"chunks": (11, 7, 9)},
    "chunks beyond the shape": {"chunks": (100, 2, 9), "maxshape": (None, 7, 9)},
    "gzip": {"chunks": (4, 3, 5), "compression": "gzip"},
    "lzf": {"chunks": (4, 3, 5), "compression": "lzf"},
    "shuffle": {"chunks": (4, 3, 5), "shuffle": True},
    "shuffle and gzip": {"chunks": (4, 7, 9), "shuffle": True, "compression": "gzip"},
    "checksums": {"chunks": (4, 3, 5), "fletcher32": True},
    "resizable": {"maxshape": (None, None, None)},
}
SHAPE = (11, 7, 9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.h5"


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", ">i2", "u1", "?"])
@pytest.mark.parametrize("storage", STORAGES)
def test_blocks_of_any_storage_equal_numpys_slices(
    path: Path, random_array: RandomArray, check_blocks: BlockCheck, storage: str, dtype: str
) -> None:
    array = random_array(SHAPE, dtype)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=array, **STORAGES[storage])
    check_blocks(open_source(str(path)), array)


@pytest.mark.parametrize("block_size", [512, 1024, 4096])
@pytest.mark.parametrize("storage", ["contiguous", "gzip"])
def test_a_file_behind_a_user_block_reads_the_same(
    path: Path, random_array: RandomArray, check_blocks: BlockCheck, storage: str, block_size: int
) -> None:
    array = random_array(SHAPE)
    with h5py.File(path, "w", userblock_size=block_size) as file:
        file.create_dataset("x", data=array, **STORAGES[storage])
    with open(path, "r+b") as file:
        file.write(b"#!/bin/sh\n" + b"x" * (block_size - 10))
    check_blocks(open_source(str(path)), array)


@pytest.mark.parametrize("version", [("earliest", "v108"), ("latest", "latest")], ids=str)
@pytest.mark.parametrize("storage", ["contiguous", "chunked"])
def test_old_and_new_file_formats_read_the_same(
    path: Path, random_array: RandomArray, check_blocks: BlockCheck, storage: str, version: tuple[str, str]
) -> None:
    array = random_array(SHAPE)
    with h5py.File(path, "w", libver=version) as file:
        file.create_dataset("x", data=array, **STORAGES[storage])
    check_blocks(open_source(str(path)), array)


def write_compact(file: h5py.File, name: str, array: AnyArray) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(array.shape)
    kind = h5py.h5t.py_create(array.dtype, logical=True)
    h5py.h5d.create(file.id, name.encode(), kind, space, properties).write(h5py.h5s.ALL, h5py.h5s.ALL, array)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "?"])
def test_blocks_of_a_compact_dataset_equal_numpys_slices(
    path: Path, random_array: RandomArray, check_blocks: BlockCheck, dtype: str
) -> None:
    array = random_array((5, 6), dtype)
    with h5py.File(path, "w") as file:
        write_compact(file, "x", array)
        layout = file["x"].id.get_create_plist().get_layout()
    assert layout == h5py.h5d.COMPACT
    check_blocks(open_source(str(path)), array)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "?", "i8"])
def test_a_scalar_dataset_is_an_array_of_no_dimensions(
    path: Path, random_array: RandomArray, check_blocks: BlockCheck, dtype: str
) -> None:
    array = random_array((), dtype)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=array)
    check_blocks(open_source(str(path)), array)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4, 2)], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"chunks": True, "maxshape": (None,)}], ids=["contiguous", "chunked"]
)
def test_an_empty_dataset_is_an_empty_array(
    path: Path, check_blocks: BlockCheck, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    options = options and {"chunks": (2,) * len(shape), "maxshape": (None,) * len(shape)}
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape, "f4", **options)
    check_blocks(open_source(str(path)), np.zeros(shape, "f4"))


def test_an_enumeration_reads_as_its_numbers(path: Path, check_blocks: BlockCheck) -> None:
    kind = h5py.enum_dtype({"cat": 0, "dog": 5}, basetype="u1")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.array([0, 5, 5], "u1"), dtype=kind)
    check_blocks(open_source(str(path)), np.array([0, 5, 5], "u1"))


def test_a_float_of_uncommon_width_reads_as_the_float_that_holds_it(path: Path) -> None:
    """A bfloat16 as HDF5 describes it: 8 bits of exponent, 7 of mantissa, in 2 bytes."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    array = np.array([1.0, -2.5, 0.15625, 3e30], "f4")
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple(array.shape)
        h5py.h5d.create(file.id, b"x", kind, space).write(h5py.h5s.ALL, h5py.h5s.ALL, array)
    source = open_source(str(path))
    obtained = source.read((slice(0, 4),), Buffer()).astype("f8")
    source.close()
    np.testing.assert_allclose(obtained, array, rtol=2**-8)


def test_contiguous_data_is_read_from_the_file_itself_and_chunked_data_by_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("contiguous", data=np.zeros((4, 4)))
        file.create_dataset("chunked", data=np.zeros((4, 4)), chunks=(2, 4))
    assert isinstance(open_source(f"{path}::contiguous"), RawSource)
    chunked = open_source(f"{path}::chunked")
    assert isinstance(chunked, Hdf5Source)
    assert chunked.chunks == (2, 4)


@pytest.mark.parametrize("storage", ["contiguous", "gzip"])
def test_threads_read_blocks_of_one_source_at_once(
    path: Path, random_array: RandomArray, storage: str
) -> None:
    array = random_array(SHAPE)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=array, **STORAGES[storage])
    source = open_source(str(path))

    def equal(number: int) -> bool:
        first = number % 9
        block = (slice(first, first + 2), slice(1, 6), slice(0, 9))
        return np.array_equal(source.read(block, Buffer()), array[block])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(equal, range(200)))
    source.close()


def test_two_datasets_of_one_file_are_open_at_once(
    path: Path, random_array: RandomArray, check_blocks: BlockCheck
) -> None:
    first, second = random_array(SHAPE), random_array(SHAPE)
    with h5py.File(path, "w") as file:
        file.create_dataset("a/first", data=first, chunks=(4, 3, 5))
        file.create_dataset("b/second", data=second, compression="gzip")
    one, two = open_source(f"{path}::/a/first"), open_source(f"{path}::b/second")
    one.read((slice(0, 1), slice(0, 1), slice(0, 1)), Buffer())
    check_blocks(two, second)
    check_blocks(one, first)


# Which dataset


@pytest.mark.parametrize("name", ["/group/x", "group/x", "//group//x", "/group/x/"])
def test_a_dataset_is_named_by_its_path(path: Path, check_blocks: BlockCheck, name: str) -> None:
    with h5py.File(path, "w") as file:
        file["group/x"] = np.arange(3.0)
        file["group/y"] = np.arange(4.0)
    check_blocks(open_source(f"{path}::{name}"), np.arange(3.0))


def test_the_only_numeric_dataset_needs_no_name(path: Path, check_blocks: BlockCheck) -> None:
    with h5py.File(path, "w") as file:
        file["names"] = ["x", "y"]
        file["nothing"] = h5py.Empty("f4")
        file["deep/inside/x"] = np.arange(3.0)
    check_blocks(open_source(str(path)), np.arange(3.0))


def test_a_dataset_with_two_hard_links_is_one_dataset(path: Path, check_blocks: BlockCheck) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3.0)
        file["again"] = file["x"]
    check_blocks(open_source(str(path)), np.arange(3.0))
    check_blocks(open_source(f"{path}::again"), np.arange(3.0))


def test_two_numeric_datasets_are_listed_with_shape_and_dtype(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["labels"] = np.zeros(3, "u1")
        file["probs"] = np.zeros((3, 2), "<f4")
    with pytest.raises(DatasetError) as caught:
        open_source(str(path))
    assert str(caught.value) == (
        f"{path}: 2 datasets it could be; it has '/labels' (3,) uint8, '/probs' (3, 2) float32; "
        f"name one as {path}::/labels"
    )


def test_a_missing_dataset_is_an_error_that_lists_the_others(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["probs"] = np.zeros((3, 2), "<f4")
    for name in ("logits", "probs/inner", "no/such/group"):
        with pytest.raises(DatasetError, match=rf"no dataset '{name}'; it has '/probs' \(3, 2\) float32"):
            open_source(f"{path}::{name}")


def test_a_group_is_no_dataset(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["group/x"] = np.arange(3.0)
    for name in ("group", "/"):
        with pytest.raises(DatasetError, match=r"is a group, expected a dataset; it has '/group/x' \(3,\)"):
            open_source(f"{path}::{name}")


def test_a_named_type_is_no_dataset(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["kind"] = np.dtype("f4")
    with pytest.raises(DatasetError, match="is a named type, expected a dataset"):
        open_source(f"{path}::kind")


def test_a_file_without_numbers_is_an_error(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["names"] = ["x", "y"]
    with pytest.raises(DatasetError, match="no numeric dataset; it has '/names'"):
        open_source(str(path))


def test_a_file_without_datasets_is_an_error(path: Path) -> None:
    h5py.File(path, "w").close()
    with pytest.raises(DatasetError, match="no numeric dataset; it has no arrays"):
        open_source(str(path))


def write_time(file: h5py.File, name: str) -> None:
    """HDF5's own time type, which NumPy has no dtype for."""
    space = h5py.h5s.create_simple((2,))
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.UNIX_D32LE, space)


def test_a_dataset_of_a_type_numpy_does_not_know_does_not_stand_in_the_way_of_another(
    path: Path, check_blocks: BlockCheck
) -> None:
    with h5py.File(path, "w") as file:
        write_time(file, "times")
        file["x"] = np.arange(3.0)
    check_blocks(open_source(f"{path}::x"), np.arange(3.0))
    check_blocks(open_source(str(path)), np.arange(3.0))


def test_a_dataset_of_a_type_numpy_does_not_know_is_an_input_error(path: Path) -> None:
    with h5py.File(path, "w") as file:
        write_time(file, "times")
    with pytest.raises(InputError, match=r"a\.h5"):
        open_source(f"{path}::times")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(2, "c8"), "dtype complex64, expected real numbers"),
        (np.zeros(2, [("a", "f4"), ("b", "f4")]), "structured dtype with fields a, b"),
        (np.array([b"x", b"yz"]), "expected real numbers"),
    ],
    ids=["complex", "fields", "bytes"],
)
def test_a_dataset_of_no_real_numbers_is_refused(path: Path, array: AnyArray, message: str) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = array
    with pytest.raises(FormatError, match=rf"a\.h5::x: .*{message}"):
        open_source(f"{path}::x")


def test_variable_length_strings_are_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = ["x", "yz"]
    with pytest.raises(FormatError, match=r"a\.h5::x: dtype object"):
        open_source(f"{path}::x")


def test_an_empty_dataspace_is_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = h5py.Empty("f4")
    with pytest.raises(FormatError, match=r"a\.h5::x: an empty dataspace"):
        open_source(f"{path}::x")


# Links


def test_soft_links_inside_the_file_are_followed(path: Path, check_blocks: BlockCheck) -> None:
    with h5py.File(path, "w") as file:
        file["group/x"] = np.arange(3.0)
        file["group/relative"] = h5py.SoftLink("x")
        file["absolute"] = h5py.SoftLink("/group/relative")
        file["folder"] = h5py.SoftLink("/group")
        file["twice"] = h5py.SoftLink("folder/relative")
    for name in ("group/relative", "absolute", "folder/x", "folder/relative", "twice"):
        check_blocks(open_source(f"{path}::{name}"), np.arange(3.0))


@pytest.mark.parametrize("options", [{}, {"allow_external": True}], ids=["refused", "allowed"])
def test_soft_links_in_a_circle_are_an_input_error(path: Path, options: dict[str, bool]) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = h5py.SoftLink("/b")
        file["b"] = h5py.SoftLink("/a")
    with pytest.raises(InputError, match=r"a\.h5"):
        open_source(f"{path}::a", **options)


@pytest.mark.parametrize("options", [{}, {"allow_external": True}], ids=["refused", "allowed"])
def test_a_dangling_soft_link_is_no_dataset(path: Path, options: dict[str, bool]) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = h5py.SoftLink("/nowhere")
    with pytest.raises(DatasetError, match="no dataset 'a'"):
        open_source(f"{path}::a", **options)


def test_a_group_that_contains_itself_is_searched_once(path: Path, check_blocks: BlockCheck) -> None:
    with h5py.File(path, "w") as file:
        file["group/x"] = np.arange(3.0)
        file["group/self"] = file["group"]
    check_blocks(open_source(str(path)), np.arange(3.0))


# Data in other files


OWN, OTHER = np.arange(40.0), np.arange(40.0)[::-1].copy()


@pytest.fixture(params=["contiguous", "chunked"])
def linked(request: pytest.FixtureRequest, path: Path) -> Path:
    """A file with its own /x and a link to /x of another, at another place there."""
    options = {"chunks": (7,)} if request.param == "chunked" else {}
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["before"] = np.full(1000, 7.0)
        file.create_dataset("x", data=OTHER, **options)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=OWN, **options)
        file["padding"] = np.zeros(5000)
        file["link"] = h5py.ExternalLink("other.h5", "/x")
        file["folder"] = h5py.ExternalLink("other.h5", "/")
        file["soft"] = h5py.SoftLink("/link")
    return path


@pytest.mark.parametrize("name", ["link", "folder/x", "soft"])
def test_an_external_link_is_refused(linked: Path, name: str) -> None:
    with pytest.raises(FormatError, match=r"a\.h5: .*is a link into 'other\.h5'.*--allow-external"):
        open_source(f"{linked}::{name}")


@pytest.mark.parametrize("name", ["link", "folder/x", "soft"])
def test_an_external_link_that_is_allowed_reads_the_other_file(
    linked: Path, check_blocks: BlockCheck, name: str
) -> None:
    check_blocks(open_source(f"{linked}::{name}", allow_external=True), OTHER, pickled=False)


def test_an_external_link_that_is_allowed_is_allowed_in_a_pickled_copy_too(
    linked: Path, check_blocks: BlockCheck
) -> None:
    check_blocks(open_source(f"{linked}::link", allow_external=True), OTHER)


def test_what_an_external_link_leads_to_is_watched_for_change(linked: Path) -> None:
    source = open_source(f"{linked}::link", allow_external=True)
    source.read((slice(0, 10),), Buffer())
    os.utime(linked.with_name("other.h5"), ns=(0, 0))
    with pytest.raises(InputChanged):
        source.verify()
    source.close()


def test_a_dangling_external_link_is_an_input_error(linked: Path) -> None:
    linked.with_name("other.h5").unlink()
    with pytest.raises(InputError, match=r"a\.h5"):
        open_source(f"{linked}::link", allow_external=True)


def test_links_out_of_the_file_are_not_among_the_datasets_it_could_be(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "/x")
        file["x"] = OWN
    source = open_source(str(path))
    np.testing.assert_array_equal(source.read((slice(0, 40),), Buffer()), OWN)
    source.close()


@pytest.fixture
def external(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset whose bytes lie in raw.bin; HDF5 looks for it in the working directory."""
    monkeypatch.chdir(path.parent)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", OTHER.shape, OTHER.dtype, external=[("raw.bin", 0, OTHER.nbytes)])
        file["x"][:] = OTHER
    return path


def test_external_storage_is_refused(external: Path) -> None:
    with pytest.raises(FormatError, match=r"a\.h5::x: external storage.*--allow-external"):
        open_source(f"{external}::x")
    with pytest.raises(FormatError, match="--allow-external"):
        open_source(str(external))


def test_external_storage_that_is_allowed_is_read(external: Path, check_blocks: BlockCheck) -> None:
    check_blocks(open_source(f"{external}::x", allow_external=True), OTHER, pickled=False)


def test_external_storage_that_is_allowed_is_allowed_in_a_pickled_copy_too(
    external: Path, check_blocks: BlockCheck
) -> None:
    check_blocks(open_source(f"{external}::x", allow_external=True), OTHER)


def test_external_storage_that_is_cut_off_is_an_input_error_and_not_zeros(external: Path) -> None:
    os.truncate(external.with_name("raw.bin"), OTHER.nbytes // 2)
    with pytest.raises(InputError):
        read_whole(f"{external}::x")


def test_external_storage_that_is_missing_is_an_input_error_and_not_zeros(external: Path) -> None:
    external.with_name("raw.bin").unlink()
    with pytest.raises(InputError):
        read_whole(f"{external}::x")


def read_whole(address: str) -> AnyArray:
    source = open_source(address, allow_external=True)
    try:
        return source.read(tuple(slice(0, length) for length in source.shape), Buffer())
    finally:
        source.close()


@pytest.fixture
def virtual(path: Path) -> Path:
    """A virtual dataset of two rows of 40: of a.h5 itself none, of other.h5 and third.h5 one each."""
    layout = h5py.VirtualLayout((2, 40), OTHER.dtype)
    for row, name in enumerate(["other.h5", "third.h5"]):
        with h5py.File(path.with_name(name), "w") as file:
            file["x"] = OTHER + row
        layout[row] = h5py.VirtualSource(name, "x", (40,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout)
    return path


def test_a_virtual_dataset_is_refused(virtual: Path) -> None:
    with pytest.raises(FormatError, match=r"a\.h5::x: a virtual dataset.*--allow-external"):
        open_source(f"{virtual}::x")


def test_a_virtual_dataset_that_is_allowed_is_read(virtual: Path, check_blocks: BlockCheck) -> None:
    check_blocks(
        open_source(f"{virtual}::x", allow_external=True), np.stack([OTHER, OTHER + 1]), pickled=False
    )


def test_a_virtual_dataset_that_is_allowed_is_allowed_in_a_pickled_copy_too(
    virtual: Path, check_blocks: BlockCheck
) -> None:
    check_blocks(open_source(f"{virtual}::x", allow_external=True), np.stack([OTHER, OTHER + 1]))


def test_a_virtual_dataset_with_a_missing_part_is_an_input_error_and_not_zeros(virtual: Path) -> None:
    virtual.with_name("third.h5").unlink()
    with pytest.raises(InputError):
        read_whole(f"{virtual}::x")


def test_a_virtual_dataset_with_a_part_mapped_to_nothing_is_an_input_error_and_not_zeros(path: Path) -> None:
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["x"] = OTHER
    layout = h5py.VirtualLayout((2, 40), OTHER.dtype)
    layout[0] = h5py.VirtualSource("other.h5", "x", (40,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout)
    with pytest.raises(InputError):
        read_whole(f"{path}::x")


# What was never written


def test_a_contiguous_dataset_that_was_never_written_is_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (4, 5), "f4")
    with pytest.raises(FormatError, match=r"a\.h5: 20 of 20 values never written"):
        open_source(str(path))


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_chunked_dataset_with_missing_chunks_is_refused(path: Path, compression: str | None) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10, 10), "f4", chunks=(4, 4), compression=compression)
        file["x"][:4] = 1.0
    with pytest.raises(FormatError, match=r"a\.h5: 6 of 9 chunks never written"):
        open_source(str(path))


def test_a_dataset_grown_but_not_filled_is_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros((4, 5)), chunks=(2, 5), maxshape=(None, 5))
        file["x"].resize((9, 5))
    with pytest.raises(FormatError, match="3 of 5 chunks never written"):
        open_source(str(path))


def test_a_dataset_that_was_shrunk_is_read(path: Path, check_blocks: BlockCheck) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(40.0).reshape(8, 5), chunks=(2, 2), maxshape=(8, 5))
        file["x"].resize((3, 3))
    check_blocks(open_source(str(path)), np.arange(40.0).reshape(8, 5)[:3, :3])


# Damage and change


def test_a_truncated_file_is_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(1000.0)
    size = path.stat().st_size
    for length in (size - 1, size // 2, 100, 20, 9):
        os.truncate(path, length)
        with pytest.raises(FormatError, match=r"a\.h5: damaged or unreadable HDF5"):
            open_source(str(path))


def test_garbage_behind_the_signature_is_refused(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + rng.bytes(4096))
    with pytest.raises(FormatError, match=r"a\.h5: damaged or unreadable HDF5") as caught:
        open_source(str(path))
    assert "\n" not in str(caught.value)


def test_a_damaged_chunk_is_an_input_error_that_names_the_dataset(
    path: Path, random_array: RandomArray
) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=random_array((100, 10)), chunks=(50, 10), compression="gzip")
        place = file["x"].id.get_chunk_info(1).byte_offset
    with open(path, "r+b") as file:
        file.seek(place + 40)
        file.write(bytes(200))
    source = open_source(f"{path}::x")
    source.read((slice(0, 50), slice(0, 10)), Buffer())
    with pytest.raises(InputError, match=r"a\.h5::x: ") as caught:
        source.read((slice(50, 100), slice(0, 10)), Buffer())
    assert "\n" not in str(caught.value)
    source.close()


def test_a_contiguous_file_truncated_between_two_blocks_has_changed(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros((1000, 100))
    source = open_source(str(path))
    source.read((slice(0, 10), slice(0, 100)), Buffer())
    os.truncate(path, 20_000)
    with pytest.raises(InputChanged, match=r"a\.h5: ended at byte 20000"):
        source.read((slice(0, 1000), slice(0, 100)), Buffer())
    source.close()


@pytest.mark.parametrize("storage", ["contiguous", "gzip"])
def test_a_file_modified_between_two_blocks_does_not_verify(path: Path, storage: str) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros(SHAPE), **STORAGES[storage])
    os.utime(path, ns=(0, 0))
    source = open_source(str(path))
    source.read((slice(0, 2), slice(0, 7), slice(0, 9)), Buffer())
    source.verify()
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    with pytest.raises(InputChanged, match=r"a\.h5: changed while it was read"):
        source.verify()
    source.close()


@pytest.mark.parametrize("storage", ["contiguous", "gzip"])
def test_a_pickled_source_finds_changes_made_before_it_was_unpickled(path: Path, storage: str) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros(SHAPE), **STORAGES[storage])
    source = open_source(str(path))
    pickled = pickle.dumps(source)
    source.close()
    os.utime(path, ns=(0, 0))
    with pytest.raises(InputChanged), contextlib.closing(pickle.loads(pickled)) as copy:
        copy.verify()


def test_an_hdf5_file_with_damaged_bytes_is_either_read_or_an_input_error(
    path: Path, rng: np.random.Generator
) -> None:
    with h5py.File(path, "w") as file:
        file["a/x"] = np.arange(12.0)
        file.create_dataset("y", data=np.arange(12), chunks=(5,), compression="gzip")
        file["names"] = ["x", "y"]
    good = path.read_bytes()
    written = np.flatnonzero(np.frombuffer(good, np.uint8))
    for number in range(200):
        damaged = bytearray(good)
        for place in rng.choice(written, rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            read_whole(f"{path}::{['a/x', 'y'][number % 2]}" if number % 3 else str(path))


def test_blocks_that_share_chunks_are_read_right_after_blocks_that_do_not(tmp_path: Path) -> None:
    array = np.arange(60.0 * 40).reshape(60, 40)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=array, chunks=(8, 40), compression="gzip")
    source = open_source(f"{tmp_path}/a.h5::x")
    buffer = Buffer()
    for rows in (slice(0, 16), slice(16, 60), slice(3, 9), slice(9, 24), slice(0, 8), slice(58, 60)):
        np.testing.assert_array_equal(source.read((rows, slice(0, 40)), buffer), array[rows])
    source.close()
    np.testing.assert_array_equal(source.read((slice(5, 7), slice(1, 2)), buffer), array[5:7, 1:2])
