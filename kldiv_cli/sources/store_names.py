"""What tells a Zarr store from other directories, archives and URLs, without Zarr."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import sys
import zipfile
from typing import Final

from kldiv_cli.errors import InputError
from kldiv_cli.sources.arrival import seen_here
from kldiv_cli.urls import extra_of, is_remote, is_url, shown

__all__ = ["METADATA", "check_installed", "is_store", "is_zipped_store"]

METADATA: Final = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""The documents of both versions of the format."""
_MARKS: Final = METADATA - {".zattrs"}
_OLDEST: Final = (3, 1, 3)
_URL_OF_STORE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.*\.zarr(/.*)?", re.DOTALL)


def is_store(path: str) -> bool:
    """Whether a directory is a Zarr array or group; a URL is one if a part of it ends in .zarr."""
    if is_url(path):
        return _URL_OF_STORE.fullmatch(shown(path)) is not None
    return os.path.isdir(path) and any(os.path.isfile(os.path.join(path, mark)) for mark in _MARKS)


def is_zipped_store(path: str) -> bool:
    """Whether a zip archive has the metadata of an array or group at its top."""
    try:
        with zipfile.ZipFile(path) as archive:
            return not _MARKS.isdisjoint(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def check_installed(path: str) -> None:
    """Refuse a store where a package that reads it is not there.

    Raises
    ------
    InputError
        One is not, or too old.
    """
    missing = list(filter(None, (_zarr_problem(), _obstore_problem() if is_remote(path) else None)))
    if missing:
        extras = f"{extra_of(path)},zarr" if is_remote(path) else "zarr"
        raise InputError(
            f"{seen_here(shown(path))}: a Zarr store, read by {' and by '.join(missing)}; "
            f"pip install 'kldiv-cli[{extras}]'"
        )


def _zarr_problem() -> str | None:
    wanted = f"the package zarr {'.'.join(map(str, _OLDEST))} or newer"
    if not _is_there("zarr"):
        return f"{wanted}, there is none"
    version = importlib.metadata.version("zarr")
    return f"{wanted}, found {version}" if _release(version) < _OLDEST else None


def _obstore_problem() -> str | None:
    return None if _is_there("obstore") else "the package obstore, there is none"


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # what is imported has no spec
        return package in sys.modules and sys.modules[package] is not None


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
