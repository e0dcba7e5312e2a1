from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import special, stats

from kldiv_cli.errors import AxisError, DomainError, KldivError, ShapeMismatch, UsageError
from kldiv_cli.functional import (
    ZeroPolicy,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    kl_div,
    log_softmax,
    normalize_axis,
)

Array = npt.NDArray[np.float64]
Loss = Callable[..., Array]

INF, NAN = math.inf, math.nan
LOG2 = math.log(2.0)
BEYOND_A_SEGMENT = 10_000
"""Long enough that a distribution is summed in several segments."""

# PyTorch's answers: one row a prediction, one column a target; "a|b" is b under the limit policy.

KL = """
            0         0.5     1         2      -1     inf    nan
    -1      0    0.153426     1   3.38629     nan     inf    nan
     0      0   -0.346574     0   1.38629     nan     nan    nan
     2      0    -1.34657    -2  -2.61371     nan     nan    nan
  -inf  nan|0         inf   inf       inf     nan     inf    nan
   inf    nan        -inf  -inf      -inf     nan     nan    nan
   nan    nan         nan   nan       nan     nan     nan    nan
"""

KL_LOG_TARGET = """
          0         -1        2    -inf   inf   nan   -1000
    -1    1          0  22.1672   nan|0   inf   nan      -0
     0    0  -0.367879  14.7781   nan|0   inf   nan      -0
     2   -2   -1.10364        0   nan|0   inf   nan      -0
  -inf  inf        inf      inf   nan|0   inf   nan   nan|0
   inf -inf       -inf     -inf     nan   nan   nan     nan
   nan  nan        nan      nan     nan   nan   nan     nan
"""

BCE_INFINITE_LOGIT = """
            0       0.5        1     2        -1
   inf    inf       inf    nan|0  -inf       inf
  -inf  nan|0   nan|inf  nan|inf   inf  nan|-inf
"""


def cells(table: str) -> Iterator[tuple[float, float, float, float]]:
    """Prediction, target, what PyTorch gives and what the limit is."""
    header, *rows = table.strip().splitlines()
    targets = [float(target) for target in header.split()]
    for prediction, *values in (row.split() for row in rows):
        for target, value in zip(targets, values, strict=True):
            torch, _, limit = value.partition("|")
            yield float(prediction), target, float(torch), float(limit or torch)


def each_cell(table: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("prediction", "target", "torch", "limit"),
        [pytest.param(*cell, id=f"input={cell[0]:g},target={cell[1]:g}") for cell in cells(table)],
    )


def columns(table: str) -> Array:
    """Predictions, targets, PyTorch's values and the limits, one array each."""
    return np.array(list(cells(table))).T


def assert_is(obtained: Any, expected: Any, rtol: float = 1e-13) -> None:
    np.testing.assert_allclose(obtained, expected, rtol=rtol, atol=0, equal_nan=True)


def assert_is_to_six_digits(obtained: Any, expected: Any) -> None:
    assert_is(obtained, expected, rtol=5e-6)


def random_logits(*shape: int, scale: float = 3.0) -> Array:
    return scale * np.random.default_rng(1000 + len(shape)).standard_normal(shape)


def random_units(*shape: int, seed: int = 7) -> Array:
    return np.random.default_rng(seed).uniform(0.001, 0.999, shape)


def random_probs(*shape: int, seed: int = 11) -> Array:
    p: Array = np.random.default_rng(seed).gamma(0.7, size=shape)
    p /= p.sum(axis=-1, keepdims=True)
    return p


# KL divergence


@each_cell(KL)
def test_kl_is_pytorchs_table(prediction: float, target: float, torch: float, limit: float) -> None:
    assert_is_to_six_digits(kl_div(prediction, target, zero_policy="torch"), torch)


@each_cell(KL)
def test_kl_under_the_limit_policy_is_0_where_the_target_is_0(
    prediction: float, target: float, torch: float, limit: float
) -> None:
    assert_is_to_six_digits(kl_div(prediction, target, zero_policy="limit"), limit)


@each_cell(KL_LOG_TARGET)
def test_kl_of_log_targets_is_pytorchs_table(
    prediction: float, target: float, torch: float, limit: float
) -> None:
    loss = kl_div(prediction, target, log_target=True, zero_policy="torch")
    assert_is_to_six_digits(loss, torch)


