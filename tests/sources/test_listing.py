from __future__ import annotations

import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from kldiv_cli.errors import DatasetError, FormatError, InputError, InputNotFound, UsageError
from kldiv_cli.sources import open_source
from kldiv_cli.sources.listing import list_arrays
from kldiv_cli.sources.stored import StoredArray


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(text: str, *, allow_external: bool = False) -> dict[str, StoredArray]:
    return {stored.address: stored for stored in list_arrays(text, allow_external=allow_external)}


# .npy and .npz


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_file_is_one_array_in_the_order_it_is_stored_in(order: str) -> None:
    np.save("x.npy", np.asarray(np.ones((3, 4), ">f4"), order=order))  # type: ignore[call-overload]
    (stored,) = list_arrays("x.npy")
    assert (stored.address, stored.shape, stored.dtype, stored.problem) == ("x.npy", (3, 4), ">f4", None)
    assert stored.storage is not None
    assert (stored.storage.kind, stored.storage.order) == ("contiguous", order)
    assert (stored.storage.bytes, stored.storage.stored_bytes) == (48, 48)


def test_a_truncated_npy_file_is_listed_with_what_is_wrong() -> None:
    np.save("x.npy", np.ones(100))
    os.truncate("x.npy", 500)
    (stored,) = list_arrays("x.npy")
    assert stored.shape == (100,)
    assert stored.problem is not None
    assert stored.problem.startswith("truncated: 372 bytes of data, expected 800")


@pytest.mark.parametrize(("save", "kind"), [(np.savez, "stored"), (np.savez_compressed, "deflated")])
def test_each_member_of_an_archive_is_listed_with_its_size_packed_and_unpacked(
    save: object, kind: str
) -> None:
    save("a.npz", logits=np.zeros((50, 40), "f4"), labels=np.asfortranarray(np.ones((3, 2), "u1")))  # type: ignore[operator]
    arrays = listed("a.npz")
    assert list(arrays) == ["a.npz::logits", "a.npz::labels"]
    storage = arrays["a.npz::logits"].storage
    assert storage is not None
    assert (storage.kind, storage.bytes) == (kind, 8000)
    assert (storage.stored_bytes < 1000) == (kind == "deflated")
    assert arrays["a.npz::labels"].storage.order == "F"  # type: ignore[union-attr]


def test_members_that_are_no_numbers_or_no_arrays_are_listed_with_the_reason() -> None:
    np.savez("a.npz", objects=np.array([{}], dtype=object), fields=np.zeros(2, [("a", "f4")]), x=np.ones(2))
    with zipfile.ZipFile("a.npz", "a") as archive:
        archive.writestr("odd.npy", b"no array")
        archive.writestr("readme.txt", b"no array, and not named as one")
    arrays = listed("a.npz")
    problems = {address: stored.problem for address, stored in arrays.items()}
    assert problems["a.npz::x"] is None
    assert "unpickling" in str(problems["a.npz::objects"])
    assert "structured dtype with fields a" in str(problems["a.npz::fields"])
    assert "not an .npy file" in str(problems["a.npz::odd"])
    assert len(arrays) == 4


def test_a_damaged_member_does_not_hide_the_others() -> None:
    np.savez("a.npz", x=np.ones(1000), y=np.ones(3))
    raw = bytearray(Path("a.npz").read_bytes())
    raw[4000] ^= 1
    Path("a.npz").write_bytes(raw)
    arrays = listed("a.npz")
    assert str(arrays["a.npz::x"].problem).startswith("damaged: Bad CRC-32")
    assert arrays["a.npz::y"].problem is None


def test_an_archive_of_nothing_lists_nothing_and_a_damaged_one_is_an_error() -> None:
    np.savez("empty.npz")
    assert listed("empty.npz") == {}
    Path("cut.npz").write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(FormatError, match=r"cut\.npz: damaged"):
        listed("cut.npz")


# HDF5


def test_datasets_of_any_depth_are_listed_with_their_storage() -> None:
    with h5py.File("a.h5", "w") as file:
        file["top"] = np.ones((4, 5), "f4")
        file.create_dataset(
            "run/one/packed",
            data=np.zeros((64, 10), "f2"),
            chunks=(16, 10),
            compression="gzip",
            compression_opts=6,
            shuffle=True,
        )
        file.create_dataset("run/lzf", data=np.zeros((64, 10)), chunks=(16, 10), compression="lzf")
    arrays = listed("a.h5")
    assert set(arrays) == {"a.h5::/top", "a.h5::/run/one/packed", "a.h5::/run/lzf"}
    packed = arrays["a.h5::/run/one/packed"]
    assert (packed.shape, packed.dtype, packed.problem) == ((64, 10), "float16", None)
    assert packed.storage is not None
    assert packed.storage[0] == "chunked"
    assert packed.storage.chunks == (16, 10)
    assert packed.storage.compression == "gzip 6, shuffle"
    assert packed.storage.bytes == 1280
    assert 0 < packed.storage.stored_bytes < 1280
    assert arrays["a.h5::/run/lzf"].storage.compression == "lzf"  # type: ignore[union-attr]
    assert arrays["a.h5::/top"].storage[:3] == ("contiguous", 80, 80)  # type: ignore[index]


