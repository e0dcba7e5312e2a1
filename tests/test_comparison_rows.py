from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from comparisons import SPACES, cutting, in_space, label_values, row_values
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from kldiv_cli.buffers import Workspace
from kldiv_cli.comparison_rows import RowComparer, RowValues
from kldiv_cli.comparison_spec import resolve_comparison
from kldiv_cli.pieces import Rows
from kldiv_cli.selection import Selection

AnyArray = npt.NDArray[Any]
Array = npt.NDArray[np.float64]

LOG2 = math.log(2)
INF, NAN = math.inf, math.nan
PAIRS = list(itertools.product(SPACES, SPACES))


def compare_rows(
    reference: Any,
    candidate: Any,
    labels: AnyArray | None = None,
    *,
    reference_are: str = "probs",
    candidate_are: str = "probs",
    top_k: int = 2,
    chosen: AnyArray | None = None,
    temperature: float | None = None,
) -> RowValues:
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    spec = resolve_comparison(
        reference_are=reference_are, candidate_are=candidate_are, temperature=temperature
    ).spec
    rows = Rows(0, candidate, reference, None, None, candidate.shape[1], selection=Selection(chosen))
    with np.errstate(all="ignore"):
        return RowComparer(spec, Workspace(), top_k).compare(rows, labels)


def told(values: RowValues) -> dict[str, AnyArray]:
    """What there is, by name."""
    return {name: value for name, value in values._asdict().items() if name != "masses" and value is not None}


def assert_told(values: RowValues, expected: dict[str, AnyArray], rtol: float = 1e-11) -> None:
    found = told(values)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=1e-14, err_msg=name)


@pytest.fixture
def logits(rng: np.random.Generator) -> tuple[Array, Array]:
    """Of a reference and of a candidate that is much like it."""
    z = rng.normal(0, 2, (40, 11))
    return z, z + rng.normal(0, 0.4, z.shape)


# Values


@pytest.mark.parametrize(("reference_are", "candidate_are"), PAIRS)
def test_every_value_is_that_of_scipy_in_every_space(
    logits: tuple[Array, Array], rng: np.random.Generator, reference_are: str, candidate_are: str
) -> None:
    z, w = logits
    labels = rng.integers(0, 11, len(z))
    values = compare_rows(
        in_space(reference_are, z),
        in_space(candidate_are, w),
        labels,
        reference_are=reference_are,
        candidate_are=candidate_are,
    )
    log_p, log_q = log_softmax(z, -1), log_softmax(w, -1)
    assert_told(values, row_values(log_p, log_q, 2) | label_values(log_p, log_q, labels))


def test_without_labels_nothing_is_told_of_them(logits: tuple[Array, Array]) -> None:
    assert "nll_reference" not in told(compare_rows(*logits, reference_are="logits", candidate_are="logits"))


@pytest.mark.parametrize("length", [1, 6, 7, 8, 13, 14, 21, 50])
@pytest.mark.parametrize("piece", [1, 14, 30])
def test_rows_longer_than_segments_and_pieces_have_the_same_values(
    rng: np.random.Generator, length: int, piece: int
) -> None:
    z = rng.normal(0, 2, (9, length))
    w = z + rng.normal(0, 0.4, z.shape)
    labels = rng.integers(0, length, 9)
    with cutting(segment=7, piece=piece):
        values = compare_rows(z, w, labels, reference_are="logits", candidate_are="logits")
    log_p, log_q = log_softmax(z, -1), log_softmax(w, -1)
    assert_told(values, row_values(log_p, log_q, 2) | label_values(log_p, log_q, labels))


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f4", ">f8", "<i2", ">i4", "u1"])
def test_values_are_those_of_what_is_stored_as_float64(rng: np.random.Generator, dtype: str) -> None:
    z = np.abs(rng.normal(0, 3, (12, 8))).astype(dtype)
    w = np.abs(rng.normal(0, 3, (12, 8))).astype(dtype)
    stored = compare_rows(z, w, reference_are="logits", candidate_are="logits")
    wide = compare_rows(
        z.astype(np.float64), w.astype(np.float64), reference_are="logits", candidate_are="logits"
    )
    assert repr(told(stored)) == repr(told(wide))