@each_cell(KL_LOG_TARGET)
def test_kl_of_log_targets_under_the_limit_policy_is_0_where_the_target_is_0(
    prediction: float, target: float, torch: float, limit: float
) -> None:
    loss = kl_div(prediction, target, log_target=True, zero_policy="limit")
    assert_is_to_six_digits(loss, limit)


@pytest.mark.parametrize(("table", "log_target"), [(KL, False), (KL_LOG_TARGET, True)], ids=["kl", "log"])
def test_a_whole_table_in_one_array_is_the_table(table: str, log_target: bool) -> None:
    predictions, targets, torch, limit = columns(table)
    by_torch = kl_div(predictions, targets, log_target=log_target, zero_policy="torch")
    by_limit = kl_div(predictions, targets, log_target=log_target, zero_policy="limit")
    assert_is_to_six_digits(by_torch, torch)
    assert_is_to_six_digits(by_limit, limit)


@pytest.mark.parametrize(("table", "log_target"), [(KL, False), (KL_LOG_TARGET, True)], ids=["kl", "log"])
def test_a_zero_has_the_sign_that_pytorch_gives_it(table: str, log_target: bool) -> None:
    predictions, targets, torch, _ = columns(table)
    loss = kl_div(predictions, targets, log_target=log_target, zero_policy="torch")
    zeros = torch == 0
    np.testing.assert_array_equal(np.signbit(loss[zeros]), np.signbit(torch[zeros]))


def test_the_limit_policy_is_the_default() -> None:
    assert kl_div(-INF, 0.0) == 0.0
    assert kl_div(-INF, -INF, log_target=True) == 0.0
    assert binary_cross_entropy_with_logits(INF, 1.0) == 0.0


@pytest.mark.parametrize("target", [-745.2, -746.0, -1e4, -1e300])
def test_a_log_target_that_underflows_counts_as_probability_0(target: float) -> None:
    assert kl_div(-INF, target, log_target=True, zero_policy="limit") == 0.0
    assert np.isnan(kl_div(-INF, target, log_target=True, zero_policy="torch"))


def test_the_smallest_target_above_0_against_a_prediction_of_0_is_infinite() -> None:
    assert kl_div(-INF, 5e-324) == INF
    assert kl_div(-INF, -745.0, log_target=True) == INF


@pytest.mark.parametrize("zero_policy", ["limit", "torch"])
@pytest.mark.parametrize("prediction", [INF, NAN])
@pytest.mark.parametrize(("target", "log_target"), [(0.0, False), (-INF, True), (-1000.0, True)])
def test_a_prediction_that_is_no_log_probability_stays_nan_where_the_target_is_0(
    prediction: float, target: float, log_target: bool, zero_policy: ZeroPolicy
) -> None:
    assert np.isnan(kl_div(prediction, target, log_target=log_target, zero_policy=zero_policy))


@pytest.mark.parametrize("zero_policy", ["limit", "torch"])
def test_a_nan_target_is_never_settled(zero_policy: ZeroPolicy) -> None:
    predictions = [-INF, -1.0, 0.0, INF]
    for log_target in (False, True):
        loss = kl_div(predictions, [NAN] * 4, log_target=log_target, zero_policy=zero_policy)
        assert np.isnan(loss).all()


@pytest.mark.parametrize("prediction", [-1e308, -1.7e308, -5e-324, -0.0])
def test_a_target_of_0_costs_nothing_against_any_finite_prediction(prediction: float) -> None:
    assert kl_div(prediction, 0.0, zero_policy="torch") == 0.0
    assert kl_div(prediction, -0.0, zero_policy="torch") == 0.0


def test_kl_is_in_nats() -> None:
    assert_is(kl_div(math.log(0.25), 0.5), 0.5 * LOG2)


def test_a_one_hot_target_costs_minus_the_log_probability_of_its_class() -> None:
    x = np.log([0.2, 0.5, 0.3])
    assert_is(kl_div(x, [0.0, 1.0, 0.0]), [0.0, LOG2, 0.0])


def test_kl_takes_targets_from_predictions_and_not_the_reverse() -> None:
    p, q = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    forward = 0.5 * math.log(2.0) + 0.5 * math.log(2.0 / 3.0)
    assert_is(kl_div(np.log(q), p).sum(), forward)


def test_kl_is_scipys_relative_entropy() -> None:
    p, q = random_probs(30, 8, seed=1), random_probs(30, 8, seed=2)
    np.testing.assert_allclose(kl_div(np.log(q), p), special.rel_entr(p, q), rtol=1e-12, atol=1e-15)


