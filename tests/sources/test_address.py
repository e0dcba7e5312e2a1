from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kldiv_cli.errors import AxisError, DatasetError, InputNotFound, UsageError
from kldiv_cli.sources import open_source, parse_address, resolve_selection
from kldiv_cli.sources.address import Address

SHAPE = (6, 5, 4)
ARRAY = np.arange(120, dtype="<f4").reshape(SHAPE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a.npy, a.npz (one, two) and a.h5 (/group/deep, /other)."""
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", ARRAY)
    np.savez("a.npz", one=ARRAY, two=ARRAY + 1)
    with h5py.File("a.h5", "w") as file:
        file["group/deep"] = ARRAY
        file.create_dataset("other", data=ARRAY + 1, chunks=(2, 3, 4))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("a.npy", Address("a.npy")),
        ("dir/a.h5::/probs", Address("dir/a.h5", "/probs")),
        ("a.h5::/x/y[0:1000]", Address("a.h5", "/x/y", "0:1000")),
        ("a.npz::key[0:1000]", Address("a.npz", "key", "0:1000")),
        ("a.npy::[0:10]", Address("a.npy", None, "0:10")),
        ("a.npy::[]", Address("a.npy", None, "")),
        ("a.npz::key[0, 1:2, ...]", Address("a.npz", "key", "0, 1:2, ...")),
        ("a[0:1].npy", Address("a[0:1].npy")),
        ("C:\\dump\\a.npy", Address("C:\\dump\\a.npy")),
    ],
)
def test_an_address_is_a_file_a_dataset_and_a_selection(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["a.npy::", "::", "::/probs", "::[0:1]"])
def test_an_address_without_a_file_or_with_nothing_behind_the_colons_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected FILE::DATASET"):
        parse_address(text)


def test_an_existing_file_whose_name_has_colons_is_that_file(folder: Path) -> None:
    (folder / "run::1.npy").write_bytes((folder / "a.npy").read_bytes())
    assert parse_address("run::1.npy") == Address("run::1.npy")
    source = open_source("run::1.npy")
    assert source.shape == SHAPE
    source.close()


def test_a_missing_file_is_named_without_its_dataset() -> None:
    with pytest.raises(InputNotFound, match=r"^missing\.h5: no such file$"):
        open_source("missing.h5::/probs")


SELECTIONS: list[tuple[str, Any]] = [
    ("0:1000", np.s_[0:1000]),
    ("0:3", np.s_[0:3]),
    ("-2:", np.s_[-2:]),
    (":-2", np.s_[:-2]),
    (":", np.s_[:]),
    ("", np.s_[...]),
    ("...", np.s_[...]),
    ("..., 1", np.s_[..., 1]),
    ("...,1:3", np.s_[..., 1:3]),
    ("2, ...", np.s_[2, ...]),
    ("2, ..., 3", np.s_[2, ..., 3]),
    ("0, 1, 2, ...", np.s_[0, 1, 2, ...]),
    ("1, 2, 3", np.s_[1, 2, 3]),
    ("-1, -5:, -4", np.s_[-1, -5:, -4]),
    (" 1 : 4 , : , 0:2 ", np.s_[1:4, :, 0:2]),
    (":, 2", np.s_[:, 2]),
    ("4:2", np.s_[4:2]),
    ("1:5:1", np.s_[1:5:1]),
    ("2::", np.s_[2::]),
    ("+1:+3", np.s_[1:3]),
]


@pytest.mark.parametrize("address", ["a.npy::", "a.npz::one", "a.h5::/group/deep"])
@pytest.mark.parametrize(("text", "index"), SELECTIONS, ids=[text or "nothing" for text, _ in SELECTIONS])
def test_a_selection_reads_what_numpy_selects(
    folder: Path,
    check_blocks: Callable[..., None],
    address: str,
    text: str,
    index: Any,
) -> None:
    source = open_source(f"{address}[{text}]")
    assert source.address == f"{address}[{text}]"
    check_blocks(source, np.asarray(ARRAY[index]))


def test_a_selection_of_a_chunked_dataset_keeps_the_chunks_of_the_dimensions_that_remain(
    folder: Path, check_blocks: Callable[..., None]
) -> None:
    source = open_source("a.h5::/other[1, :, 1:]")
    assert source.chunks == (3, 4)
    check_blocks(source, (ARRAY + 1)[1, :, 1:])


def test_a_selection_of_a_fortran_ordered_file_reads_what_numpy_selects(
    folder: Path, check_blocks: Callable[..., None]
) -> None:
    np.save("f.npy", np.asfortranarray(ARRAY))
    source = open_source("f.npy::[:, 1, 1:3]")
    assert source.fortran_order
    check_blocks(source, ARRAY[:, 1, 1:3])


def test_a_scalar_can_be_selected_with_dots(folder: Path) -> None:
    np.save("scalar.npy", np.float64(3))
    source = open_source("scalar.npy::[...]")
    assert source.shape == ()
    source.close()


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "1.5",
        "::2",
        "0:4:2",
        "0:4:-1",
        "..., ...",
        "1,,2",
        ",",
        "0:1,",
        "None",
        "0:1:1:1",
        "1e3",
        "--1",
        ".",
    ],
)
def test_a_selection_that_is_not_integers_and_slices_of_step_1_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="where: selection"):
        resolve_selection("where", text, SHAPE)


@pytest.mark.parametrize("text", ["3 5", "3-5", "0 4, 1"])
def test_two_numbers_without_a_colon_are_a_usage_error_and_not_the_first_of_them(text: str) -> None:
    with pytest.raises(UsageError, match="expected an index or start:stop"):
        resolve_selection("where", text, SHAPE)


@pytest.mark.parametrize("text", ["6", "-7", "0, 5", "0, 0, 0, 0", ":, :, :, :", "..., 0, 0, 0, 0", "9" * 30])
def test_a_selection_outside_the_shape_is_an_axis_error(text: str) -> None:
    with pytest.raises(AxisError, match="where: "):
        resolve_selection("where", text, SHAPE)


def test_an_index_of_thousands_of_digits_is_an_error_in_one_line() -> None:
    with pytest.raises((AxisError, UsageError), match="where: "):
        resolve_selection("where", "9" * 5000, SHAPE)


def test_the_error_of_a_selection_names_the_address(folder: Path) -> None:
    with pytest.raises(AxisError, match=r"^a\.npy::\[99\]: index 99 is out of range for a dimension of 6"):
        open_source("a.npy::[99]")


def test_an_npy_file_has_no_datasets(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.npy::/probs: an \.npy file is one array"):
        open_source("a.npy::/probs")


@pytest.mark.parametrize(("file", "dataset"), [("a.npz", "three"), ("a.h5", "/group/three")])
def test_a_dataset_that_is_not_there_is_an_error_that_lists_what_is(
    folder: Path, file: str, dataset: str
) -> None:
    with pytest.raises(DatasetError, match=r"\(6, 5, 4\) float32") as caught:
        open_source(f"{file}::{dataset}")
    assert dataset in str(caught.value)


@pytest.mark.parametrize("file", ["a.npz", "a.h5"])
def test_a_file_with_two_arrays_needs_a_dataset(folder: Path, file: str) -> None:
    with pytest.raises(DatasetError, match=rf"^{file}: 2 .*name one as {file}::"):
        open_source(file)
