from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logsumexp, xlogy

from kldiv_cli import kernels

repeatable = settings(derandomize=True, deadline=None, max_examples=60)

Array = npt.NDArray[np.float64]

SEEDS = st.integers(0, 2**32 - 1)
ROWS = st.integers(1, 7)
LENGTHS = st.integers(1, 70)


@pytest.fixture(autouse=True)
def _silent() -> object:
    with np.errstate(all="ignore"):
        yield


def kl(x: Array, y: Array) -> Array:
    """KL of target probabilities, before the terms that are not finite are settled."""
    log_y, out = np.empty_like(y), np.empty_like(y)
    kernels.log_targets(y, log_y)
    kernels.kl(x, log_y, y, out)
    return out


def settled_kl(x: Array, y: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    loss = kl(x, y)
    zero = kernels.settle_kl(x, None, y, loss)
    return loss, zero


def bce_with_logits(z: Array, y: Array, pos_weight: Array | None = None) -> Array:
    out, scratch = np.empty_like(z), np.empty_like(z)
    kernels.bce_with_logits(z, y, pos_weight, out, scratch, np.empty_like(z))
    return out


def bce(p: Array, y: Array) -> Array:
    log_p, log_1mp, out = np.log(p), np.log1p(-p), np.empty_like(p)
    kernels.bce(log_p, log_1mp, y, out)
    return out


def distributions(rng: np.random.Generator, rows: int, length: int) -> Array:
    weights = rng.gamma(0.3, size=(rows, length)) + 1e-300
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def column(*values: float) -> Array:
    return np.array([values])


def bits(array: Array) -> bytes:
    """The array, bit by bit; one nan is as good as another."""
    return np.where(np.isnan(array), math.nan, array).tobytes()


# Softmax


@repeatable
@given(SEEDS, ROWS, LENGTHS, st.sampled_from([1.0, 30.0, 1e4]))
def test_maximum_and_sum_of_exponentials_give_logsumexp(
    seed: int, rows: int, length: int, scale: float
) -> None:
    logits = scale * np.random.default_rng(seed).standard_normal((rows, length))
    expected = logsumexp(logits, axis=-1)
    shifted = logits.copy()
    peaks, sums = kernels.partition(shifted, np.empty_like(logits))
    assert np.array_equal(peaks, logits.max(axis=-1))
    assert np.array_equal(shifted, logits - peaks[:, None])
    np.testing.assert_allclose(peaks + np.log(sums), expected, rtol=1e-14, atol=1e-14)


@repeatable
@given(SEEDS, ROWS, LENGTHS, st.lists(st.integers(1, 69), max_size=4))
def test_segments_merge_to_the_partition_of_the_whole(
    seed: int, rows: int, length: int, cuts: list[int]
) -> None:
    logits = 20 * np.random.default_rng(seed).standard_normal((rows, length))
    parts = np.split(logits, sorted({cut for cut in cuts if cut < length}), axis=-1)
    partitions = [kernels.partition(part.copy(), np.empty(part.shape)) for part in parts]
    peaks, sums = (np.stack(of_parts, axis=-1) for of_parts in zip(*partitions, strict=True))
    peak, log_sum = kernels.merge_partition(peaks, sums)
    assert np.array_equal(peak, logits.max(axis=-1))
    np.testing.assert_allclose(peak + log_sum, logsumexp(logits, axis=-1), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("row", "total"),
    [
        ([-math.inf, 0.0], 1.0),
        ([-math.inf, -math.inf], 0.0),
        ([math.inf, 0.0], math.nan),
        ([math.inf, -math.inf], math.nan),
        ([math.nan, 0.0], math.nan),
    ],
)
def test_impossible_entries_add_nothing_and_undefined_ones_make_the_sum_nan(
    row: list[float], total: float
) -> None:
    _, sums = kernels.partition(column(*row), np.empty((1, 2)))
    np.testing.assert_array_equal(sums, [total])


def test_a_segment_of_impossible_entries_only_does_not_disturb_the_others() -> None:
    peak, log_sum = kernels.merge_partition(column(-math.inf, 2.0), column(0.0, 3.0))
    assert (peak.tolist(), log_sum.tolist()) == ([2.0], [math.log(3.0)])


# KL


@repeatable
@given(SEEDS, ROWS, LENGTHS)
def test_kl_is_xlogy_minus_y_times_x(seed: int, rows: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.log(distributions(rng, rows, length)), distributions(rng, rows, length)
    y[rng.random(y.shape) < 0.2] = 0.0
    np.testing.assert_allclose(kl(x, y), xlogy(y, y) - y * x, rtol=1e-13, atol=1e-15)


def test_kl_of_zero_targets_is_positive_zero_for_every_finite_prediction() -> None:
    x = column(-1e300, -1.0, -0.0, 0.0, 2.0, 1e300)
    assert bits(settled_kl(x, np.zeros_like(x))[0]) == bits(np.zeros_like(x))


@pytest.mark.parametrize("y", [5e-324, 2.2250738585072014e-308, 1e-300])
def test_kl_of_the_smallest_targets_is_finite(y: float) -> None:
    loss, zero = settled_kl(column(-1.0, -1e4), column(y, y))
    assert np.isfinite(loss).all()
    assert not zero.any()


def test_a_product_that_overflows_only_on_the_way_is_settled_finite() -> None:
    loss, _ = settled_kl(column(-1.7e308), column(0.5))
    assert loss.tolist() == [[0.5 * math.log(0.5) + 0.85e308]]


@pytest.mark.parametrize(
    ("x", "y", "loss", "zero"),
    [
        (-math.inf, 0.0, math.nan, True),
        (-math.inf, -0.0, math.nan, True),
        (-math.inf, 0.5, math.inf, False),
        (math.inf, 0.5, -math.inf, False),
        (math.inf, 0.0, math.nan, False),
        (math.nan, 0.0, math.nan, False),
        (-1.0, -1.0, math.nan, False),
        (-1.0, math.inf, math.inf, False),
        (0.0, math.inf, math.nan, False),
        (-1.0, math.nan, math.nan, False),
    ],
)
def test_settling_counts_zero_times_infinity_and_leaves_pytorchs_value(
    x: float, y: float, loss: float, zero: bool
) -> None:
    settled, zeros = settled_kl(column(x), column(y))
    np.testing.assert_array_equal(settled, [[loss]])
    assert zeros.tolist() == [[zero]]


@pytest.mark.parametrize(
    ("x", "t", "loss", "zero"),
    [
        (-1.0, -math.inf, math.nan, True),
        (-math.inf, -math.inf, math.nan, True),
        (-math.inf, -1000.0, math.nan, True),
        (-math.inf, -1.0, math.inf, False),
        (math.inf, -math.inf, math.nan, False),
        (math.nan, -math.inf, math.nan, False),
        (-1.0, -1000.0, -0.0, False),
    ],
)
def test_settling_targets_in_log_space_follows_the_same_rule(
    x: float, t: float, loss: float, zero: bool
) -> None:
    out, log_y = np.empty((1, 1)), column(t)
    kernels.kl(column(x), log_y, np.exp(log_y), out)
    zeros = kernels.settle_kl(column(x), log_y, np.exp(log_y), out)
    assert bits(out) == bits(column(loss))
    assert zeros.tolist() == [[zero]]


# BCE


@repeatable
@given(st.floats(-745.0, -5e-324) | st.floats(-2.0, -1e-20))
def test_log1mexp_is_right_to_a_few_ulps(x: float) -> None:
    with localcontext() as context:
        context.prec = 400
        expected = float((1 - Decimal(x).exp()).ln())
    out = np.empty((1, 1))
    kernels.log1mexp(column(x), out, np.empty_like(out))
    assert abs(out[0, 0] - expected) <= 4 * abs(np.spacing(expected))


def test_log1mexp_at_its_ends() -> None:
    out = np.empty((1, 4))
    kernels.log1mexp(column(0.0, -0.0, -math.inf, math.nan), out, np.empty_like(out))
    np.testing.assert_array_equal(out, column(-math.inf, -math.inf, 0.0, math.nan))


@pytest.mark.parametrize(
    ("p", "y", "loss"),
    [
        (0.0, 1.0, 100.0),
        (0.0, 0.5, 50.0),
        (0.0, 0.0, 0.0),
        (1.0, 0.0, 100.0),
        (1.0, 0.5, 50.0),
        (1.0, 1.0, 0.0),
        (0.5, 1.0, math.log(2.0)),
        (1e-60, 1.0, 100.0),
    ],
)
def test_bce_clamps_its_logarithms_at_minus_100(p: float, y: float, loss: float) -> None:
    assert bce(column(p), column(y)).tolist() == [[loss]]


@repeatable
@given(SEEDS, ROWS, LENGTHS)
def test_bce_with_logits_is_bce_of_the_sigmoid(seed: int, rows: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    z, y = rng.uniform(-6, 6, (rows, length)), rng.random((rows, length))
    np.testing.assert_allclose(bce_with_logits(z, y), bce(expit(z), y), rtol=1e-10, atol=1e-13)


@repeatable
@given(SEEDS, ROWS, LENGTHS)
def test_pos_weight_multiplies_the_positive_part_alone(seed: int, rows: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    z, y = rng.uniform(-6, 6, (rows, length)), rng.random((rows, length))
    factor = rng.gamma(2.0, size=(rows, length))
    expected = factor * y * -np.log(expit(z)) + (1 - y) * -np.log(expit(-z))
    np.testing.assert_allclose(bce_with_logits(z, y, factor), expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("z", [-1000.0, -1e300, 1000.0, 1e300])
def test_bce_with_logits_is_not_clamped(z: float) -> None:
    wrong = 1.0 if z < 0 else 0.0
    assert bce_with_logits(column(z, z), column(wrong, 1 - wrong)).tolist() == [[abs(z), 0.0]]


@pytest.mark.parametrize(
    ("z", "y", "pos_weight", "loss", "settled"),
    [
        (math.inf, 1.0, None, 0.0, True),
        (math.inf, 0.0, None, math.inf, False),
        (math.inf, 0.5, None, math.inf, False),
        (-math.inf, 0.0, None, 0.0, True),
        (-math.inf, 1.0, None, math.inf, True),
        (-math.inf, 0.5, None, math.inf, True),
        (-math.inf, 1.0, 0.0, 0.0, True),
        (math.nan, 1.0, None, math.nan, False),
        (math.inf, math.nan, None, math.nan, False),
    ],
)
def test_an_infinite_logit_is_settled_at_its_limit(
    z: float, y: float, pos_weight: float | None, loss: float, settled: bool
) -> None:
    factor = None if pos_weight is None else column(pos_weight)
    out = bce_with_logits(column(z), column(y), factor)
    mask = kernels.settle_bce_with_logits(column(z), column(y), factor, out)
    np.testing.assert_array_equal(out, [[loss]])
    assert mask.tolist() == [[settled]]


# What repeatability rests on


@repeatable
@given(SEEDS, st.integers(2, 9), LENGTHS)
def test_a_row_has_the_same_bits_alone_and_among_others(seed: int, rows: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    logits, y = 10 * rng.standard_normal((rows, length)), distributions(rng, rows, length)
    together, alone = logits.copy(), [logits[k : k + 1].copy() for k in range(rows)]
    _, sums = kernels.partition(together, np.empty_like(together))
    each = [kernels.partition(row, np.empty_like(row))[1] for row in alone]
    assert bits(sums) == bits(np.concatenate(each))
    losses = [kl(x, y[k : k + 1]) for k, x in enumerate(alone)]
    assert bits(kl(together, y)) == bits(np.concatenate(losses))
    plain = bce_with_logits(logits, y)
    parts = [bce_with_logits(logits[k : k + 1], y[k : k + 1]) for k in range(rows)]
    assert bits(plain) == bits(np.concatenate(parts))


@repeatable
@given(SEEDS, LENGTHS, st.integers(0, 69))
def test_an_element_has_the_same_bits_wherever_it_stands(seed: int, length: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = -10 * rng.random((1, length)), distributions(rng, 1, length)
    cut = min(cut, length - 1)

    def log1mexp(values: Array) -> Array:
        out = np.empty_like(values)
        kernels.log1mexp(values, out, np.empty_like(out))
        return out

    assert bits(kl(x, y)[:, cut:]) == bits(kl(x[:, cut:].copy(), y[:, cut:].copy()))
    assert bits(log1mexp(x)[:, cut:]) == bits(log1mexp(x[:, cut:].copy()))
    assert bits(bce(y, y)[:, cut:]) == bits(bce(y[:, cut:].copy(), y[:, cut:].copy()))


def test_inputs_are_not_written_to() -> None:
    rng = np.random.default_rng(5)
    x, y = np.log(distributions(rng, 3, 9)), distributions(rng, 3, 9)
    y[0, 0], x[0, 0] = 0.0, -math.inf
    x.flags.writeable = y.flags.writeable = False
    settled_kl(x, y)
    bce_with_logits(x, y, y)
    kernels.log1mexp(x, np.empty_like(x), np.empty_like(x))
