"""Pairs from the groups of one HDF5 file, or of two: datasets by their names, or by their paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from kldiv_cli.addresses import Written
from kldiv_cli.errors import DatasetError
from kldiv_cli.pair import Pair
from kldiv_cli.pair_files import Unmatched
from kldiv_cli.pair_set import PairSet, companions_of
from kldiv_cli.placeholders import GROUP, check_known
from kldiv_cli.sources.address import dataset_address
from kldiv_cli.streams import printable
from kldiv_cli.urls import is_url

__all__ = ["pairs_of_datasets", "pairs_of_groups"]


class _Contents(NamedTuple):
    """What matches in a file: the names in each group, or None where a link hides what is there."""

    file: str
    groups: Mapping[str, frozenset[str] | None]
    datasets: frozenset[str]
    """Those that match themselves."""

    def has(self, group: str, name: str) -> bool:
        """Whether a dataset is there; one that is hidden counts, for whoever opens it will refuse it."""
        names = self.groups.get(group, frozenset())
        return names is None or name in names

    def address(self, group: str, name: str) -> str:
        return dataset_address(self.file, f"{group.rstrip('/')}/{name}")


class _Companions(NamedTuple):
    """Weights and masks: addresses for each group or for all, and names in the groups."""

    addresses: Mapping[str, Written]
    names: Mapping[str, Written]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> _Companions:
        given = companions_of(options)
        names = {role: written for role, written in given.items() if _is_name(written.text)}
        addresses = {role: written for role, written in given.items() if role not in names}
        for address in addresses.values():
            check_known(address, (GROUP,))
        return cls(addresses, names)

    @property
    def datasets(self) -> list[str]:
        """The names in each group."""
        return [written.text.strip("/") for written in self.names.values()]

    def options(self, group: str, files: Iterable[_Contents]) -> dict[str, str]:
        """Those of one pair; a name in a group is looked for in the files in their order.

        Raises
        ------
        DatasetError
            None of them has it.
        """
        of_pair = {role: each.text.replace(GROUP, group.strip("/")) for role, each in self.addresses.items()}
        for role, written in self.names.items():
            name = written.text.strip("/")
            home = next((contents for contents in files if contents.has(group, name)), None)
            if home is None:
                raise DatasetError(
                    f"{written.where} {printable(name)}: neither a file nor in "
                    f"'{printable(group)}', expected a dataset in each group, FILE, or an address with "
                    f"{GROUP} in it; name one of these"
                )
            of_pair[role] = home.address(group, name)
        return of_pair


def _is_name(text: str) -> bool:
    return "::" not in text and GROUP not in text and not is_url(text) and not os.path.isfile(text)


def pairs_of_groups(
    pattern: str, files: tuple[str, str], names: tuple[str, str], options: Mapping[str, Any]
) -> PairSet:
    """A pair of each group that matches, of the datasets by these names in it; the files may be one.

    Groups that have neither are unmatched too, unless the pattern ends in ``**`` and so takes in
    the groups around them.

    Raises
    ------
    InputError
        A file is not there or is no HDF5, nothing matches, or a weight or mask is not there.
    """
    companions = _Companions.of(options)
    wanted = [name.strip("/") for name in names]
    first = _contents(files[0], pattern, [*wanted, *companions.datasets])
    second = first
    if files[1] != files[0]:
        second = _contents(files[1], pattern, [*wanted, *companions.datasets])
    pairs: list[Pair] = []
    lacking: dict[str, list[Unmatched]] = {"predictions": [], "targets": [], "group": []}
    for group in sorted(first.groups.keys() | second.groups.keys()):
        predictions, targets = first.address(group, wanted[0]), second.address(group, wanted[1])
        match first.has(group, wanted[0]), second.has(group, wanted[1]):
            case True, True:
                own = companions.options(group, (second, first))
                pairs.append(_pair(group, predictions, targets, {**options, **own}))
            case True, False:
                lacking["predictions"].append(Unmatched(predictions, "predictions"))
            case False, True:
                lacking["targets"].append(Unmatched(targets, "targets"))
            case _ if not pattern.endswith("**"):
                home = first if group in first.groups else second
                lacking["group"].append(Unmatched(dataset_address(home.file, group), "group"))
    return PairSet(tuple(pairs), tuple(one for those in lacking.values() for one in those))


def pairs_of_datasets(pattern: str, files: tuple[str, str], options: Mapping[str, Any]) -> PairSet:
    """A pair of each dataset that matches in two files, or that is below a group that does.

    Raises
    ------
    InputError
        A file is not there or is no HDF5, nothing matches, or a weight or mask is not there.
    """
    companions = _Companions.of(options)
    left_out = frozenset(companions.datasets)
    first, second = (_contents(file, pattern, None) for file in files)
    outputs, references = _paths(first, left_out), _paths(second, left_out)
    return PairSet(
        tuple(
            _pair(
                path,
                dataset_address(first.file, path),
                dataset_address(second.file, path),
                {**options, **companions.options(outputs[path], (second, first))},
            )
            for path in sorted(outputs.keys() & references.keys())
        ),
        (
            *_spare(first.file, outputs.keys() - references.keys(), "predictions"),
            *_spare(second.file, references.keys() - outputs.keys(), "targets"),
        ),
    )


def _contents(file: str, pattern: str, names: Sequence[str] | None) -> _Contents:
    """What matches; a link that hides what it leads to is a group if there are names, else a dataset."""
    from kldiv_cli.sources.hdf5_groups import list_members

    groups: dict[str, frozenset[str] | None] = {}
    datasets: list[str] = []
    for member in list_members(file, pattern, names):
        if member.kind == "group":
            groups[member.name] = member.inside
        elif member.kind == "link" and names is not None:
            groups[member.name] = None
        else:
            datasets.append(member.name)
    return _Contents(file, groups, frozenset(datasets))


def _paths(contents: _Contents, left_out: frozenset[str]) -> dict[str, str]:
    """The paths of all datasets, each with what matched: the innermost group, else the dataset itself."""
    matched = {path: path for path in contents.datasets}
    for group, names in sorted(contents.groups.items()):
        for name in names or ():
            if name in left_out:
                matched.pop(f"{group.rstrip('/')}/{name}", None)
            else:
                matched[f"{group.rstrip('/')}/{name}"] = group
    return matched


def _spare(file: str, paths: Iterable[str], role: Literal["predictions", "targets"]) -> Iterator[Unmatched]:
    return (Unmatched(dataset_address(file, path), role) for path in sorted(paths))


def _pair(path: str, predictions: str, targets: str, options: Mapping[str, Any]) -> Pair:
    return Pair(name=path.strip("/") or "/", predictions=predictions, targets=targets, options=options)
