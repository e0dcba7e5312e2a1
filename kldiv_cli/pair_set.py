"""Many pairs and what has no partner: what every way to find pairs comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from kldiv_cli.addresses import COMMAND_LINE, Written
from kldiv_cli.arguments import FILES
from kldiv_cli.errors import InputError, UsageError
from kldiv_cli.pair import Pair
from kldiv_cli.pair_files import Unmatched, named
from kldiv_cli.pair_names import name_of_found
from kldiv_cli.streams import excerpt, printable

__all__ = ["PairSet", "check_matched", "companions_of", "named_apart"]

_LACKING: Final = {
    "predictions": "no targets for",
    "targets": "no predictions for",
    "group": "neither predictions nor targets in",
}


class PairSet(NamedTuple):
    """All pairs of a run."""

    pairs: tuple[Pair, ...]
    unmatched: tuple[Unmatched, ...] = ()
    """What has no partner: predictions, then targets, then groups."""


def companions_of(options: Mapping[str, Any]) -> dict[str, Written]:
    """The addresses of arrays that go with each pair, by their options."""
    return {
        role: Written(str(options[role]), f"--{role.replace('_', '-')}")
        for role in FILES
        if options.get(role) is not None
    }


def check_matched(where: str, found: PairSet, *, allow_unmatched: bool) -> None:
    """Refuse what was found if there is no pair at all, or something that must have a partner and has none.

    Raises
    ------
    InputError
        The first few that have none are named.
    """
    if found.pairs and (allow_unmatched or not found.unmatched):
        return
    lacking = {role: [one.address for one in found.unmatched if one.role == role] for role in _LACKING}
    problems = [f"{_LACKING[role]} {named(addresses)}" for role, addresses in lacking.items() if addresses]
    if not found.pairs:
        raise InputError(
            f"{where}: {' and '.join(['no pairs', *problems])}, expected at least one; "
            "mend the names or the dump"
        )
    raise InputError(
        f"{where}: {' and '.join(problems)}, expected a partner for each; "
        f"add them, or leave such out with {COMMAND_LINE.allow_unmatched}"
    )


def named_apart(found: PairSet) -> PairSet:
    """The same with names that a report can show, whatever the files are called.

    Raises
    ------
    UsageError
        Two pairs have one name; both predictions are told, for it is them that the names were made of.
    """
    pairs: dict[str, Pair] = {}
    for pair in found.pairs:
        name = name_of_found(pair.name)
        if name in pairs:
            raise UsageError(
                f"{printable(pair.predictions)}: makes a second pair named '{excerpt(name)}', expected one, "
                f"after {printable(pairs[name].predictions)}; rename one, or list the pairs in a table with "
                "names"
            )
        pairs[name] = pair if name == pair.name else replace(pair, name=name)
    return found._replace(pairs=tuple(pairs.values()))
