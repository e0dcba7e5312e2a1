"""Every array of a file, whether it can be read or not."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from typing import Final, assert_never

from kldiv_cli.errors import FormatError, InputError
from kldiv_cli.sources import open_source
from kldiv_cli.sources.address import parse_address
from kldiv_cli.sources.files import open_file
from kldiv_cli.sources.npy import open_npy, read_header
from kldiv_cli.sources.readable import File
from kldiv_cli.sources.signature import recognise
from kldiv_cli.sources.store_names import check_installed, is_store
from kldiv_cli.sources.stored import Storage, StoredArray, dtype_problem, problem_of
from kldiv_cli.urls import is_remote

__all__ = ["list_arrays"]

_KINDS: Final = {
    zipfile.ZIP_STORED: "stored",
    zipfile.ZIP_DEFLATED: "deflated",
    zipfile.ZIP_BZIP2: "bzip2",
    zipfile.ZIP_LZMA: "lzma",
}


def list_arrays(text: str, *, allow_external: bool = False) -> Iterator[StoredArray]:
    """The arrays of a file; an address narrows them to a dataset, to a group, or to a part of one.

    Raises
    ------
    InputError
        The file, or what is named in it, is not there or is nothing that arrays are read from.
    UsageError
        The address is of no such form.
    """
    address = parse_address(text)
    url = address.path if is_remote(address.path) else None
    listed = (
        stored._replace(url=url) for stored in _list_file(address.path, address.dataset, allow_external)
    )
    if address.selection is None:
        yield from listed
        return
    source = open_source(text, allow_external=allow_external)
    source.close()
    yield next(stored for stored in listed if stored.problem is None)._replace(
        address=source.address, shape=source.shape
    )


def _list_file(url: str, name: str | None, allow_external: bool) -> Iterator[StoredArray]:
    if is_store(url):
        yield from _list_store(url, name)
        return
    file = open_file(url)
    path = file.path
    match recognise(path, file):
        case "npy" if name is None:
            yield _list_npy(path, file)
        case "npy":
            open_source(f"{url}::{name}")
        case "npz":
            yield from _list_npz(path, file, name)
        case "hdf5":
            from kldiv_cli.sources.hdf5_listing import list_hdf5

            yield from list_hdf5(path, file, name, allow_external=allow_external)
        case "zarr":
            yield from _list_store(path, name)
        case unknown:
            assert_never(unknown)


def _list_store(path: str, name: str | None) -> Iterator[StoredArray]:
    check_installed(path)
    from kldiv_cli.sources.zarr_listing import list_zarr

    yield from list_zarr(path, name)


def _list_npy(path: str, file: File) -> StoredArray:
    header = read_header(path, file.read, file.size)
    problem = None
    try:
        open_npy(path, file)
    except InputError as error:
        problem = problem_of(path, error)
    storage = Storage(
        kind="contiguous",
        bytes=math.prod(header.shape) * header.dtype.itemsize,
        stored_bytes=file.size - header.length,
        order="F" if header.fortran_order else "C",
    )
    return StoredArray(path, header.shape, str(header.dtype), storage, problem)


def _list_npz(path: str, file: File, member: str | None) -> Iterator[StoredArray]:
    from kldiv_cli.sources.npz import DAMAGED, check_readable, choose_member, member_names, open_archive

    try:
        with open_archive(file) as archive:
            check_readable(path, archive)
            names = member_names(archive) if member is None else [choose_member(path, archive, member)]
            listed = [_list_member(path, archive, name) for name in dict.fromkeys(names)]
    except InputError:
        raise
    except DAMAGED as error:
        raise FormatError(f"{path}: damaged .npz archive: {error}; write it again") from None
    yield from listed


def _list_member(path: str, archive: zipfile.ZipFile, name: str) -> StoredArray:
    from kldiv_cli.sources.npz import DAMAGED, member_header

    address = f"{path}::{name.removesuffix('.npy')}"
    try:
        header = member_header(archive, name)
    except InputError as error:
        return StoredArray(address, None, None, None, problem_of(address, error))
    except DAMAGED as error:
        return StoredArray(address, None, None, None, f"damaged: {error}; write it again")
    entry = archive.getinfo(name)
    storage = Storage(
        kind=_KINDS.get(entry.compress_type, f"compressed by method {entry.compress_type}"),
        bytes=math.prod(header.shape) * header.dtype.itemsize,
        stored_bytes=entry.compress_size,
        order="F" if header.fortran_order else "C",
    )
    problem = dtype_problem(address, header.dtype)
    return StoredArray(address, header.shape, str(header.dtype), storage, problem)
