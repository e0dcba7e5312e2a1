"""Zarr stores: a directory, a zip archive or a URL, read in the thread that asks, metadata bounded."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final, NamedTuple, ParamSpec, TypeAlias, TypeGuard, TypeVar

import zarr.api.asynchronous
from numcodecs.blosc import Blosc
from zarr.abc.buffer import Buffer
from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.codecs import BloscCodec
from zarr.core.buffer import BufferPrototype
from zarr.errors import NodeNotFoundError
from zarr.storage import LocalStore, WrapperStore, ZipStore

from kldiv_cli.errors import DatasetError, FormatError, InputError, KldivError
from kldiv_cli.sources.regular import Identity
from kldiv_cli.sources.remote_listing import RemoteObject
from kldiv_cli.sources.requesters import answer_of, apart
from kldiv_cli.sources.store_names import METADATA
from kldiv_cli.sources.zarr_remote import RemoteStore
from kldiv_cli.streams import one_line
from kldiv_cli.urls import is_remote, shown

__all__ = [
    "FAULTS",
    "LISTING_FAULTS",
    "Entry",
    "OpenStore",
    "ZarrArray",
    "ZarrGroup",
    "is_array",
    "missing_codec",
    "open_store",
    "reason_of",
]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
ZarrArray: TypeAlias = zarr.AsyncArray[Any]
ZarrGroup: TypeAlias = zarr.AsyncGroup

_LARGEST_METADATA: Final = 16 << 20
_CODEC: Final = re.compile(r"'+([\w.-]+)'+")
_EXTRAS_OF_NUMCODECS: Final = frozenset({"crc32c", "msgpack", "pcodec", "zfpy"})


def _faults_of_lzma() -> tuple[type[Exception], ...]:
    """None where Python was built without it."""
    try:
        import lzma
    except ImportError:
        return ()
    return (lzma.LZMAError,)


FAULTS: Final[tuple[type[Exception], ...]] = (
    OSError,
    RuntimeError,
    SystemError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    ImportError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    RecursionError,
    *_faults_of_lzma(),
)
"""What Zarr and its codecs raise for damaged stores, depending on where the damage is.