def test_a_temperature_divides_logits_only(logits: tuple[Array, Array]) -> None:
    z, w = logits
    values = compare_rows(z, in_space("probs", w), reference_are="logits", temperature=2.5)
    assert_told(values, row_values(log_softmax(z / 2.5, -1), log_softmax(w, -1), 2))


def test_one_comparer_takes_one_block_after_another(logits: tuple[Array, Array]) -> None:
    z, w = logits
    spec = resolve_comparison().spec
    comparer = RowComparer(spec, Workspace(), 5)
    blocks = [slice(0, 3), slice(3, 30), slice(30, 31), slice(31, 40)]
    parts = [comparer.compare(Rows(0, w[b], z[b], None, None, 11), None) for b in blocks]
    whole = comparer.compare(Rows(0, w, z, None, None, 11), None)
    for name, value in told(whole).items():
        np.testing.assert_array_equal(np.concatenate([told(part)[name] for part in parts]), value)


def test_chosen_rows_are_those_and_no_others(logits: tuple[Array, Array], rng: np.random.Generator) -> None:
    z, w = logits
    labels, chosen = rng.integers(0, 11, 40), np.array([0, 3, 4, 39])
    options: dict[str, Any] = {"reference_are": "logits", "candidate_are": "logits"}
    part = compare_rows(z, w, labels[chosen], chosen=chosen, **options)
    by_hand = compare_rows(z[chosen], w[chosen], labels[chosen], **options)
    assert repr(told(part)) == repr(told(by_hand))


def test_no_rows_at_all_have_no_values() -> None:
    values = compare_rows(np.zeros((3, 4)), np.zeros((3, 4)), chosen=np.zeros(0, np.intp))
    assert {value.size for value in told(values).values()} == {0}


# The most probable


@pytest.mark.parametrize(
    ("reference", "candidate", "same", "rank"),
    [
        ([0.5, 0.3, 0.2], [0.6, 0.3, 0.1], True, 0),
        ([0.5, 0.3, 0.2], [0.3, 0.5, 0.2], False, 1),
        ([0.5, 0.3, 0.2], [0.2, 0.5, 0.3], False, 2),
        ([0.4, 0.4, 0.2], [0.4, 0.4, 0.2], True, 0),
        ([0.4, 0.4, 0.2], [0.2, 0.4, 0.4], False, 2),
        ([0.2, 0.4, 0.4], [0.4, 0.4, 0.2], False, 0),
        ([0.2, 0.4, 0.4], [0.2, 0.4, 0.4], True, 0),
    ],
)
def test_of_equal_classes_the_first_is_the_top_and_equal_ones_rank_alike(
    reference: list[float], candidate: list[float], same: bool, rank: int
) -> None:
    for k in (1, 2, 3, 9):
        values = compare_rows([reference], [candidate], top_k=k)
        assert values.same_top.tolist() == [same]
        assert values.in_top_k.tolist() == [rank < k]


def test_the_top_is_of_the_stored_values_so_that_rounding_makes_no_ties() -> None:
    z = np.array([[30.0, 30.0 + 2**-46]])
    values = compare_rows(z, z[:, ::-1], reference_are="logits", candidate_are="logits", top_k=1)
    assert (values.same_top.item(), values.in_top_k.item()) == (False, False)


# Zeros and infinities


def test_classes_that_the_reference_rules_out_cost_nothing() -> None:
    values = compare_rows([[0.5, 0.5, 0.0]], [[0.25, 0.5, 0.25]])
    assert values.kl.item() == pytest.approx(0.5 * LOG2)
    assert values.kl_reverse.item() == INF
    assert values.js.item() == pytest.approx((0.5 * np.log(4 / 3) + 0.25 * np.log(2 / 3) + 0.25 * LOG2) / 2)
    assert values.tv.item() == 0.25
    assert values.entropy_reference.item() == pytest.approx(LOG2)


