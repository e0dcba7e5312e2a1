"""HDF5 datasets: contiguous ones as plain bytes, chunked ones through h5py.

HDF5 answers what was never written with zeros and follows links out of the file in silence;
both would be a number about other data, so both are refused.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from typing import Any, Final

import h5py

from kldiv_cli.blocks import Block, block_shape
from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import FormatError, InputError, InputNotFound
from kldiv_cli.sources.base import AnyArray, Source, check_dtype
from kldiv_cli.sources.chunk_cache import SMALLEST_CACHE, cache_size
from kldiv_cli.sources.hdf5_names import external_remedy, find_dataset
from kldiv_cli.sources.raw import RawSource
from kldiv_cli.sources.readable import File
from kldiv_cli.sources.regular import RegularFile
from kldiv_cli.streams import one_line

__all__ = ["FAULTS", "Hdf5Source", "open_container", "open_hdf5", "reason_of"]

FAULTS: Final = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What h5py raises for damaged files, depending on where the damage is."""


class Hdf5Source(Source):
    """A chunked or compact dataset, opened at the first read; HDF5 itself takes one thread at a time."""

    one_at_a_time = True

    def __init__(
        self,
        address: str,
        file: File,
        name: str,
        dataset: h5py.Dataset,
        others: tuple[RegularFile, ...],
    ) -> None:
        self.address = address
        self.file = file
        self.name = name
        self.others = others
        self.shape = dataset.shape
        self.dtype = dataset.dtype
        self.chunks = dataset.chunks
        self._lock = threading.Lock()
        self._opened: h5py.Dataset | None = None
        self._caches = False

    @property
    def path(self) -> str:
        return self.file.path

    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        array = buffer.array(block_shape(block), self.dtype)
        if array.size:
            try:
                # HDF5 would let one thread at a time read anyway.
                with self._lock:
                    self._open_for(block).read_direct(array, source_sel=block or ())
            except InputError:
                raise
            except FAULTS as error:
                raise InputError(f"{self.address}: {reason_of(error)}") from None
        return array

    def verify(self) -> None:
        for file in (self.file, *self.others):
            file.verify()

    def close(self) -> None:
        self.file.close()
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.file.close()
            self._opened = None

    def _open_for(self, block: Block) -> h5py.Dataset:
        """The dataset, with a cache for chunks from the first block on that takes a part of some."""
        caches = self._caches or not _is_of_whole_chunks(block, self)
        if caches and not self._caches:
            self._close()
            self._caches = True
        if self._opened is None:
            self._opened = open_container(self.file, cache_size(self) if caches else 0)[self.name]
        return self._opened

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.address, self.file, self.name, self.others)


def _is_of_whole_chunks(block: Block, source: Source) -> bool:
    if source.chunks is None:
        return False
    return all(
        part.start % chunk == 0 and (part.stop % chunk == 0 or part.stop == length)
        for part, chunk, length in zip(block, source.chunks, source.shape, strict=True)
    )


def _reopen(address: str, file: File, name: str, others: tuple[RegularFile, ...]) -> Source:
    """Open what was opened before, and watch the files that were watched."""
    file.check_arrival()
    source = open_hdf5(address, file, name, allow_external=True)
    assert isinstance(source, Hdf5Source)
    for found, sent in zip(source.others, others, strict=False):
        # External storage is looked for in the working directory, which may be another one here.
        if not _is_same(found.location, sent.location):
            raise InputNotFound(
                f"{address}: its external storage {found.path} is another file than {sent.location} for a "
                "worker; start workers in the same directory, or store it under an absolute path"
            )
        sent.check_arrival()
    source.others = others
    return source


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def open_hdf5(address: str, file: File, name: str | None, *, allow_external: bool = False) -> Source:
    """Open a dataset; without a name it must be the only numeric one of the file.

    Raises
    ------
    DatasetError
        There is none of that name, it is a group, or there are several.
    FormatError
        It is damaged, not numeric, has parts that were never written, or lies in other files
        and `allow_external` was not given; next to a remote file there are none.
    """
    allow_external = allow_external and file.is_local
    try:
        with open_container(file) as container:
            dataset = find_dataset(file.path, container, name, allow_external=allow_external)
            check_dtype(address, dataset.dtype)
            others = _check_storage(address, dataset, allow_external)
            return _source(address, file, name or str(dataset.name), dataset, others)
    except FAULTS as error:
        if isinstance(error, InputError):
            raise
        raise FormatError(f"{address}: damaged or unreadable HDF5: {reason_of(error)}") from None


