"""Patterns of paths, of files or in a file: what is a wildcard, and which names on the way match."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["WILDCARDS", "fits_parts"]

WILDCARDS: Final = re.compile(r"[*?\[]")


def fits_parts(filters: Sequence[Callable[[str], bool] | None], names: Sequence[str]) -> bool:
    """Whether each name fits its filter, where None stands for any number of names.

    >>> fits_parts([None, "x".__eq__], ["a", "b", "x"]), fits_parts([None, "x".__eq__], ["x", "a"])
    (True, False)
    """
    if not filters:
        return not names
    if filters[0] is not None:
        return bool(names) and filters[0](names[0]) and fits_parts(filters[1:], names[1:])
    return fits_parts(filters[1:], names) or (bool(names) and fits_parts(filters, names[1:]))
