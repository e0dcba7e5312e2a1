"""What lies below an address in a store of objects: a listing, a thousand objects a request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from kldiv_cli.sources.remote_errors import RequestFault, faults_explained
from kldiv_cli.sources.requesters import answer_of
from kldiv_cli.sources.stores import Place

__all__ = ["RemoteObject", "names_below", "objects_below", "objects_named"]

_OF_A_REQUEST: Final = 1000
"""What S3 and Google Cloud Storage tell at once."""


class RemoteObject(NamedTuple):
    """An object, as a store tells of it without giving it out."""

    key: str
    size: int
    etag: str | None
    modified: str
    number: str
    """Of the version, where objects have several."""

    @classmethod
    def of(cls, key: str, meta: Any) -> RemoteObject:
        etag = meta["e_tag"] or None
        return cls(key, meta["size"], etag, str(meta["last_modified"]), meta["version"] or "")

    @property
    def version(self) -> str:
        """What tells it from what may be written in its place."""
        return f"{self.etag or self.modified} {self.number}".rstrip()


def objects_below(where: str, place: Place, name: str = "") -> Iterator[RemoteObject]:
    """All objects below a name, or of the whole place, in the order of their keys; `where` is its address.

    Raises
    ------
    InputError
        They can't be listed.
    """
    import obstore

    top = f"{name}/" if name else ""
    with _listed(where, place):
        batches = obstore.list(place.store, name or None, chunk_size=_OF_A_REQUEST)
        while (batch := answer_of(next, batches, None)) is not None:
            for meta in batch:
                yield RemoteObject.of(meta["path"].removeprefix(top), meta)


def names_below(where: str, place: Place, name: str) -> list[str]:
    """The first part of the keys of all that is below a name, in order.

    Raises
    ------
    InputError
        They can't be listed.
    """
    import obstore

    with _listed(where, place):
        found = answer_of(obstore.list_with_delimiter, place.store, name or None)
    paths = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
    return sorted({path.rstrip("/").rpartition("/")[2] for path in paths})


def objects_named(where: str, place: Place, name: str, keys: Iterable[str]) -> Iterator[RemoteObject]:
    """Which of the objects of these keys below a name are there, where nothing can be listed.

    Raises
    ------
    InputError
        The server can't be reached, or gives no access.
    """
    import obstore

    top = f"{name}/" if name else ""
    for key in keys:
        with _listed(where, place), contextlib.suppress(FileNotFoundError):
            yield RemoteObject.of(key, answer_of(obstore.head, place.store, top + key))


@contextlib.contextmanager
def _listed(where: str, place: Place) -> Iterator[None]:
    try:
        with faults_explained(where, anonymous=place.anonymous):
            yield
    except RequestFault as fault:
        raise fault.error from None