def open_container(file: File, chunk_cache: int = SMALLEST_CACHE) -> h5py.File:
    try:
        return h5py.File(file.stream(), "r", rdcc_nbytes=chunk_cache)
    except InputError:
        raise
    except FAULTS as error:
        raise FormatError(f"{file.path}: damaged or unreadable HDF5: {reason_of(error)}") from None


def reason_of(error: BaseException) -> str:
    text = one_line(error)
    if ("filter" in text and "not registered" in text) or "required filter" in text:
        return f"{text}; install hdf5plugin and import it, or store it with gzip"
    return text


def _source(
    address: str, file: File, name: str, dataset: h5py.Dataset, others: tuple[RegularFile, ...]
) -> Source:
    if isinstance(file, RegularFile) and not os.path.samefile(dataset.file.filename, file.location):
        others = (*others, RegularFile(dataset.file.filename))
    offset = dataset.id.get_offset()
    stored_as_is = h5py.h5t.py_create(dataset.dtype, logical=True).equal(dataset.id.get_type())
    if offset is None or not stored_as_is or dataset.external is not None or dataset.is_virtual:
        return Hdf5Source(address, file, name, dataset, others)
    file = others[-1] if others else file
    size = dataset.size * dataset.dtype.itemsize
    if offset + size > file.size:
        raise FormatError(
            f"{address}: truncated: the dataset ends at byte {offset + size} of a file of {file.size}; "
            "write it again"
        )
    return RawSource(address, file, offset=offset, shape=dataset.shape, dtype=dataset.dtype)


def _check_storage(address: str, dataset: h5py.Dataset, allow_external: bool) -> tuple[RegularFile, ...]:
    if dataset.shape is None:
        raise FormatError(f"{address}: an empty dataspace, expected an array")
    if dataset.is_virtual or dataset.external is not None:
        if allow_external:
            return tuple(_mapped(address, dataset) if dataset.is_virtual else _stored(address, dataset))
        what = "a virtual dataset" if dataset.is_virtual else "external storage"
        raise FormatError(f"{address}: {what}, its data lies in other files; {external_remedy(address)}")
    written, expected, unit = _allocation(dataset)
    if written < expected:
        raise FormatError(
            f"{address}: {expected - written} of {expected} {unit} never written, "
            "HDF5 would read them as fill values; write the dataset whole"
        )
    return ()


def _stored(address: str, dataset: h5py.Dataset) -> Iterator[RegularFile]:
    """The files that external storage lies in, large enough each: HDF5 reads zeros beyond their end."""
    for name, offset, size in dataset.external:
        file = RegularFile(name)
        if offset + min(size, dataset.size * dataset.dtype.itemsize) > file.size:
            raise FormatError(f"{address}: external storage {name} is truncated; write it again")
        yield file


def _mapped(address: str, dataset: h5py.Dataset) -> Iterator[RegularFile]:
    """The files that a virtual dataset is mapped to, all of it: HDF5 reads fill values elsewhere."""
    sources = dataset.virtual_sources()
    mapped = sum(source.vspace.get_select_npoints() for source in sources)
    if mapped < dataset.size:
        raise FormatError(
            f"{address}: {dataset.size - mapped} of {dataset.size} values are mapped to nothing"
        )
    here = os.path.dirname(dataset.file.filename)
    for name in dict.fromkeys(source.file_name for source in sources if source.file_name != "."):
        file = RegularFile(os.path.join(here, name))
        for inner in {source.dset_name for source in sources if source.file_name == name}:
            open_hdf5(f"{file.path}::{inner}", file, inner, allow_external=True)
        yield file


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
