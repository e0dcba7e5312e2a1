"""Pairs from addresses on the command line: one for each match of a glob, or the one that is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kldiv_cli.addresses import COMMAND_LINE, Written
from kldiv_cli.pair import Pair
from kldiv_cli.pair_files import PairFiles, match_pairs
from kldiv_cli.pair_names import name_of_address, tell_apart
from kldiv_cli.pair_set import PairSet, companions_of

__all__ = ["pairs_of_globs"]


def pairs_of_globs(predictions: Written, targets: Written, options: Mapping[str, Any]) -> PairSet:
    """The pairs of all matches of `predictions`, with partners by ``{stem}`` or ``{path}``, and the rest.

    Raises
    ------
    UsageError
        An address is none, or ``{stem}`` stands where there is no glob.
    InputNotFound
        Nothing matches.
    InputError
        A directory can't be read.
    """
    written = {"predictions": predictions, "targets": targets, **companions_of(options)}
    matches = match_pairs(COMMAND_LINE, written)
    every = [*matches.pairs, *matches.without_targets]
    names = tell_apart(_names(predictions.text, files) for files in every)
    pairs = (_pair(name, files, options) for name, files in zip(names, matches.pairs, strict=False))
    return PairSet(tuple(pairs), matches.unmatched)


def _names(written: str, files: PairFiles) -> tuple[str, ...]:
    """What a pair may be called, the shortest name first."""
    if files.path is None:
        name = name_of_address("", written)
        return name, name
    return files.path, files.path + files.suffix


def _pair(name: str, files: PairFiles, options: Mapping[str, Any]) -> Pair:
    addresses = dict(files.addresses)
    predictions, targets = addresses.pop("predictions"), addresses.pop("targets")
    return Pair(name=name, predictions=predictions, targets=targets, options={**options, **addresses})
