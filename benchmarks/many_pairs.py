"""Many small pairs in one suite: what `kldiv check` takes for each, beside its start-up.

``python benchmarks/many_pairs.py [PAIRS]``: 1,000 by default, of 64 x 10 float32 logits and
probabilities, with limits and a recorded baseline, on one core.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHAPE = (64, 10)
ROUNDS = 5
SUITE = """\
baseline = "baseline.json"

[defaults]
log_softmax = -1
limits = ["distmean < 0.1", "p99.9 < baseline * 1.1 + 1e-6", "top1 >= 0.5"]

[pairs.layers]
predictions = "logits/*.npy"
targets = "targets/{stem}.npy"
"""


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as directory:
        one, many = (make_suite(Path(directory, str(count)), count) for count in (1, pairs))
        times = [(seconds(one), seconds(many)) for _ in range(ROUNDS)]
    per_pair = [1e3 * (full - start) / (pairs - 1) for start, full in times]
    print(f"start-up with one pair {statistics.median(start for start, _ in times):.3f} s")
    print(f"{pairs:,} pairs {statistics.median(full for _, full in times):.3f} s")
    print(f"{statistics.median(per_pair):.2f} ms a pair ({min(per_pair):.2f} to {max(per_pair):.2f})")


def make_suite(directory: Path, pairs: int) -> Path:
    """A suite of so many pairs, and its baseline."""
    rng = np.random.default_rng(0)
    for name in ("logits", "targets"):
        (directory / name).mkdir(parents=True)
    for pair in range(pairs):
        targets = rng.dirichlet(np.ones(SHAPE[1]), SHAPE[0])
        logits = np.log(targets) + rng.normal(0, 0.1, SHAPE)
        np.save(directory / f"logits/{pair:04}.npy", logits.astype(np.float32))
        np.save(directory / f"targets/{pair:04}.npy", targets.astype(np.float32))
    suite = directory / "suite.toml"
    suite.write_text(SUITE)
    run("baseline", "record", str(suite))
    return suite


def seconds(suite: Path) -> float:
    started = time.perf_counter()
    run("check", str(suite))
    return time.perf_counter() - started


def run(*arguments: str) -> None:
    command = (sys.executable, "-m", "kldiv_cli", *arguments)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
