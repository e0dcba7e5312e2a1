"""Pairs to what workers compute of them, with all that can be wrong before an array is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Final

from kldiv_cli.arguments import FILES, files_of, spec_of
from kldiv_cli.batch_pair import BatchPair, Outputs
from kldiv_cli.errors import OutputError, UsageError
from kldiv_cli.pair import Pair
from kldiv_cli.placeholders import unknown_in
from kldiv_cli.sinks import file_of, named_output
from kldiv_cli.sources import parse_address
from kldiv_cli.spec import Spec, check_written

__all__ = ["PAIR", "common_spec", "plan"]

PAIR: Final = "{pair}"
"""In the address of an output, the name of the pair."""
_CASELESS: Final = sys.platform in ("win32", "darwin")
"""Names that differ in case alone are those of one file there, unless a disk was made otherwise."""


def plan(
    pairs: Sequence[Pair], *, outputs: Outputs, beside: Mapping[str, str] | None = None
) -> tuple[BatchPair, ...]:
    """What is to be computed of each pair; in the addresses of `outputs` stands `PAIR`.

    `beside` are files that the run itself writes, by what they are called.

    Raises
    ------
    UsageError
        Options of a pair contradict each other, or several things would be written to one file.
    OutputError
        A file would be written over an input.
    """
    _check_outputs(outputs, len(pairs))
    for address in outputs.addresses:
        if PAIR in address:
            _check_names(pairs, address)
    specs: dict[str, Spec] = {}
    planned = tuple(_planned(pair, outputs, specs) for pair in pairs)
    _check_apart(planned, beside or {})
    return planned


def common_spec(pairs: Sequence[BatchPair]) -> Spec:
    """What the columns of a table are made for that all pairs fit into."""
    specs = list(dict.fromkeys(pair.spec for pair in pairs))
    return replace(
        specs[0],
        losses=tuple(dict.fromkeys(loss for spec in specs for loss in spec.losses)),
        quantiles=tuple(sorted({quantile for spec in specs for quantile in spec.quantiles})),
        by_target=any(spec.by_target for spec in specs),
        top1=any(spec.top1 for spec in specs),
        worst=max(spec.worst for spec in specs),
        blocks_of=next((spec.blocks_of for spec in specs if spec.blocks_of is not None), None),
    )


def _planned(pair: Pair, outputs: Outputs, specs: dict[str, Spec]) -> BatchPair:
    asked = repr([(name, pair.options[name]) for name in sorted(pair.options) if name not in FILES])
    asked += repr(sorted(files_of(pair.options)))
    if asked not in specs:
        try:
            specs[asked] = spec_of(pair.options)
            check_written(
                specs[asked],
                elements=outputs.output is not None,
                distributions=outputs.distributions is not None,
            )
        except UsageError as error:
            if not pair.where:
                # It says the same of all that have no options of their own.
                raise
            raise UsageError(f"{pair.where}: {error}") from None
    return BatchPair(
        name=pair.name,
        predictions=pair.predictions,
        targets=pair.targets,
        spec=specs[asked],
        files=files_of(pair.options),
        allow_external=bool(pair.options.get("allow_external")),
        outputs=outputs._replace(
            output=_filled(outputs.output, pair.name),
            distributions=_filled(outputs.distributions, pair.name),
        ),
    )


# Outputs


def _filled(template: str | None, name: str) -> str | None:
    return None if template is None else template.replace(PAIR, name)


def _check_outputs(outputs: Outputs, pairs: int) -> None:
    if outputs.output is not None and outputs.output == outputs.distributions:
        raise UsageError(
            f"distributions {outputs.distributions}: is the file of --output too; choose another name"
        )
    for option, address in (("output", outputs.output), ("distributions", outputs.distributions)):
        if address is None:
            continue
        named_output(address, option)
        unknown = unknown_in(address, (PAIR,))
        if unknown is not None:
            raise UsageError(
                f"{option} {address}: has {unknown}, expected {PAIR} there, which is the only one that "
                "stands for something in the name of an output; name it otherwise"
            )
        if pairs > 1 and PAIR not in address:
            raise UsageError(
                f"{option} {address}: one file for {pairs} pairs, expected {PAIR} in its name, "
                f"as in maps/{PAIR}.npy"
            )
        if PAIR in address.partition("::")[2]:
            raise UsageError(
                f"{option} {address}: {PAIR} in the name of a dataset, expected it in the file's: "
                "each pair has a file of its own"
            )


def _check_names(pairs: Iterable[Pair], template: str) -> None:
    """Names that are parts of paths stay below where these begin."""
    for pair in pairs:
        if _leads_out(template, pair.name):
            raise UsageError(
                f"pair {pair.name!r}: its output would lie outside of its directory, expected no "
                f"'{os.pardir}' in its name and no {os.sep} at its beginning; name the pair otherwise"
            )


def _leads_out(template: str, name: str) -> bool:
    path = template.replace(PAIR, name)
    if os.path.isabs(path) and not os.path.isabs(template):
        return True
    return os.pardir in _parts(name) or _parts(path).count(os.pardir) > _parts(template).count(os.pardir)


def _parts(path: str) -> list[str]:
    return path.replace(os.sep, "/").split("/")


def _check_apart(pairs: Sequence[BatchPair], beside: Mapping[str, str]) -> None:
    """Refuse to write over what another pair reads or writes, or the run itself."""
    place_of = _places()
    taken: dict[str, str] = {}
    for called, address in beside.items():
        place = place_of(address)
        if place in taken:
            raise UsageError(
                f"{called} {address}: the {taken[place]} too, expected another file; choose another name"
            )
        taken[place] = called
    written: dict[str, str] = {}
    for pair in pairs:
        for address in pair.outputs.addresses:
            place = place_of(file_of(address))
            if place in written or place in taken:
                raise UsageError(
                    f"pair {pair.name!r}: {address} is written to twice, also as "
                    f"{written.get(place) or f'the {taken[place]}'}; choose other names"
                )
            written[place] = address
    if not written:
        return
    for pair in pairs:
        for address in pair.inputs:
            place = place_of(parse_address(address).path)
            if place in written:
                raise OutputError(f"{written[place]}: is the input {address}; choose another name")


def _places() -> Callable[[str], str]:
    """What tells where a path leads, for many of which most are in the same directories."""
    directory = cache(os.path.realpath)

    def place_of(path: str) -> str:
        head, tail = os.path.split(path)
        place = os.path.join(directory(head), tail)
        place = os.path.realpath(place) if os.path.islink(place) else place
        return place.casefold() if _CASELESS else place

    return place_of
