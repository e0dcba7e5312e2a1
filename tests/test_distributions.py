"""What distributions add up to, judged: which are padding, which are none, and where the worst is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kldiv_cli.distributions import add_segments, judge_masses, scattered
from kldiv_cli.job import Job
from kldiv_cli.likeness import tolerance
from kldiv_cli.masses import CONSTANT
from kldiv_cli.observations import Observations, Tally
from kldiv_cli.places import Places
from kldiv_cli.sources import ArraySource, Inputs
from kldiv_cli.spec import resolve_spec

Floats = npt.NDArray[np.float64]

LENGTH = 8


def judged(
    sums: list[float] | Floats,
    *,
    name: str = "predictions",
    space: str = "probs",
    dtype: str = "f8",
    length: int = LENGTH,
    whole: list[bool] | None = None,
) -> Observations:
    """Distributions of one array, with one segment each, of a block that is all there is."""
    mass = np.asarray(sums, np.float64).reshape(-1, 1)
    shape = (len(mass), length)
    source = ArraySource(np.broadcast_to(np.zeros((), dtype), shape), name)
    spaces: dict[str, Any] = {f"{name}_are": space}
    job = Job(spec=resolve_spec(**spaces), shape=shape, axis=1, inputs=Inputs(source, source))
    masses = (mass, None) if name == "predictions" else (None, mass)
    places = Places(shape, 1, (slice(0, shape[0]), slice(0, length)))
    return judge_masses(job, masses, places, None if whole is None else np.array(whole))


NAMES = pytest.mark.parametrize("name", ["predictions", "targets"])


@NAMES
@pytest.mark.parametrize("space", ["probs", "log-probs"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("length", [2, 1000, 150_000])
def test_sums_within_the_rounding_of_the_storage_are_those_of_distributions(
    name: str, space: str, dtype: str, length: int
) -> None:
    off = tolerance(np.dtype(dtype), length, logs=space == "log-probs")
    within = [1.0, 1 + 0.99 * off, 1 - 0.99 * off]
    assert judged(within, name=name, space=space, dtype=dtype, length=length) == Observations()
    beyond = [1.0, 1 + 1.01 * off, 1 - 1.02 * off]
    observed = judged(beyond, name=name, space=space, dtype=dtype, length=length)
    assert observed == Observations(**{f"{name}_unnormalised": Tally(2, 2, 1 - 1.02 * off)})


@NAMES
def test_the_sum_farthest_from_one_is_kept_and_of_equal_ones_the_first(name: str) -> None:
    observed = judged([0.5, 1.0, 1.5, 1.25, 0.5], name=name)
    assert getattr(observed, f"{name}_unnormalised") == Tally(4, 0, 0.5)


@NAMES
@pytest.mark.parametrize(
    ("space", "sum"),
    [
        ("probs", 0.0),
        ("probs", -100.0 * LENGTH),
        ("log-probs", float(LENGTH)),
        ("log-probs", LENGTH * math.exp(-100)),
        ("log-probs", 0.0),
        ("logits", CONSTANT),
    ],
)
def test_what_padding_adds_up_to_is_padding(name: str, space: str, sum: float) -> None:
    ordinary = math.nan if space == "logits" else 1.0
    observed = judged([ordinary, sum, ordinary, sum], name=name, space=space)
    assert observed == Observations(**{f"{name}_padding": Tally(2, 1, sum)})


def test_a_single_class_of_log_probability_0_is_no_padding() -> None:
    assert judged([1.0, 1.0], space="log-probs", length=1) == Observations()


@NAMES
def test_logits_that_add_up_to_one_are_probable_and_any_others_are_logits(name: str) -> None:
    observed = judged([math.nan, 1.0, 0.3, 1.00001, 7.0], name=name, space="logits")
    assert observed == Observations(**{f"{name}_probable": Tally(2, 1, 1.0)})


@NAMES
@pytest.mark.parametrize("space", ["probs", "log-probs", "logits"])
def test_what_was_not_looked_at_is_not_judged(name: str, space: str) -> None:
    assert judged([math.nan] * 3, name=name, space=space) == Observations()
    assert judged([0.5, 0.0, 3.0], name=name, space=space, whole=[False] * 3) == Observations()


def test_only_whole_distributions_are_judged() -> None:
    observed = judged([0.5, 0.25, 0.125], whole=[True, False, True])
    assert observed.predictions_unnormalised == Tally(2, 2, 0.125)


def test_segments_of_a_distribution_add_up() -> None:
    source = ArraySource(np.zeros((2, 9000)), "predictions")
    job = Job(
        spec=resolve_spec(predictions_are="probs"), shape=(2, 9000), axis=1, inputs=Inputs(source, source)
    )
    masses = np.array([[0.5, 0.25, 0.25], [0.5, 0.5, 0.5]])
    places = Places((2, 9000), 1, (slice(0, 2), slice(0, 9000)))
    observed = judge_masses(job, (masses, masses), places)
    assert observed == Observations(
        predictions_unnormalised=Tally(1, 1, 1.5), targets_unnormalised=Tally(1, 1, 1.5)
    )


SUMS = st.lists(
    st.sampled_from([0.0, 0.5, 1.0, 1.5, 8.0, -800.0, math.nan, CONSTANT]), min_size=1, max_size=12
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(SUMS, st.data(), st.sampled_from(["probs", "log-probs", "logits"]))
def test_judging_parts_and_merging_is_judging_all(sums: list[float], data: Any, space: str) -> None:
    cut = data.draw(st.integers(0, len(sums)))
    mass = np.array(sums).reshape(-1, 1)
    shape = (len(sums), LENGTH)
    source = ArraySource(np.zeros(shape), "predictions")
    spec = resolve_spec(predictions_are=space, targets_are="labels")
    job = Job(spec=spec, shape=shape, axis=1, inputs=Inputs(source, source))

    def part(rows: slice) -> Observations:
        return judge_masses(job, (mass[rows], None), Places(shape, 1, (rows, slice(0, LENGTH))))

    whole = part(slice(0, len(sums)))
    assert part(slice(0, cut)).merge(part(slice(cut, len(sums)))) == whole
    assert part(slice(cut, len(sums))).merge(part(slice(0, cut))) == whole


def test_the_sums_of_segments_are_added_exactly() -> None:
    assert add_segments(np.array([[1e16, 1.0, -1e16], [0.1, 0.2, 0.3]])).tolist() == [
        1.0,
        math.fsum([0.1, 0.2, 0.3]),
    ]
    assert add_segments(np.array([[2.5], [0.5]])).tolist() == [2.5, 0.5]


def test_what_was_not_chosen_is_nan() -> None:
    everywhere = scattered(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([3, 1]), 4)
    np.testing.assert_array_equal(everywhere[[3, 1]], [[1.0, 2.0], [3.0, 4.0]])
    assert np.isnan(everywhere[[0, 2]]).all()
