"""Placeholders in addresses, ``{stem}`` and its like, and what stands for them in each pair's."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final

from kldiv_cli.addresses import Written, joined, split_address
from kldiv_cli.errors import UsageError

__all__ = ["GROUP", "PATH", "STEM", "check_known", "filled", "placeholders_in", "stem_of", "unknown_in"]

STEM: Final = "{stem}"
"""The name of the prediction's file without its last suffix."""
PATH: Final = "{path}"
"""The path of the prediction's file below its directory, or below what is literal in a glob, likewise."""
GROUP: Final = "{group}"
"""The path in an HDF5 file that matched, without the first slash."""

_OF_FILES: Final = re.compile("|".join(map(re.escape, (STEM, PATH))))
_ANY: Final = re.compile(r"\{\w+\}")


def placeholders_in(template: str) -> list[str]:
    """Those of files that a template has, each once."""
    return [placeholder for placeholder in (STEM, PATH) if placeholder in template]


def filled(template: str, path: str) -> str:
    """What a template stands for, for a path without suffix; in one go, for a file may be called ``{stem}``.

    >>> filled("ref/{path}/{stem}.npy", "x/a")
    'ref/x/a/a.npy'
    """
    values = {STEM: stem_of(path), PATH: path}
    return _OF_FILES.sub(lambda found: values[found[0]], template)


def stem_of(path: str) -> str:
    """The last name on a path between slashes."""
    return path.rpartition("/")[2]


def unknown_in(template: str, known: Sequence[str]) -> str | None:
    """The first that looks like a placeholder and is none of those known."""
    return next((found for found in _ANY.findall(template) if found not in known), None)


def check_known(address: Written, known: Sequence[str], directory: str = "") -> None:
    """Refuse what looks like a placeholder and is none, unless a file seen from `directory` is called so.

    Raises
    ------
    UsageError
        It would be taken as it stands, and be missed once a pair.
    """
    file, behind = split_address(directory, address.text)
    text = behind if os.path.lexists(joined(directory, file)) else address.text
    unknown = unknown_in(text, known)
    if unknown is not None:
        instead = f"{' or '.join(known)} there" if known else "none: it is the same for all pairs"
        raise UsageError(
            f"{address.where}: {address.shown} has {unknown}, expected {instead}; "
            "mend it, or list the pairs in a table with an address for each"
        )
