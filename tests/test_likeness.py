"""What numbers look like, and how far rounding may take a sum from 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kldiv_cli.likeness import (
    Likeness,
    Traits,
    look,
    may_be_normalized,
    normalized_axes,
    sums_to_one,
    tolerance,
    traits,
)

Floats = npt.NDArray[np.float64]
VOCABULARIES = (2, 3, 10, 100, 257, 1000, 1025, 4096, 32_000, 50_257, 65_000, 128_256, 149_130, 150_000)
SHAPES_OF_LOGITS = ("flat", "narrow", "wide", "very wide", "peak over a flat tail", "peak over a tail")


def logits(kind: str, classes: int, rng: np.random.Generator) -> Floats:
    match kind:
        case "flat":
            return np.zeros(classes)
        case "narrow":
            return rng.normal(0, 0.1, classes)
        case "wide":
            return rng.normal(0, 4, classes)
        case "very wide":
            return rng.normal(0, 30, classes)
        case "peak over a flat tail":
            return np.append(np.zeros(classes - 1), 10.0)
        case _:
            return np.append(rng.normal(0, 1, classes - 1), 12.0)


def log_softmax(z: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shifted = z - z.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True, dtype=z.dtype)))


def error_of(stored: npt.NDArray[Any], *, logs: bool) -> float:
    values = stored.astype(np.float64)
    return float(abs((np.exp(values) if logs else values).sum() - 1))


# How far rounding goes


@pytest.mark.parametrize("kind", SHAPES_OF_LOGITS)
@pytest.mark.parametrize("classes", VOCABULARIES)
@pytest.mark.parametrize("storage", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("computed", [np.float32, np.float64])
def test_a_softmax_of_any_vocabulary_is_within_the_tolerance_of_its_storage(
    kind: str, classes: int, storage: type, computed: type, rng: np.random.Generator
) -> None:
    x = log_softmax(logits(kind, classes, rng).astype(computed))
    dtype = np.dtype(storage)
    assert error_of(x.astype(dtype), logs=True) <= tolerance(dtype, classes, logs=True)
    assert error_of(np.exp(x).astype(dtype), logs=False) <= tolerance(dtype, classes, logs=False)


@pytest.mark.parametrize("logs", [False, True])
def test_no_flat_distribution_in_float16_is_beyond_the_tolerance(logs: bool) -> None:
    classes = np.arange(2, 150_001)
    stored = (-np.log(classes) if logs else 1 / classes).astype(np.float16).astype(np.float64)
    errors = np.abs((np.exp(stored) if logs else stored) * classes - 1)
    allowed = [tolerance(np.dtype("f2"), int(n), logs=logs) for n in classes]
    assert np.all(errors <= allowed)
    assert np.max(errors / allowed) > 0.4, "the tolerance is no wider than it needs to be"


@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8", "u1"])
@pytest.mark.parametrize("classes", [2, 1000, 150_000])
def test_an_error_of_a_thousandth_is_beyond_the_tolerance(dtype: str, classes: int, logs: bool) -> None:
    assert tolerance(np.dtype(dtype), classes, logs=logs) < 1e-3


@pytest.mark.parametrize("sums", [[np.nan], [np.nan, 2.0], [], [1.0, 0.0], [np.inf]])
def test_sums_that_are_unknown_or_not_1_are_not_those_of_distributions(sums: list[float]) -> None:
    assert not sums_to_one(np.array(sums), np.dtype("f4"), 3, logs=False)


def test_a_distribution_with_nan_does_not_hide_that_all_others_are_normalised() -> None:
    assert sums_to_one(np.array([1.0, np.nan]), np.dtype("f4"), 3, logs=False)


# Along which axes


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8"])
def test_the_axis_along_which_probabilities_are_normalised_is_found(
    axis: int, dtype: str, rng: np.random.Generator
) -> None:
    p = np.moveaxis(rng.dirichlet(np.ones(7), (5, 6)), -1, axis).astype(dtype)
    assert normalized_axes(p, p.dtype, logs=False) == (axis,)
    with np.errstate(divide="ignore"):
        x = np.log(p)
    assert normalized_axes(x, x.dtype, logs=True) == (axis,)


def test_a_flat_square_is_normalised_along_both_axes() -> None:
    assert normalized_axes(np.full((4, 4), 0.25), np.dtype("f8"), logs=False) == (0, 1)


def test_an_axis_of_one_class_counts_only_where_no_other_does() -> None:
    assert normalized_axes(np.ones((3, 1)), np.dtype("f8"), logs=False) == (1,)
    assert normalized_axes(np.ones((1, 1, 3)) / 3, np.dtype("f8"), logs=False) == (2,)
    assert normalized_axes(np.array([[1.0], [0.0]]), np.dtype("f8"), logs=False) == (0,)


def test_nothing_is_normalised_in_an_empty_array_or_a_single_number() -> None:
    assert normalized_axes(np.zeros((0, 3)), np.dtype("f8"), logs=False) == ()
    assert normalized_axes(np.array(1.0), np.dtype("f8"), logs=False) == ()


# What is counted


def test_values_are_counted_by_what_they_are() -> None:
    values = np.array([0.0, -0.0, 1.0, np.nan, np.inf, -np.inf, -np.inf, -2.5], np.float32)
    assert traits(values) == Traits(
        kind="f", size=8, lowest=-2.5, highest=1.0, nan=1, posinf=1, neginf=2, zeros=2, ones=1, whole=False
    )


def test_integers_are_counted_exactly() -> None:
    found = traits(np.array([2**63 - 1, -(2**63)], np.int64))
    assert (found.lowest, found.highest) == (-(2**63), 2**63 - 1)


def test_of_integers_the_lowest_and_the_highest_but_one_are_known() -> None:
    found = traits(np.array([4, -100, 2, 255, -100, 255]))
    assert (found.second_lowest, found.second_highest) == (2, 4)
    parts = [np.array([value]) for value in (4, -100, 2, 255)]
    found = traits(parts[0]).merge(traits(parts[1])).merge(traits(parts[2])).merge(traits(parts[3]))
    assert (found.second_lowest, found.second_highest) == (2, 4)
    assert traits(np.array([7, 7])).second_lowest is None
    assert traits(np.array([0.5, 2.5])).second_lowest is None


@pytest.mark.parametrize("dtype", ["f2", "f4", "i4", "u1", "b"])
def test_what_was_counted_in_two_parts_merges_to_that_of_the_whole(
    dtype: str, rng: np.random.Generator
) -> None:
    values = rng.integers(0, 3, 1000).astype(dtype)
    if values.dtype.kind == "f":
        values[rng.integers(0, 1000, 50)] = np.nan
        values[rng.integers(0, 500, 50)] = np.inf
    assert traits(values[:500]).merge(traits(values[500:])) == traits(values)
    assert traits(values).merge(traits(values[:0])) == traits(values)


def test_a_range_rules_distributions_out_or_not() -> None:
    dtype = np.dtype("f4")
    p, x = np.array([0.0, 1 + 1e-6]), np.array([-np.inf, 1e-6])
    assert may_be_normalized(traits(p), dtype, 2, logs=False)
    assert may_be_normalized(traits(x), dtype, 2, logs=True)
    assert not may_be_normalized(traits(x), dtype, 2, logs=False)
    assert not may_be_normalized(traits(p), dtype, 2, logs=True)
    assert not may_be_normalized(traits(np.array([np.nan])), dtype, 2, logs=False)


# What it looks like


def looks(values: Any, dtype: Any = None) -> Likeness:
    return look(np.asarray(values, dtype))


def test_probabilities_are_known_by_their_sums(rng: np.random.Generator) -> None:
    p = rng.dirichlet(np.ones(5), 4)
    assert look(p) == Likeness("probs", 1)
    assert look(p.T) == Likeness("probs", 0)
    assert look(np.eye(4, 3, dtype=np.uint8)[[0, 1, 2, 0]]) == Likeness("probs", 1), "one-hot"


def test_log_probabilities_are_known_by_the_sums_of_their_exponentials(rng: np.random.Generator) -> None:
    x = np.log(rng.dirichlet(np.ones(5), 4))
    assert look(x) == Likeness("log-probs", 1)
    masked = np.log(np.array([[0.5, 0.5, 1e-300], [0.25, 0.75, 1e-300]]))
    masked[:, 2] = -np.inf
    assert look(masked) == Likeness("log-probs", 1)


def test_probabilities_of_binary_outcomes_are_normalised_along_no_axis(rng: np.random.Generator) -> None:
    assert look(rng.random((50, 3))) == Likeness("probs")


def test_logits_have_values_below_and_above_0_or_fit_nothing_else(rng: np.random.Generator) -> None:
    z = rng.normal(0, 3, (20, 5))
    assert look(z) == Likeness("logits")
    assert look(np.where(z > 4, -np.inf, z)) == Likeness("logits")
    assert look(z - 30) == Likeness("logits"), "all below 0 but not normalised"
    assert look(np.abs(z)) == Likeness("logits")


@pytest.mark.parametrize("dtype", ["u1", "i8", "f4", "?"])
def test_exact_0_and_1_are_binary_whatever_the_dtype(dtype: str) -> None:
    assert looks([0, 1, 1, 0, 1], dtype) == Likeness("binary")
    assert looks([[0, 1], [1, 1], [0, 0]], dtype) == Likeness("binary")


def test_labels_are_integers_from_0_up() -> None:
    assert looks([3, 0, 2, 2], np.uint8) == Likeness("labels")
    assert looks([3, 0, 2, 2], np.float32) == Likeness("numbers"), "compute takes only integers for labels"
    assert looks([3, 10**12], np.int64) == Likeness("numbers")
    assert looks([3, 0, -2, -1], np.int64) == Likeness("numbers")


@pytest.mark.parametrize("ignored", [-100, -1, 255, 2**40])
def test_one_value_among_labels_may_stand_for_no_class(ignored: int) -> None:
    assert looks([3, ignored, 2, ignored, 0], np.int64) == Likeness("labels")
    assert looks([3, ignored, -7, -8, 0], np.int64) == Likeness("numbers")


@pytest.mark.parametrize("values", [[7, 7, 7], [0.0, 0.0], [2.5, 2.5], [np.nan, np.nan], []])
def test_a_constant_and_nothing_at_all_are_only_numbers(values: list[float]) -> None:
    assert looks(values) == Likeness("numbers")


def test_nan_among_the_values_does_not_change_what_they_look_like(rng: np.random.Generator) -> None:
    p = rng.dirichlet(np.ones(5), 4)
    p[1, 2] = np.nan
    assert look(p) == Likeness("probs", 1)
    assert looks([0.0, 1.0, np.nan, 1.0]) == Likeness("binary")


def test_the_dtype_in_storage_decides_how_much_rounding_is_allowed(rng: np.random.Generator) -> None:
    p = rng.dirichlet(np.ones(1000), 4).astype(np.float16).astype(np.float64) * (1 + 5e-4)
    assert look(p) == Likeness("probs")
    assert look(p, np.dtype(np.float16)) == Likeness("probs", 1)
