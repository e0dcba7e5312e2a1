"""What was probably meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from kldiv_cli.streams import excerpt

__all__ = ["mistaken"]

_LONGEST: Final = 60
"""Likeness takes quadratic time, and nobody mistypes more."""
_LISTED: Final = 50


def mistaken(name: str, known: Iterable[str]) -> str:
    """How an error about a name goes on: with the known one that is most like it, or with all of them.

    >>> mistaken("los", ["loss", "axis"]), mistaken("nonsense", ["loss", "axis"])
    ("; did you mean 'loss'?", ', expected one of axis, loss')
    """
    listed = sorted(known)
    near = difflib.get_close_matches(name, listed, 1) if len(name) <= _LONGEST else []
    return f"; did you mean '{excerpt(near[0])}'?" if near else f", expected one of {_all(listed)}"


def _all(names: list[str]) -> str:
    return ", ".join(map(excerpt, names[:_LISTED])) + ", …" * (len(names) > _LISTED)