def test_kl_of_sparse_distributions_is_scipys_relative_entropy() -> None:
    p, q = random_probs(30, 8, seed=3), random_probs(30, 8, seed=4)
    p[:, ::2], q[:, ::3] = 0.0, 0.0
    with np.errstate(divide="ignore"):
        x = np.log(q)
    np.testing.assert_allclose(kl_div(x, p), special.rel_entr(p, q), rtol=1e-12, atol=1e-15)


def test_the_sum_over_a_distribution_is_scipys_entropy_of_the_pair() -> None:
    p, q = random_probs(20, 9, seed=5), random_probs(20, 9, seed=6)
    np.testing.assert_allclose(kl_div(np.log(q), p).sum(axis=1), stats.entropy(p, q, axis=1), rtol=1e-12)


def test_kl_of_log_targets_is_kl_of_their_exponentials() -> None:
    t, x = np.log(random_probs(20, 9, seed=5)), np.log(random_probs(20, 9, seed=6))
    np.testing.assert_allclose(kl_div(x, t, log_target=True), kl_div(x, np.exp(t)), rtol=1e-12, atol=1e-15)


def test_kl_of_a_distribution_from_itself_is_0() -> None:
    p = random_probs(20, 9)
    np.testing.assert_allclose(kl_div(np.log(p), p), 0.0, atol=1e-16)
    assert not kl_div(np.log(p), np.log(p), log_target=True).any()


def test_kl_of_distributions_is_never_below_0() -> None:
    p, q = random_probs(200, 6, seed=8), random_probs(200, 6, seed=9)
    assert (kl_div(np.log(q), p).sum(axis=1) > 0).all()


# Binary cross-entropy of probabilities


@pytest.mark.parametrize(
    ("p", "y", "expected"),
    [
        (0.0, 1.0, 100.0),
        (0.0, 0.5, 50.0),
        (0.0, 0.0, 0.0),
        (1.0, 0.0, 100.0),
        (1.0, 0.5, 50.0),
        (1.0, 1.0, 0.0),
        (0.5, 0.0, LOG2),
        (0.5, 0.3, LOG2),
        (0.5, 1.0, LOG2),
        (0.25, 1.0, 2 * LOG2),
        (0.25, 0.0, math.log(4 / 3)),
        (0.25, 0.5, 0.5 * math.log(16 / 3)),
        (-0.0, 1.0, 100.0),
        (5e-324, 1.0, 100.0),
        (1 - 2.0**-53, 0.0, 53 * LOG2),
        (2.0**-60, 0.0, 2.0**-60),
    ],
)
def test_bce_of_probabilities(p: float, y: float, expected: float) -> None:
    assert_is(binary_cross_entropy(p, y), expected)


def test_bce_is_clamped_from_a_logarithm_of_minus_100_on() -> None:
    assert_is(binary_cross_entropy([math.exp(-99), math.exp(-101)], [1, 1]), [99.0, 100.0])


def test_bce_is_scipys_cross_entropy_where_nothing_is_clamped() -> None:
    p, y = random_units(50, 4), random_units(50, 4, seed=8)
    assert_is(binary_cross_entropy(p, y), -(special.xlogy(y, p) + special.xlog1py(1 - y, -p)))


def test_bce_is_the_same_with_both_classes_exchanged() -> None:
    p, y = np.array([0.0, 0.125, 0.5, 1.0]), np.array([1.0, 0.25, 0.0, 0.75])
    assert_is(binary_cross_entropy(1 - p, 1 - y), binary_cross_entropy(p, y))


def test_where_the_target_is_1_bce_is_kl() -> None:
    p = random_units(20)
    assert_is(binary_cross_entropy(p, np.ones(20)), kl_div(np.log(p), np.ones(20)))


def test_where_the_target_is_0_bce_counts_what_kl_does_not() -> None:
    p = random_units(20)
    assert_is(binary_cross_entropy(p, np.zeros(20)), -np.log1p(-p))
    assert not kl_div(np.log(p), np.zeros(20)).any()


