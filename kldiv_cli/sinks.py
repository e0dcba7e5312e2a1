"""Where results go: maps to .npy and HDF5, which take their names when they are finished."""

from __future__ import annotations

import io
import math
import os
import threading
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kldiv_cli.atomic import NewFile, check_local, check_place, explained
from kldiv_cli.blocks import Block, block_shape, contiguous_from, run_starts
from kldiv_cli.errors import UsageError

__all__ = ["HDF5_ENDINGS", "MapSink", "check_output", "file_of", "make_directory", "named_output", "open_map"]

HDF5_ENDINGS: Final = (".h5", ".hdf5", ".hdf", ".he5")


class MapSink(NewFile):
    """A file that becomes an array, written block by block from any thread."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        super().__init__(path)

    @abstractmethod
    def write(self, block: Block, values: npt.NDArray[Any]) -> None:
        """Write one block."""


class NpyMap(MapSink):
    """A C-ordered .npy file."""

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._file = open(self.temporary, "r+b", buffering=0)  # noqa: SIM115 - closed by commit or discard
        header = _npy_header(self.shape, self.dtype)
        self._file.write(header)
        self._offset = len(header)
        self._file.truncate(self._offset + math.prod(self.shape) * self.dtype.itemsize)

    def write(self, block: Block, values: npt.NDArray[Any]) -> None:
        contents = memoryview(np.ascontiguousarray(values, self.dtype).reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        lengths = block_shape(block)
        inner = contiguous_from(self.shape, lengths)
        run = math.prod(lengths[inner:]) * self.dtype.itemsize
        with explained(self.path):
            for position, start in enumerate(run_starts(self.shape, block, inner)):
                part = contents[position * run : (position + 1) * run]
                self._write_at(part, self._offset + start * self.dtype.itemsize)

    def _write_at(self, contents: memoryview, offset: int) -> None:
        while contents:
            if hasattr(os, "pwrite"):
                count = os.pwrite(self._file.fileno(), contents, offset)
            else:
                with self._lock:
                    self._file.seek(offset)
                    count = self._file.write(contents)
            contents, offset = contents[count:], offset + count

    def _close(self, *, durable: bool) -> None:
        if durable:
            os.fsync(self._file.fileno())
        self._file.close()


class Hdf5Map(MapSink):
    """A contiguous dataset in a new HDF5 file."""

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        import h5py

        self._h5py = h5py
        self.name = name
        super().__init__(path, shape, dtype)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._file = self._h5py.File(self.temporary, "w")
        self._dataset = self._file.create_dataset(self.name, shape=self.shape, dtype=self.dtype)

    def write(self, block: Block, values: npt.NDArray[Any]) -> None:
        contents = np.ascontiguousarray(values, self.dtype).reshape(block_shape(block))
        with self._lock, explained(self.path):
            self._dataset[block or ()] = contents

    def _close(self, *, durable: bool) -> None:
        self._file.close()
        if durable:
            with open(self.temporary, "r+b") as file:
                os.fsync(file.fileno())


def check_output(
    address: str, inputs: Iterable[str], *, force: bool, option: str = "output"
) -> tuple[Path, str | None]:
    """Where a map would go: the file, and the dataset in it for HDF5; `option` is what asked for it.

    Raises
    ------
    OutputError
        It exists and `force` is not given, it is one of the inputs, or can't be written there.
    UsageError
        It ends neither in .npy nor in .h5, or the dataset is missing.
    """
    path, inner = named_output(address, option)
    path = Path(os.path.realpath(path))
    check_place(address, path, inputs, force=force)
    return path, inner


def named_output(address: str, option: str = "output") -> tuple[Path, str | None]:
    """The file that an address names for a map, and the dataset in it for HDF5.

    Raises
    ------
    OutputError
        It is a URL.
    UsageError
        It ends neither in .npy nor in .h5, or the dataset has no name.
    """
    check_local(address, option)
    name, separator, dataset = address.partition("::")
    if name.lower().endswith(".npy") and not separator:
        path, inner = Path(name), None
    elif name.lower().endswith(HDF5_ENDINGS):
        path, inner = Path(name), dataset.strip("/") or "map"
        if "[" in inner or "]" in inner or not {".", ".."}.isdisjoint(inner.split("/")):
            raise UsageError(f"{option} {address}: {inner!r} is no name for a dataset; choose one like /map")
    else:
        raise UsageError(f"{option} {address}: expected a name like map.npy or map.h5::/name")
    return path, inner


def file_of(address: str) -> str:
    """The file of an output's address, without the dataset in it."""
    return address.partition("::")[0]


def make_directory(address: str) -> None:
    """Make the directory that an output goes to, where there is none.

    Raises
    ------
    OutputError
        It can't be made.
    """
    directory = Path(file_of(address)).parent
    with explained(directory):
        directory.mkdir(parents=True, exist_ok=True)


def open_map(path: Path, dataset: str | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> MapSink:
    """Begin a map; `MapSink.discard` must follow."""
    if dataset is None:
        return NpyMap(path, shape, dtype)
    return Hdf5Map(path, dataset, shape, dtype)


def _npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    header = io.BytesIO()
    description = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()
