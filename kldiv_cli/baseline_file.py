"""The file of a baseline: JSON that a person can read and a diff can show, checked when it is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from types import NoneType
from typing import Any, Final

from kldiv_cli.baseline import ROLES, Baseline, Recorded, Setting
from kldiv_cli.errors import FormatError, InputError, InputNotFound
from kldiv_cli.evaluation import Input
from kldiv_cli.octaves import Octaves
from kldiv_cli.quantities import rank_of
from kldiv_cli.sources.regular import check_regular
from kldiv_cli.spec import LOSSES, Loss
from kldiv_cli.streams import printable

__all__ = ["BASELINE_SCHEMA", "baseline_text", "parse_baseline", "read_baseline"]

BASELINE_SCHEMA: Final = "kldiv-baseline/1"
_FAMILY, _, _VERSION = BASELINE_SCHEMA.partition("/")
_LARGEST: Final = 64 << 20
_LONGEST: Final = 60
_ANEW: Final = "restore it, or choose another file to record"
_NONFINITE: Final = ("nan", "inf", "-inf")
_STATISTIC: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
_RECORD: Final = ("settings", "shape", "inputs", "statistics", "histogram")
_SETTINGS: Final[dict[str, tuple[str, tuple[type, ...]]]] = {
    "loss": ("a list of losses", (list,)),
    "log_softmax": ("true or false", (bool,)),
    "predictions_are": ("text", (str,)),
    "targets_are": ("text", (str,)),
    "axis": ("a whole number", (int,)),
    "temperature": ("a number or null", (float, int, NoneType)),
    "zero_policy": ("text", (str,)),
    "broadcast": ("true or false", (bool,)),
    "ignore_value": ("a number or null", (float, int, str, NoneType)),
    "trim_axis": ("true or false", (bool,)),
    "blocks_of": ("a whole number or null", (int, NoneType)),
    "weight": ("true or false", (bool,)),
    "pos_weight": ("true or false", (bool,)),
    "mask": ("true or false", (bool,)),
}
"""What each is, in the order of the file."""


# To text


def baseline_text(baseline: Baseline) -> str:
    """The file's contents: one number a line, reading back to the same value, in an order of its own."""
    pairs = {name: _record(baseline.pairs[name]) for name in sorted(baseline.pairs)}
    return _laid_out({"schema": BASELINE_SCHEMA, "pairs": pairs}) + "\n"


def _record(recorded: Recorded) -> dict[str, Any]:
    return {
        "settings": {name: recorded.settings[name] for name in _ordered(recorded.settings, _SETTINGS)},
        "shape": recorded.shape,
        "inputs": {role: recorded.inputs[role]._asdict() for role in _ordered(recorded.inputs, ROLES)},
        "statistics": {
            loss: _numbers(recorded.statistics[loss]) for loss in _ordered(recorded.statistics, LOSSES)
        },
        "histogram": {
            loss: recorded.histograms[loss]._asdict() for loss in _ordered(recorded.histograms, LOSSES)
        },
    }


def _ordered(names: Mapping[Any, Any], order: Collection[str]) -> list[Any]:
    return sorted(names, key=list(order).index)


def _numbers(of_loss: Mapping[str, float]) -> dict[str, float | str]:
    return {name: _number(of_loss[name]) for name in sorted(of_loss, key=rank_of)}


def _number(value: float) -> float | str:
    """JSON has no nan and no infinity; their names stand for them."""
    return value if math.isfinite(value) else str(value)


