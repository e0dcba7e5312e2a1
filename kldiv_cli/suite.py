"""Suites: which pairs of arrays belong together, with which options and limits, read from TOML.

::

    baseline = "baseline.json"          # seen from this file, as all paths

    [defaults]                          # for all pairs
    log_softmax = -1
    limits = ["distmean < 0.3"]
    allow = ["targets-padding"]         # findings that may be there

    [groups.int8]                       # for the pairs that say group = "int8"
    limits = ["top1 >= 0.97"]

    [pairs.digits]                      # one pair
    predictions = "out/digits.npy"
    targets = "ref/digits.h5::/probs"
    limits = ["p99 < 3"]

    [pairs.layers]                      # one for each match, named layers/STEM
    predictions = "out/layer*.npy"
    targets = "ref/{stem}.npy"
    group = "int8"

A pair's options win over its group's, and those over the defaults'; `limits` and `allow` add up,
but of limits on one side of one statistic `cases` holds a pair to the closest alone.
No array is read, and no value is checked but for its type: what it means is known elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from kldiv_cli.addresses import Viewpoint, Written, address_from
from kldiv_cli.errors import UsageError
from kldiv_cli.pair import OPTIONS, Pair, SuiteLimit
from kldiv_cli.pair_files import PairFiles, Unmatched, find_pairs
from kldiv_cli.pair_names import check_name, full_name
from kldiv_cli.spelling import mistaken
from kldiv_cli.streams import excerpt, printable
from kldiv_cli.suite_tables import Kind, Table, read_table
from kldiv_cli.urls import shown

__all__ = ["Suite", "read_suite"]

_SHARED: Final[Mapping[str, Kind]] = {
    **OPTIONS,
    "limits": "strings",
    "allow": "strings",
    "allow_unmatched": "boolean",
}
_OF_PAIRS: Final[Mapping[str, Kind]] = {"predictions": "address", "targets": "address", "group": "string"}
_TOP: Final[Mapping[str, Kind]] = {
    "baseline": "address",
    "defaults": "table",
    "groups": "tables",
    "pairs": "tables",
}
_ROLES: Final = (
    "predictions",
    "targets",
    *(option for option, kind in OPTIONS.items() if kind == "address"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """All that a file says of pairs, in its order."""

    path: str
    pairs: tuple[Pair, ...]
    baseline: str | None = None
    unmatched: tuple[Unmatched, ...] = ()
    """What its globs found that has no partner, where that is allowed."""


class _Layer(NamedTuple):
    """A table of settings, with its values."""

    table: Table
    values: Mapping[str, Any]


def read_suite(path: str, *, allow_unmatched: bool = False) -> Suite:
    """Read a suite from a TOML file, or from ``[tool.kldiv]`` of a pyproject.toml.

    `allow_unmatched` counts where the suite itself does not say whether it allows it.

    Raises
    ------
    UsageError
        A key, a value or a name is not what a suite may have; nothing is passed over.
    InputNotFound
        There is no such file, or files that the pairs need are not there.
    FormatError
        The file is no TOML.
    InputError
        A file can't be read, or there are targets that no prediction belongs to.
    """
    top = read_table(path)
    values = top.values(_TOP, dict.fromkeys((*_OF_PAIRS, *_SHARED), "[defaults] or [pairs.NAME]"))
    view = Viewpoint(os.path.dirname(path), "the suite's directory", "allow_unmatched = true")
    defaults = _shared(top.table("defaults"))
    groups = {name: _shared(table) for name, table in _named_tables(top.table("groups"))}
    pairs = [_pair_layers(table, name, defaults, groups) for name, table in _named_tables(top.table("pairs"))]
    if not pairs:
        raise top.error("no pairs, expected at least one; add [pairs.NAME] with predictions and targets")
    _check_groups_used(groups, {layers[-1].values.get("group") for _, layers in pairs})
    baseline = values.get("baseline")
    matched, unmatched = _all_pairs(view, pairs, allow_unmatched)
    return Suite(
        path=path,
        pairs=matched,
        baseline=None if baseline is None else address_from(view, Written(baseline, top.where("baseline"))),
        unmatched=unmatched,
    )


def _shared(table: Table) -> _Layer:
    return _Layer(table, table.values(_SHARED, dict.fromkeys(_OF_PAIRS, "[pairs.NAME]")))


def _named_tables(tables: Table) -> Iterator[tuple[str, Table]]:
    for name, table in tables.tables():
        check_name(name, table.error, "rename the table")
        yield name, table


def _pair_layers(
    table: Table, name: str, defaults: _Layer, groups: Mapping[str, _Layer]
) -> tuple[str, Sequence[_Layer]]:
    """The tables that a pair is made of, the last one its own."""
    own = _Layer(table, table.values({**_OF_PAIRS, **_SHARED}, {}))
    for key in ("predictions", "targets"):
        if key not in own.values:
            raise table.error(f'no {key}, expected an array\'s address; add {key} = "FILE"')
    group = own.values.get("group")
    if group is None:
        return name, (defaults, own)
    if group not in groups:
        known = mistaken(group, groups) if groups else "; add a table [groups.NAME] of that name"
        raise table.error(f"'{excerpt(group)}' is no group{known}", "group")
    return name, (defaults, groups[group], own)


def _check_groups_used(groups: Mapping[str, _Layer], used: set[str | None]) -> None:
    for name, layer in groups.items():
        if name not in used:
            raise layer.table.error(
                "no pair is of this group, so its limits hold nothing; "
                f'say group = "{name}" in a pair, or remove the table'
            )


# From tables to pairs


def _all_pairs(
    view: Viewpoint, pairs: Sequence[tuple[str, Sequence[_Layer]]], allow_unmatched: bool
) -> tuple[tuple[Pair, ...], tuple[Unmatched, ...]]:
    """All pairs, none of them by the name of another, and what has no partner."""
    made: dict[str, tuple[Table, Pair]] = {}
    unmatched: list[Unmatched] = []
    for name, layers in pairs:
        table = layers[-1].table
        settings = {key: (value, layer.table) for layer in layers for key, value in layer.values.items()}
        written = {
            role: Written(settings[role][0], settings[role][1].where(role))
            for role in _ROLES
            if role in settings
        }
        allowed = bool(settings.get("allow_unmatched", (allow_unmatched,))[0])
        matches = find_pairs(view, written, allow_unmatched=allowed)
        unmatched += matches.unmatched
        for pair in _pairs_of(name, layers, settings, matches.pairs):
            if pair.name in made:
                raise _same_name(made[pair.name], (table, pair))
            made[pair.name] = table, pair
    return tuple(pair for _, pair in made.values()), tuple(unmatched)


def _pairs_of(
    name: str,
    layers: Sequence[_Layer],
    settings: Mapping[str, tuple[Any, Table]],
    found: Iterable[PairFiles],
) -> Iterator[Pair]:
    """The pair of a table, or those of its glob."""
    for files in found:
        yield Pair(
            name=full_name(name, files, layers[-1].table),
            predictions=files.addresses["predictions"],
            targets=files.addresses["targets"],
            options={
                option: files.addresses.get(option, settings[option][0])
                for option in OPTIONS
                if option in settings
            },
            limits=tuple(
                SuiteLimit(text, layer.table.name)
                for layer in layers
                for text in layer.values.get("limits", ())
            ),
            allow=frozenset(id for layer in layers for id in layer.values.get("allow", ())),
            group=layers[-1].values.get("group"),
            where=layers[-1].table.where(),
        )


def _same_name(one: tuple[Table, Pair], other: tuple[Table, Pair]) -> UsageError:
    (first, pair), (second, again) = one, other
    return second.error(
        f"{printable(shown(again.predictions))} makes a second pair named '{pair.name}', expected one, "
        f"after {printable(shown(pair.predictions))} of {first.title}; rename a table or a file"
    )
