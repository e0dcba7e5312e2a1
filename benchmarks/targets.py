"""What kldiv means to reach, and whether it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from measure import Series, ratio

Group = Mapping[str, Series]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    name: str
    limit: float
    measured: float | None
    unit: str = "times"
    least: bool = False
    """Whether the limit is the least that is wanted; else it is the most."""

    @property
    def reached(self) -> bool | None:
        """None where it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.least else self.measured <= self.limit

    @property
    def wanted(self) -> str:
        return f"at {'least' if self.least else 'most'} {self.limit:g} {self.unit}"


def judge(data: Group, large: Group, start: Group) -> list[Target]:
    """All targets in the order in which they are reported."""
    return [*_speed(data, large), *_memory(data, large, start), *_start_up(start)]


def _speed(data: Group, large: Group) -> list[Target]:
    kldiv = data.get("kldiv")
    two = data.get("kldiv --workers 2", kldiv)
    faster = ratio(data.get("PyTorch"), kldiv)
    faster_large = ratio(large.get("PyTorch"), large.get("kldiv"))
    return [
        Target(name="PyTorch / kldiv", limit=7, measured=faster, least=True),
        Target(name="PyTorch / kldiv, large data", limit=4, measured=faster_large, least=True),
        Target(name="kldiv / floor", limit=2.1, measured=ratio(kldiv, data.get("floor"))),
        Target(
            name="kldiv / kldiv without diagnosis",
            limit=1.15,
            measured=ratio(kldiv, data.get("kldiv, no diagnosis")),
        ),
        Target(
            name="one worker / two workers",
            limit=1.7,
            measured=ratio(data.get("kldiv --workers 1"), two),
            least=True,
        ),
    ]


def _memory(data: Group, large: Group, start: Group) -> list[Target]:
    peak, peak_large = _peak(data.get("kldiv")), _peak(large.get("kldiv"))
    bare = _peak(start.get("import numpy"))
    above = None if peak is None or bare is None else peak - bare
    grown = None if peak is None or peak_large is None else abs(peak_large - peak)
    return [
        Target(name="kldiv's peak above a bare NumPy import", limit=100, measured=above, unit="MiB"),
        Target(name="kldiv's peak on large data, difference", limit=5, measured=grown, unit="MiB"),
    ]


def _start_up(start: Group) -> list[Target]:
    bare = start.get("python -c pass")
    limits = {"kldiv --version": 2, "kldiv --help": 6, "kldiv compute, 2 x 2": 14}
    return [
        Target(name=f"{name} / python -c pass", limit=limit, measured=ratio(start.get(name), bare))
        for name, limit in limits.items()
    ]


def _peak(series: Series | None) -> float | None:
    return None if series is None or series.failure else series.peak_mib