def _laid_out(value: Any, indent: str = "") -> str:
    """JSON with an entry a line, but for lists, which stay on theirs."""
    if not isinstance(value, Mapping) or not value:
        return _compact(value)
    inner = indent + "  "
    lines = (f"{inner}{_compact(key)}: {_laid_out(item, inner)}" for key, item in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _compact(value: Any) -> str:
    """On one line; escaped where it is text that an editor would not show as it is."""
    return json.dumps(value, ensure_ascii=isinstance(value, str) and not value.isprintable())


# From text


def read_baseline(path: str) -> Baseline:
    """Read a baseline file.

    Raises
    ------
    InputNotFound
        There is none; nothing is ever made in its place.
    FormatError
        It is no baseline, damaged, or of a newer version.
    InputError
        It can't be read.
    """
    return parse_baseline(_text(path), path)


def _text(path: str) -> str:
    try:
        size = check_regular(path).size
    except InputNotFound:
        raise InputNotFound(f"{path}: no such baseline; record it with kldiv baseline record") from None
    except FormatError:
        raise FormatError(f"{path}: empty, expected a baseline; {_ANEW}") from None
    if size > _LARGEST:
        raise FormatError(f"{path}: {size} bytes, expected a baseline of at most {_LARGEST}")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError:
        raise FormatError(f"{path}: not UTF-8, expected a baseline; {_ANEW}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def parse_baseline(text: str, path: str) -> Baseline:
    """Check all of a baseline's contents; `path` is where they are from.

    Raises
    ------
    FormatError
        They are no baseline, damaged, or of a newer version.
    """
    try:
        record = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: no JSON: {error}; {_ANEW}") from None
    _check_version(path, record)
    top = _Part(path, record)
    top.only("schema", "pairs")
    return Baseline(path=path, pairs={name: _recorded(part) for name, part in top.tables("pairs").items()})


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in items:
        if key in unique:
            raise ValueError(f"{_shown(key)} stands there twice")
        unique[key] = value
    return unique


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is none")


def _check_version(path: str, record: object) -> None:
    schema = record.get("schema") if isinstance(record, dict) else None
    family, _, version = schema.partition("/") if isinstance(schema, str) else ("", "", "")
    if family != _FAMILY or not version.isdecimal():
        raise FormatError(
            f"{path}: no baseline: its schema is {_shown(schema)}, expected {BASELINE_SCHEMA!r}; "
            "record one with kldiv baseline record"
        )
    if version != _VERSION:
        raise FormatError(
            f"{path}: its schema is {_shown(schema)}, and this kldiv reads {BASELINE_SCHEMA!r}; "
            "upgrade kldiv, or remove the file and record it anew"
        )


def _shown(value: object) -> str:
    """On one line and of bounded length, whatever it is."""
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


class _Part:
    """A table of the file, whose entries are checked as they are taken."""

    def __init__(self, where: str, value: dict[str, Any]) -> None:
        self.where, self.value = where, value

    def error(self, key: str, problem: str) -> FormatError:
        return FormatError(f"{self.where}: {_shown(key)}: {problem}; {_ANEW}")

    def only(self, *known: str) -> None:
        for key in self.value:
            if key not in known:
                raise self.error(key, f"unknown, expected one of {', '.join(known)}")

    def take(self, key: str, what: str, *types: type) -> Any:
        value = self.value.get(key)
        if key not in self.value:
            raise self.error(key, f"not there, expected {what}")
        if type(value) not in types or (isinstance(value, (int, float)) and not _is_sound(value)):
            raise self.error(key, f"found {_shown(value)}, expected {what}")
        return value

    def table(self, key: str) -> _Part:
        value = self.take(key, "a table", dict)
        return _Part(f"{self.where}: {_shown(key)}", value)

    def tables(self, key: str) -> dict[str, _Part]:
        part = self.table(key)
        return {name: part.table(name) for name in part.value}

    def number(self, key: str) -> float:
        value = self.take(key, "a number", int, float, str)
        if not isinstance(value, str):
            return float(value) if isinstance(value, float) else int(value)
        if value not in _NONFINITE:
            raise self.error(key, f"found {_shown(value)}, expected a number")
        return float(value)

    def count(self, key: str) -> int:
        value: int = self.take(key, "a count", int)
        if value < 0:
            raise self.error(key, f"found {value}, expected a count")
        return value

    def counts(self, key: str) -> tuple[int, ...]:
        values = self.take(key, "a list of counts", list)
        if any(type(value) is not int or value < 0 or not _is_sound(value) for value in values):
            raise self.error(key, "expected a list of counts")
        return tuple(values)


def _is_sound(value: float) -> bool:
    """Whether a number is finite, and a whole one of 64 bits."""
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)


def _recorded(part: _Part) -> Recorded:
    part.only(*_RECORD)
    settings = _settings(part.table("settings"))
    statistics, histograms = part.tables("statistics"), part.tables("histogram")
    if set(statistics) != set(settings["loss"]):  # type: ignore[arg-type]
        raise part.error("statistics", "not those of the losses in the settings")
    return Recorded(
        settings=settings,
        shape=part.counts("shape"),
        inputs=_inputs(part.table("inputs")),
        statistics={_loss(part, loss): _statistics(of_loss) for loss, of_loss in statistics.items()},
        histograms={_loss(part, loss): _octaves(of_loss) for loss, of_loss in histograms.items()},
    )


def _settings(part: _Part) -> dict[str, Setting]:
    part.only(*_SETTINGS)
    settings = {name: part.take(name, what, *types) for name, (what, types) in _SETTINGS.items()}
    if settings["loss"] not in [list(LOSSES), *([loss] for loss in LOSSES)]:
        raise part.error("loss", "expected kl, bce or both")
    if isinstance(settings["ignore_value"], str):
        part.number("ignore_value")
    return settings | {"loss": tuple(settings["loss"])}


def _inputs(part: _Part) -> dict[str, Input]:
    part.only(*ROLES)
    described = {role: _input(part.table(role)) for role in part.value}
    for role in ("predictions", "targets"):
        part.take(role, "a table", dict)
    return described


def _statistics(part: _Part) -> dict[str, float]:
    for name in part.value:
        if not _STATISTIC.fullmatch(name):
            raise part.error(name, "no name of a statistic")
    return {name: part.number(name) for name in part.value}


def _loss(part: _Part, name: str) -> Loss:
    for loss in LOSSES:
        if name == loss:
            return loss
    raise part.error(name, "expected kl or bce")


def _input(part: _Part) -> Input:
    part.only(*Input._fields)
    return Input(
        address=part.take("address", "text", str),
        shape=part.counts("shape"),
        dtype=part.take("dtype", "text", str),
        space=part.take("space", "text", str),
        sha256=part.take("sha256", "text", str),
    )


def _octaves(part: _Part) -> Octaves:
    part.only(*Octaves._fields)
    first, counts = part.take("first", "an octave", int), part.counts("counts")
    if not -1074 <= first <= first + len(counts) <= 1024:
        raise part.error("first", f"{len(counts)} octaves from {first}, expected them from -1074 to 1024")
    return Octaves(part.count("below"), first, counts, part.count("infinite"), part.count("nan"))
