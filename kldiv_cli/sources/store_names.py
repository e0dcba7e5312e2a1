"""What tells a Zarr store from other directories, archives and URLs, without Zarr."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import zipfile
from typing import Final

from kldiv_cli.errors import InputError
from kldiv_cli.urls import is_url

__all__ = ["METADATA", "check_installed", "is_store", "is_zipped_store"]

METADATA: Final = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""The documents of both versions of the format."""
_MARKS: Final = METADATA - {".zattrs"}
_OLDEST: Final = (3, 1, 3)
_URL_OF_STORE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.*\.zarr(/.*)?", re.DOTALL)


def is_store(path: str) -> bool:
    """Whether a directory is a Zarr array or group; a URL is one if a part of it ends in .zarr."""
    if is_url(path):
        return _URL_OF_STORE.fullmatch(path) is not None
    return os.path.isdir(path) and any(os.path.isfile(os.path.join(path, mark)) for mark in _MARKS)


def is_zipped_store(path: str) -> bool:
    """Whether a zip archive has the metadata of an array or group at its top."""
    try:
        with zipfile.ZipFile(path) as archive:
            return not _MARKS.isdisjoint(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def check_installed(where: str) -> None:
    """Refuse a store where the package that reads it is not there.

    Raises
    ------
    InputError
        It is not, or too old.
    """
    if importlib.util.find_spec("zarr") is None:
        found = "there is none"
    elif _release(importlib.metadata.version("zarr")) < _OLDEST:
        found = f"found {importlib.metadata.version('zarr')}"
    else:
        return
    wanted = ".".join(map(str, _OLDEST))
    raise InputError(
        f"{where}: a Zarr store, read by the package zarr {wanted} or newer, {found}; "
        "pip install 'kldiv-cli[zarr]'"
    )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
