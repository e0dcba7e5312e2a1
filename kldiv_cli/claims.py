"""Which files are the work of runs with a journal, for a later one may replace these and no others.

A file is claimed before it is written, for whose it is must be known after a `kill -9` too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from kldiv_cli.batch_pair import is_written
from kldiv_cli.journal import Journal
from kldiv_cli.sinks import file_of

__all__ = ["Claims"]


class Claims:
    """What a journal says of the files of each pair, or of those of the run itself, which is called None."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def cover(self, name: str | None, addresses: Iterable[str]) -> bool:
        """Whether all that is there is claimed."""
        there = filter(is_written, addresses)
        return self._journal.begun(name).issuperset(map(_place_of, there))

    def make(self, name: str | None, addresses: Iterable[str]) -> frozenset[str]:
        """Claim files, whatever is there; what the journal had of a pair that these belong to holds no more.

        Return where those are that were not claimed before.

        Raises
        ------
        OutputError
            The journal can't be written.
        """
        before = self._journal.begun(name)
        places = before.union(map(_place_of, addresses))
        if places != before or self._journal.has_result(name):
            self._journal.begin(name, sorted(places))
        return places - before

    def settle(
        self, name: str | None, addresses: Iterable[str], refused: frozenset[str] = frozenset()
    ) -> None:
        """Give up the claim to what did not come to be: what is put there later is somebody else's.

        So is what lies there now where a file was `refused`, since somebody was quicker.

        Raises
        ------
        OutputError
            The journal can't be written.
        """
        before = self._journal.begun(name)
        missing = (address for address in addresses if not is_written(address))
        places = before.difference(map(_place_of, missing), refused)
        if places != before:
            self._journal.begin(name, sorted(places))


def _place_of(address: str) -> str:
    """Where a file is, from wherever the next run is started."""
    return os.path.realpath(file_of(address))
