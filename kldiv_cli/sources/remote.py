"""Objects in stores and on servers, read by ranges and watched for change; never fetched whole.

obstore (the object_store library of Rust) makes the requests: it retries, lets other Python threads
run meanwhile, and knows S3, Google Cloud Storage and plain HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kldiv_cli.errors import FormatError, InputChanged, InputError, InputNotFound
from kldiv_cli.sources.remote_errors import RequestFault, faults_explained
from kldiv_cli.sources.requesters import Requesters, answer_of, await_all
from kldiv_cli.sources.stores import Place, place_of
from kldiv_cli.urls import shown

if TYPE_CHECKING:
    from obstore import GetOptions

    from kldiv_cli.sources.remote_stream import RemoteStream

__all__ = ["RemoteFile", "RemoteIdentity", "identity_of", "open_remote"]

_BEGINNING: Final = 1 << 16
"""Bytes that come with the first request: headers, and small arrays whole."""
_PART: Final = 4 << 20
"""Bytes of one request where more are wanted; several are under way at once."""
_AT_ONCE: Final = 4
_REQUEST_BYTES: Final = 1 << 20
"""What a stream of 30 MB/s brings while a request waits for its first byte (30 ms)."""


class RemoteIdentity(NamedTuple):
    """What must stay the same while an object is read."""

    size: int
    etag: str | None
    modified: str
    version: str | None

    @classmethod
    def of(cls, meta: Any) -> RemoteIdentity:
        return cls(meta["size"], meta["e_tag"], str(meta["last_modified"]), meta["version"])


def open_remote(url: str) -> RemoteFile:
    """Ask for the beginning of an object.

    Raises
    ------
    InputNotFound
        There is none.
    FormatError
        It is empty.
    InputError
        The server can't be reached, gives no access, or does not send parts of it.
    UsageError
        It is no address of an object, or a library is not installed.
    """
    file = RemoteFile(url)
    file.open()
    return file


def identity_of(url: str) -> RemoteIdentity:
    """What is there, by one small request; the errors are those of `open_remote`."""
    file = RemoteFile(url)
    file.open(1)
    return file.identity


class RemoteFile:
    """An object that several threads may read at once; each process makes its own connection."""

    request_bytes = _REQUEST_BYTES
    is_local = False

    def __init__(self, url: str, identity: RemoteIdentity | None = None) -> None:
        self.url = url
        self.path = shown(url)
        self._identity = identity
        self._beginning = memoryview(b"")
        self._lock = threading.Lock()
        self._place: Place | None = None
        self._requesters = Requesters(_AT_ONCE)

    @property
    def identity(self) -> RemoteIdentity:
        assert self._identity is not None
        return self._identity

    @property
    def size(self) -> int:
        return self.identity.size

    def open(self, length: int = _BEGINNING) -> None:
        """Find out what is there, and keep so many bytes of its beginning."""
        try:
            self._identity, self._beginning = self._request(0, length)
        except RequestFault as fault:
            raise fault.error from None
        if not self.size:
            raise FormatError(f"{self.path}: empty file (0 bytes), expected an array")

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from `offset`, by several requests at once if it is large."""
        self.read_pieces([(buffer, offset)])

    def read_pieces(self, pieces: Sequence[tuple[memoryview, int]]) -> None:
        """Fill each buffer from its offset, several at once."""
        parts = [part for buffer, offset in pieces for part in _parts(buffer, offset)]
        if len(parts) <= 1:
            for part in parts:
                self._fill(*part)
            return
        await_all([self._requesters.submit(self._fill, *part) for part in parts])

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes, or as many as there are."""
        contents = bytearray(max(0, min(length, self.size - offset)))
        self.read_into(memoryview(contents), offset)
        return bytes(contents)

    def check_arrival(self) -> None:
        """It is the same wherever it is read from."""

    def stream(self) -> RemoteStream:
        from kldiv_cli.sources.remote_stream import RemoteStream

        return RemoteStream(self)

    def verify(self) -> None:
        """Raise `InputChanged` if the object is another one by now."""
        try:
            now, _ = self._request(0, 1)
        except RequestFault as fault:
            if isinstance(fault.error, InputNotFound):
                raise self._changed() from None
            raise fault.error from None
        if now != self.identity:
            raise self._changed()

    def close(self) -> None:
        self._requesters.close()
        self._place = None

    def _fill(self, buffer: memoryview, offset: int) -> None:
        if offset + len(buffer) <= len(self._beginning):
            buffer[:] = self._beginning[offset : offset + len(buffer)]
            return
        try:
            now, contents = self._request(offset, len(buffer))
        except RequestFault as fault:
            if isinstance(fault.error, InputNotFound) or fault.status == 416:
                raise self._changed() from None
            raise fault.error from None
        if now != self.identity:
            raise self._changed()
        if len(contents) != len(buffer):
            raise InputError(
                f"{self.path}: the server sent {len(contents)} bytes from {offset}, expected {len(buffer)}; "
                "copy the file here and name the copy"
            )
        buffer[:] = contents

    def _request(self, offset: int, length: int) -> tuple[RemoteIdentity, memoryview]:
        """Ask for a range of the object as it was; what has no byte there has none at all, or has changed."""
        place = self._connected()
        options: GetOptions = {"range": (offset, offset + length)}
        if place.version is not None:
            options["version"] = place.version
        known = self._identity
        if known is not None and known.etag is not None and not known.etag.startswith("W/"):
            options["if_match"] = known.etag
        try:
            return answer_of(self._answer, place, options)
        except RequestFault as fault:
            if isinstance(fault.error, InputChanged):
                raise self._changed() from None
            if fault.status == 416 and offset == 0:
                return RemoteIdentity(0, None, "", None), memoryview(b"")
            raise

    def _answer(self, place: Place, options: GetOptions) -> tuple[RemoteIdentity, memoryview]:
        import obstore

        with faults_explained(self.path, anonymous=place.anonymous):
            answer = obstore.get(place.store, place.key, options=options)
            return RemoteIdentity.of(answer.meta), memoryview(answer.bytes())

    def _connected(self) -> Place:
        place = self._place
        if place is None:
            with self._lock:
                if self._place is None:
                    self._place = place_of(self.url)
                place = self._place
        return place

    def _changed(self) -> InputChanged:
        return InputChanged(f"{self.path}: changed while it was read; run again when nothing writes to it")

    def __reduce__(self) -> tuple[type, tuple[str, RemoteIdentity | None]]:
        return type(self), (self.url, self._identity)


def _parts(buffer: memoryview, offset: int) -> list[tuple[memoryview, int]]:
    """Pieces of about `_PART` bytes, as even as can be."""
    if not buffer:
        return []
    step = -(-len(buffer) // max(1, len(buffer) // _PART))
    return [(buffer[start : start + step], offset + start) for start in range(0, len(buffer), step)]