@pytest.mark.parametrize("value", [-0.25, 1.5, NAN, INF, -INF, np.nextafter(1, 2), -5e-324])
@pytest.mark.parametrize("name", ["predictions", "targets"])
def test_bce_outside_the_unit_interval_names_count_first_index_and_value(name: str, value: float) -> None:
    arrays = {"predictions": np.full((2, 3), 0.5), "targets": np.full((2, 3), 0.5)}
    arrays[name][0, 2], arrays[name][1, 1] = value, -7.0
    with pytest.raises(DomainError) as raised:
        binary_cross_entropy(arrays["predictions"], arrays["targets"])
    message = str(raised.value)
    assert message.startswith(name)
    assert "2 of 6" in message
    assert f"{value}" in message
    assert "(0, 2)" in message
    assert "7.0" not in message


def test_bce_names_the_index_of_a_0d_array_as_empty() -> None:
    with pytest.raises(DomainError, match=r"1 of 1 .*1\.5 at index \(\)"):
        binary_cross_entropy(1.5, 1.0)


def test_bce_takes_the_bounds_themselves() -> None:
    bounds = np.array([0.0, -0.0, 1.0])
    assert np.isfinite(binary_cross_entropy(bounds, bounds)).all()


# Binary cross-entropy with logits


@pytest.mark.parametrize(
    ("z", "y", "expected"),
    [
        (0.0, 0.0, LOG2),
        (0.0, 0.5, LOG2),
        (0.0, 1.0, LOG2),
        (1.0, 1.0, math.log1p(math.exp(-1))),
        (1.0, 0.0, 1 + math.log1p(math.exp(-1))),
        (-1.0, 1.0, 1 + math.log1p(math.exp(-1))),
        (1.0, 0.5, 0.5 + math.log1p(math.exp(-1))),
        (-1000.0, 1.0, 1000.0),
        (1000.0, 0.0, 1000.0),
        (1000.0, 1.0, 0.0),
        (-1000.0, 0.0, 0.0),
        (-1000.0, 0.5, 500.0),
        (1e308, 0.0, 1e308),
        (40.0, 1.0, math.exp(-40)),
        (NAN, 1.0, NAN),
        (1.0, NAN, NAN),
        (INF, NAN, NAN),
    ],
)
@pytest.mark.parametrize("zero_policy", ["limit", "torch"])
def test_bce_with_logits(z: float, y: float, expected: float, zero_policy: ZeroPolicy) -> None:
    assert_is(binary_cross_entropy_with_logits(z, y, zero_policy=zero_policy), expected)


def test_bce_with_logits_does_not_check_the_range_of_targets() -> None:
    assert_is_to_six_digits(binary_cross_entropy_with_logits(1.0, 2.0), -0.686738)


@each_cell(BCE_INFINITE_LOGIT)
def test_bce_with_an_infinite_logit_is_what_the_formula_yields(
    prediction: float, target: float, torch: float, limit: float
) -> None:
    assert_is(binary_cross_entropy_with_logits(prediction, target, zero_policy="torch"), torch)


@each_cell(BCE_INFINITE_LOGIT)
def test_bce_with_an_infinite_logit_is_its_limit_under_the_limit_policy(
    prediction: float, target: float, torch: float, limit: float
) -> None:
    assert_is(binary_cross_entropy_with_logits(prediction, target, zero_policy="limit"), limit)


