"""The file of a baseline: JSON that a person can read and a diff can show, checked when it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from kldiv_cli.baseline import Baseline, Recorded
from kldiv_cli.errors import FormatError, InputError
from kldiv_cli.evaluation import Input
from kldiv_cli.octaves import Octaves
from kldiv_cli.sources.regular import check_regular

__all__ = ["BASELINE_SCHEMA", "baseline_text", "parse_baseline", "read_baseline"]

BASELINE_SCHEMA: Final = "kldiv-baseline/1"
_FAMILY, _, _VERSION = BASELINE_SCHEMA.partition("/")
_LARGEST: Final = 256 << 20
_NONFINITE: Final = ("nan", "inf", "-inf")


# To text


def baseline_text(baseline: Baseline) -> str:
    """The file's contents: pairs by name, one number a line, each reading back to the same value."""
    pairs = {name: _record(baseline.pairs[name]) for name in sorted(baseline.pairs)}
    return _laid_out({"schema": BASELINE_SCHEMA, "pairs": pairs}) + "\n"


def _record(recorded: Recorded) -> dict[str, Any]:
    return {
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in recorded.settings.items()},
        "shape": list(recorded.shape),
        "inputs": {
            role: described._asdict() | {"shape": list(described.shape)}
            for role, described in recorded.inputs.items()
        },
        "statistics": {
            loss: {name: _number(value) for name, value in of_loss.items()}
            for loss, of_loss in recorded.statistics.items()
        },
        "histogram": {
            loss: octaves._asdict() | {"counts": list(octaves.counts)}
            for loss, octaves in recorded.histograms.items()
        },
    }


def _number(value: float) -> float | str:
    """JSON has no nan and no infinity; their names stand for them."""
    return value if math.isfinite(value) else str(value)


def _laid_out(value: Any, indent: str = "") -> str:
    """JSON with an entry a line, but for lists, which stay on theirs."""
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = indent + "  "
    lines = (
        f"{inner}{json.dumps(key, ensure_ascii=False)}: {_laid_out(item, inner)}"
        for key, item in value.items()
    )
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


# From text


def read_baseline(path: str) -> Baseline:
    """Read a baseline file.

    Raises
    ------
    InputNotFound
        There is none; nothing is ever made in its place.
    FormatError
        It is no baseline, damaged, or of a newer version.
    """
    if check_regular(path).size > _LARGEST:
        raise FormatError(f"{path}: larger than {_LARGEST} bytes, expected a baseline")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError:
        raise FormatError(f"{path}: not UTF-8, expected a baseline") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return parse_baseline(text, path)


def parse_baseline(text: str, path: str) -> Baseline:
    """Check all of a baseline's contents; `path` is where they are from."""
    try:
        record = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: no JSON: {error}; record it anew with kldiv baseline record") from None
    pairs = _Part(path, _versioned(path, record)).tables("pairs")
    return Baseline(path=path, pairs={name: _recorded(part) for name, part in pairs.items()})


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(items)
    if len(unique) < len(items):
        keys = [key for key, _ in items]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} stands there twice")
    return unique


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _versioned(path: str, record: object) -> object:
    """The contents, if this version can read them."""
    schema = record.get("schema") if isinstance(record, dict) else None
    family, _, version = schema.partition("/") if isinstance(schema, str) else ("", "", "")
    if family != _FAMILY or not version.isdecimal():
        raise FormatError(
            f"{path}: no baseline: its schema is {schema!r}, expected {BASELINE_SCHEMA!r}; "
            "record one with kldiv baseline record"
        )
    if version != _VERSION:
        raise FormatError(
            f"{path}: schema {schema!r}, and this kldiv reads {BASELINE_SCHEMA!r}; install the kldiv that "
            "wrote it, or record it anew"
        )
    return record


class _Part:
    """A table of the file, whose entries are checked as they are taken."""

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, dict):
            raise FormatError(f"{where}: found {value!r}, expected a table; record it anew")
        self.where, self.value = where, value

    def take(self, key: str, what: str, *types: type) -> Any:
        value = self.value.get(key)
        if type(value) not in types:
            found = "nothing" if key not in self.value else repr(value)[:40]
            raise FormatError(f"{self.where}: {key}: found {found}, expected {what}; record it anew")
        return value

    def table(self, key: str) -> _Part:
        return _Part(f"{self.where}: {key}", self.take(key, "a table", dict))

    def tables(self, key: str) -> dict[str, _Part]:
        part = self.table(key)
        return {name: part.table(name) for name in part.value}

    def number(self, key: str) -> float:
        value = self.take(key, "a number", int, float, str)
        if isinstance(value, str) and value not in _NONFINITE:
            raise FormatError(f"{self.where}: {key}: found {value!r}, expected a number; record it anew")
        return float(value) if isinstance(value, str) else value

    def count(self, key: str) -> int:
        return int(self.take(key, "a whole number", int))

    def counts(self, key: str) -> tuple[int, ...]:
        values = self.take(key, "a list of whole numbers", list)
        if any(type(value) is not int for value in values):
            raise FormatError(f"{self.where}: {key}: expected a list of whole numbers; record it anew")
        return tuple(values)


def _recorded(part: _Part) -> Recorded:
    return Recorded(
        settings={
            key: tuple(value) if isinstance(value, list) else value
            for key, value in part.table("settings").value.items()
        },
        shape=part.counts("shape"),
        inputs={role: _input(described) for role, described in part.tables("inputs").items()},
        statistics={
            _loss(part, loss): {name: of_loss.number(name) for name in of_loss.value}
            for loss, of_loss in part.tables("statistics").items()
        },
        histograms={
            _loss(part, loss): _octaves(histogram) for loss, histogram in part.tables("histogram").items()
        },
    )


def _loss(part: _Part, name: str) -> Any:
    if name not in ("kl", "bce"):
        raise FormatError(f"{part.where}: loss {name!r}, expected kl or bce; record it anew")
    return name


def _input(part: _Part) -> Input:
    return Input(
        address=part.take("address", "text", str),
        shape=part.counts("shape"),
        dtype=part.take("dtype", "text", str),
        space=part.take("space", "text", str),
        sha256=part.take("sha256", "text", str),
    )


def _octaves(part: _Part) -> Octaves:
    return Octaves(
        below=part.count("below"),
        first=part.count("first"),
        counts=part.counts("counts"),
        infinite=part.count("infinite"),
        nan=part.count("nan"),
    )
