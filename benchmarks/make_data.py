"""Make float32 logits x.npy and probabilities y.npy, block by block: ``make_data.py FOLDER ROWS COLUMNS``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[np.float32]

BLOCK = 4096
SEED = 20_240_607


def main(folder: Path, rows: int, columns: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)

    def logits(shape: tuple[int, int]) -> Block:
        return 3 * rng.standard_normal(shape, np.float32)

    def probs(shape: tuple[int, int]) -> Block:
        powers = np.exp(logits(shape), dtype=np.float64)
        normalised: Block = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return normalised

    write(folder / "x.npy", (rows, columns), logits)
    write(folder / "y.npy", (rows, columns), probs)


def write(path: Path, shape: tuple[int, int], make: Callable[[tuple[int, int]], Block]) -> None:
    """Under its name only once it is whole, so that what is there may be used again."""
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, shape[0], BLOCK):
            make((min(BLOCK, shape[0] - start), shape[1])).tofile(file)
    os.replace(unfinished, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
