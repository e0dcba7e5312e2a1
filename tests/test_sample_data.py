from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import log_softmax, xlogy

from kldiv_cli.__main__ import main

Array = npt.NDArray[Any]

FOLDER = Path(__file__).parent.parent / "sample_data"
ARRAYS = {
    "digits_student_logits": ((540, 10), "float32"),
    "digits_teacher_probs": ((540, 10), "float32"),
    "cancer_probs": ((171,), "float32"),
    "cancer_labels": ((171,), "uint8"),
    "heatmap_logits": ((4, 5, 16, 12), "float32"),
    "heatmap_targets": ((4, 5, 16, 12), "float32"),
}


def array(name: str) -> Array:
    return np.load(FOLDER / f"{name}.npy")


def dataset(name: str) -> Array:
    with h5py.File(FOLDER / "digits.h5") as file:
        return file[name][()]


def kl_terms(logits: Array, targets: Array, axis: int) -> Array:
    targets = targets.astype(np.float64)
    return xlogy(targets, targets) - targets * log_softmax(logits.astype(np.float64), axis=axis)


def computed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What ``kldiv compute`` says in JSON about files of the folder."""
    predictions, targets, *rest = arguments
    assert main(["compute", str(FOLDER / predictions), str(FOLDER / targets), *rest, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_all_of_it_is_smaller_than_a_megabyte() -> None:
    assert 0 < sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 1_000_000


def test_every_array_on_disk_is_listed_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.npy")} == set(ARRAYS)


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_has_the_shape_and_dtype_its_readme_states(name: str) -> None:
    shape, dtype = ARRAYS[name]
    stored = array(name)
    assert (stored.shape, stored.dtype) == (shape, np.dtype(dtype))
    assert np.isfinite(stored).all()
    row = next(line for line in (FOLDER / "README.md").read_text("utf-8").splitlines() if f"`{name}." in line)
    assert f"| {shape} | {dtype} |" in row


@pytest.mark.parametrize(("name", "axis"), [("digits_teacher_probs", 1), ("heatmap_targets", 1)])
def test_distributions_sum_to_one(name: str, axis: int) -> None:
    probs = array(name)
    assert probs.min() >= 0
    np.testing.assert_allclose(probs.sum(axis=axis, dtype=np.float64), 1, rtol=0, atol=1e-6)


def test_the_teacher_leaves_no_class_without_probability() -> None:
    assert array("digits_teacher_probs").min() > 0


def test_binary_probabilities_are_never_certain_and_labels_are_0_and_1() -> None:
    probs = array("cancer_probs")
    assert 0 < probs.min() < probs.max() < 1
    assert set(array("cancer_labels").tolist()) == {0, 1}


def test_the_teacher_is_right_more_often_than_the_student() -> None:
    labels = dataset("labels")
    student = np.mean(array("digits_student_logits").argmax(axis=1) == labels)
    teacher = np.mean(array("digits_teacher_probs").argmax(axis=1) == labels)
    assert student == pytest.approx(0.907, abs=5e-4)
    assert teacher == pytest.approx(0.981, abs=5e-4)


def test_hdf5_holds_the_same_values_in_chunks_and_in_one_piece() -> None:
    np.testing.assert_array_equal(dataset("student_logits"), array("digits_student_logits"), strict=True)
    np.testing.assert_array_equal(dataset("teacher_probs"), array("digits_teacher_probs"), strict=True)
    with h5py.File(FOLDER / "digits.h5") as file:
        assert (file["student_logits"].compression, file["teacher_probs"].chunks) == ("gzip", None)
        assert (file["labels"].shape, file["labels"].dtype) == ((540,), np.uint8)


def test_kl_of_the_digits_is_scipys(capsys: pytest.CaptureFixture[str]) -> None:
    expected = kl_terms(array("digits_student_logits"), array("digits_teacher_probs"), 1).sum()
    record = computed(capsys, "digits_student_logits.npy", "digits_teacher_probs.npy", "--log-softmax", "-1")
    assert record["sum"] == pytest.approx(expected, rel=1e-12)
    assert record["batchmean"] == pytest.approx(expected / 540, rel=1e-12)
    assert record["findings"] == []


def test_hdf5_gives_the_same_numbers_as_npy_bit_for_bit(capsys: pytest.CaptureFixture[str]) -> None:
    npy = computed(capsys, "digits_student_logits.npy", "digits_teacher_probs.npy", "--log-softmax", "-1")
    hdf5 = computed(capsys, "digits.h5::/student_logits", "digits.h5::/teacher_probs", "--log-softmax", "-1")
    for name in ("sum", "mean", "batchmean", "distmean"):
        assert hdf5[name] == npy[name]


def test_kl_of_the_labels_is_cross_entropy(capsys: pytest.CaptureFixture[str]) -> None:
    log_probs = log_softmax(array("digits_student_logits").astype(np.float64), axis=1)
    expected = -log_probs[np.arange(540), dataset("labels")].mean()
    record = computed(
        capsys,
        *("digits.h5::/student_logits", "digits.h5::/labels"),
        *("--log-softmax", "-1", "--targets-are", "labels"),
    )
    assert record["distmean"] == pytest.approx(expected, rel=1e-12)


def test_bce_of_the_tumours_is_scipys(capsys: pytest.CaptureFixture[str]) -> None:
    probs, labels = array("cancer_probs").astype(np.float64), array("cancer_labels").astype(np.float64)
    expected = -(xlogy(labels, probs) + xlogy(1 - labels, 1 - probs)).mean()
    record = computed(capsys, "cancer_probs.npy", "cancer_labels.npy", "--loss", "bce")
    assert record["mean"] == pytest.approx(expected, rel=1e-12)
    assert record["findings"] == []


def test_kl_of_the_heat_maps_along_axis_1_is_scipys(capsys: pytest.CaptureFixture[str]) -> None:
    expected = kl_terms(array("heatmap_logits"), array("heatmap_targets"), 1)
    record = computed(capsys, "heatmap_logits.npy", "heatmap_targets.npy", "--log-softmax", "1")
    assert record["sum"] == pytest.approx(expected.sum(), rel=1e-12)
    assert record["distributions"] == 4 * 16 * 12
    assert record["distmean"] == pytest.approx(expected.sum() / (4 * 16 * 12), rel=1e-12)


def test_the_map_shows_where_the_misplaced_joint_belongs() -> None:
    terms = kl_terms(array("heatmap_logits"), array("heatmap_targets"), 1)
    belongs = np.unravel_index(array("heatmap_targets")[0, 2].argmax(), (16, 12))
    predicted = np.unravel_index(array("heatmap_logits")[0, 2].argmax(), (16, 12))
    assert np.unravel_index(terms.argmax(), terms.shape) == (0, 2, *belongs)
    assert tuple(np.subtract(predicted, belongs)) == (5, -3)
    others = np.delete(terms[:, :4].reshape(16, 16, 12), 2, axis=0)
    assert terms[0, 2].max() > 5 * others.max()


def test_the_suite_keeps_to_its_limits_and_the_baseline_is_of_these_very_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", str(FOLDER / "suite.toml"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert {result["pair"] for result in results} == {"digits", "cancer", "heatmap"}
    for result in results:
        assert [finding["id"] for finding in result["findings"]] == ["predictions-unchanged"]
        assert any("baseline" in limit["limit"] for limit in result["limits"])
        assert all(limit["margin"] > 5e-4 for limit in result["limits"])
