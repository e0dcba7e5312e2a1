"""What the tests of the gate share: a model's outputs, broken in many ways, and `kldiv` run on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

Floats = npt.NDArray[np.float64]
SHAPE = (40, 7)


class Run(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def record(self) -> Any:
        return json.loads(self.out)


Kldiv = Callable[..., Run]


def outputs(noise: float = 0.1, seed: int = 3) -> tuple[Floats, Floats]:
    """A student's logits and its teacher's probabilities."""
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.full(SHAPE[1], 2.0), SHAPE[0])
    return np.log(targets) + rng.normal(0, noise, SHAPE), targets


def kl_of(logits: Floats, targets: Floats) -> Floats:
    """The KL divergence of each distribution, by SciPy."""
    return np.asarray((targets * (np.log(targets) - log_softmax(logits, -1))).sum(-1))


def save_outputs() -> None:
    """Save them in the working directory, as they should be: z and log_q the student's, p the teacher's."""
    z, p = outputs()
    arrays = {
        "z": z,
        "log_q": log_softmax(z, -1),
        "q": np.exp(log_softmax(z, -1)),
        "p": p,
        "log_p": np.log(p),
        "labels": p.argmax(-1),
        "bits": (p > 0.2).astype(np.float64),
        "mask": np.arange(SHAPE[0]) % 2,
    }
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)


def replaced(array: Floats, place: Any, value: float) -> Floats:
    changed = array.copy()
    changed[place] = value
    return changed


def save_broken() -> None:
    """Save what outputs come to when something went wrong."""
    z, p = outputs()
    log_q = log_softmax(z, -1)
    row_of_zeros = replaced(p, (3, slice(None)), 0.0)
    coarse = (np.log(p) + 2e-3).astype(np.float16)
    arrays: dict[str, npt.NDArray[Any]] = {
        "nan": replaced(log_q, (3, 2), np.nan),
        "inf": replaced(log_q, (3, 2), np.inf),
        "minus_inf": replaced(log_q, (3, 2), -np.inf),
        "eye_p": np.eye(SHAPE[1])[np.arange(SHAPE[0]) % 2],
        "high_z": z + 3,
        "nan_z": replaced(z, (3, 2), np.nan),
        "nan_p": replaced(p, (3, 2), np.nan),
        "inf_p": replaced(p, (3, 2), np.inf),
        "below_p": replaced(p, (3, 2), -0.1),
        "huge_z": np.full(SHAPE, 1e308) * (1 - 2 * np.eye(SHAPE[0], SHAPE[1])),
        "padded_p": row_of_zeros,
        "padded_z": replaced(z, (3, slice(None)), 0.0),
        "zero_p": np.zeros(SHAPE),
        "heavy_p": p * 1.01,
        "heavy_log_q": log_q + 0.01,
        "coarse": coarse,
        "coarse_p": p.astype(np.float16),
        "other_p": np.roll(p, 1, -1),
        "no_rows": z[:0],
        "no_rows_p": p[:0],
        "no_classes": z[:, :0],
        "one_class": z[:, :1],
        "one_class_p": np.ones((SHAPE[0], 1)),
        "short_p": p[:-1],
        "wide_p": np.hstack([p, p[:, :1]]),
        "transposed_p": p.T,
        "mask_0": np.zeros(SHAPE[0]),
        "mask_2": np.full(SHAPE[0], 2),
        "mask_short": np.ones(SHAPE[0] - 1),
        "ignored": np.full(SHAPE[0], -100),
        "wrong_labels": np.full(SHAPE[0], SHAPE[1]),
        "weight_0": np.zeros(SHAPE[1]),
        "weight_below": np.array([-1.0] + [1.0] * (SHAPE[1] - 1)),
        "weight_nan": np.array([np.nan] + [1.0] * (SHAPE[1] - 1)),
        "signs": np.sign(z - z.mean()),
        "q_copy": np.exp(log_q),
        "q_float32": np.exp(log_q).astype(np.float32),
        "q_float32_wide": np.exp(log_q).astype(np.float32).astype(np.float64),
        "words": np.array([["a"] * SHAPE[1]] * SHAPE[0]),
        "complex": z + 0j,
    }
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    Path("zero_bytes.npy").touch()
    Path("cut.npy").write_bytes(Path("z.npy").read_bytes()[:-8])
    Path("text.npy").write_text("no array")
    Path("directory").mkdir()
    with h5py.File("q.h5", "w") as file:
        file["q"] = np.exp(log_q)
        file["p"] = p
