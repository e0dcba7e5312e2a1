"""Finding a dataset in an HDF5 file by its name, or as the only one, and telling what is there."""

from __future__ import annotations

from typing import Any, Final

import h5py
import numpy as np

from kldiv_cli.errors import DatasetError, FormatError
from kldiv_cli.sources.base import describe, is_numeric
from kldiv_cli.urls import is_remote

__all__ = ["datasets", "dtype_of", "external_remedy", "find_dataset", "find_object", "follow"]

_MOST_LINKS: Final = 32


def find_dataset(
    path: str, container: h5py.File, name: str | None, *, allow_external: bool = False
) -> h5py.Dataset:
    """The dataset of that name; without a name, the only numeric one.

    Raises
    ------
    DatasetError
        There is none, it is a group, or there are several it could be.
    FormatError
        The way to it leads out of the file and `allow_external` was not given.
    """
    if name is None:
        return container[_only_dataset(path, container)]
    found = find_object(path, container, name, allow_external=allow_external)
    if not isinstance(found, h5py.Dataset):
        kind = "a group" if isinstance(found, h5py.Group) else "a named type"
        raise DatasetError(f"{path}: {name!r} is {kind}, expected a dataset; it has {_listing(container)}")
    return found


def find_object(path: str, container: h5py.File, name: str, *, allow_external: bool) -> Any:
    """Whatever has that name: a dataset, a group or a named type.

    Raises
    ------
    DatasetError
        There is nothing.
    FormatError
        The way to it leads out of the file and `allow_external` was not given.
    """
    found = container.get(name) if allow_external else follow(path, container, name)
    if found is None:
        raise DatasetError(f"{path}: no dataset {name!r}; it has {_listing(container)}")
    return found


def follow(path: str, container: h5py.File, name: str) -> Any:
    """Walk to an object by hard links and inner soft links only; None where there is none."""
    here: Any = container
    parts = [part for part in name.split("/") if part]
    for _ in range(_MOST_LINKS + len(parts)):
        if not parts:
            return here
        if not isinstance(here, h5py.Group):
            return None
        part, *parts = parts
        link = here.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise FormatError(
                f"{path}: {name!r} is a link into {link.filename!r}; name that file, "
                f"or {external_remedy(path)}"
            )
        if isinstance(link, h5py.SoftLink):
            here = container if link.path.startswith("/") else here
            parts = [step for step in link.path.split("/") if step] + parts
        else:
            here = None if link is None else here[part]
    raise FormatError(f"{path}: {name!r} follows more than {_MOST_LINKS} links; name the dataset itself")


def external_remedy(address: str) -> str:
    """What to do about data in other files: no other files are looked for beside a remote one."""
    return "copy all of them here" if is_remote(address) else "allow it with --allow-external"


def datasets(container: h5py.Group) -> list[h5py.Dataset]:
    """Every dataset below a group, each once, by hard links only."""
    found: list[h5py.Dataset] = []

    def note(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(item)

    container.visititems(note)
    return found


def _only_dataset(path: str, container: h5py.File) -> str:
    numeric = [d for d in datasets(container) if d.shape is not None and is_numeric(dtype_of(d))]
    if len(numeric) == 1:
        return str(numeric[0].name)
    if not numeric:
        raise DatasetError(f"{path}: no numeric dataset; it has {_listing(container)}")
    raise DatasetError(
        f"{path}: {len(numeric)} datasets it could be; it has {_describe(numeric)}; "
        f"name one as {path}::{numeric[0].name}"
    )


def _listing(container: h5py.File) -> str:
    return _describe(datasets(container))


def _describe(datasets: list[h5py.Dataset]) -> str:
    return describe((d.name, d.shape, dtype_of(d)) for d in datasets)


def dtype_of(dataset: h5py.Dataset) -> np.dtype[Any]:
    """The dtype, or void where NumPy has none for it."""
    try:
        dtype: np.dtype[Any] = np.dtype(dataset.dtype)
        return dtype
    except TypeError:
        return np.dtype("V")