def test_classes_that_the_candidate_rules_out_cost_infinitely_much() -> None:
    values = compare_rows([[0.25, 0.5, 0.25]], [[0.5, 0.5, 0.0]])
    assert values.kl.item() == INF
    assert values.kl_reverse.item() == pytest.approx(0.5 * LOG2)
    assert 0 < values.js.item() < LOG2
    assert values.entropy_candidate.item() == pytest.approx(LOG2)


def test_what_has_nothing_in_common_is_as_far_as_can_be() -> None:
    values = compare_rows([[0.5, 0.5, 0.0, 0.0]], [[0.0, 0.0, 0.75, 0.25]])
    assert (values.kl.item(), values.kl_reverse.item(), values.tv.item()) == (INF, INF, 1)
    assert values.js.item() == pytest.approx(LOG2, rel=1e-15)
    assert (values.same_top.item(), values.in_top_k.item(), values.delta_p.item()) == (False, False, -0.5)


@pytest.mark.parametrize(("reference_are", "candidate_are"), PAIRS)
def test_a_vocabulary_masked_in_both_is_as_if_it_were_not_there(
    logits: tuple[Array, Array], reference_are: str, candidate_are: str
) -> None:
    z, w = logits
    masked = [z.copy(), w.copy()]
    for values in masked:
        values[:, [2, 7]] = -INF
    found = compare_rows(
        in_space(reference_are, masked[0]),
        in_space(candidate_are, masked[1]),
        reference_are=reference_are,
        candidate_are=candidate_are,
    )
    kept = np.delete(np.arange(11), [2, 7])
    assert_told(found, row_values(log_softmax(z[:, kept], -1), log_softmax(w[:, kept], -1), 2))


@pytest.mark.parametrize("space", SPACES)
def test_one_class_is_certain(space: str) -> None:
    one = in_space(space, np.array([[3.0]]))
    values = compare_rows(one, one, np.array([0]), reference_are=space, candidate_are=space)
    for name in ("kl", "kl_reverse", "js", "tv", "entropy_reference", "entropy_candidate", "delta_p"):
        assert told(values)[name].tolist() == [0.0]
    assert (values.confidence.item(), values.same_top.item(), values.in_top_k.item()) == (1, True, True)
    assert told(values)["nll_reference"].tolist() == [0.0]


def test_an_entropy_of_0_has_no_sign() -> None:
    values = compare_rows([[1.0, 0.0]], [[1.0, 0.0]], np.array([0]))
    for name in ("entropy_reference", "entropy_candidate", "nll_reference", "nll_candidate"):
        assert not np.signbit(told(values)[name]).any()


@pytest.mark.parametrize("space", SPACES)
def test_a_label_that_is_ruled_out_costs_infinitely_much(space: str) -> None:
    z = in_space(space, np.array([[0.0, -INF, 0.0]]))
    values = compare_rows(z, z, np.array([1]), reference_are=space, candidate_are=space)
    assert told(values)["nll_reference"].tolist() == told(values)["nll_candidate"].tolist() == [INF]
    assert told(values)["delta_p_label"].tolist() == [0.0]


def test_a_label_that_is_no_class_has_no_likelihood() -> None:
    values = compare_rows([[0.5, 0.5]] * 3, [[0.5, 0.5]] * 3, np.array([2, -1, 0]))
    np.testing.assert_array_equal(told(values)["nll_reference"], [NAN, NAN, LOG2])
    assert told(values)["correct_reference"].tolist() == [False, False, True]


@pytest.mark.parametrize("odd", [NAN, INF])
@pytest.mark.parametrize("space", ["logits", "log-probs"])
def test_a_row_with_nan_or_a_logit_of_inf_is_nan_and_its_neighbours_are_not(space: str, odd: float) -> None:
    z = in_space(space, np.arange(12.0).reshape(3, 4) % 5)
    w = z.copy()
    w[1, 2] = odd if space == "logits" else NAN
    values = compare_rows(z, w, reference_are=space, candidate_are=space)
    for name in ("kl", "kl_reverse", "js", "tv", "entropy_candidate"):
        assert np.isnan(told(values)[name]).tolist() == [False, True, False]
    assert not np.isnan(values.entropy_reference).any()


