"""Time kldiv beside PyTorch, NumPy and a bare read of the same files, each as a whole process.

``python benchmarks/compare.py --help`` tells the options, README.md what is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from measure import Contender, Series, own_peak_mib, ratio, run_rounds
from targets import Group, Target, judge

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE / "contenders"
COLUMNS = 1024
ROWS = 65_536
LARGE_ROWS = 4 * ROWS
START_ROUNDS = 4
"""Rounds of the short commands, for each round of the long ones."""


def main() -> None:
    options = parse_options()
    machine = describe_machine()
    tell_load()
    data = measure_data(options, "normal", ROWS)
    large = measure_data(options, "large", LARGE_ROWS) if options.large else {}
    start = measure_start_up(options)
    machine["least_peak_mib"] = own_peak_mib()
    targets = judge(data, large, start)
    report(machine, {"normal": data, "large": large, "start-up": start}, targets)
    if options.json is not None:
        record = full_record(options, machine, data, large, start, targets)
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time kldiv beside PyTorch, NumPy and a bare read.")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds, after a warm-up [5]")
    parser.add_argument("--large", action="store_true", help="also 2 x 1 GiB; PyTorch needs 8 GiB of memory")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="where the data is made and kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument(
        "--torch-python", default=sys.executable, metavar="PATH", help="an interpreter that has PyTorch"
    )
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    return options


# What is compared


def measure_data(options: argparse.Namespace, name: str, rows: int) -> dict[str, Series]:
    folder = data_folder(options, name, rows, COLUMNS)
    tell(f"{rows:,} x {COLUMNS:,} float32, 2 x {rows * COLUMNS * 4 >> 20} MiB")
    return run_rounds(data_contenders(options, folder), options.rounds, tell)


def measure_start_up(options: argparse.Namespace) -> dict[str, Series]:
    folder = data_folder(options, "tiny", 2, 2)
    tell("start-up")
    return run_rounds(start_contenders(folder), START_ROUNDS * options.rounds, tell)


def data_contenders(options: argparse.Namespace, folder: Path) -> list[Contender]:
    files = ("x.npy", "y.npy")
    compute = (*kldiv(), "compute", *files, "--log-softmax", "-1", "--reduction", "batchmean")
    commands = {
        "PyTorch": (options.torch_python, str(SCRIPTS / "torch_script.py"), *files),
        "NumPy, blocked": (sys.executable, str(SCRIPTS / "numpy_blocked.py"), *files),
        "kldiv": compute,
        "kldiv, no diagnosis": (
            sys.executable,
            str(SCRIPTS / "without_diagnosis.py"),
            *compute[len(kldiv()) :],
        ),
        "kldiv --workers 1": (*compute, "--workers", "1"),
        "kldiv --workers 2": (*compute, "--workers", "2"),
        "floor": (sys.executable, str(SCRIPTS / "floor.py"), *files),
    }
    if usable_processors() == 2:
        del commands["kldiv --workers 2"]  # what it does anyway
    if not has_torch(options.torch_python):
        tell(f"PyTorch is skipped: {options.torch_python} can't import torch; give --torch-python PATH")
        del commands["PyTorch"]
    return contenders(commands, folder)


def start_contenders(folder: Path) -> list[Contender]:
    smallest = (*kldiv(), "compute", "x.npy", "y.npy", "--log-softmax", "-1", "--reduction", "batchmean")
    commands = {
        "python -c pass": (sys.executable, "-c", "pass"),
        "import numpy": (sys.executable, str(SCRIPTS / "numpy_import.py")),
        "kldiv --version": (*kldiv(), "--version"),
        "kldiv --help": (*kldiv(), "--help"),
        "kldiv compute, 2 x 2": smallest,
    }
    return contenders(commands, folder)


def contenders(commands: dict[str, tuple[str, ...]], folder: Path) -> list[Contender]:
    return [Contender(name=name, command=command, folder=folder) for name, command in commands.items()]


def kldiv() -> tuple[str, ...]:
    """The installed command, or its module where there is no such script."""
    script = Path(sys.executable).parent / "kldiv"
    return (str(script),) if script.exists() else (sys.executable, "-m", "kldiv_cli")


@cache
def has_torch(python: str) -> bool:
    try:
        return subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0
    except OSError:
        return False


def data_folder(options: argparse.Namespace, name: str, rows: int, columns: int) -> Path:
    """The folder with x.npy and y.npy, made by another process unless they are there."""
    folder: Path = options.data.resolve() / name
    if not ((folder / "x.npy").exists() and (folder / "y.npy").exists()):
        tell(f"making {folder}")
        maker = [sys.executable, str(HERE / "make_data.py"), str(folder), str(rows), str(columns)]
        subprocess.run(maker, check=True)
    return folder


# What is said about it


def tell(text: str) -> None:
    print(text, file=sys.stderr)


def tell_load() -> None:
    load, processors = os.getloadavg()[0], usable_processors()
    if load > 0.25 * processors:
        tell(f"load average {load:.1f} on {processors} processors: others are at work, expect noise")


def describe_machine() -> dict[str, Any]:
    described = subprocess.run(
        [sys.executable, str(HERE / "describe.py")], capture_output=True, check=True, text=True
    )
    return {
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "processors": os.cpu_count(),
        "usable_processors": usable_processors(),
        "load_average": os.getloadavg(),
        **json.loads(described.stdout),
    }


def torch_versions(python: str) -> dict[str, str] | None:
    if not has_torch(python):
        return None
    script = [python, str(HERE / "describe.py")]
    described = subprocess.run(script, capture_output=True, check=True, text=True)
    versions: dict[str, str] = json.loads(described.stdout)["versions"]
    return versions


def cpu_model() -> str:
    if sys.platform == "darwin":
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def full_record(
    options: argparse.Namespace,
    machine: dict[str, Any],
    data: Group,
    large: Group,
    start: Group,
    targets: Sequence[Target],
) -> dict[str, Any]:
    return {
        "rounds": options.rounds,
        "machine": machine,
        "torch_versions": torch_versions(options.torch_python),
        "normal": group_record(data, "kldiv"),
        "large": group_record(large, "kldiv"),
        "start-up": group_record(start, "python -c pass"),
        "targets": [{**asdict(target), "reached": target.reached} for target in targets],
    }


def group_record(group: Group, reference: str) -> dict[str, Any]:
    return {name: series_record(series, group[reference]) for name, series in group.items()}


def series_record(series: Series, reference: Series) -> dict[str, Any]:
    """Figures of one contender; its ratio is to the reference, its difference from it is relative."""
    if series.failure is not None:
        return {"failure": series.failure}
    return {
        "seconds": {
            "median": series.median,
            "min": min(series.seconds),
            "max": max(series.seconds),
            "all": series.seconds,
        },
        "ratio": ratio(series, reference),
        "peak_mib": series.peak_mib,
        "batchmean": series.batchmean,
        "relative_difference": relative_difference(series, reference),
    }


def relative_difference(series: Series, reference: Series) -> float | None:
    if series.failure or reference.failure:
        return None
    obtained, expected = series.batchmean, reference.batchmean
    if obtained is None or expected is None:
        return None
    return abs(obtained - expected) / abs(expected)


def report(machine: dict[str, Any], groups: dict[str, Group], targets: Sequence[Target]) -> None:
    # Imported when all is measured: what this process holds is the least that a child's peak can be.
    import tables

    tables.show_machine(machine)
    for name, group in groups.items():
        reference = "python -c pass" if name == "start-up" else "kldiv"
        if group:
            tables.show_group(name, reference, group_record(group, reference))
    tables.show_targets(targets)


if __name__ == "__main__":
    main()
