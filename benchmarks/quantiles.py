"""Percentiles of more values than are kept: how far from NumPy's, in what time and memory.

``python benchmarks/quantiles.py [VALUES]``: 20 million by default, as the losses of as many
distributions would be, in parts that merge in a random order.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kldiv_cli.spec import QUANTILES
from kldiv_cli.statistics import Sketch, percentile_name, sketch_of

PART = 1 << 18


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000_000
    before = peak_mib()
    started = time.perf_counter()
    sketch = Sketch()
    for part in parts(count):
        sketch = sketch.merge(sketch_of(part))
    statistics = sketch.statistics("distributions", QUANTILES)
    seconds = time.perf_counter() - started
    print(f"{count:,} values: {seconds:.2f} s with making them, {peak_mib() - before:.0f} MiB more")
    values = np.concatenate(list(parts(count)))
    worst = 0.0
    for quantile, expected in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True):
        obtained = statistics.percentiles[percentile_name(quantile)]
        error = abs(obtained / expected - 1)
        worst = max(worst, error)
        print(f"{percentile_name(quantile):>6}  {expected:.9g}  {obtained:.9g}  {error:.2e}")
    print(f"largest relative error {worst:.2e}, allowed 2**-11 = {2**-11:.2e}")
    print(f"mean differs by {abs(statistics.mean - values.mean()):.1e}")


def parts(count: int) -> Iterator[npt.NDArray[np.float64]]:
    """Losses over many orders of magnitude, the same ones at every call."""
    starts = np.random.default_rng(0).permutation(range(0, count, PART))
    for start in starts.tolist():
        rng = np.random.default_rng(start)
        yield rng.lognormal(-4.0, 2.0, min(PART, count - start))


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    main()
