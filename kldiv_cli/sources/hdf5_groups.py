"""Groups and datasets of an HDF5 file whose paths match a pattern, and what is in each group."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import h5py

from kldiv_cli.errors import DatasetError, FormatError, InputError
from kldiv_cli.patterns import WILDCARDS, fits_parts
from kldiv_cli.sources.files import open_file
from kldiv_cli.sources.hdf5 import FAULTS, open_container, reason_of
from kldiv_cli.sources.hdf5_names import follow
from kldiv_cli.streams import printable

__all__ = ["Member", "list_members"]

Kind = Literal["group", "dataset", "link"]

_LISTED: Final = 5
_KINDS: Final[Mapping[int, Kind]] = {h5py.h5g.GROUP: "group", h5py.h5g.DATASET: "dataset"}


class Member(NamedTuple):
    """What a path in a file leads to."""

    name: str
    """The path, from the first slash on."""
    kind: Kind
    """A link is one that leads out of the file or nowhere; whoever opens it will refuse it."""
    inside: frozenset[str] = frozenset()
    """Of a group, which of the names that were asked for it has; all datasets below if none were."""


def list_members(path: str, pattern: str, names: Sequence[str] | None = None) -> list[Member]:
    """All that matches ``/model/layer*``, in the order of the paths.

    ``* ? [ab]`` stand for what a name is made of, ``**`` for any number of groups. Wildcards find hard
    links, and soft links that stay in the file; ``**`` descends by hard links, into each group once.
    What is behind a link out of the file is not looked at.

    Raises
    ------
    InputNotFound, InputError
        There is no such file, or it can't be read.
    FormatError
        It is damaged or no HDF5.
    DatasetError
        Nothing matches.
    """
    file = open_file(path)
    try:
        with open_container(file) as container:
            inner = _Inner(path, container)
            found = [
                Member(name, kind, inner.inside(name, names) if kind == "group" else frozenset())
                for name, kind in inner.matching([part for part in pattern.split("/") if part])
            ]
            there = [] if found else [printable(f"'/{name}'") for name in container]
    except FAULTS as error:
        if isinstance(error, InputError):
            raise
        raise FormatError(f"{path}: damaged or unreadable HDF5: {reason_of(error)}") from None
    if not found:
        more = f" and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
        raise DatasetError(
            f"{path}: nothing matches '{printable(pattern)}'; "
            f"it has {', '.join(there[:_LISTED]) or 'nothing'}{more}; mend the pattern or the dump"
        )
    return sorted(found)


class _Inner(NamedTuple):
    """An open file, in which paths are looked for."""

    path: str
    container: h5py.File

    def matching(self, parts: Sequence[str]) -> Iterator[tuple[str, Kind]]:
        """The paths that match, and what they lead to."""
        literal = next((k for k, part in enumerate(parts) if WILDCARDS.search(part)), len(parts))
        top = "".join(f"/{part}" for part in parts[:literal])
        kind = self._followed(top, missing=None)
        if literal == len(parts) and kind is not None:
            yield top or "/", kind
        elif kind == "group":
            yield from self._below(top, parts[literal:])

    def inside(self, name: str, names: Sequence[str] | None) -> frozenset[str]:
        """Which of the names there are in a group, or the datasets below it."""
        group, top = self._group(name), name.rstrip("/")
        if names is not None:
            return frozenset(inner for inner in names if self._has(group, top, inner))
        links = ((inner, self._kind(group, top, inner, type)) for inner, type in _links(group, below=True))
        return frozenset(inner for inner, kind in links if kind in ("dataset", "link"))

    def _below(self, top: str, parts: Sequence[str]) -> Iterator[tuple[str, Kind]]:
        group, deep = self._group(top), parts[0] == "**"
        filters = [_filter(part) for part in (parts if deep else parts[:1])]
        if not any(filters):
            yield top or "/", "group"
        for name, type in _links(group, below=deep):
            kind = self._kind(group, top, name, type) if fits_parts(filters, name.split("/")) else None
            if kind == "group" and not deep and len(parts) > 1:
                yield from self._below(f"{top}/{name}", parts[1:])
            elif kind is not None and (deep or len(parts) == 1):
                yield f"{top}/{name}", kind

    def _group(self, name: str) -> Any:
        return h5py.h5g.open(self.container.id, _encoded(name or "/"))

    def _kind(self, group: Any, top: str, name: str, type: int) -> Kind | None:
        """What a link leads to; None for a named type."""
        if type == h5py.h5l.TYPE_HARD:
            return _KINDS.get(h5py.h5g.get_objinfo(group, _encoded(name), follow_link=False).type)
        return self._followed(f"{top}/{name}", missing="link") if type == h5py.h5l.TYPE_SOFT else "link"

    def _followed(self, name: str, *, missing: Kind | None) -> Kind | None:
        try:
            found = follow(self.path, self.container, name)
        except FormatError:
            return "link"
        if found is None:
            return missing
        return "group" if isinstance(found, h5py.Group) else _dataset(found)

    def _has(self, group: Any, top: str, name: str) -> bool:
        """Whether there is something, or a link to nowhere, of that name or path."""
        if "/" not in name:
            return bool(group.links.exists(_encoded(name)))
        return self._followed(f"{top}/{name}", missing=None) is not None


def _dataset(found: Any) -> Kind | None:
    return "dataset" if isinstance(found, h5py.Dataset) else None


def _links(group: Any, *, below: bool) -> list[tuple[str, int]]:
    """The links of a group, or all below it, by their paths from there, and their types."""
    found: list[tuple[str, int]] = []

    def note(name: bytes, link: Any) -> None:
        found.append((name.decode("utf-8", "surrogateescape"), link.type))

    (group.links.visit if below else group.links.iterate)(note, info=True)
    return found


def _filter(part: str) -> Callable[[str], bool] | None:
    """Whether a name matches; as it is written, or by its wildcards."""
    if part == "**":
        return None
    match = re.compile(fnmatch.translate(part)).match
    return lambda name: name == part or match(name) is not None


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
