"""Addresses as somebody wrote them in a suite, a table or a command, and from where they are seen."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from kldiv_cli.errors import UsageError
from kldiv_cli.sources.store_names import is_store
from kldiv_cli.streams import printable
from kldiv_cli.urls import has_wildcard, is_remote, is_url, shown, split_dataset

__all__ = [
    "COMMAND_LINE",
    "Viewpoint",
    "Written",
    "address_from",
    "is_there",
    "joined",
    "split_address",
]


class Written(NamedTuple):
    """An address as somebody wrote it."""

    text: str
    where: str
    """How an error about it begins."""

    @property
    def shown(self) -> str:
        return f"'{printable(shown(self.text))}'"


class Viewpoint(NamedTuple):
    """The directory from which addresses are seen, and how errors speak of where they are written."""

    directory: str
    called: str
    """``the suite's directory``."""
    allow_unmatched: str
    """What leaves out what has no partner, as it is written there."""


COMMAND_LINE: Final = Viewpoint("", "the working directory", "--allow-unmatched")


def is_there(path: str) -> bool:
    """Whether there is a file, or a link to nowhere; of what is not here, whoever reads it will tell."""
    return is_url(path) or os.path.lexists(path)


def address_from(view: Viewpoint, address: Written) -> str:
    """An address seen from where the working directory is, as short as it was written.

    Raises
    ------
    UsageError
        It names no file.
    """
    file, behind = split_address(view.directory, address.text)
    several = _several(file) if is_remote(file) else None
    if several is not None:
        raise UsageError(
            f"{address.where}: {address.shown} {several}, but URLs are not listed; name each object in a "
            "table of pairs, or in a suite"
        )
    if not file or behind == "::" or "\0" in address.text:
        raise UsageError(
            f"{address.where}: {address.shown}, expected FILE, FILE::DATASET or FILE::[0:1000]; "
            f"write it as seen from {view.called}"
        )
    return joined(view.directory, address.text)


def _several(url: str) -> str | None:
    """What makes an address one of several objects, if it is."""
    if has_wildcard(url):
        return "has a wildcard"
    return "is a directory" if url.endswith("/") and not is_store(url) else None


def joined(directory: str, path: str) -> str:
    """A path behind a directory, unless it stands for itself."""
    if not directory or os.path.isabs(path) or is_url(path):
        return path
    return os.path.join(directory, path)


def split_address(directory: str, text: str) -> tuple[str, str]:
    """The file of an address and what is behind it; ``::`` may be in the name of a file that exists.

    It is split before it is joined, for ``::`` and ``{stem}`` in the directory's name mean nothing.
    """
    if is_remote(text):
        file, separator, rest = split_dataset(text)
        return file, separator + rest
    file, separator, rest = text.partition("::")
    if not separator or os.path.lexists(joined(directory, text)):
        return text, ""
    return file, separator + rest