@pytest.mark.parametrize("y", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("pos_weight", [None, 0.0, 0.5, 3.0])
def test_the_limit_is_where_ever_larger_logits_lead(y: float, sign: int, pos_weight: float | None) -> None:
    far = float(binary_cross_entropy_with_logits(sign * 1e12, y, pos_weight=pos_weight))
    limit = float(binary_cross_entropy_with_logits(sign * INF, y, pos_weight=pos_weight))
    assert limit == (INF if far > 1 else 0.0)


def test_bce_with_logits_is_bce_of_their_sigmoid() -> None:
    z, y = random_logits(50, 4), random_units(50, 4)
    assert_is(binary_cross_entropy_with_logits(z, y), binary_cross_entropy(special.expit(z), y), rtol=1e-11)


def test_bce_with_logits_is_scipys_log_expit_with_every_weight() -> None:
    z, y = random_logits(50, 4), random_units(50, 4)
    w, positive = random_units(4, seed=9), 3 * random_units(50, 1, seed=10)
    expected = -w * (positive * y * special.log_expit(z) + (1 - y) * special.log_expit(-z))
    loss = binary_cross_entropy_with_logits(z, y, weight=w, pos_weight=positive)
    np.testing.assert_allclose(loss, expected, rtol=1e-11, atol=1e-15)


def test_a_pos_weight_multiplies_the_loss_of_positives_alone() -> None:
    loss = binary_cross_entropy_with_logits([0.0, 0.0], [1.0, 0.0], pos_weight=3.0)
    assert_is(loss, [3 * LOG2, LOG2])


# Weights


def bce_half(weight: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    return binary_cross_entropy(np.full(shape, 0.5), np.ones(shape), weight=weight)


def bce_logit_0(weight: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    return binary_cross_entropy_with_logits(np.zeros(shape), np.ones(shape), weight=weight)


def bce_logit_0_positive(weight: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    return binary_cross_entropy_with_logits(np.zeros(shape), np.ones(shape), pos_weight=weight)


weighted = pytest.mark.parametrize("loss_of_log2", [bce_half, bce_logit_0, bce_logit_0_positive])
WeightedLoss = Callable[[npt.ArrayLike, tuple[int, ...]], Array]


@weighted
@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 4), (3, 4), (2, 1, 1), (2, 3, 4)])
def test_a_weight_broadcasts_to_the_shape_of_the_predictions(
    loss_of_log2: WeightedLoss, shape: tuple[int, ...]
) -> None:
    weight = np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape)
    expected = LOG2 * np.broadcast_to(weight, (2, 3, 4))
    assert_is(loss_of_log2(weight, (2, 3, 4)), expected)


@weighted
@pytest.mark.parametrize("shape", [(3,), (4, 1), (2, 4, 4), (1, 2, 3, 4)])
def test_a_weight_that_does_not_broadcast_to_the_predictions_is_an_error_naming_both_shapes(
    loss_of_log2: WeightedLoss, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ShapeMismatch) as raised:
        loss_of_log2(np.ones(shape), (2, 3, 4))
    assert "weight" in str(raised.value)
    assert str(shape) in str(raised.value)
    assert "(2, 3, 4)" in str(raised.value)


@weighted
def test_a_weight_does_not_enlarge_the_predictions(loss_of_log2: WeightedLoss) -> None:
    with pytest.raises(ShapeMismatch):
        loss_of_log2(np.ones(3), ())
    with pytest.raises(ShapeMismatch):
        loss_of_log2(np.ones((2, 3)), (1, 3))


@weighted
def test_a_weight_may_be_a_number(loss_of_log2: WeightedLoss) -> None:
    assert_is(loss_of_log2(2, ()), 2 * LOG2)
    assert_is(loss_of_log2(2, (2,)), [2 * LOG2, 2 * LOG2])


def test_a_weight_multiplies_the_clamped_loss() -> None:
    assert_is(binary_cross_entropy([0.0, 0.0, 0.0], [1, 1, 1], weight=[0.0, 0.5, -1.0]), [0.0, 50.0, -100.0])


# Log-softmax


def test_log_softmax_of_two_equal_logits_is_minus_log_2() -> None:
    assert_is(log_softmax([7.0, 7.0]), [-LOG2, -LOG2])


