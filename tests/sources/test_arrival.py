"""Inputs that were sent to another process, and what is said where it sees others in their place."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import InputChanged, InputNotFound
from kldiv_cli.sources import Source, open_source
from kldiv_cli.sources.files import open_file

WRITTEN = 1_700_000_000_000_000_000


def write(path: Path, number: float = 1, *, after: int = 0) -> Path:
    """An array of one number in a new file of any format, written so many nanoseconds after the first."""
    array, new = np.full((6, 4), number), path.with_name(f"new{path.suffix}")
    if path.suffix == ".h5":
        with h5py.File(new, "w") as file:
            file.create_dataset("x", data=array, chunks=(3, 4))
    else:
        (np.savez_compressed if path.suffix == ".npz" else np.save)(new, array)
    os.utime(new, ns=(WRITTEN, WRITTEN + after))
    new.replace(path)
    return path


def sent(source: Source) -> bytes:
    return pickle.dumps(source)


def read(contents: bytes) -> float:
    source: Source = pickle.loads(contents)
    try:
        return float(source.read(tuple(slice(0, n) for n in source.shape), Buffer()).max())
    finally:
        source.close()


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5"])
def test_another_file_of_the_same_size_is_told_by_its_time(tmp_path: Path, name: str) -> None:
    contents = sent(open_source(str(write(tmp_path / name))))
    assert read(contents) == 1
    write(tmp_path / name, 2, after=7)
    with pytest.raises(
        InputChanged,
        match=rf"{name}: a worker on \S+ sees a file written at 2023-11-14 22:13:20\.000000007 UTC at .*,"
        r" expected one written at 2023-11-14 22:13:20\.000000000 UTC; .*share its file system, or copy it",
    ):
        read(contents)


def test_a_copy_that_kept_its_time_is_the_same_file(tmp_path: Path) -> None:
    contents = sent(open_source(str(write(tmp_path / "a.npy"))))
    write(tmp_path / "a.npy")
    assert read(contents) == 1


def test_the_file_itself_written_to_again_has_changed(tmp_path: Path) -> None:
    contents = sent(open_source(str(write(tmp_path / "a.npy"))))
    os.utime(tmp_path / "a.npy", ns=(WRITTEN, WRITTEN + 7))
    with pytest.raises(InputChanged, match=r"a\.npy: changed while it was read; run again"):
        read(contents)


def test_a_file_looks_for_itself_without_being_read(tmp_path: Path) -> None:
    write(tmp_path / "a.npy")
    file = pickle.loads(pickle.dumps(open_file(str(tmp_path / "a.npy"))))
    file.check_arrival()
    write(tmp_path / "a.npy", after=1)
    with pytest.raises(InputChanged, match="expected one written at"):
        file.check_arrival()
    (tmp_path / "a.npy").unlink()
    with pytest.raises(InputNotFound, match=r"a worker on \S+ can't see .*a\.npy \(No such file"):
        file.check_arrival()


def test_what_external_storage_lies_in_is_looked_at_too(tmp_path: Path) -> None:
    stored = tmp_path / "stored.bin"
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (6, 4), "f8", external=[(str(stored), 0, 192)])[...] = 1
    contents = sent(open_source(str(tmp_path / "a.h5"), allow_external=True))
    assert read(contents) == 1
    (tmp_path / "new").write_bytes(np.full((6, 4), 2.0).tobytes())
    os.utime(tmp_path / "new", ns=(WRITTEN, WRITTEN))
    (tmp_path / "new").replace(stored)
    with pytest.raises(InputChanged, match=r"stored\.bin: a worker on .*expected one written at"):
        read(contents)
