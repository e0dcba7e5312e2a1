"""Where arrays come from: addresses, and one module a storage format; nothing else reads arrays."""

from __future__ import annotations

from typing import assert_never

from kldiv_cli.errors import UsageError
from kldiv_cli.sources.address import Address, parse_address, resolve_selection
from kldiv_cli.sources.base import (
    AnyArray,
    ArraySource,
    BroadcastSource,
    ExpandedSource,
    Inputs,
    SliceSource,
    Source,
)
from kldiv_cli.sources.files import open_file
from kldiv_cli.sources.signature import recognise
from kldiv_cli.sources.store_names import check_installed, is_store
from kldiv_cli.urls import shown

__all__ = [
    "AnyArray",
    "ArraySource",
    "BroadcastSource",
    "ExpandedSource",
    "Inputs",
    "SliceSource",
    "Source",
    "open_source",
    "parse_address",
    "resolve_selection",
]


def open_source(text: str, *, allow_external: bool = False) -> Source:
    """Open the array at an address: `FILE`, `FILE::DATASET`, either with `[0:1000]` behind it.

    Raises
    ------
    InputError
        It is not there, not a regular file or object of a known format, damaged, or ambiguous.
    UsageError
        The address is not of that form.
    """
    address = parse_address(text)
    source = _open_file(address, allow_external)
    if address.selection is None:
        return source
    return SliceSource(source, shown(text), resolve_selection(shown(text), address.selection, source.shape))


def _open_file(address: Address, allow_external: bool) -> Source:
    if is_store(address.path):
        where = shown(address.path)
        return _open_zarr(where if address.dataset is None else f"{where}::{address.dataset}", address)
    file = open_file(address.path)
    where = file.path if address.dataset is None else f"{file.path}::{address.dataset}"
    match recognise(where, file):
        case "npy":
            if address.dataset is not None:
                raise UsageError(
                    f"{where}: an .npy file is one array and has no datasets; drop '::{address.dataset}'"
                )
            from kldiv_cli.sources.npy import open_npy

            return open_npy(where, file)
        case "npz":
            from kldiv_cli.sources.npz import open_npz

            return open_npz(where, file, address.dataset)
        case "hdf5":
            from kldiv_cli.sources.hdf5 import open_hdf5

            return open_hdf5(where, file, address.dataset, allow_external=allow_external)
        case "zarr":
            return _open_zarr(where, address)
        case unknown:
            assert_never(unknown)


def _open_zarr(where: str, address: Address) -> Source:
    check_installed(address.path)
    from kldiv_cli.sources.zarr_arrays import open_zarr

    return open_zarr(where, address.path, address.dataset)
