"""Where the pairs of a batch come from: what is given on the command line decides.

========================================  ==============================================
given                                     pairs
========================================  ==============================================
``SUITE.toml``                            those of the suite
``TABLE.csv``, ``.jsonl``, ``-``          one a row
``DIRECTORY DIRECTORY``                   files of the same path
``FILE --group-by PATTERN``               datasets of one name in each group that matches
``FILE FILE --group-by PATTERN``          datasets of the same path in both files
``--predictions GLOB --targets ADDRESS``  one for each match
``ADDRESS ADDRESS``                       likewise, or the one pair
========================================  ==============================================
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from kldiv_cli.addresses import Written, is_there, split_address
from kldiv_cli.errors import InputNotFound, UsageError
from kldiv_cli.globs import is_directory, parse_glob
from kldiv_cli.pair import Pair
from kldiv_cli.pair_directories import pairs_of_directories
from kldiv_cli.pair_globs import pairs_of_globs
from kldiv_cli.pair_groups import pairs_of_datasets, pairs_of_groups
from kldiv_cli.pair_set import PairSet, check_matched, companions_of, named_apart
from kldiv_cli.pair_table import read_pair_table
from kldiv_cli.placeholders import check_known, placeholders_in
from kldiv_cli.sinks import HDF5_ENDINGS
from kldiv_cli.streams import printable
from kldiv_cli.suite import read_suite
from kldiv_cli.table_rows import STDIN, TABLES
from kldiv_cli.urls import is_url, shown

__all__ = ["PairSet", "find_pair_set"]

_SUITE: Final = ".toml"


class _Given(NamedTuple):
    """What the command line says of pairs."""

    first: str | None
    second: str | None
    predictions: str | None
    targets: str | None
    group_by: str | None

    @property
    def arguments(self) -> str:
        return " ".join(printable(text) for text in (self.first, self.second) if text is not None)

    @property
    def where(self) -> str:
        """How an error about all of it begins."""
        return self.arguments or f"--predictions {printable(str(self.predictions))}"


def find_pair_set(
    first: str | None,
    second: str | None,
    *,
    predictions: str | None = None,
    targets: str | None = None,
    group_by: str | None = None,
    options: Mapping[str, Any],
    typed: Collection[str] = (),
    allow_unmatched: bool = False,
) -> PairSet:
    """The pairs that the arguments of ``kldiv batch`` stand for; `options` are arguments of `evaluate`.

    Options of a suite or of a row of a table win over these, of which some were `typed`.

    Raises
    ------
    UsageError
        The arguments contradict each other or do not suffice, names or values are wrong, or an option was
        typed that no pair takes.
    InputNotFound, FormatError, DatasetError, InputError
        Files are not there or can't be read, there is no pair at all, or something has no partner and
        `allow_unmatched` does not leave it out.
    """
    given = _Given(first, second, predictions, targets, group_by)
    if first is not None and group_by is None and _is_list(first):
        _check_alone(given)
        for shared in companions_of(options).values():
            check_known(shared, ())
        listed = _listed(first, options, allow_unmatched)
        _check_taken(first, {name: options[name] for name in typed}, listed.pairs)
        _check_there(options)
        return listed
    found = _found(given, options)
    if group_by is None:
        _check_there(options)
    check_matched(given.where, found, allow_unmatched=allow_unmatched)
    return named_apart(found)


def _is_list(first: str) -> bool:
    """Whether it is a suite or a table."""
    return first == STDIN or _suffix(first) == _SUITE or _suffix(first) in TABLES


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _check_alone(given: _Given) -> None:
    """A suite or a table says all of its pairs itself."""
    extra = [
        name
        for name, value in (
            (printable(str(given.second)), given.second),
            ("--predictions", given.predictions),
            ("--targets", given.targets),
        )
        if value is not None
    ]
    if extra:
        raise UsageError(
            f"{printable(str(given.first))}: names the pairs itself, expected no {' and no '.join(extra)} "
            f"beside it; drop {'it' if len(extra) == 1 else 'them'}"
        )


def _listed(first: str, options: Mapping[str, Any], allow_unmatched: bool) -> PairSet:
    if _suffix(first) != _SUITE:
        return PairSet(read_pair_table(first, options))
    suite = read_suite(first, allow_unmatched=allow_unmatched)
    pairs = (replace(pair, options={**options, **pair.options}) for pair in suite.pairs)
    return PairSet(tuple(pairs), suite.unmatched)


def _check_taken(first: str, typed: Mapping[str, Any], pairs: Iterable[Pair]) -> None:
    """Refuse an option that would change nothing, for each pair says otherwise."""
    pairs = list(pairs)
    for name, value in typed.items():
        if not any(_alike(pair.options[name], value) for pair in pairs):
            raise UsageError(
                f"{name}: {printable(first)} says otherwise of each pair, expected a pair that takes it; "
                "drop it, or change it there"
            )


def _alike(one: Any, other: Any) -> bool:
    """Whether two values of an option are the same; a single loss may stand alone."""
    one, other = ((value,) if isinstance(value, str) else value for value in (one, other))
    return bool(one == other)


def _found(given: _Given, options: Mapping[str, Any]) -> PairSet:
    if given.group_by is not None:
        return _grouped(given, given.group_by, options)
    if given.first is None or given.predictions is not None or given.targets is not None:
        predictions, targets = _by_options(given)
        return pairs_of_globs(Written(predictions, "--predictions"), Written(targets, "--targets"), options)
    if given.second is None:
        raise _no_second(given.first)
    if _is_dump(given.first) or _is_dump(given.second):
        _check_both_directories(given.first, given.second)
        return pairs_of_directories(given.first, given.second, options)
    return pairs_of_globs(Written(given.first, "FIRST"), Written(given.second, "SECOND"), options)


def _by_options(given: _Given) -> tuple[str, str]:
    """Predictions and targets from their options."""
    if given.arguments:
        raise UsageError(
            f"{given.arguments}: there beside --predictions or --targets, expected one or the other; "
            "quote a pattern lest the shell expands it, drop the options, or say with --group-by which "
            "groups of an HDF5 file they are in"
        )
    if given.predictions is None and given.targets is None:
        raise UsageError(
            "no pairs, expected a suite, a table, two directories or files, or --predictions and --targets; "
            "give one of these, as kldiv batch --help shows"
        )
    for option, value in (("--predictions", given.predictions), ("--targets", given.targets)):
        if value is None:
            raise UsageError(f"no {option}, expected it beside the other; add {option} ADDRESS")
    return str(given.predictions), str(given.targets)


def _no_second(first: str) -> UsageError:
    remedy = "give the targets behind it"
    if _suffix(first) in HDF5_ENDINGS:
        remedy += ", or --group-by PATTERN with --predictions NAME and --targets NAME"
    elif is_directory(first):
        remedy = "give the directory of the targets behind it"
    return UsageError(
        f"{printable(first)}: alone, expected what it is held against, or a suite or a table "
        f"({_SUITE}, {', '.join(TABLES)}, {STDIN}); {remedy}"
    )


def _is_dump(text: str) -> bool:
    """Whether it is a directory here, or must be one."""
    must_be = text.endswith(("/", os.sep)) and not is_url(text)
    return is_directory(text) or (must_be and not os.path.lexists(text))


def _check_there(options: Mapping[str, Any]) -> None:
    """Look once for what goes with all pairs, which each of them would miss."""
    for role, shared in companions_of(options).items():
        file, _ = split_address("", shared.text)
        if not placeholders_in(shared.text) and not is_there(file):
            raise InputNotFound(
                f"{shared.where} {printable(shared.text)}: no such file, expected the {role} of all pairs; "
                "mend the path"
            )


def _check_both_directories(first: str, second: str) -> None:
    for one, other in ((first, second), (second, first)):
        if is_directory(one):
            continue
        if is_url(one):
            raise UsageError(
                f"{printable(shown(one))}: not here, expected a directory beside {printable(other)}, "
                "for URLs are not listed; copy it here, or name each object in a table of pairs"
            )
        if not os.path.lexists(one):
            if parse_glob(one) is not None:
                predictions, targets = one, os.path.join(other, "{stem}.npy")
                if one == second:
                    predictions = os.path.join(first, "*.npy")
                    targets = os.path.join(os.path.dirname(second), "{stem}.npy")
                raise UsageError(
                    f"{printable(one)}: a pattern beside the directory {printable(other)}, expected two "
                    f"directories, or '{printable(predictions)}' '{printable(targets)}'; give two of a kind"
                )
            raise InputNotFound(
                f"{printable(one)}: no such directory, expected one beside {printable(other)}; mend the path"
            )
        raise UsageError(
            f"{printable(one)}: no directory, but {printable(other)} is one, expected two directories or two "
            "files; give two of a kind"
        )


# Groups


def _grouped(given: _Given, pattern: str, options: Mapping[str, Any]) -> PairSet:
    first = _hdf5_file(given.first)
    second = first if given.second is None else _hdf5_file(given.second)
    if not pattern.strip("/") and pattern != "/":
        raise UsageError("--group-by '': expected a pattern of groups, as in --group-by '/layer*'")
    named = given.predictions is not None, given.targets is not None
    if any(named) != all(named):
        lacking = "--targets" if named[0] else "--predictions"
        raise UsageError(
            f"no {lacking}, expected the names of both datasets in each group; add {lacking} NAME"
        )
    if all(named):
        names = _name(given.predictions, "--predictions"), _name(given.targets, "--targets")
        if first == second and names[0].strip("/") == names[1].strip("/"):
            raise UsageError(
                f"--targets {printable(names[1])}: the predictions themselves, expected another dataset; "
                "name the targets"
            )
        return pairs_of_groups(pattern, (first, second), names, options)
    if given.second is None:
        raise UsageError(
            f"{printable(first)}: --group-by in one file, expected the names of the datasets in each group; "
            "add --predictions NAME --targets NAME, or a second file"
        )
    return pairs_of_datasets(pattern, (first, second), options)


def _hdf5_file(text: str | None) -> str:
    """A file that groups are looked for in."""
    if text is None:
        raise UsageError("--group-by without a file, expected an HDF5 file to find groups in; add FILE.h5")
    where = printable(text)
    if os.path.isfile(text) and not _is_list(text):
        return text
    if _is_list(text):
        raise UsageError(f"{where}: names the pairs itself, expected an HDF5 file with --group-by; drop it")
    if is_url(text):
        raise UsageError(f"{where}: not here, expected an HDF5 file to find groups in; copy it here")
    if os.path.isdir(text):
        raise UsageError(f"{where}: a directory, expected an HDF5 file with --group-by; drop --group-by")
    if "::" in text:
        raise UsageError(
            f"{where}: an address in a file, expected the file itself; put the group into --group-by"
        )
    raise InputNotFound(f"{where}: no such file, expected an HDF5 file to find groups in; mend the path")


def _name(text: str | None, option: str) -> str:
    name = str(text)
    if "::" in name or not name.strip("/"):
        raise UsageError(
            f"{option} {printable(name)}: expected the name of a dataset in each group with --group-by, "
            "as in logits; drop what is in front of it"
        )
    return name
