"""One pair of a batch, with all that a worker needs to compute it, be it in another directory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from kldiv_cli.addresses import joined
from kldiv_cli.pair_result import PairResult
from kldiv_cli.spec import Spec
from kldiv_cli.urls import shown

__all__ = ["NO_OUTPUTS", "BatchPair", "Outputs", "as_typed", "seen_from_elsewhere"]


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

    @property
    def inputs(self) -> tuple[str, ...]:
        """The addresses of all that is read."""
        return (self.predictions, self.targets, *self.files.values())

    @property
    def roles(self) -> dict[str, str]:
        """The same by what they are."""
        return {"predictions": self.predictions, "targets": self.targets, **self.files}


def seen_from_elsewhere(pair: BatchPair) -> BatchPair:
    """The pair with addresses that are the same in any directory."""
    here = os.getcwd()
    outputs = pair.outputs
    return replace(
        pair,
        predictions=joined(here, pair.predictions),
        targets=joined(here, pair.targets),
        files={role: joined(here, address) for role, address in pair.files.items()},
        outputs=outputs._replace(
            output=outputs.output and joined(here, outputs.output),
            distributions=outputs.distributions and joined(here, outputs.distributions),
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