def test_log_softmax_takes_the_last_axis_unless_told_otherwise() -> None:
    z = random_logits(3, 4, 5)
    np.testing.assert_array_equal(log_softmax(z), log_softmax(z, 2))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((), 0), ((6,), 0), ((4, 5), 0), ((4, 5), 1), ((2, 3, 4), 0), ((2, 3, 4), 1), ((2, 3, 4, 2), -2)],
)
def test_log_softmax_is_scipys(shape: tuple[int, ...], axis: int) -> None:
    z = random_logits(*shape)
    expected = special.log_softmax(z, axis=axis) if shape else np.float64(0.0)
    np.testing.assert_allclose(log_softmax(z, axis), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("length", [4095, 4096, 4097, BEYOND_A_SEGMENT])
def test_log_softmax_of_a_long_distribution_is_scipys(length: int) -> None:
    z = random_logits(2, length, scale=10.0)
    np.testing.assert_allclose(log_softmax(z), special.log_softmax(z, axis=1), rtol=1e-13)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_log_softmax_along_an_axis_is_that_axis_moved_last_and_back(axis: int) -> None:
    z = random_logits(3, 4, 5)
    moved = np.moveaxis(log_softmax(np.moveaxis(z, axis, -1)), -1, axis)
    np.testing.assert_array_equal(log_softmax(z, axis), moved)


@pytest.mark.parametrize("axis", [-3, -2, -1])
def test_a_negative_axis_counts_from_the_end(axis: int) -> None:
    z = random_logits(3, 4, 5)
    np.testing.assert_array_equal(log_softmax(z, axis), log_softmax(z, axis + 3))


def test_the_probabilities_of_a_log_softmax_sum_to_1() -> None:
    assert_is(np.exp(log_softmax(random_logits(20, 30))).sum(axis=1), np.ones(20))


def test_log_softmax_does_not_change_with_a_constant_added_to_the_logits() -> None:
    z = np.array([1.0, 2.0, 4.0])
    np.testing.assert_array_equal(log_softmax(z + 1024.0), log_softmax(z))


def test_log_softmax_neither_overflows_nor_underflows() -> None:
    np.testing.assert_array_equal(log_softmax([1e308, 0.0]), [0.0, -1e308])
    np.testing.assert_array_equal(log_softmax([-(2.0**1022), -(2.0**1021)]), [-(2.0**1021), 0.0])
    assert_is(log_softmax([-2000.0, -2000.0]), [-LOG2, -LOG2])


def test_log_softmax_is_off_by_no_more_than_the_rounding_of_1_where_one_class_is_all_but_certain() -> None:
    remainder = math.log1p(math.exp(-30))
    off = log_softmax([0.0, -30.0]) - [-remainder, -30 - remainder]
    assert (abs(off) <= [2.0**-52, 2.0**-48]).all()


def test_log_softmax_of_one_class_is_0() -> None:
    np.testing.assert_array_equal(log_softmax([[3.0], [-1e5]]), [[0.0], [0.0]])


def padded(length: int, *values: float, fill: float = -INF) -> Array:
    """The values, far apart, in a distribution of this length."""
    z = np.full(length, fill)
    z[np.linspace(0, length - 1, len(values), dtype=int)] = values
    return z


lengths = pytest.mark.parametrize("length", [3, BEYOND_A_SEGMENT])


@lengths
def test_a_logit_of_minus_infinity_stays_and_takes_no_part(length: int) -> None:
    z = padded(length, 1.0, -INF, 1.0)
    assert_is(log_softmax(z), padded(length, -LOG2, -INF, -LOG2))


@lengths
def test_a_distribution_of_minus_infinity_only_is_nan(length: int) -> None:
    assert np.isnan(log_softmax(padded(length))).all()


@lengths
@pytest.mark.parametrize("fill", [0.0, -INF])
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("value", [INF, NAN])
def test_an_infinite_or_nan_logit_makes_the_whole_distribution_nan(
    length: int, fill: float, place: int, value: float
) -> None:
    z = np.full(length, fill)
    z[place] = value
    assert np.isnan(log_softmax(z)).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_bad_distribution_leaves_its_neighbours_alone(axis: int) -> None:
    z = random_logits(4, 4)
    expected = log_softmax(z, axis)
    bad = np.moveaxis(z, axis, -1)
    bad[0, 1], bad[1, 2], bad[2] = NAN, INF, -INF
    obtained = np.moveaxis(log_softmax(z, axis), axis, -1)
    assert np.isnan(obtained[:3]).all()
    np.testing.assert_array_equal(obtained[3], np.moveaxis(expected, axis, -1)[3])


@pytest.mark.parametrize(("value", "expected"), [(3.0, 0.0), (INF, NAN), (-INF, NAN), (NAN, NAN)])
def test_a_0d_array_is_one_distribution_of_one_value(value: float, expected: float) -> None:
    for axis in (0, -1):
        assert_is(log_softmax(value, axis), expected)


# Axes


@pytest.mark.parametrize(("axis", "ndim"), [(2, 2), (-3, 2), (1, 1), (-2, 1), (1, 0), (-2, 0), (5, 3)])
def test_an_axis_out_of_range_is_an_error_naming_axis_and_dimensions(axis: int, ndim: int) -> None:
    with pytest.raises(AxisError, match=rf"axis {axis} .*\b{ndim} dimension"):
        log_softmax(np.zeros((2,) * ndim), axis)


def test_an_axis_error_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        log_softmax([1.0], 1)


@pytest.mark.parametrize(
    ("axis", "ndim", "expected"),
    [(0, 0, 0), (-1, 0, 0), (0, 1, 0), (-1, 1, 0), (-1, 3, 2), (-3, 3, 0), (1, 3, 1)],
)
def test_an_axis_is_counted_from_the_front(axis: int, ndim: int, expected: int) -> None:
    assert normalize_axis(axis, ndim) == expected


# All losses


def kl_div_of_log_targets(x: npt.ArrayLike, t: npt.ArrayLike) -> Array:
    return kl_div(x, t, log_target=True)


LOSSES = [kl_div, kl_div_of_log_targets, binary_cross_entropy, binary_cross_entropy_with_logits]
losses = pytest.mark.parametrize("loss", LOSSES)
SHAPES = [((2, 3), (3,)), ((2, 3), (2, 1)), ((2, 3), (3, 2)), ((1,), ()), ((2,), (1, 2)), ((0, 5), (0, 4))]


@losses
@pytest.mark.parametrize(("first", "second"), SHAPES)
def test_different_shapes_are_an_error_naming_both_and_never_broadcast(
    loss: Loss, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    for one, other in ((first, second), (second, first)):
        with pytest.raises(ShapeMismatch) as raised:
            loss(np.full(one, 0.5), np.full(other, 0.5))
        assert str(first) in str(raised.value)
        assert str(second) in str(raised.value)


@losses
def test_a_0d_pair_yields_a_0d_array(loss: Loss) -> None:
    obtained = loss(0.0, 1.0)
    assert isinstance(obtained, np.ndarray)
    assert obtained.shape == ()


@losses
@pytest.mark.parametrize("shape", [(0,), (0, 5), (2, 0), (2, 0, 3), (0, 0)])
def test_an_empty_pair_yields_an_empty_array(loss: Loss, shape: tuple[int, ...]) -> None:
    obtained = loss(np.empty(shape), np.empty(shape))
    assert obtained.shape == shape
    assert obtained.dtype == np.float64


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((0,), 0), ((0, 5), 0), ((0, 5), 1), ((2, 0), 0), ((2, 0), 1), ((2, 0, 3), 1), ((0, 0), 1)],
)
def test_log_softmax_of_an_empty_array_is_an_empty_array(shape: tuple[int, ...], axis: int) -> None:
    obtained = log_softmax(np.empty(shape), axis)
    assert obtained.shape == shape
    assert obtained.dtype == np.float64


