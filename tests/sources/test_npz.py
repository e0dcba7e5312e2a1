from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import DatasetError, FormatError, InputChanged, InputError
from kldiv_cli.sources import AnyArray, open_source

BlockCheck = Callable[..., None]
RandomArray = Callable[..., AnyArray]


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def read_whole(address: str) -> AnyArray:
    source = open_source(address)
    try:
        return source.read(tuple(slice(0, length) for length in source.shape), Buffer())
    finally:
        source.close()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i4", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (0, 3), (17,), (6, 5, 4), (300, 9)], ids=str)
def test_blocks_of_a_member_equal_numpys_slices(
    tmp_path: Path,
    random_array: RandomArray,
    check_blocks: BlockCheck,
    shape: tuple[int, ...],
    order: Any,
    dtype: str,
    save: Callable[..., None],
) -> None:
    before, array = random_array((3,)), random_array(shape, dtype)
    save(tmp_path / "a.npz", before=before, array=np.asarray(array, order=order), after=before)
    check_blocks(open_source(f"{tmp_path / 'a.npz'}::array"), array)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_members_of_other_compressions_are_read(
    tmp_path: Path, random_array: RandomArray, check_blocks: BlockCheck, method: int
) -> None:
    array = random_array((6, 5))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("array.npy", saved(array))
    check_blocks(open_source(str(tmp_path / "a.npz")), array)


def test_a_member_may_be_named_with_or_without_its_ending(tmp_path: Path, check_blocks: BlockCheck) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3.0), y=np.arange(4.0))
    for name in ("y", "y.npy"):
        check_blocks(open_source(f"{tmp_path / 'a.npz'}::{name}"), np.arange(4.0))


def test_a_member_may_lie_in_a_folder_of_the_archive(tmp_path: Path, check_blocks: BlockCheck) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("layer/0/probs.npy", saved(np.arange(3.0)))
        archive.writestr("layer/1/probs.npy", saved(np.arange(4.0)))
    check_blocks(open_source(f"{tmp_path / 'a.npz'}::layer/1/probs"), np.arange(4.0))


def test_the_only_numeric_member_needs_no_name(tmp_path: Path, check_blocks: BlockCheck) -> None:
    np.savez(tmp_path / "a.npz", names=np.array(["x", "y"]), probs=np.arange(3.0))
    check_blocks(open_source(str(tmp_path / "a.npz")), np.arange(3.0))


def test_two_numeric_members_are_listed_with_shape_and_dtype(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, names=np.array(["x", "y"]), probs=np.zeros((3, 2), "<f4"), labels=np.zeros(3, "u1"))
    with pytest.raises(DatasetError) as caught:
        open_source(str(path))
    assert str(caught.value) == (
        f"{path}: 2 arrays; it has 'probs' (3, 2) float32, 'labels' (3,) uint8; name one as {path}::probs"
    )


def test_a_long_list_of_members_is_cut(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", *[np.zeros(2)] * 30)
    with pytest.raises(DatasetError, match=r"'arr_11' \(2,\) float64 and 18 more"):
        open_source(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_a_missing_member_is_an_error_that_lists_the_others(
    tmp_path: Path, save: Callable[..., None]
) -> None:
    save(tmp_path / "a.npz", probs=np.zeros((3, 2)))
    with pytest.raises(DatasetError, match=r"a\.npz: no array 'logits'; it has 'probs' \(3, 2\) float64"):
        open_source(f"{tmp_path / 'a.npz'}::logits")


def test_an_archive_without_numbers_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", names=np.array(["x", "y"]))
    with pytest.raises(DatasetError, match=r"no numeric array; it has 'names' \(2,\) <U1"):
        open_source(str(tmp_path / "a.npz"))


def test_an_archive_without_arrays_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "no arrays here")
    with pytest.raises(DatasetError, match="no numeric array; it has no arrays"):
        open_source(str(tmp_path / "a.zip"))


def test_a_member_of_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match=r"a\.npz::x: dtype object"):
        open_source(f"{tmp_path / 'a.npz'}::x")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "compressed"])
