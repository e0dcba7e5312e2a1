"""HDF5 datasets: contiguous ones as plain bytes, chunked ones through h5py.

HDF5 answers what was never written with zeros and follows links out of the file in silence;
both would be a number about other data, so both are refused.
"""

from __future__ import annotations

import math
import threading
from typing import Any, Final

import h5py
import numpy as np

from kldiv_cli.blocks import Block, block_shape
from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import DatasetError, FormatError, InputError
from kldiv_cli.sources.base import AnyArray, Source, check_dtype, describe, is_numeric
from kldiv_cli.sources.raw import RawSource
from kldiv_cli.sources.regular import RegularFile

__all__ = ["Hdf5Source", "open_hdf5"]

_CHUNK_CACHE: Final = 16 << 20
_MOST_LINKS: Final = 32
_FAULTS: Final = (OSError, RuntimeError, KeyError, ValueError)
"""What h5py raises for damaged files, depending on where the damage is."""


class Hdf5Source(Source):
    """A chunked or compact dataset, opened at the first read; HDF5 itself takes one thread at a time."""

    def __init__(self, address: str, file: RegularFile, dataset: h5py.Dataset) -> None:
        self.address = address
        self.file = file
        self.name = dataset.name
        self.shape = dataset.shape
        self.dtype = dataset.dtype
        self.chunks = dataset.chunks
        self._lock = threading.Lock()
        self._opened: h5py.Dataset | None = None

    @property
    def path(self) -> str:
        return self.file.path

    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        array = buffer.array(block_shape(block), self.dtype)
        if array.size:
            dataset = self._opened if self._opened is not None else self._open()
            try:
                dataset.read_direct(array, source_sel=block or ())
            except _FAULTS as error:
                raise InputError(f"{self.address}: {_reason(error)}") from None
        return array

    def verify(self) -> None:
        self.file.verify()

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.file.close()
                self._opened = None

    def _open(self) -> h5py.Dataset:
        with self._lock:
            if self._opened is None:
                self._opened = _open_file(self.file.path)[self.name]
            return self._opened

    def __reduce__(self) -> tuple[Any, ...]:
        return open_hdf5, (self.address, self.file, self.name)


def open_hdf5(address: str, file: RegularFile, name: str | None, *, allow_external: bool = False) -> Source:
    """Open a dataset; without a name it must be the only numeric one of the file.

    Raises
    ------
    DatasetError
        There is none of that name, it is a group, or there are several.
    FormatError
        It is damaged, not numeric, has parts that were never written, or lies in other files
        and `allow_external` was not given.
    """
    try:
        with _open_file(file.path) as container:
            dataset = _find(file.path, container, name, allow_external)
            check_dtype(address, dataset.dtype)
            _check_storage(address, dataset, allow_external)
            return _source(address, file, dataset)
    except _FAULTS as error:
        if isinstance(error, InputError):
            raise
        raise FormatError(f"{address}: damaged or unreadable HDF5: {_reason(error)}") from None


def _open_file(path: str) -> h5py.File:
    try:
        return h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE)
    except _FAULTS as error:
        raise FormatError(f"{path}: damaged or unreadable HDF5: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if ("filter" in text and "not registered" in text) or "required filter" in text:
        return f"{text}; install hdf5plugin and import it, or store it with gzip"
    return text


def _source(address: str, file: RegularFile, dataset: h5py.Dataset) -> Source:
    offset = dataset.id.get_offset()
    stored_as_is = h5py.h5t.py_create(dataset.dtype, logical=True).equal(dataset.id.get_type())
    if offset is None or not stored_as_is or dataset.external is not None or dataset.is_virtual:
        return Hdf5Source(address, file, dataset)
    size = dataset.size * dataset.dtype.itemsize
    if offset + size > file.size:
        raise FormatError(
            f"{address}: truncated: the dataset ends at byte {offset + size} of a file of {file.size}; "
            "write it again"
        )
    return RawSource(address, file, offset=offset, shape=dataset.shape, dtype=dataset.dtype)


def _check_storage(address: str, dataset: h5py.Dataset, allow_external: bool) -> None:
    if dataset.shape is None:
        raise FormatError(f"{address}: an empty dataspace, expected an array")
    if dataset.is_virtual or dataset.external is not None:
        if allow_external:
            return
        what = "a virtual dataset" if dataset.is_virtual else "external storage"
        raise FormatError(f"{address}: {what}, its data lies in other files; allow it with --allow-external")
    written, expected, unit = _allocation(dataset)
    if written < expected:
        raise FormatError(
            f"{address}: {expected - written} of {expected} {unit} never written, "
            "HDF5 would read them as fill values; write the dataset whole"
        )


def _allocation(dataset: h5py.Dataset) -> tuple[int, int, str]:
    """How much of a dataset was written, and how much there is to be written."""
    if dataset.size == 0:
        return 0, 0, "values"
    if dataset.chunks is not None:
        grid = (-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        return dataset.id.get_num_chunks(), math.prod(grid), "chunks"
    layout = dataset.id.get_create_plist().get_layout()
    written = layout == h5py.h5d.COMPACT or dataset.id.get_offset() is not None
    return dataset.size if written else 0, dataset.size, "values"


def _find(path: str, container: h5py.File, name: str | None, allow_external: bool) -> h5py.Dataset:
    if name is None:
        return container[_only_dataset(path, container)]
    found = container.get(name) if allow_external else _follow(path, container, name)
    if found is None:
        raise DatasetError(f"{path}: no dataset {name!r}; it has {_listing(container)}")
    if not isinstance(found, h5py.Dataset):
        kind = "a group" if isinstance(found, h5py.Group) else "a named type"
        raise DatasetError(f"{path}: {name!r} is {kind}, expected a dataset; it has {_listing(container)}")
    return found


def _follow(path: str, container: h5py.File, name: str) -> Any:
    """Walk to an object by hard links and inner soft links only; None where there is none."""
    here: Any = container
    parts = [part for part in name.split("/") if part]
    for _ in range(_MOST_LINKS + len(parts)):
        if not parts:
            return here
        if not isinstance(here, h5py.Group):
            return None
        part, *parts = parts
        link = here.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise FormatError(
                f"{path}: {name!r} is a link into {link.filename!r}; name that file, "
                "or allow it with --allow-external"
            )
        if isinstance(link, h5py.SoftLink):
            here = container if link.path.startswith("/") else here
            parts = [step for step in link.path.split("/") if step] + parts
        else:
            here = None if link is None else here[part]
    raise FormatError(f"{path}: {name!r} follows more than {_MOST_LINKS} links; name the dataset itself")


def _datasets(container: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []

    def note(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(item)

    container.visititems(note)
    return found


def _only_dataset(path: str, container: h5py.File) -> str:
    numeric = [d for d in _datasets(container) if d.shape is not None and is_numeric(d.dtype)]
    if len(numeric) == 1:
        return str(numeric[0].name)
    if not numeric:
        raise DatasetError(f"{path}: no numeric dataset; it has {_listing(container)}")
    raise DatasetError(
        f"{path}: {len(numeric)} datasets it could be; it has {_describe(numeric)}; "
        f"name one as {path}::{numeric[0].name}"
    )


def _listing(container: h5py.File) -> str:
    return _describe(_datasets(container))


def _describe(datasets: list[h5py.Dataset]) -> str:
    return describe((d.name, d.shape, np.dtype(d.dtype)) for d in datasets)