@losses
def test_a_loss_of_integers_and_booleans_is_that_of_the_same_floats(loss: Loss) -> None:
    predictions, targets = [0, 0, 1, 1], [0, 1, 0, 1]
    expected = loss(np.array(predictions, float), np.array(targets, float))
    for dtype in (bool, np.int8, np.uint8, np.int64, np.uint64):
        obtained = loss(np.array(predictions, dtype), np.array(targets, dtype))
        assert obtained.dtype == np.float64
        np.testing.assert_array_equal(obtained, expected)


@losses
@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", np.longdouble])
def test_a_loss_is_computed_in_float64_whatever_the_storage(loss: Loss, dtype: npt.DTypeLike) -> None:
    predictions, targets = random_units(3, 4).astype(dtype), random_units(3, 4, seed=8).astype(dtype)
    obtained = loss(predictions, targets)
    assert obtained.dtype == np.dtype(np.float64)
    np.testing.assert_array_equal(obtained, loss(predictions.astype(float), targets.astype(float)))


@pytest.mark.parametrize("dtype", ["<f2", ">f2", ">f4", ">f8", ">i4", np.uint8, np.longdouble])
def test_log_softmax_is_computed_in_float64_whatever_the_storage(dtype: npt.DTypeLike) -> None:
    z = abs(random_logits(3, 4)).astype(dtype)
    obtained = log_softmax(z, 0)
    assert obtained.dtype == np.dtype(np.float64)
    np.testing.assert_array_equal(obtained, log_softmax(z.astype(float), 0))


def layouts(values: Array) -> dict[str, Array]:
    """The same values, laid out in memory in other ways."""
    spread = np.full((*values.shape[:-1], 2 * values.shape[-1]), NAN)
    spread[..., ::2] = values
    return {
        "fortran": np.asfortranarray(values),
        "strided": spread[..., ::2],
        "reversed": np.ascontiguousarray(values[::-1])[::-1],
        "broadcast": np.broadcast_to(values, values.shape),
    }


