"""Which format a file has, by its first bytes."""

from __future__ import annotations

from typing import Final, Literal

from kldiv_cli.errors import FormatError
from kldiv_cli.sources.readable import File
from kldiv_cli.sources.store_names import is_zipped_store

__all__ = ["FileFormat", "recognise"]

FileFormat = Literal["npy", "npz", "hdf5", "zarr"]

_NPY: Final = b"\x93NUMPY"
_ZIPS: Final = (b"PK\x03\x04", b"PK\x05\x06")
"""The second is an archive of nothing."""
_HDF5: Final = b"\x89HDF\r\n\x1a\n"


def recognise(where: str, file: File) -> FileFormat:
    """The format of a file.

    Raises
    ------
    FormatError
        It is none of those that are known.
    """
    beginning = file.read(0, 8)
    if beginning.startswith(_NPY):
        return "npy"
    if beginning.startswith(_ZIPS):
        return "zarr" if file.is_local and is_zipped_store(file.path) else "npz"
    if _has_hdf5_signature(file):
        return "hdf5"
    raise FormatError(
        f"{where}: neither .npy, .npz nor HDF5: starts with {beginning!r}; save it with numpy.save or h5py"
    )


def _has_hdf5_signature(file: File) -> bool:
    """HDF5 may begin behind a user block of 512 bytes or a power of two times that."""
    offset = 0
    while offset < file.size:
        if file.read(offset, 8) == _HDF5:
            return True
        offset = max(512, offset * 2)
    return False
