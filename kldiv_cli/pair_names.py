"""Names of pairs: what a report can show on one line and no CI runner takes for a command."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from kldiv_cli.addresses import split_address
from kldiv_cli.errors import UsageError
from kldiv_cli.pair_files import PairFiles
from kldiv_cli.placeholders import filled, placeholders_in
from kldiv_cli.streams import excerpt, harmless, printable
from kldiv_cli.suite_tables import Table

__all__ = ["check_name", "full_name", "name_of_address", "name_of_found", "tell_apart"]

_LONGEST: Final = 200
_SELECTION: Final = re.compile(r"::/*(?=\[|$)")


def full_name(name: str, files: PairFiles, table: Table) -> str:
    """The name of a pair of the table `name`: for the match of a glob with its path in it, or behind it."""
    placeholders = placeholders_in(name)
    if files.path is None:
        for placeholder in placeholders:
            raise table.error(
                f"the name has {placeholder} but the predictions no wildcard, expected both; "
                "name the pair otherwise"
            )
        return name
    path = name_of_found(files.path)
    full = filled(name, path) if placeholders else f"{name}/{path}"
    source = printable(files.addresses["predictions"])
    check_name(full, table.error, f"rename {source} or the table")
    return full


def name_of_found(text: str) -> str:
    """What a file or a group is called, as a name: escaped where that could not be shown or is a command.

    >>> print(name_of_found("bad\\udcff"))
    bad\\udcff
    """
    return harmless(printable(text))


def check_name(name: str, error: Callable[[str], UsageError], remedy: str) -> None:
    """Refuse names that a report can't show or that a CI runner would take for a command."""
    problem = _problem(name)
    if problem:
        raise error(f"the name '{excerpt(name)}' {problem}; {remedy}")


def _problem(name: str) -> str:
    """What is wrong with a name, and what was expected; nothing if it is well."""
    if not name.strip():
        return "is empty, expected another one"
    if len(name) > _LONGEST:
        return f"has {len(name)} characters, expected at most {_LONGEST}"
    if not name.isprintable():
        return "has control characters, expected printable ones"
    if name.lstrip().startswith("::"):
        return "begins with '::', which CI runners take for a command, expected another one"
    if "##[" in name:
        return "has '##[' in it, which CI runners take for a command, expected another one"
    return ""


def name_of_address(directory: str, text: str) -> str:
    """A name from an address as it was written: without the file's last suffix, the dataset behind it.

    ``out/dump.h5::/layer1/logits[0:10]`` is ``out/dump/layer1/logits[0:10]``.
    """
    file, behind = split_address(directory, text)
    base = os.path.splitext(file)[0]
    return base + _SELECTION.sub("", behind, count=1).replace("::", "/", 1).replace("//", "/", 1)


def tell_apart(candidates: Iterable[Sequence[str]]) -> list[str]:
    """One name for each thing, of several that it could have: the first that no other has in its place.

    >>> tell_apart([("a", "x/a"), ("b", "x/b"), ("a", "y/a")])
    ['x/a', 'b', 'y/a']
    """
    listed = list(candidates)
    counts = [Counter(names) for names in zip(*listed, strict=True)]
    return [
        next((name for name, count in zip(names, counts, strict=True) if count[name] == 1), names[-1])
        for names in listed
    ]
