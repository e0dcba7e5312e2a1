"""Make every file of this folder, the same bytes each time: ``python sample_data/make.py [FOLDER]``.

Needs scikit-learn, whose bundled digits and breast-cancer data are the raw material.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

Floats = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[np.generic]]

SEED = 20_240_607
TEACHERS = 5
PEOPLE, JOINTS, HEIGHT, WIDTH = 4, 4, 16, 12
SIGMA = 1.2
FLOOR = 2e-3
"""The least probability that a heat map prediction gives to a channel."""


def main(folder: Path) -> None:
    with threadpool_limits(1):  # sums in the same order each time
        digits, cancer = make_digits(), make_cancer()
    for name, array in {**digits, **cancer, **make_heatmaps()}.items():
        if name != "digits_labels":
            np.save(folder / f"{name}.npy", array)
    write_hdf5(folder / "digits.h5", digits)


def make_digits() -> Arrays:
    """A student that sees only row and column sums, and a teacher that sees all pixels."""
    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        images / 16, labels, test_size=0.3, stratify=labels, random_state=SEED
    )
    student = LogisticRegression(C=1.0, max_iter=1000).fit(sums(train), train_labels)
    teachers = [
        MLPClassifier((64,), alpha=0.1, max_iter=1000, random_state=SEED + k).fit(train, train_labels)
        for k in range(TEACHERS)
    ]
    probs = np.mean([teacher.predict_proba(test) for teacher in teachers], axis=0)
    return {
        "digits_student_logits": student.decision_function(sums(test)).astype(np.float32),
        "digits_teacher_probs": probs.astype(np.float32),
        "digits_labels": test_labels.astype(np.uint8),
    }


def sums(images: Floats) -> Floats:
    """The 8 row sums and 8 column sums of each 8 x 8 image."""
    square = images.reshape(-1, 8, 8)
    return np.concatenate([square.sum(axis=1), square.sum(axis=2)], axis=1)


def write_hdf5(path: Path, digits: Arrays) -> None:
    """One dataset gzip-compressed in chunks, two contiguous; no times, so the bytes repeat."""
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "student_logits",
            data=digits["digits_student_logits"],
            chunks=(128, 10),
            compression="gzip",
            shuffle=True,
            track_times=False,
        )
        file.create_dataset("teacher_probs", data=digits["digits_teacher_probs"], track_times=False)
        file.create_dataset("labels", data=digits["digits_labels"], track_times=False)


def make_cancer() -> Arrays:
    """A classifier that sees the ten means of 30 features; 1 is benign."""
    features, labels = load_breast_cancer(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        features[:, :10], labels, test_size=0.3, stratify=labels, random_state=SEED
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(train, train_labels)
    return {
        "cancer_probs": model.predict_proba(test)[:, 1].astype(np.float32),
        "cancer_labels": test_labels.astype(np.uint8),
    }


def make_heatmaps() -> Arrays:
    """Which joint is at each pixel: four joints and the background, along axis 1.

    The predictions are off by a fraction of a pixel and a little noisy; of person 0, joint 2 is
    predicted five pixels too low and three too far left.
    """
    rng = np.random.default_rng(SEED)
    places = rng.uniform((3, 3), (HEIGHT - 4, WIDTH - 4), (PEOPLE, JOINTS, 2))
    places[0] = (2.8, 6.2), (7.3, 2.1), (5.1, 9.2), (13.2, 6.9)
    predicted = places + rng.normal(0, 0.15, places.shape)
    predicted[0, 2] = places[0, 2] + (5, -3)
    probs = FLOOR + (1 - FLOOR * (JOINTS + 1)) * responses(predicted)
    logits = np.log(probs) + rng.normal(0, 0.05, probs.shape)
    return {
        "heatmap_logits": logits.astype(np.float32),
        "heatmap_targets": responses(places).astype(np.float32),
    }


def responses(places: Floats) -> Floats:
    """Gaussians round the joints, cut off at three sigma, and the background; their sum is 1."""
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    row, column = places[..., 0, None, None], places[..., 1, None, None]
    squares = ((rows - row) ** 2 + (columns - column) ** 2) / SIGMA**2
    gaussians = np.where(squares < 9, np.exp(-squares / 2), 0)
    background = 1 - gaussians.max(axis=1, keepdims=True)
    channels = np.concatenate([gaussians, background], axis=1)
    return channels / channels.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
