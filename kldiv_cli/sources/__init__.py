"""Where arrays come from: addresses, and one module a storage format; nothing else reads arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from kldiv_cli.errors import UsageError
from kldiv_cli.sources.address import Address, parse_address, resolve_selection
from kldiv_cli.sources.arrival import Sent
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

if TYPE_CHECKING:
    from kldiv_cli.sources.zarr_arrays import ZarrSource

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
    "what_is_sent",
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


def what_is_sent(address: Address) -> Sent:
    """What a worker elsewhere looks for before it opens this address.

    Raises
    ------
    InputError
        It is not there.
    """
    return _open_zarr(address) if is_store(address.path) else open_file(address.path)


def _open_file(address: Address, allow_external: bool) -> Source:
    if is_store(address.path):
        return _open_zarr(address)
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
            return _open_zarr(address)
        case unknown:
            assert_never(unknown)


def _open_zarr(address: Address) -> ZarrSource:
    check_installed(address.path)
    from kldiv_cli.sources.zarr_arrays import open_zarr

    path = shown(address.path)
    where = path if address.dataset is None else f"{path}::{address.dataset}"
    return open_zarr(where, address.path, address.dataset)