No `MemoryError`: a chunk that is too large for the memory there is was not damaged by that.
"""


LISTING_FAULTS: Final = (OSError, ValueError, RuntimeError, zipfile.BadZipFile)
"""What listing a store raises."""


class Entry(NamedTuple):
    """One thing in a store."""

    key: str
    """Relative to the array it belongs to."""
    size: int
    stamp: str
    """What tells it from what may be written in its place."""
    arrival: str
    """The same as far as it is the same on every machine, or in a copy that kept its times."""


class OpenStore:
    """A store to read from, by any thread.

    Zarr reads through asyncio. Each call gets a loop of its own in the thread that calls, and what is
    handed to an executor runs there and then: so the workers decompress side by side and
    `--workers` means what it says. Requests to what is behind a URL are made by threads of the store's
    own, which serve any loop; for the main thread the loop too runs apart, so that it hears signals.
    """

    def __init__(self, path: str, location: str) -> None:
        self.path = shown(path)
        self._location = location
        self._plain = _store_of(location)
        self._store = _Bounded(self._plain)

    @property
    def is_remote(self) -> bool:
        return isinstance(self._plain, RemoteStore)

    @property
    def is_listed(self) -> bool:
        """Whether the chunks that are there can be told without reading them."""
        return not isinstance(self._plain, RemoteStore) or self._plain.is_listed

    def run(
        self,
        begin: Callable[Parameters, Coroutine[Any, Any, Result]],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """What a coroutine of Zarr returns, run to its end: in this thread, or apart from the main one.

        Raises
        ------
        RequestFault
            Something behind a URL can't be had.
        """
        # A signal would leave coroutines behind that were never awaited, of which Python complains.
        call = functools.partial(begin, *args, **kwargs)
        return answer_of(_run_here, call) if self.is_remote else _run_here(call)

    def open(self, name: str) -> ZarrArray | ZarrGroup | None:
        """The array or group of that name; None where there is neither."""
        try:
            return self.run(self._open, name)
        except NodeNotFoundError:
            return None
        except MemoryError:
            # Metadata are small; what they say isn't always, such as a dtype of two billion bytes.
            raise ValueError("what they describe needs more memory than there is") from None

    def expect(self, array: ZarrArray) -> None:
        """Check the chunks of this array, which is all that is read from now on, by how they are packed."""
        outermost = array.compressors[-1] if array.compressors and array.shards is None else None
        self._store.framed = isinstance(outermost, BloscCodec | Blosc)

    def children(self, name: str) -> list[str]:
        """The names directly below a group, its metadata left out."""
        if not isinstance(self._plain, RemoteStore):
            return sorted(set(self.run(self._list, name)) - METADATA)
        if self._plain.is_listed:
            return sorted(set(self._plain.names(name)) - METADATA)
        top = f"{name}/" if name else ""
        below = (known.removeprefix(top) for known in self._consolidated() if known.startswith(top))
        return sorted({known.partition("/")[0] for known in below})

    def entries(self, name: str) -> Iterator[Entry]:
        """Everything below an array, in no order; where nothing can be listed, only its metadata."""
        if isinstance(self._plain, LocalStore):
            return _files(os.path.join(self._location, name))
        if isinstance(self._plain, RemoteStore):
            return map(_object, self._plain.objects(name))
        return _members(self._location, name)

    def close(self) -> None:
        self._store.close()

    def _consolidated(self) -> list[str]:
        """The names of all that is in the store, as it says itself where nothing can be listed."""
        group = self.run(zarr.api.asynchronous.open_group, store=self._store, mode="r")
        known = group.metadata.consolidated_metadata
        if known is None:
            raise DatasetError(
                f"{self.path}: a group on a server that lists nothing and without consolidated metadata; "
                f"name the array as {self.path}::NAME"
            )
        return list(known.flattened_metadata)

    async def _open(self, name: str) -> ZarrArray | ZarrGroup:
        with warnings.catch_warnings():
            # What is not in the specification yet, such as a structured dtype, is refused by us anyhow.
            warnings.filterwarnings("ignore", module=r"zarr\.")
            return await zarr.api.asynchronous.open(
                store=self._store, mode="r", path=name, use_consolidated=False
            )

    async def _list(self, name: str) -> list[str]:
        return [child async for child in self._store.list_dir(name)]


def open_store(path: str, location: str | None = None) -> OpenStore:
    """Open a store for reading: that at `location`, where `path` is seen from another directory.

    Raises
    ------
    InputError
        There is none, or it can't be reached.
    """
    try:
        return OpenStore(path, location or path)
    except KldivError:
        raise
    except FAULTS as error:
        raise InputError(f"{path}: the store can't be opened: {reason_of(error)}") from None


class _Bounded(WrapperStore[Store]):
    """A store that gives out no metadata of a size that none has, and no Blosc frame that is cut off."""

    framed = False
    """Whether what is not metadata are Blosc frames, of which the decoder believes what their header says."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if key.rpartition("/")[2] in METADATA:
            return await self._document(key, prototype)
        found = await self._store.get(key, prototype, byte_range)
        if found is not None and self.framed and byte_range is None:
            _check_frame(key, found)
        return found

    async def _document(self, key: str, prototype: BufferPrototype) -> Buffer | None:
        found = await self._store.get(key, prototype, RangeByteRequest(0, _LARGEST_METADATA + 1))
        if found is not None and len(found) > _LARGEST_METADATA:
            raise FormatError(
                f"{key!r} has more than {_LARGEST_METADATA} bytes, which no metadata have; "
                "write the store again"
            )
        return found