@losses
def test_a_loss_does_not_depend_on_the_layout_in_memory(loss: Loss) -> None:
    p, y = random_units(3, 4, 5), random_units(3, 4, 5, seed=8)
    expected = loss(p, y)
    for name, predictions in layouts(p).items():
        np.testing.assert_array_equal(loss(predictions, y), expected, err_msg=name)
        np.testing.assert_array_equal(loss(p, layouts(y)[name]), expected, err_msg=name)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_log_softmax_does_not_depend_on_the_layout_in_memory(axis: int) -> None:
    z = random_logits(3, 4, 5)
    for name, logits in layouts(z).items():
        np.testing.assert_array_equal(log_softmax(logits, axis), log_softmax(z, axis), err_msg=name)


@losses
def test_a_loss_takes_lists_and_numbers(loss: Loss) -> None:
    arrays = loss(np.array([[0.25, 0.5]]), np.array([[1.0, 0.0]]))
    np.testing.assert_array_equal(loss([[0.25, 0.5]], [[1.0, 0.0]]), arrays)
    np.testing.assert_array_equal(loss(0.25, 1), arrays[0, 0])


def frozen(*values: float) -> Array:
    array = np.array(values)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("zero_policy", ["limit", "torch"])
def test_kl_leaves_its_inputs_as_they_were(zero_policy: ZeroPolicy) -> None:
    x, y, t = frozen(-INF, -1.0, NAN), frozen(0.0, 0.5, 0.0), frozen(-INF, -1.0, -1000.0)
    assert not np.shares_memory(kl_div(x, y, zero_policy=zero_policy), y)
    assert not np.shares_memory(kl_div(x, t, log_target=True, zero_policy=zero_policy), t)
    np.testing.assert_array_equal(x, [-INF, -1.0, NAN])
    np.testing.assert_array_equal(y, [0.0, 0.5, 0.0])
    np.testing.assert_array_equal(t, [-INF, -1.0, -1000.0])


def test_bce_leaves_its_inputs_as_they_were() -> None:
    p, y, w = frozen(0.0, 0.5, 1.0), frozen(1.0, 0.5, 0.0), frozen(2.0, 3.0, 4.0)
    assert_is(binary_cross_entropy(p, y, weight=w), [200.0, 3 * LOG2, 400.0])
    np.testing.assert_array_equal(p, [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(y, [1.0, 0.5, 0.0])
    np.testing.assert_array_equal(w, [2.0, 3.0, 4.0])


def test_bce_with_logits_leaves_its_inputs_as_they_were() -> None:
    z, y, w = frozen(-INF, 0.0, INF), frozen(0.0, 1.0, 1.0), frozen(2.0, 3.0, 4.0)
    assert_is(binary_cross_entropy_with_logits(z, y, weight=w, pos_weight=w), [0.0, 9 * LOG2, 0.0])
    np.testing.assert_array_equal(z, [-INF, 0.0, INF])
    np.testing.assert_array_equal(y, [0.0, 1.0, 1.0])
    np.testing.assert_array_equal(w, [2.0, 3.0, 4.0])


def test_log_softmax_leaves_its_input_as_it_was() -> None:
    z = frozen(1.0, -INF, 1.0)
    assert not np.shares_memory(log_softmax(z), z)
    np.testing.assert_array_equal(z, [1.0, -INF, 1.0])


@losses
@pytest.mark.parametrize("values", [[0.5 + 0j], ["0.5"], [None], np.array([0.5], object)])
def test_what_is_no_real_number_is_an_error(loss: Loss, values: Any) -> None:
    with pytest.raises(DomainError, match="real numbers"):
        loss(values, [0.5])
    with pytest.raises(DomainError, match="real numbers"):
        loss([0.5], values)


def test_log_softmax_of_what_is_no_real_number_is_an_error() -> None:
    with pytest.raises(DomainError, match="real numbers"):
        log_softmax([1j])


def test_an_unknown_zero_policy_is_an_error_naming_it_and_the_known_ones() -> None:
    with_a_policy: list[Loss] = [kl_div, binary_cross_entropy_with_logits]
    for loss in with_a_policy:
        with pytest.raises(UsageError, match=r"'pytorch'.*'limit'.*'torch'"):
            loss([0.0], [1.0], zero_policy="pytorch")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: kl_div([0.0], 0.0), ValueError),
        (lambda: binary_cross_entropy([2.0], [0.0]), ValueError),
        (lambda: log_softmax([0.0], 1), IndexError),
    ],
)
def test_every_error_is_ours_and_the_standard_one(call: Callable[[], Array], error: type[Exception]) -> None:
    with pytest.raises(KldivError) as raised:
        call()
    assert isinstance(raised.value, error)
