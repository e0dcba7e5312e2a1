"""What is said of a stored array before a number of it is read."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kldiv_cli.errors import InputError
from kldiv_cli.sources.base import check_dtype
from kldiv_cli.urls import split_dataset

__all__ = ["Storage", "StoredArray", "dtype_problem", "problem_of"]


class Storage(NamedTuple):
    """How an array lies in its file."""

    kind: str
    """contiguous, chunked, compact, virtual or external; in an archive stored, deflated and the like;
    of Zarr chunked, sharded, or sparse where chunks were left out."""
    bytes: int
    """Of the array."""
    stored_bytes: int | None
    """Of what is in the file for it; of a store on a server that lists nothing they are not known."""
    order: str = "C"
    """C or F: whether the last dimension varies fastest, or the first."""
    chunks: tuple[int, ...] | None = None
    compression: str | None = None
    """The filters of HDF5 or codecs of Zarr, the last one applied first."""


class StoredArray(NamedTuple):
    """An array of a file; what is not known of one that can't be read is None."""

    address: str
    shape: tuple[int, ...] | None
    dtype: str | None
    storage: Storage | None
    problem: str | None = None
    """Why it can't be read as numbers."""
    url: str | None = None
    """Of a remote file, with what `address` leaves out."""

    @property
    def place(self) -> str:
        """The address to open it by."""
        if self.url is None:
            return self.address
        return self.url + "".join(split_dataset(self.address)[1:])


def problem_of(address: str, error: InputError) -> str:
    """What an error says of the array at this address, without naming it again."""
    return str(error).removeprefix(f"{address}: ")


def dtype_problem(address: str, dtype: np.dtype[Any]) -> str | None:
    try:
        check_dtype(address, dtype)
    except InputError as error:
        return problem_of(address, error)
    return None
