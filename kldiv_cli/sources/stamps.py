"""What tells a file, a store or an object from the same one after a change, without reading it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

from kldiv_cli.errors import InputError, InputNotFound, KldivError
from kldiv_cli.sources.regular import check_regular
from kldiv_cli.sources.requesters import Requesters, awaited
from kldiv_cli.sources.store_names import METADATA, is_store
from kldiv_cli.urls import is_listed, is_remote, shown

__all__ = ["FileStamp", "file_stamp", "file_stamps"]

_AT_ONCE: Final = 16
"""Servers asked at the same time; of 1000 objects 30 ms away all are known in two seconds."""
_HASH: Final = 16
_PASSWORD: Final = re.compile(r"(?<=://)([^/?#:]*):[^/?#]*@")


class FileStamp(NamedTuple):
    """Of a file, of a Zarr store in a directory, or of what is read over the network."""

    size: int
    """Bytes; those of a store on a server that lists nothing aren't known, and 0 stands for them."""
    mtime_ns: int | None
    """None where there is an ETag, for what is put there again as it was is the same, or no time is told."""
    etag: str | None = None
    address_digest: str | None = None
    """Where there is no ETag, that of an address which isn't shown whole: its query may name the object."""

    @property
    def tells_changes(self) -> bool:
        """Whether a changed one has another stamp: some servers tell neither ETag nor time."""
        return self.etag is not None or self.mtime_ns is not None


def file_stamp(path: str) -> FileStamp:
    """The size of a file, and when it was last written to; of an object its ETag.

    Of a Zarr store the bytes of all files in it and the newest time, or in a bucket a hash of all
    ETags. Each file is looked at and each object listed, as when an array is opened: some 6 s, or 1000
    requests, for a million of them. A server that lists nothing tells of a store's metadata only.
    An object without an ETag is told by its time and by its whole address.

    Raises
    ------
    InputError
        There is none, it is not a regular file nor a store, or it is empty, as when it is opened.
    UsageError
        It is no address of an object, or a library is not installed.
    """
    if is_remote(path):
        return _stamp_of_store_there(path) if is_store(path) else _stamp_of_object(path)
    try:
        identity = check_regular(path)
    except InputError:
        if is_store(path):
            return _stamp_of_store_here(path)
        raise
    return FileStamp(identity.size, identity.mtime_ns)


def file_stamps(paths: Iterable[str]) -> dict[str, FileStamp | None]:
    """The stamp of each, None where it can't be had; servers are asked several questions at once."""
    found = {path: None if is_remote(path) else _stamp_or_none(path) for path in dict.fromkeys(paths)}
    remote = [path for path in found if is_remote(path)]
    if remote:
        with contextlib.closing(Requesters(_AT_ONCE)) as requesters:
            asked = [(path, requesters.submit(_stamp_or_none, path)) for path in remote]
            found.update((path, awaited(stamp)) for path, stamp in asked)
    return found


def _stamp_or_none(path: str) -> FileStamp | None:
    try:
        return file_stamp(path)
    except KldivError:
        return None


def _stamp_of_store_here(path: str) -> FileStamp:
    """Directories count too: their times tell that a file is gone, or was replaced by an older one.

    Each is looked into once, however many links lead to it, or back to it.
    """
    size, newest = 0, 0
    folders, seen = [path], set[tuple[int, int]]()
    try:
        while folders:
            folder = folders.pop()
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            newest = max(newest, status.st_mtime_ns)
            with os.scandir(folder) as found:
                for item in found:
                    if item.is_dir():
                        folders.append(item.path)
                        continue
                    status = item.stat()
                    size += status.st_size
                    newest = max(newest, status.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    return FileStamp(size, newest)


def _stamp_of_object(url: str) -> FileStamp:
    from kldiv_cli.sources.remote import identity_of

    identity = identity_of(url)
    if identity.etag is not None:
        return FileStamp(identity.size, None, identity.etag)
    return FileStamp(identity.size, _time_ns(identity.modified), None, _digest_of(url))


def _stamp_of_store_there(url: str) -> FileStamp:
    from kldiv_cli.sources.remote_listing import objects_below, objects_named
    from kldiv_cli.sources.stores import place_below

    where, place = shown(url), place_below(url)
    listed = is_listed(url)
    found = objects_below(where, place) if listed else objects_named(where, place, "", sorted(METADATA))
    size, count, digest = 0, 0, hashlib.blake2b(digest_size=_HASH)
    have_etags, tells_changes = True, True
    for thing in found:
        digest.update("\0".join((thing.key, str(thing.size), thing.version, "")).encode())
        size += thing.size
        count += 1
        have_etags &= thing.etag is not None
        tells_changes &= thing.etag is not None or _time_ns(thing.modified) is not None
    if not count:
        raise InputNotFound(f"{where}: no Zarr array or group")
    return FileStamp(
        size if listed else 0,
        None,
        digest.hexdigest() if tells_changes else None,
        None if have_etags else _digest_of(url),
    )


def _time_ns(modified: str) -> int | None:
    """When an object was written to; obstore has the beginning of 1970 where a server doesn't tell."""
    return round(datetime.fromisoformat(modified).timestamp() * 1e9) or None


def _digest_of(url: str) -> str | None:
    """What tells a whole address from others of the same path without telling what is secret in it.

    With an ETag it is left out: the signature in an address is another one each time. A password is
    left out always, for a short one could be found by its digest.
    """
    if shown(url) == url:
        return None
    return hashlib.blake2b(_PASSWORD.sub(r"\1@", url).encode(), digest_size=_HASH).hexdigest()
