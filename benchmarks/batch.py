"""10,000 pairs of 64 x 10 in one `kldiv batch`, against a loop of the shell over a Python script.

``python benchmarks/batch.py [PAIRS] [LOOPED]``: the loop takes the first LOOPED pairs, 100 by default,
since all of them would take half an hour. On two workers, start-up included.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import Contender, run_rounds

SHAPE = (64, 10)
ROUNDS = 5
SCRIPT = Path(__file__).parent / "contenders/one_pair.py"
LOOP = "for f in $(ls out | head -{looped}); do {python} {script} out/$f ref/$f || exit 1; done"


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    looped = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    kldiv = (sys.executable, "-m", "kldiv_cli", "batch", "out", "ref", "--log-softmax", "-1")
    loop = LOOP.format(looped=looped, python=sys.executable, script=SCRIPT)
    with tempfile.TemporaryDirectory() as directory:
        folder = make_dump(Path(directory), pairs)
        series = run_rounds(
            [
                Contender(name="two workers", command=(*kldiv, "--workers", "2"), folder=folder),
                Contender(name="one worker", command=(*kldiv, "--workers", "1"), folder=folder),
                Contender(name="as JSON lines", command=(*kldiv, "--format", "jsonl"), folder=folder),
                Contender(name="loop", command=("sh", "-c", loop), folder=folder),
            ],
            ROUNDS,
            lambda text: print(text, file=sys.stderr),
        )
    per_pair = {}
    for name, of_name in series.items():
        if of_name.failure is not None:
            sys.exit(f"{name}: {of_name.failure}")
        count = looped if name == "loop" else pairs
        times = per_pair[name] = [1e3 * seconds / count for seconds in of_name.seconds]
        print(f"{name:14} {statistics.median(times):7.2f} ms a pair ({min(times):.2f} to {max(times):.2f})")
    ratios = [slow / fast for slow, fast in zip(per_pair["loop"], per_pair["two workers"], strict=True)]
    print(f"the loop takes {statistics.median(ratios):.0f} times as long a pair")


def make_dump(directory: Path, pairs: int) -> Path:
    """Logits in out/, probabilities in ref/."""
    rng = np.random.default_rng(0)
    for name in ("out", "ref"):
        (directory / name).mkdir()
    for pair in range(pairs):
        targets = rng.dirichlet(np.ones(SHAPE[1]), SHAPE[0])
        logits = np.log(targets) + rng.normal(0, 0.1, SHAPE)
        np.save(directory / f"out/{pair:06}.npy", logits.astype(np.float32))
        np.save(directory / f"ref/{pair:06}.npy", targets.astype(np.float32))
    return directory


if __name__ == "__main__":
    main()
