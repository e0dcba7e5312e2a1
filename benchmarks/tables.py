"""The figures as Rich tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from targets import Target

console = Console()
if not console.is_terminal:
    console.width = 120
WORDS = {True: "[green]reached[/]", False: "[red]not reached[/]", None: "[dim]not measured[/]"}


def show_machine(machine: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    simd = "AVX-512" if machine["numpy_simd"]["avx512"] else "no AVX-512"
    console.print(f"{machine['cpu']}, {machine['usable_processors']} processors, {simd}", highlight=False)
    console.print(versions, highlight=False)
    console.print(f"a peak can't read below {machine['least_peak_mib']:.0f} MiB here", highlight=False)


def show_group(name: str, reference: str, records: dict[str, dict[str, Any]]) -> None:
    table = Table(title=name, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    results = any(record.get("batchmean") is not None for record in records.values())
    headers = ["median s", "min", "max", f"x {reference}", "peak MiB"]
    for header in [*headers, "batchmean", "rel. diff."] if results and name != "start-up" else headers:
        table.add_column(header, justify="right")
    for contender, record in records.items():
        table.add_row(contender, *_cells(record, len(table.columns) - 1))
    console.print(table)


def show_targets(targets: Sequence[Target]) -> None:
    table = Table(title="targets", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for header in ("", "measured", "wanted", ""):
        table.add_column(header, justify="right" if header == "measured" else "left", no_wrap=True)
    for target in targets:
        measured = "–" if target.measured is None else f"{target.measured:.2f}"
        table.add_row(target.name, measured, target.wanted, WORDS[target.reached])
    console.print(table)


def _cells(record: dict[str, Any], count: int) -> list[str]:
    if "failure" in record:
        return ["failed"]
    seconds = record["seconds"]
    times = [f"{seconds[name]:.3f}" for name in ("median", "min", "max")]
    cells = [*times, _number(record["ratio"], ".2f"), f"{record['peak_mib']:.0f}"]
    results = [_number(record["batchmean"], ".12g"), _number(record["relative_difference"], ".1e")]
    return [*cells, *results][:count]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