def _store_of(path: str) -> Store:
    """The store at a path or URL, for reading only."""
    if is_remote(path):
        return RemoteStore(path)
    if os.path.isdir(path):
        return LocalStore(path, read_only=True)
    return _run_here(functools.partial(ZipStore.open, path, mode="r", read_only=True))


def _check_frame(key: str, frame: Buffer) -> None:
    """Refuse a Blosc frame that ends before its header says; its decoder would read on behind it."""
    length = int.from_bytes(frame[12:16].to_bytes(), "little")
    if len(frame) < max(16, length):
        raise FormatError(f"{key!r} is truncated: {len(frame)} of {length} bytes")


class _Loop(asyncio.SelectorEventLoop):
    """A loop that does in its own thread what others hand to a pool, and needn't be woken for its result.

    Zarr hands over two things for each chunk, the read and the decoding. With a pool, even one that has
    no threads, the waking is a seventh of the time of a chunk of 256 KiB, in which other threads wait.
    """

    def run_in_executor(  # type: ignore[override]
        self, executor: object, function: Callable[..., Result], *args: Any
    ) -> asyncio.Future[Result]:
        future: asyncio.Future[Result] = self.create_future()
        try:
            future.set_result(function(*args))
        except Exception as error:  # noqa: BLE001 - raised again where the result is asked for
            future.set_exception(error)
        return future


def _run_here(begin: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(begin)
    # A notebook runs its cells inside a loop, and a thread has one loop at a time.
    return apart(_run, begin)


def _run(begin: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """What `asyncio.Runner` does, in a quarter of its time: no thread is started to stop threads."""
    loop = _Loop()
    try:
        return loop.run_until_complete(begin())
    finally:
        for task in (left := asyncio.all_tasks(loop)):
            task.cancel()
        loop.run_until_complete(_settle(left))
        loop.close()


async def _settle(tasks: Iterable[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def is_array(node: ZarrArray | ZarrGroup | None) -> TypeGuard[ZarrArray]:
    return isinstance(node, zarr.AsyncArray)


def _files(top: str) -> Iterator[Entry]:
    """Files below a directory; a link is what it leads to."""
    folders = [""]
    while folders:
        prefix = folders.pop()
        with os.scandir(os.path.join(top, prefix)) as found:
            for item in found:
                key = f"{prefix}{item.name}"
                if item.is_dir():
                    folders.append(f"{key}/")
                else:
                    status = item.stat()
                    arrival = f"{status.st_size} {status.st_mtime_ns}"
                    yield Entry(key, status.st_size, str(Identity.of(status)), arrival)


def _members(path: str, name: str) -> Iterator[Entry]:
    """Members of an archive, which is watched as one file."""
    prefix = f"{name}/" if name else ""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.startswith(prefix) and not member.is_dir():
                key, stamp = member.filename.removeprefix(prefix), f"{member.CRC} {member.file_size}"
                yield Entry(key, member.compress_size, stamp, stamp)


def _object(found: RemoteObject) -> Entry:
    stamp = f"{found.size} {found.version}"
    return Entry(found.key, found.size, stamp, stamp)


def missing_codec(error: BaseException) -> str | None:
    """What to install, where a fault is that a codec is not; None of all others."""
    if isinstance(error, ImportError) and error.name is not None:
        return f"needs the package {error.name}, which can't be imported; pip install {error.name}"
    # One class of that name is Zarr's, the other one that of numcodecs.
    named = _CODEC.search(str(error)) if type(error).__name__ == "UnknownCodecError" else None
    if named is None:
        return None
    package = "the package that has it"
    if named[1] in _EXTRAS_OF_NUMCODECS:
        package = f"it with pip install 'numcodecs[{named[1]}]'"
    return f"the codec {named[1]!r} is not installed; install {package}, or store it with zstd"


def reason_of(error: BaseException) -> str:
    """What a fault says, on one line."""
    if isinstance(error, InputError):
        return str(error)
    missing = missing_codec(error)
    if missing is not None:
        return missing
    return one_line(error) or type(error).__name__
