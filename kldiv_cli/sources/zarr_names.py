"""Finding an array in a Zarr store by its name, or as the only one, and telling what is there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from kldiv_cli.errors import DatasetError, FormatError, InputError, InputNotFound
from kldiv_cli.sources.base import describe, is_numeric
from kldiv_cli.sources.remote_errors import RequestFault
from kldiv_cli.sources.zarr_store import FAULTS, OpenStore, ZarrArray, ZarrGroup, is_array, reason_of

__all__ = ["Found", "arrays_below", "dtype_of", "find_array", "open_node"]

_DEEPEST: Final = 32


class Found(NamedTuple):
    """An array of a store, or why it can't be opened."""

    name: str
    array: ZarrArray | None
    problem: str | None = None


def find_array(store: OpenStore, name: str | None) -> ZarrArray:
    """The array of that name; without a name, that of the store, or the only numeric one of its group.

    Raises
    ------
    InputNotFound
        There is no store.
    DatasetError
        There is none, it is a group, or there are several it could be.
    FormatError
        Its metadata are damaged.
    """
    if name is None:
        top = open_node(store, "")
        if top is None:
            raise InputNotFound(f"{store.path}: no Zarr array or group")
        return top if is_array(top) else _only_array(store)
    found = open_node(store, name.strip("/"))
    if is_array(found):
        return found
    what = f"no array {name!r}" if found is None else f"{name!r} is a group, expected an array"
    raise DatasetError(f"{store.path}: {what}; it has {_listing(store)}")


def open_node(store: OpenStore, name: str) -> ZarrArray | ZarrGroup | None:
    """The array or group of that name; None where there is neither.

    Raises
    ------
    FormatError
        Its metadata are damaged.
    """
    where = f"{store.path}::{name}" if name else store.path
    try:
        node = store.open(name)
        plausible = not is_array(node) or _is_plausible(node)
    except RequestFault as fault:
        raise fault.error from None
    except FAULTS as error:
        raise FormatError(f"{where}: damaged or unreadable Zarr metadata: {reason_of(error)}") from None
    if not plausible:
        raise FormatError(f"{where}: damaged Zarr metadata: impossible shape or chunks; write it again")
    return node


def _is_plausible(array: ZarrArray) -> bool:
    """Whether an array can be so large, and is cut into chunks that can be counted."""
    units = (array.chunks, array.shards or array.chunks)
    size = math.prod(array.shape) * dtype_of(array).itemsize
    return size < 2**63 and all(len(unit) == array.ndim and min(unit, default=1) > 0 for unit in units)


def arrays_below(store: OpenStore, name: str, depth: int = 0) -> Iterator[Found]:
    """Every array below a group."""
    if depth == _DEEPEST:
        raise FormatError(
            f"{store.path}: groups more than {_DEEPEST} deep at {name!r}; is it a link to itself?"
        )
    for child in store.children(name):
        below = f"{name}/{child}" if name else child
        try:
            node = open_node(store, below)
        except InputError as error:
            yield Found(below, None, str(error).removeprefix(f"{store.path}::{below}: "))
            continue
        if is_array(node):
            yield Found(below, node)
        elif node is not None:
            yield from arrays_below(store, below, depth + 1)


def dtype_of(array: ZarrArray) -> np.dtype[Any]:
    dtype: np.dtype[Any] = array.dtype
    return dtype


def _only_array(store: OpenStore) -> ZarrArray:
    found = list(arrays_below(store, ""))
    for name, _, problem in found:
        if problem is not None:
            raise FormatError(f"{store.path}::/{name}: {problem}; name the array that is meant")
    arrays = [item.array for item in found if item.array is not None]
    numeric = [array for array in arrays if is_numeric(dtype_of(array))]
    if len(numeric) == 1:
        return numeric[0]
    if not numeric:
        raise DatasetError(f"{store.path}: no numeric array; it has {_describe(arrays)}")
    raise DatasetError(
        f"{store.path}: {len(numeric)} arrays it could be; it has {_describe(numeric)}; "
        f"name one as {store.path}::{numeric[0].name}"
    )


def _arrays(store: OpenStore) -> list[ZarrArray]:
    return [found.array for found in arrays_below(store, "") if found.array is not None]


def _listing(store: OpenStore) -> str:
    top = open_node(store, "")
    return _describe([top] if is_array(top) else _arrays(store))


def _describe(arrays: list[ZarrArray]) -> str:
    return describe((array.name, array.shape, dtype_of(array)) for array in arrays)
