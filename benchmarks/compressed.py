"""Two gzip-compressed HDF5 datasets of 512 MiB each: two workers against one, and against PyTorch.

``python benchmarks/compressed.py [MIB] [--torch-python PATH]``: whole processes in turn. The file is made
once, in ``benchmarks/data/``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from pathlib import Path

import h5py
import numpy as np
from measure import Contender, ratio, run_rounds

CLASSES = 1024
AT_ONCE = 4096
ROUNDS = 5
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mib", nargs="?", type=int, default=512)
    parser.add_argument("--torch-python", default=sys.executable)
    options = parser.parse_args()
    # Apart, for what this process has at its largest is the least peak of those that it starts.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        file = pool.apply(make_file, (options.mib,))
    kldiv = (sys.executable, "-m", "kldiv_cli", "compute", f"{file}::/logits", f"{file}::/probs")
    kldiv += ("--log-softmax", "-1", "--reduction", "batchmean")
    torch = (options.torch_python, str(HERE / "contenders/torch_hdf5.py"), str(file))
    series = run_rounds(
        [
            Contender(name="two workers", command=(*kldiv, "--workers", "2"), folder=HERE),
            Contender(name="one worker", command=(*kldiv, "--workers", "1"), folder=HERE),
            Contender(name="h5py, PyTorch", command=torch, folder=HERE),
        ],
        ROUNDS,
        lambda text: print(text, file=sys.stderr),
    )
    for name, of_name in series.items():
        if of_name.failure is not None:
            print(f"{name}: {of_name.failure}")
            continue
        least, most = min(of_name.seconds), max(of_name.seconds)
        print(f"{name:14} {of_name.median:6.2f} s ({least:.2f} to {most:.2f}), {of_name.peak_mib:.0f} MiB")
    for name in ("one worker", "h5py, PyTorch"):
        times = ratio(series[name], series["two workers"])
        if times is not None:
            print(f"{name} takes {times:.2f} times as long as two workers (wanted: 1.7)")


def make_file(mib: int) -> Path:
    """Logits of which the last bits are 0, as those of a model in half precision, and probabilities."""
    path = HERE / "data" / f"compressed-{mib}.h5"
    if path.exists():
        return path
    path.parent.mkdir(exist_ok=True)
    rows = mib * 2**20 // (4 * CLASSES)
    rng = np.random.default_rng(0)
    temporary = path.with_suffix(".tmp")
    with h5py.File(temporary, "w") as file:
        layout = {"shape": (rows, CLASSES), "dtype": "f4", "chunks": (256, CLASSES), "compression": "gzip"}
        logits, probs = (file.create_dataset(name, **layout) for name in ("logits", "probs"))
        for start in range(0, rows, AT_ONCE):
            x = rng.standard_normal((min(AT_ONCE, rows - start), CLASSES), dtype=np.float32)
            y = np.exp(x + rng.standard_normal(x.shape, dtype=np.float32))
            logits[start : start + len(x)] = x.astype(np.float16)
            probs[start : start + len(x)] = (y / y.sum(-1, keepdims=True)).astype(np.float16)
    temporary.rename(path)
    return path


if __name__ == "__main__":
    main()