def test_logits_that_are_all_ruled_out_are_nan() -> None:
    z = np.full((1, 3), -INF)
    values = compare_rows(z, z, reference_are="logits", candidate_are="logits")
    assert np.isnan(values.kl).all()
    assert np.isnan(values.js).all()


@pytest.mark.parametrize("name", ["kl", "kl_reverse"])
def test_a_nan_does_not_hide_an_infinite_row_beside_it(name: str) -> None:
    z = np.array([[0.0, NAN, 0.0], [-INF, 2.0, 3.0]])
    w = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    pair = (w, z) if name == "kl" else (z, w)
    values = compare_rows(*pair, reference_are="logits", candidate_are="logits")
    np.testing.assert_array_equal(told(values)[name], [NAN, INF])


def test_a_row_of_nan_agrees_with_nothing() -> None:
    values = compare_rows([[0.2, 0.8]], [[NAN, NAN]], top_k=1)
    assert (values.same_top.item(), values.in_top_k.item()) == (False, False)


# Nearness


@pytest.mark.parametrize("space", SPACES)
def test_a_reference_compared_with_itself_is_0_away(logits: tuple[Array, Array], space: str) -> None:
    z = in_space(space, logits[0])
    values = compare_rows(z, z.copy(), reference_are=space, candidate_are=space)
    for name in ("kl", "kl_reverse", "tv", "delta_p"):
        assert told(values)[name].tolist() == [0.0] * len(z)
    np.testing.assert_allclose(values.js, 0, atol=1e-15)
    assert values.same_top.all()


def test_probabilities_as_they_are_stored_have_a_total_variation_of_exactly_0_from_themselves(
    rng: np.random.Generator,
) -> None:
    p = rng.dirichlet(np.ones(11), 40)
    assert compare_rows(p, p.copy()).tv.tolist() == [0.0] * 40


def test_the_jensen_shannon_divergence_of_near_rows_is_right_to_the_rounding_of_entropies(
    rng: np.random.Generator,
) -> None:
    z = rng.normal(0, 2, (20, 50))
    w = z + 1e-7 * rng.normal(size=z.shape)
    values = compare_rows(z, w, reference_are="logits", candidate_are="logits")
    p, q = np.exp(log_softmax(z, -1)), np.exp(log_softmax(w, -1))
    series = ((p - q) ** 2 / (p + q)).sum(-1) / 4  # exact to the third order of the difference
    np.testing.assert_allclose(values.js, series, atol=1e-14)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.integers(1, 9),
    st.sampled_from([1e-3, 1.0, 30.0]),
    st.booleans(),
)
def test_bounds_hold_and_swapping_both_swaps_the_directions(
    seed: int, length: int, segment: int, scale: float, zeros: bool
) -> None:
    random = np.random.default_rng(seed)
    z, w = (random.normal(0, scale, (4, length)) for _ in range(2))
    if zeros:
        z[random.random(z.shape) < 0.2] = w[random.random(w.shape) < 0.2] = -INF
        z[:, 0] = w[:, 0] = 0
    options: dict[str, Any] = {"reference_are": "logits", "candidate_are": "logits"}
    with cutting(segment=segment, piece=segment):
        there, back = compare_rows(z, w, **options), compare_rows(w, z, **options)
    np.testing.assert_allclose(there.kl, back.kl_reverse, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(there.js, back.js, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(there.tv, back.tv)
    np.testing.assert_array_equal(there.entropy_reference, back.entropy_candidate)
    np.testing.assert_array_equal(there.same_top, back.same_top)
    slack = 1e-13
    assert there.kl.min() >= -slack
    assert there.js.max() <= LOG2 + slack
    assert there.js.min() >= -slack
    assert there.tv.max() <= 1 + slack
    assert there.entropy_reference.max() <= math.log(length) + slack
    assert np.all(there.js <= there.tv * LOG2 + slack)
    assert np.all(2 * there.tv**2 <= there.kl + slack)  # Pinsker
    assert np.all(np.abs(there.delta_p) <= there.tv + slack)
    assert np.all(there.in_top_k | ~there.same_top)
