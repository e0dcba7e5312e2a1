"""Pairs from two directories: files of the same relative path, or of the same but for the suffix."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from kldiv_cli.addresses import COMMAND_LINE, Written, address_from
from kldiv_cli.errors import InputError, InputNotFound
from kldiv_cli.globs import files_below, is_directory
from kldiv_cli.pair import Pair
from kldiv_cli.pair_files import Unmatched, listable, named, without_suffix
from kldiv_cli.pair_names import tell_apart
from kldiv_cli.pair_set import PairSet, companions_of
from kldiv_cli.placeholders import PATH, STEM, check_known, filled
from kldiv_cli.sinks import HDF5_ENDINGS
from kldiv_cli.streams import printable

__all__ = ["pairs_of_directories"]

_SUFFIXES: Final = frozenset({".npy", ".npz", *HDF5_ENDINGS, ".zarr"})


class _Dump(NamedTuple):
    """A directory, and the paths below it of what arrays are read from."""

    directory: str
    paths: list[str]

    def address(self, path: str) -> str:
        return os.path.join(self.directory, path)


def pairs_of_directories(predictions: str, targets: str, options: Mapping[str, Any]) -> PairSet:
    """The pairs of files of the same path, and those that have no partner.

    Weights and masks that are directories are matched in the same way; in the addresses of others
    ``{path}`` and ``{stem}`` stand for those of the predictions.

    Raises
    ------
    UsageError
        The address of a weight or a mask is none, or has another placeholder.
    InputError
        A directory can't be listed or has no file of arrays, or two files may be the partner of one.
    InputNotFound
        A directory of weights or masks has none for a pair.
    """
    outputs, references = _dump(predictions), _dump(targets)
    partners = _matched(outputs, references)
    pairs = [path for path in outputs.paths if path in partners]
    others = {
        role: _companions(role, written, outputs, pairs) for role, written in companions_of(options).items()
    }
    names = dict(
        zip(outputs.paths, tell_apart((without_suffix(path), path) for path in outputs.paths), strict=True)
    )
    taken = set(partners.values())
    return PairSet(
        tuple(
            Pair(
                name=names[path],
                predictions=outputs.address(path),
                targets=references.address(partners[path]),
                options={**options, **{role: files[path] for role, files in others.items()}},
            )
            for path in pairs
        ),
        (
            *(Unmatched(outputs.address(p), "predictions") for p in outputs.paths if p not in partners),
            *(Unmatched(references.address(p), "targets") for p in references.paths if p not in taken),
        ),
    )


def _dump(directory: str) -> _Dump:
    where = printable(directory)
    with listable(where):
        there = files_below(directory)
    paths = [path for path in there if os.path.splitext(path)[1].lower() in _SUFFIXES]
    if not paths:
        number = f"{len(there)} file{'s' * (len(there) > 1)}, none of them of arrays" if there else "no files"
        raise InputError(
            f"{where}: {number}, expected some with one of the suffixes {', '.join(sorted(_SUFFIXES))}; "
            "name another directory"
        )
    return _Dump(directory, paths)


def _matched(dump: _Dump, other: _Dump) -> dict[str, str]:
    """For each path of `dump` that has a partner in `other`, the partner's path."""
    same = set(dump.paths) & set(other.paths)
    left = _by_name(path for path in dump.paths if path not in same)
    right = _by_name(path for path in other.paths if path not in same)
    partners = {path: path for path in same}
    for name in sorted(left.keys() & right.keys()):
        if len(left[name]) > 1 or len(right[name]) > 1:
            raise _ambiguous([*map(dump.address, left[name])], [*map(other.address, right[name])])
        partners[left[name][0]] = right[name][0]
    return partners


def _ambiguous(some: list[str], others: list[str]) -> InputError:
    return InputError(
        f"{named(some)}: could go with {named(others)}, expected one file on each side; "
        "move or rename those that do not belong there"
    )


def _companions(role: str, written: Written, outputs: _Dump, pairs: list[str]) -> dict[str, str]:
    """The weight or mask of each pair."""
    if is_directory(written.text):
        return _files_of_pairs(role, written.text, outputs, pairs)
    check_known(written, (STEM, PATH))
    template = address_from(COMMAND_LINE, written)
    return {path: filled(template, without_suffix(path)) for path in pairs}


def _files_of_pairs(role: str, directory: str, outputs: _Dump, pairs: list[str]) -> dict[str, str]:
    """The file below a directory for each pair."""
    dump = _dump(directory)
    partners = _matched(outputs, dump)
    missing = [outputs.address(path) for path in pairs if path not in partners]
    if missing:
        raise InputNotFound(
            f"{printable(directory)}: no {role} for {named(missing)}, expected a file of the same path; "
            "add them, or name one file for all"
        )
    return {path: dump.address(partners[path]) for path in pairs}


def _by_name(paths: Iterable[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        grouped[without_suffix(path)].append(path)
    return grouped
