"""Two arrays that belong together, and what is asked of them: what suites, tables and dumps come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from kldiv_cli.suite_tables import Kind

__all__ = ["OPTIONS", "Pair", "SuiteLimit"]

OPTIONS: Final[Mapping[str, Kind]] = {
    "loss": "string or strings",
    "log_softmax": "integer",
    "predictions_are": "string",
    "targets_are": "string",
    "log_target": "boolean",
    "axis": "integer",
    "weight": "address",
    "pos_weight": "address",
    "temperature": "number",
    "zero_policy": "string",
    "broadcast": "boolean",
    "by_target": "boolean",
    "top1": "boolean",
    "mask": "address",
    "ignore_value": "number",
    "trim_axis": "boolean",
    "quantiles": "numbers",
    "worst": "integer",
    "blocks_of": "integer",
    "allow_external": "boolean",
}
"""The options that a pair may have: arguments of `evaluate`, and what their values are."""


class SuiteLimit(NamedTuple):
    """A limit as it is written, and where."""

    text: str
    origin: str
    """The table: ``defaults``, ``groups.int8``, ``pairs.digits``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One pair."""

    name: str
    predictions: str
    targets: str
    options: Mapping[str, Any]
    """Arguments of `evaluate`; arrays are tuples, and files are seen from the working directory."""
    limits: tuple[SuiteLimit, ...] = ()
    """The defaults', the group's, the pair's."""
    allow: frozenset[str] = frozenset()
    """Ids of findings that may be there."""
    group: str | None = None
    where: str = field(default="", compare=False)
    """How an error about its options begins: where they are written, if they are its own."""
