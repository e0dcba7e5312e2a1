"""One pair of a batch, with all that a worker needs to compute it, be it in another directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from kldiv_cli.addresses import joined
from kldiv_cli.errors import InputError
from kldiv_cli.pair_result import PairResult
from kldiv_cli.sinks import file_of
from kldiv_cli.sources import parse_address, what_is_sent
from kldiv_cli.sources.arrival import Sent
from kldiv_cli.spec import Spec
from kldiv_cli.urls import is_remote, shown

__all__ = [
    "NO_OUTPUTS",
    "BatchPair",
    "Outputs",
    "as_typed",
    "is_written",
    "replacing",
    "seen_from",
    "with_files",
]


class Outputs(NamedTuple):
    """The files that a pair's losses go to."""

    output: str | None = None
    distributions: str | None = None
    output_dtype: str | None = None
    force: bool = False

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(address for address in (self.output, self.distributions) if address is not None)


NO_OUTPUTS: Final = Outputs()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPair:
    """One pair."""

    name: str
    predictions: str
    targets: str
    spec: Spec
    files: Mapping[str, str] = field(default_factory=dict)
    """Weight, pos_weight and mask, where there are such."""
    allow_external: bool = False
    outputs: Outputs = NO_OUTPUTS
    size: int = 0
    """Bytes that are to be read for it, as far as is known before."""
    found: tuple[Sent, ...] = ()
    """Inputs of this machine as they were found here, for a worker on another one to look for."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The addresses of all that is read."""
        return (self.predictions, self.targets, *self.files.values())

    @property
    def roles(self) -> dict[str, str]:
        """The same by what they are."""
        return {"predictions": self.predictions, "targets": self.targets, **self.files}


def is_written(address: str) -> bool:
    """Whether there is anything where an output goes."""
    return os.path.lexists(file_of(address))


def replacing(pair: BatchPair) -> BatchPair:
    """The pair, which may replace what is there of its outputs."""
    return replace(pair, outputs=pair.outputs._replace(force=True))


def with_files(pair: BatchPair) -> BatchPair:
    """The pair with what a worker elsewhere should see; whoever opens the pair tells of what isn't here."""
    return replace(pair, found=tuple(_found(pair)))


def _found(pair: BatchPair) -> Iterator[Sent]:
    for address in dict.fromkeys(parse_address(address)._replace(selection=None) for address in pair.inputs):
        with contextlib.suppress(InputError):
            if not is_remote(address.path):
                yield what_is_sent(address)


def seen_from(directory: str, pair: BatchPair) -> BatchPair:
    """The pair with addresses that lead from any directory to what they name in this one."""
    outputs = pair.outputs
    return replace(
        pair,
        predictions=joined(directory, pair.predictions),
        targets=joined(directory, pair.targets),
        files={role: joined(directory, address) for role, address in pair.files.items()},
        outputs=outputs._replace(
            output=outputs.output and joined(directory, outputs.output),
            distributions=outputs.distributions and joined(directory, outputs.distributions),
        ),
    )


def as_typed(result: PairResult, sent: BatchPair, typed: BatchPair) -> PairResult:
    """The result of a pair that was sent elsewhere, with the addresses that were typed."""
    error = result.error
    for there, here in _addresses(sent, typed):
        error = error and error.replace(there, here)
    return replace(
        result,
        predictions=shown(typed.predictions),
        targets=shown(typed.targets),
        records=tuple(_renamed(record, typed) for record in result.records),
        error=error,
    )


def _addresses(sent: BatchPair, typed: BatchPair) -> Iterator[tuple[str, str]]:
    yield from zip(sent.inputs, typed.inputs, strict=True)
    yield from zip(sent.outputs.addresses, typed.outputs.addresses, strict=True)


def _renamed(record: Mapping[str, Any], typed: BatchPair) -> dict[str, Any]:
    described = {
        role: {**record[role], "address": shown(address)}
        for role, address in typed.roles.items()
        if role in record
    }
    return {**record, **described}
