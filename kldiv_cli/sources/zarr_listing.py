"""Every array of a Zarr store, and how it is stored."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from kldiv_cli.errors import InputError
from kldiv_cli.sources.stored import Storage, StoredArray, dtype_problem, problem_of
from kldiv_cli.sources.zarr_arrays import census_of
from kldiv_cli.sources.zarr_chunks import Census, check_written
from kldiv_cli.sources.zarr_names import Found, arrays_below, dtype_of, find_array, open_node
from kldiv_cli.sources.zarr_store import OpenStore, ZarrArray, is_array, open_store

__all__ = ["list_zarr"]

_SELECTION: Final = re.compile(r".*\[[^\[\]]*\]", re.DOTALL)


def list_zarr(path: str, name: str | None) -> Iterator[StoredArray]:
    """The arrays of a store, or of a group of it, or the one of that name.

    Raises
    ------
    DatasetError
        There is nothing of that name.
    FormatError
        The store is damaged.
    """
    with contextlib.closing(open_store(path)) as store:
        for found in list(_found(store, name)):
            yield _stored(store, found, f"{store.path}::/{found.name}" if found.name else store.path)


def _found(store: OpenStore, name: str | None) -> Iterator[Found]:
    top = "" if name is None else name.strip("/")
    node = open_node(store, top)
    if is_array(node):
        yield Found(top, node)
    elif node is not None:
        yield from arrays_below(store, top)
    else:
        find_array(store, name)  # which says what there is


def _stored(store: OpenStore, found: Found, address: str) -> StoredArray:
    if _SELECTION.fullmatch(found.name):
        address += "[...]"  # without it the end of the name would be taken for a selection
    array = found.array
    if array is None:
        return StoredArray(address, None, None, None, found.problem)
    dtype = dtype_of(array)
    try:
        census = census_of(address, store, array)
    except InputError as error:
        return StoredArray(address, array.shape, str(dtype), None, problem_of(address, error))
    problem = dtype_problem(address, dtype) or _gap(address, array, census)
    return StoredArray(address, array.shape, str(dtype), _storage(array, census), problem)


def _gap(address: str, array: ZarrArray, census: Census) -> str | None:
    try:
        check_written(address, array, census)
    except InputError as error:
        return problem_of(address, error)
    return None


def _storage(array: ZarrArray, census: Census) -> Storage:
    kind = "chunked" if array.shards is None else "sharded"
    return Storage(
        kind="sparse" if census.missing else kind,
        bytes=math.prod(array.shape) * dtype_of(array).itemsize,
        stored_bytes=census.bytes,
        order=array.order,
        chunks=array.chunks,
        compression=", ".join(map(_codec_name, _codecs(array))) or None,
    )


def _codecs(array: ZarrArray) -> list[Any]:
    """What changes the bytes, from the last one applied to the first."""
    return [*reversed(array.compressors), *reversed(array.filters)]


def _codec_name(codec: Any) -> str:
    """A codec and its level, as its own metadata put it: in one way in version 2, in another in 3."""
    known = codec.to_dict() if hasattr(codec, "to_dict") else codec.get_config()
    settings = known.get("configuration", known)
    name = str(known.get("name") or known.get("id"))
    name = name.removeprefix("numcodecs.")
    level = settings.get("level", settings.get("clevel"))
    inner = settings.get("cname")
    return " ".join(str(word) for word in (name, inner, level) if word is not None)
