"""Where arrays come from: addresses, and one module a storage format; nothing else reads arrays."""

from __future__ import annotations

from kldiv_cli.errors import FormatError, UsageError
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
from kldiv_cli.sources.regular import RegularFile

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

_NPY = b"\x93NUMPY"
_ZIPS = (b"PK\x03\x04", b"PK\x05\x06")
"""The second is an archive of nothing."""
_HDF5 = b"\x89HDF\r\n\x1a\n"


def open_source(text: str, *, allow_external: bool = False) -> Source:
    """Open the array at an address: `FILE`, `FILE::DATASET`, either with `[0:1000]` behind it.

    Raises
    ------
    InputError
        It is not there, not a regular file of a known format, damaged, or ambiguous.
    UsageError
        The address is not of that form.
    """
    address = parse_address(text)
    source = _open_file(address, allow_external)
    if address.selection is None:
        return source
    return SliceSource(source, text, resolve_selection(text, address.selection, source.shape))


def _open_file(address: Address, allow_external: bool) -> Source:
    file = RegularFile(address.path)
    where = address.path if address.dataset is None else f"{address.path}::{address.dataset}"
    beginning = file.read(0, 8)
    if beginning.startswith(_NPY):
        if address.dataset is not None:
            raise UsageError(
                f"{where}: an .npy file is one array and has no datasets; drop '::{address.dataset}'"
            )
        from kldiv_cli.sources.npy import open_npy

        return open_npy(where, file)
    if beginning.startswith(_ZIPS):
        from kldiv_cli.sources.npz import open_npz

        return open_npz(where, file, address.dataset)
    if _has_hdf5_signature(file):
        from kldiv_cli.sources.hdf5 import open_hdf5

        return open_hdf5(where, file, address.dataset, allow_external=allow_external)
    raise FormatError(
        f"{where}: neither .npy, .npz nor HDF5: starts with {beginning!r}; save it with numpy.save or h5py"
    )


def _has_hdf5_signature(file: RegularFile) -> bool:
    """HDF5 may begin behind a user block of 512 bytes or a power of two times that."""
    offset = 0
    while offset < file.size:
        if file.read(offset, 8) == _HDF5:
            return True
        offset = max(512, offset * 2)
    return False
