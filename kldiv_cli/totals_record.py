"""The totals of a pair as text: nothing is rounded, and what is read back is checked first."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kldiv_cli.histogram import Bins, Histogram, bins_from
from kldiv_cli.reductions import ExactSum
from kldiv_cli.spread import FewValues, Spread
from kldiv_cli.statistics import Sketch
from kldiv_cli.target_split import Group, TargetSplit
from kldiv_cli.totals import Totals

__all__ = ["totals_from", "totals_record"]

_HEX: Final = re.compile(r"-?[0-9a-f]{1,1024}")
_MOST: Final = 1 << 63
_LARGEST_SHIFT: Final = 1 << 12
_BINS: Final = 2047 << 10
"""As many there are of finite values of one sign."""
_OCTAVES: Final = range(-1074, 1024)
_INFINITIES: Final = {"inf": math.inf, "-inf": -math.inf}
_SKETCH: Final = frozenset({"sum", "squares", "count", "minimum", "maximum"})
_SPREAD: Final = frozenset({"values", "histogram"})
"""Of which a sketch has one."""
_HISTOGRAM: Final = frozenset({"below", "zeros", "above", "least"})
_TOTALS: Final = frozenset({"losses", "elements", "batch", "distributions"})
_OPTIONAL: Final = frozenset({"same_tops", "by_target"})


# To text


def totals_record(totals: Totals) -> dict[str, Any]:
    """Ready for JSON; `totals_from` makes the same totals of it, to the bit."""
    record: dict[str, Any] = {
        "losses": _sketch_record(totals.losses),
        "elements": totals.elements,
        "batch": totals.batch,
        "distributions": totals.distributions,
    }
    if totals.same_tops is not None:
        record["same_tops"] = totals.same_tops
    if totals.by_target is not None:
        record["by_target"] = {
            name: [group.count, *_sum_record(group.total)]
            for name, group in totals.by_target._asdict().items()
        }
    return record


def _sketch_record(sketch: Sketch) -> dict[str, Any]:
    return {
        "sum": _sum_record(sketch.total),
        "squares": _sum_record(sketch.squares),
        "count": sketch.count,
        "minimum": _float_record(sketch.minimum),
        "maximum": _float_record(sketch.maximum),
        **_spread_record(sketch.spread),
    }


def _spread_record(spread: Spread) -> dict[str, Any]:
    """Values by their bytes, the least significant first."""
    if isinstance(spread, FewValues):
        return {"values": base64.b64encode(spread.values.astype("<f8").tobytes()).decode("ascii")}
    return {
        "histogram": {
            "below": _bins_record(spread.below),
            "zeros": spread.zeros,
            "above": _bins_record(spread.above),
            "least": _bins_record(spread.least),
        }
    }


def _sum_record(total: ExactSum) -> list[int | str]:
    """A hexadecimal number and by how many bits it is shifted left; then how many inf, -inf and nan."""
    scaled = total.scaled
    shift = (scaled & -scaled).bit_length() - 1 if scaled else 0
    odd = (total.positive_infinities, total.negative_infinities, total.nans)
    return [f"{scaled >> shift:x}", shift, *(odd if any(odd) else ())]


def _float_record(value: float) -> float | str:
    """JSON has no infinity; its name stands for it."""
    return value if math.isfinite(value) else str(value)


def _bins_record(bins: Bins) -> list[list[int]]:
    """The first bin and how far each of the others is behind the one before, and what they hold."""
    if not bins.counts.size:
        return [[], []]
    places, counts = bins.filled
    return [[*places[:1].tolist(), *np.diff(places).tolist()], counts.tolist()]


# From text


def totals_from(record: object) -> Totals:
    """The totals that a record was made of.

    Raises
    ------
    ValueError
        It is no such record; the text says where.
    """
    table = _table(record, "totals", _TOTALS, _OPTIONAL)
    tops = table.get("same_tops")
    split = table.get("by_target")
    return Totals(
        losses=_sketch_from(table["losses"]),
        elements=_count(table["elements"], "elements"),
        batch=_count(table["batch"], "batch"),
        distributions=_count(table["distributions"], "distributions"),
        same_tops=None if tops is None else _count(tops, "same_tops"),
        by_target=None if split is None else _split_from(split),
    )


def _split_from(value: object) -> TargetSplit:
    groups = _table(value, "by_target", frozenset(TargetSplit._fields))
    return TargetSplit(**{name: _group_from(group, f"by_target.{name}") for name, group in groups.items()})


def _group_from(value: object, where: str) -> Group:
    count, *total = _list(value, where, 3, 6)
    return Group(_count(count, where), _sum_from(total, where))


def _sketch_from(value: object) -> Sketch:
    table = _table(value, "losses", _SKETCH, _SPREAD)
    sketch = Sketch(
        total=_sum_from(table["sum"], "sum"),
        squares=_sum_from(table["squares"], "squares"),
        count=_count(table["count"], "count"),
        minimum=_float_from(table["minimum"], "minimum"),
        maximum=_float_from(table["maximum"], "maximum"),
        spread=_spread_from(table),
    )
    counted = _counted(sketch)
    if counted != sketch.count:
        raise ValueError(f"count: found {sketch.count}, and there are {counted} values")
    return sketch


def _counted(sketch: Sketch) -> int:
    total = sketch.total
    return sketch.spread.count + total.positive_infinities + total.negative_infinities + total.nans


def _spread_from(table: Mapping[str, Any]) -> Spread:
    match [name for name in sorted(_SPREAD) if name in table]:
        case ["values"]:
            return _values_from(table["values"])
        case ["histogram"]:
            return _histogram_from(table["histogram"])
        case found:
            raise ValueError(f"losses: found {found}, expected one of {sorted(_SPREAD)}")


def _values_from(value: object) -> FewValues:
    try:
        stored = base64.b64decode(value, validate=True) if isinstance(value, str) else b"?"
        values = np.frombuffer(stored, "<f8").astype(np.float64)
    except ValueError:
        raise ValueError("values: expected the bytes of float64 numbers in base64") from None
    if not (np.isfinite(values).all() and (values[1:] >= values[:-1]).all()):
        raise ValueError("values: expected finite numbers in ascending order")
    return FewValues(values.tobytes())


def _histogram_from(value: object) -> Histogram:
    table = _table(value, "histogram", _HISTOGRAM)
    bins = range(_BINS)
    return Histogram(
        below=_bins_from(table["below"], "histogram.below", bins),
        zeros=_count(table["zeros"], "histogram.zeros"),
        above=_bins_from(table["above"], "histogram.above", bins),
        least=_bins_from(table["least"], "histogram.least", _OCTAVES),
    )


def _bins_from(value: object, where: str, known: range) -> Bins:
    steps, counts = (_list(part, where, 0, len(known)) for part in _list(value, where, 2, 2))
    if len(steps) != len(counts):
        raise ValueError(f"{where}: {len(steps)} bins and {len(counts)} counts, expected as many of both")
    if not steps:
        return Bins()
    places, held = np.cumsum(_array(steps, where, len(known))), _array(counts, where, _MOST)
    # Of a NumPy integer `in` would look at every number of the range.
    first, last = int(places[0]), int(places[-1])
    if not (first in known and last in known and min(steps[1:], default=1) > 0):
        raise ValueError(f"{where}: expected bins in ascending order from {known[0]} to {known[-1]}")
    if min(counts) < 1 or sum(counts) >= _MOST:
        raise ValueError(f"{where}: expected counts of 1 or more, together below 2**63")
    return bins_from(places, held)


def _array(values: list[Any], where: str, limit: int) -> npt.NDArray[np.int64]:
    """Whole numbers that are small enough for their type, and for their sum's."""
    if set(map(type, values)) != {int} or not -limit < min(values) <= max(values) < limit:
        raise ValueError(f"{where}: expected whole numbers below {limit}")
    return np.array(values, np.int64)