@pytest.mark.parametrize(
    "contents", [b"", b"not an array", saved(np.zeros(4))[:-1], saved(np.zeros(4)) + b"\0"]
)
@pytest.mark.parametrize("name", ["", "::x"], ids=["unnamed", "named"])
def test_a_member_that_is_no_whole_array_is_a_format_error(
    tmp_path: Path, contents: bytes, method: int, name: str
) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("x.npy", contents)
    with pytest.raises(FormatError, match=r"a\.npz"):
        open_source(f"{tmp_path / 'a.npz'}{name}")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.parametrize("keep", [4, 40, 0.5, -30, -1])
def test_a_truncated_archive_is_a_format_error(
    tmp_path: Path, rng: np.random.Generator, save: Callable[..., None], keep: float
) -> None:
    path = tmp_path / "a.npz"
    save(path, x=rng.random(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(FormatError, match=r"a\.npz: damaged \.npz archive"):
        open_source(str(path))


@pytest.mark.parametrize("name", ["", "::x"], ids=["unnamed", "named"])
@pytest.mark.parametrize(
    "method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["deflate", "bzip2", "lzma"]
)
@pytest.mark.parametrize("place", [38, 200, 0.5], ids=["beginning", "header", "middle"])
def test_damage_in_compressed_data_is_an_input_error_that_says_more_than_none(
    tmp_path: Path, rng: np.random.Generator, method: int, name: str, place: float
) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", saved(rng.random(10_000)))
    contents = bytearray(path.read_bytes())
    first = int(place * len(contents)) if isinstance(place, float) else place
    for position in range(first, first + 8):
        contents[position] ^= 0xFF
    path.write_bytes(contents)
    with pytest.raises(InputError, match=r"a\.npz: (?!None)"):
        read_whole(f"{path}{name}")


def test_an_archive_with_damaged_bytes_is_either_read_or_an_input_error(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(12.0), y=np.arange(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("z.npy", saved(np.arange(4.0)))
    good = path.read_bytes()
    for number in range(600):
        damaged = bytearray(good)
        for place in rng.integers(0, len(good), rng.integers(1, 5)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            read_whole(f"{path}::{'xyz'[number % 3]}" if number % 4 else str(path))


@pytest.mark.parametrize("name", ["", "::x"], ids=["unnamed", "named"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "compressed"])
def test_an_encrypted_archive_is_a_format_error(tmp_path: Path, name: str, method: int) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", saved(np.zeros(4)))
    contents = bytearray(path.read_bytes())
    contents[6] |= 1
    contents[contents.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(contents)
    with pytest.raises(FormatError, match="encrypted"):
        open_source(f"{path}{name}")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_an_archive_replaced_while_it_is_read_does_not_verify(
    tmp_path: Path, save: Callable[..., None]
) -> None:
    path = tmp_path / "a.npz"
    save(path, x=np.zeros(1000))
    source = open_source(str(path))
    source.read((slice(0, 10),), Buffer())
    save(tmp_path / "b.npz", x=np.ones(1000))
    (tmp_path / "b.npz").replace(path)
    with pytest.raises(InputChanged, match=r"a\.npz: changed while it was read"):
        source.verify()
    source.close()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_a_pickled_source_finds_that_its_archive_was_replaced_since(
    tmp_path: Path, save: Callable[..., None]
) -> None:
    path = tmp_path / "a.npz"
    save(path, x=np.zeros(1000))
    source = open_source(str(path))
    pickled = pickle.dumps(source)
    source.close()
    save(tmp_path / "b.npz", x=np.ones(1000))
    (tmp_path / "b.npz").replace(path)
    copy = pickle.loads(pickled)
    with pytest.raises(InputChanged):
        copy.verify()
    copy.close()


def test_an_inflated_member_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(5.0))
    source = open_source(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(source.read((slice(0, 5),), Buffer()), np.arange(5.0))
    source.close()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_one_wrong_bit_in_a_stored_member_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(300_000.0))
    contents = bytearray(path.read_bytes())
    contents[2_000_000] ^= 1
    path.write_bytes(contents)
    with pytest.raises(FormatError, match="wrong checksum"):
        open_source(str(path))
