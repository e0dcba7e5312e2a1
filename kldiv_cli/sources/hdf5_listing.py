"""Every dataset of an HDF5 file, how it is stored, and links that lead out of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import h5py

from kldiv_cli.errors import DatasetError, FormatError, InputError
from kldiv_cli.sources.address import dataset_address
from kldiv_cli.sources.hdf5 import FAULTS, open_container, open_hdf5, reason_of
from kldiv_cli.sources.hdf5_names import datasets, dtype_of, external_remedy, find_object
from kldiv_cli.sources.readable import File
from kldiv_cli.sources.stored import Storage, StoredArray, dtype_problem, problem_of

__all__ = ["list_hdf5"]

_FILTERS: Final = {
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_SZIP: "szip",
    h5py.h5z.FILTER_NBIT: "nbit",
    h5py.h5z.FILTER_SCALEOFFSET: "scaleoffset",
    h5py.h5z.FILTER_LZF: "lzf",
}


class _Found(NamedTuple):
    name: str
    dataset: h5py.Dataset | None = None
    target: str | None = None
    """The file that a link leads to which was not followed."""


def list_hdf5(path: str, file: File, name: str | None, *, allow_external: bool) -> list[StoredArray]:
    """The datasets of a file, or of a group of it, or the one of that name; soft links are no datasets.

    Raises
    ------
    DatasetError
        There is nothing of that name.
    FormatError
        The file is damaged, or the way to `name` leads out of it and `allow_external` was not given.
    """
    allow_external = allow_external and file.is_local
    try:
        with open_container(file) as container:
            found = list(_found(path, container, name, allow_external))
            listed = [_stored(path, item) for item in found]
    except FAULTS as error:
        if isinstance(error, InputError):
            raise
        raise FormatError(f"{path}: damaged or unreadable HDF5: {reason_of(error)}") from None
    return [
        _checked(file, item.name, stored, allow_external) for item, stored in zip(found, listed, strict=True)
    ]


def _found(path: str, container: h5py.File, name: str | None, allow_external: bool) -> Iterator[_Found]:
    if name is None:
        top: Any = container
    else:
        top = find_object(path, container, name, allow_external=allow_external)
    if isinstance(top, h5py.Dataset):
        yield _Found(name or top.name, top)
    elif isinstance(top, h5py.Group):
        yield from _below(top, "" if name is None else f"/{name.strip('/')}", allow_external)
    else:
        raise DatasetError(f"{path}: {name!r} is a named type, expected a dataset or a group")


def _below(group: h5py.Group, prefix: str, allow_external: bool) -> Iterator[_Found]:
    """Datasets of a group at any depth, then what external links in it lead to, one file away."""
    inside = len(group.name.rstrip("/"))
    for dataset in datasets(group):
        yield _Found(prefix + dataset.name[inside:], dataset)
    for relative in _external_links(group):
        name = f"{prefix}/{relative}"
        target = group.get(relative) if allow_external else None
        if isinstance(target, h5py.Dataset):
            yield _Found(name, target)
        elif isinstance(target, h5py.Group):
            beyond = len(target.name.rstrip("/"))
            yield from (_Found(name + dataset.name[beyond:], dataset) for dataset in datasets(target))
        else:
            yield _Found(name, target=group.get(relative, getlink=True).filename)


def _external_links(group: h5py.Group) -> list[str]:
    found: list[str] = []

    def note(name: bytes, link: Any) -> None:
        if link.type == h5py.h5l.TYPE_EXTERNAL:
            found.append(name.decode("utf-8", "surrogateescape"))

    group.id.links.visit(note, info=True)
    return found


def _stored(path: str, item: _Found) -> StoredArray:
    address = dataset_address(path, item.name)
    dataset = item.dataset
    if dataset is None:
        problem = f"a link into {item.target!r}; name that file, or {external_remedy(path)}"
        return StoredArray(address, None, None, None, problem)
    dtype = dtype_of(dataset)
    if dataset.shape is None:
        return StoredArray(address, None, str(dtype), None, "an empty dataspace, expected an array")
    return StoredArray(address, dataset.shape, str(dtype), _storage(dataset), dtype_problem(address, dtype))


def _checked(file: File, name: str, stored: StoredArray, allow_external: bool) -> StoredArray:
    """Open what may be numbers, as `compute` would, to see whether it can be read."""
    if stored.problem is not None:
        return stored
    try:
        open_hdf5(stored.address, file, name, allow_external=allow_external)
    except InputError as error:
        return stored._replace(problem=problem_of(stored.address, error))
    return stored


def _storage(dataset: h5py.Dataset) -> Storage:
    return Storage(
        kind=_kind(dataset),
        bytes=dataset.size * dtype_of(dataset).itemsize,
        stored_bytes=dataset.id.get_storage_size(),
        chunks=dataset.chunks,
        compression=_compression(dataset),
    )


def _kind(dataset: h5py.Dataset) -> str:
    if dataset.external is not None:
        return "external"
    kinds = {
        h5py.h5d.COMPACT: "compact",
        h5py.h5d.CONTIGUOUS: "contiguous",
        h5py.h5d.CHUNKED: "chunked",
        h5py.h5d.VIRTUAL: "virtual",
    }
    return kinds[dataset.id.get_create_plist().get_layout()]


def _compression(dataset: h5py.Dataset) -> str | None:
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(k) for k in range(properties.get_nfilters())]
    names = [_filter_name(code, values, name) for code, _, values, name in reversed(filters)]
    return ", ".join(names) or None


def _filter_name(code: int, values: tuple[int, ...], name: bytes) -> str:
    known = _FILTERS.get(code) or name.decode("utf-8", "replace") or f"filter {code}"
    return f"{known} {values[0]}" if code == h5py.h5z.FILTER_DEFLATE else known