def _sum_from(value: object, where: str) -> ExactSum:
    parts = _list(value, where, 2, 5)
    if len(parts) not in (2, 5) or not isinstance(parts[0], str) or not _HEX.fullmatch(parts[0]):
        raise ValueError(f"{where}: expected a hexadecimal number and its shift")
    scaled = int(parts[0], 16) << _whole(parts[1], where, 0, _LARGEST_SHIFT)
    return ExactSum(scaled, *(_count(count, where) for count in parts[2:]))


def _float_from(value: object, where: str) -> float:
    if isinstance(value, str) and value in _INFINITIES:
        return _INFINITIES[value]
    if not isinstance(value, float) or not math.isfinite(value):
        raise ValueError(f"{where}: expected a number, inf or -inf")
    return value


def _count(value: object, where: str) -> int:
    return _whole(value, where, 0, _MOST)


def _whole(value: object, where: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value < high:
        raise ValueError(f"{where}: expected a whole number of at least {low} and below {high}")
    return value


def _list(value: object, where: str, shortest: int, longest: int) -> list[Any]:
    if not isinstance(value, list) or not shortest <= len(value) <= longest:
        raise ValueError(f"{where}: expected a list of {shortest} to {longest}")
    return value


def _table(
    value: object, where: str, needed: frozenset[str], optional: frozenset[str] = frozenset()
) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not needed <= value.keys() <= needed | optional:
        raise ValueError(f"{where}: expected a table of {', '.join(sorted(needed))}")
    return value
