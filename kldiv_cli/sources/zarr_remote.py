"""Zarr stores behind a URL, over obstore as all else that is read over the network.

Stores of objects list what they have. Plain web servers don't: of what lies there only the metadata are
known beforehand, and a chunk that is read must be there, for a gap can't be told from zeros that were
left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from kldiv_cli.errors import FormatError, InputNotFound
from kldiv_cli.sources.remote_errors import RequestFault, faults_explained
from kldiv_cli.sources.remote_listing import RemoteObject, names_below, objects_below, objects_named
from kldiv_cli.sources.requesters import Requesters
from kldiv_cli.sources.store_names import METADATA
from kldiv_cli.sources.stores import place_below
from kldiv_cli.urls import is_listed, shown

if TYPE_CHECKING:
    from obstore import Bytes, GetOptions

__all__ = ["RemoteStore"]

_AT_ONCE: Final = 64
"""Zarr asks for ten chunks at once, in each thread."""
_NO_BUCKET: Final = "NoSuchBucket"


class RemoteStore(ObjectStore[Any]):
    """What lies below a URL, for reading only; what goes wrong with a request is a `RequestFault`."""

    def __init__(self, url: str) -> None:
        """Nothing is asked for yet.

        Raises
        ------
        UsageError
            The address has no host or bucket, or a library is not installed.
        InputError
            What is configured for the store can't be used.
        """
        self._place = place_below(url)
        self._shown = shown(url)
        self.is_listed = is_listed(url)
        self._requesters = Requesters(_AT_ONCE)
        self._closed = False
        super().__init__(self._place.store, read_only=True)

    def close(self) -> None:
        super().close()
        self._closed = True
        self._requesters.close()

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if self._closed:
            # Who read was interrupted, and what still runs is awaited by nobody.
            raise asyncio.CancelledError
        asked = self._requesters.submit(self._request, key, _options(byte_range))
        contents = await asyncio.wrap_future(asked)
        return None if contents is None else prototype.buffer.from_bytes(contents)  # type: ignore[arg-type]

    def _request(self, key: str, options: GetOptions) -> Bytes | None:
        """Ask in this thread: one of obstore's own could still let go of a result while Python ends."""
        import obstore

        try:
            with faults_explained(self._shown, anonymous=self._place.anonymous):
                return obstore.get(self.store, key, options=options).bytes()
        except RequestFault as fault:
            if not isinstance(fault.error, InputNotFound) or _NO_BUCKET in str(fault):
                raise
        if not self.is_listed and key.rpartition("/")[2] not in METADATA:
            raise RequestFault(_gap(self._shown, key))
        return None

    def names(self, name: str) -> list[str]:
        """What is directly below a name, in a store that is listed.

        Raises
        ------
        InputError
            It can't be told.
        """
        return names_below(self._shown, self._place, name)

    def objects(self, name: str) -> Iterator[RemoteObject]:
        """All that is below a name; where nothing is listed its metadata only.

        Raises
        ------
        InputError
            It can't be told.
        """
        if self.is_listed:
            return objects_below(self._shown, self._place, name)
        return objects_named(self._shown, self._place, name, sorted(METADATA))


def _options(byte_range: ByteRequest | None) -> GetOptions:
    match byte_range:
        case None:
            return {}
        case RangeByteRequest(start, end):
            return {"range": (start, end)}
        case OffsetByteRequest(offset):
            return {"range": {"offset": offset}}
        case SuffixByteRequest(suffix):
            return {"range": {"suffix": suffix}}


def _gap(where: str, key: str) -> FormatError:
    return FormatError(
        f"{where}: {key!r} is not on the server: never written, or left out for zeros, which can be told "
        "only where objects are listed; copy the store here, or write all its chunks"
    )
