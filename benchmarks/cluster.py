"""One pair on a Dask cluster of one worker and on one of two, all on this machine, beside one thread here.

``python benchmarks/cluster.py [ROWS]``: 262,144 x 1,024 float32 logits and probabilities by default
(2 x 1 GiB), made once in `benchmarks/data/`. What is timed is `evaluate`, from before it connects;
the clusters take turns. On a machine with other work two workers can't show twice the speed.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import make_data

from kldiv_cli import evaluate

COLUMNS = 1_024
ROUNDS = 5
WORKER = ("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--scheduler-file")
SCHEDULER = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file")


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 262_144
    folder = Path(__file__).parent / "data" / f"{rows}x{COLUMNS}"
    if not (folder / "y.npy").exists():
        make_data.main(folder, rows, COLUMNS)
    with cluster(1) as one, cluster(2) as two:
        contenders = {"one thread": None, "one worker": one, "two workers": two}
        rounds = [{name: run(folder, where) for name, where in contenders.items()} for _ in range(ROUNDS + 1)]
    assert len({total for timed in rounds for _, total in timed.values()}) == 1
    rounds = rounds[1:]
    for name in contenders:
        seconds = [timed[name][0] for timed in rounds]
        print(f"{name:12} {statistics.median(seconds):6.3f} s ({min(seconds):.3f} to {max(seconds):.3f})")
    ratios = [timed["one worker"][0] / timed["two workers"][0] for timed in rounds]
    ratio = statistics.median(ratios)
    print(f"two workers are {ratio:.2f} times as fast as one, on {os.cpu_count()} processors")


def run(folder: Path, scheduler: str | None) -> tuple[float, float]:
    """How long it took, and what it came to."""
    workers = 1 if scheduler is None else None
    pair = (str(folder / "x.npy"), str(folder / "y.npy"))
    started = time.perf_counter()
    result = evaluate(*pair, log_softmax=-1, workers=workers, scheduler=scheduler)
    return time.perf_counter() - started, result.sum


@contextlib.contextmanager
def cluster(workers: int) -> Iterator[str]:
    """The file of a scheduler that has so many workers by now."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        file = Path(directory, "scheduler.json")
        start(stack, *SCHEDULER, str(file))
        while not file.exists():
            time.sleep(0.05)
        for _ in range(workers):
            start(stack, *WORKER, str(file), "--local-directory", directory)
        wait(json.loads(file.read_text())["address"], workers)
        yield str(file)


def start(stack: contextlib.ExitStack, *arguments: str) -> None:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", "dask", *arguments], **quiet)
    stack.callback(process.wait)
    stack.callback(process.kill)


def wait(address: str, workers: int) -> None:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=60)


if __name__ == "__main__":
    main()