def test_every_address_that_is_listed_without_a_problem_opens_that_array() -> None:
    names = ["x", "a b", "x[0]", "y[1:2, 3]", "réseau", "deep/er/x"]
    with h5py.File("a.h5", "w") as file:
        for k, name in enumerate(names):
            file[name] = np.full((k + 1, 2), k, "u1")
    arrays = listed("a.h5")
    assert len(arrays) == len(names)
    for address, stored in arrays.items():
        source = open_source(address)
        assert source.shape == stored.shape
        source.close()


def test_a_group_a_dataset_and_a_part_narrow_what_is_listed() -> None:
    with h5py.File("a.h5", "w") as file:
        file["run/x"] = np.ones((4, 5))
        file["run/deep/y"] = np.ones(3)
        file["other"] = np.ones(3)
    assert set(listed("a.h5::/run")) == {"a.h5::/run/x", "a.h5::/run/deep/y"}
    assert set(listed("a.h5::run/")) == {"a.h5::/run/x", "a.h5::/run/deep/y"}
    assert set(listed("a.h5::run/x")) == {"a.h5::run/x"}
    part = listed("a.h5::run/x[0:2, 3]")
    assert [(stored.address, stored.shape) for stored in part.values()] == [("a.h5::run/x[0:2, 3]", (2,))]
    with pytest.raises(DatasetError, match="no dataset 'nothing'"):
        listed("a.h5::nothing")
    with pytest.raises(DatasetError, match="datasets it could be"):
        listed("a.h5::[0:2]")


def test_links_in_a_circle_end_and_a_dataset_of_two_names_is_listed_once() -> None:
    with h5py.File("a.h5", "w") as file:
        file["group/x"] = np.ones(3)
        file["group/again"] = file["group"]
        file["alias"] = file["group/x"]
        file["soft"] = h5py.SoftLink("/group/x")
        file["nowhere"] = h5py.SoftLink("/nothing")
        file["circle"] = h5py.SoftLink("/circle")
    (stored,) = list_arrays("a.h5")
    assert stored.address.endswith(("/x", "/alias"))


def test_what_can_not_be_read_as_numbers_is_listed_with_the_reason() -> None:
    with h5py.File("a.h5", "w") as file:
        file["text"] = ["a", "b"]
        file["complex"] = np.ones(2, complex)
        file["nothing"] = h5py.Empty("f4")
        file.create_dataset("never", (4, 4), "f4")
        file.create_dataset("partly", (4, 4), "f4", chunks=(2, 4))[:2] = 1
        file["fine"] = np.ones(2)
    problems = {address.removeprefix("a.h5::/"): stored.problem for address, stored in listed("a.h5").items()}
    assert problems.pop("fine") is None
    expected = {
        "text": "text or arrays of any length",
        "complex": "dtype complex128, expected real numbers",
        "nothing": "an empty dataspace",
        "never": "16 of 16 values never written",
        "partly": "1 of 2 chunks never written",
    }
    assert problems.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in str(problems[name])
        assert "a.h5" not in str(problems[name]), "the address is not said twice"


def test_what_lies_in_other_files_is_listed_and_followed_only_if_allowed() -> None:
    with h5py.File("b.h5", "w") as file:
        file["run/x"] = np.ones(3)
        file["back"] = h5py.ExternalLink("a.h5", "/")
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("b.h5", "run/x", (3,))
    with h5py.File("a.h5", "w") as file:
        file["linked"] = h5py.ExternalLink("b.h5", "/run/x")
        file["group/linked"] = h5py.ExternalLink("b.h5", "/run")
        file["lost"] = h5py.ExternalLink("c.h5", "/")
        file.create_virtual_dataset("virtual", layout)
    arrays = listed("a.h5")
    assert set(arrays) == {f"a.h5::/{name}" for name in ("linked", "group/linked", "lost", "virtual")}
    assert all("--allow-external" in str(stored.problem) for stored in arrays.values())
    arrays = listed("a.h5", allow_external=True)
    fine = {address for address, stored in arrays.items() if stored.problem is None}
    assert fine == {"a.h5::/linked", "a.h5::/group/linked/x", "a.h5::/virtual"}
    assert "'c.h5'" in str(arrays["a.h5::/lost"].problem)
    for address in fine:
        open_source(address, allow_external=True).close()


# Files that can't be


def test_what_is_no_file_of_arrays_is_the_error_that_compute_gives(here: Path) -> None:
    Path("text").write_text("neither")
    Path("damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for text, error in (
        ("missing.npy", InputNotFound),
        (".", InputError),
        ("text", FormatError),
        ("damaged.h5", FormatError),
    ):
        with pytest.raises(error) as ours:
            listed(text)
        with pytest.raises(error) as computed:
            open_source(text)
        assert str(ours.value) == str(computed.value)


def test_an_npy_file_has_no_datasets_but_parts() -> None:
    np.save("x.npy", np.ones((3, 4)))
    with pytest.raises(UsageError, match="has no datasets"):
        listed("x.npy::a")
    assert listed("x.npy::[0]")["x.npy::[0]"].shape == (4,)


def test_nothing_stays_open(here: Path) -> None:
    with h5py.File("a.h5", "w") as file:
        file["x"] = np.ones(3)
        file["y"] = np.ones((4, 4))
    np.savez("a.npz", x=np.ones(3))
    for name in ("a.h5", "a.npz"):
        list(list_arrays(name))
        os.remove(name)
    with h5py.File("a.h5", "w") as file:
        file["z"] = np.ones(3)
    assert set(listed("a.h5")) == {"a.h5::/z"}
