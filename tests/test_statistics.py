"""Spread, percentiles and the worst of many values, against NumPy, SciPy and exact arithmetic."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from kldiv_cli import statistics
from kldiv_cli.errors import UsageError
from kldiv_cli.histogram import histogram_of
from kldiv_cli.reductions import exact_sum
from kldiv_cli.spec import QUANTILES
from kldiv_cli.spread import few_values
from kldiv_cli.statistics import (
    BlockError,
    Groups,
    Kept,
    Sketch,
    Statistics,
    Worst,
    block_error,
    check_groups,
    groups_of,
    percentile_name,
    sketch_of,
    worst_of,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=100)

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SEEDS = st.integers(0, 2**32 - 1)
NASTY = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1, 1e-300, -1e-300, 5e-324, 1e8, 1e8 + 2**-20])
ANY = st.one_of(NASTY, st.floats(-1e9, 1e9), st.floats(-1e-9, 1e-9))
MANY = st.lists(ANY, min_size=1, max_size=40)
SPECIAL = st.one_of(NASTY, st.sampled_from([math.inf, -math.inf, math.nan]))


def kept(values: npt.ArrayLike, counted: Mask | None = None) -> Kept:
    array = np.asarray(values, np.float64)
    keeper = Kept(array.shape, selected=counted is not None)
    keeper.write(tuple(slice(0, length) for length in array.shape), array, counted)
    return keeper


def described(values: npt.ArrayLike, quantiles: tuple[float, ...] = QUANTILES) -> Statistics:
    array = np.asarray(values, np.float64)
    return kept(array).statistics("distributions", sketch_of(array), quantiles)


def sketched(values: npt.ArrayLike, quantiles: tuple[float, ...] = QUANTILES) -> Statistics:
    return sketch_of(np.asarray(values, np.float64)).statistics("distributions", quantiles)


def exact_standard_error(values: list[float]) -> float:
    """By rational arithmetic, rounded at the end."""
    numbers = [Fraction(value) for value in values]
    mean = sum(numbers, Fraction(0)) / len(numbers)
    squares = sum(((x - mean) ** 2 for x in numbers), Fraction(0))
    squared = squares / (len(numbers) - 1) / len(numbers)
    with localcontext() as context:
        context.prec = 60
        return float((Decimal(squared.numerator) / Decimal(squared.denominator)).sqrt())


def ulps(obtained: float, expected: float) -> float:
    return abs(obtained - expected) / math.ulp(expected)


# Percentiles


@pytest.mark.parametrize(
    ("quantile", "name"),
    [
        (0.0, "p0"),
        (0.001, "p0.1"),
        (0.05, "p5"),
        (0.5, "p50"),
        (0.999, "p99.9"),
        (0.99999, "p99.999"),
        (1e-07, "p0.00001"),
        (0.07, "p7"),
        (0.29, "p29"),
        (1.0, "p100"),
    ],
)
def test_a_percentile_is_named_by_its_percentage_without_the_noise_of_binary(
    quantile: float, name: str
) -> None:
    assert percentile_name(quantile) == name


@repeatable
@given(MANY, st.lists(st.floats(0, 1), max_size=5))
def test_percentiles_are_those_of_numpy_to_the_bit(values: list[float], extra: list[float]) -> None:
    quantiles = tuple(sorted({*QUANTILES, 0.0, 0.25, 1.0, *extra}))
    found = described(values, quantiles).percentiles
    expected = {percentile_name(q): float(np.quantile(values, q)) for q in quantiles}
    assert found == expected


@repeatable
@given(SEEDS, st.integers(1, 3000), st.sampled_from(["normal", "ties", "lognormal", "integers"]))
def test_percentiles_of_random_values_are_those_of_numpy_to_the_bit(seed: int, count: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    values = {
        "normal": rng.standard_normal(count),
        "ties": rng.integers(0, 5, count) / 7,
        "lognormal": rng.lognormal(0, 30, count),
        "integers": rng.integers(-1000, 1000, count).astype(float),
    }[kind]
    found = described(values).percentiles
    assert list(found.values()) == [float(np.quantile(values, q)) for q in QUANTILES]


def test_percentiles_come_in_order_under_their_names() -> None:
    found = described([1.0, 2.0]).percentiles
    assert list(found) == ["p0.1", "p1", "p5", "p10", "p50", "p90", "p95", "p99", "p99.9"]
    assert found["p50"] == 1.5


# All values


@repeatable
@given(MANY)
def test_extremes_and_mean_are_exact(values: list[float]) -> None:
    found = described(values)
    assert (found.minimum, found.maximum) == (min(values), max(values))
    assert found.mean == math.fsum(values) / len(values)
    assert (found.of, found.count, found.exact, found.blocks) == ("distributions", len(values), True, None)


@repeatable
@given(SEEDS, st.integers(2, 3000), st.sampled_from([0.0, 3.0, -50.0]))
def test_the_standard_error_is_that_of_scipy_and_of_exact_arithmetic(
    seed: int, count: int, shift: float
) -> None:
    values = np.random.default_rng(seed).exponential(size=count) + shift
    found = described(values).standard_error
    assert found == pytest.approx(float(scipy.stats.sem(values)), rel=1e-14)
    assert ulps(found, exact_standard_error(values.tolist())) <= 2


@pytest.mark.parametrize("describe", [described, sketched])
@pytest.mark.parametrize("spread", [1e-7, 1e-4, 1.0, 1e4])
@pytest.mark.parametrize("mean", [1e8, -1e8, math.log(32_000), 0.1])
def test_the_standard_error_does_not_suffer_from_a_large_mean(
    describe: Any, mean: float, spread: float
) -> None:
    values = mean + spread * np.random.default_rng(0).random(1000)
    assert ulps(describe(values).standard_error, exact_standard_error(values.tolist())) <= 2


@pytest.mark.parametrize("describe", [described, sketched])
@pytest.mark.parametrize("value", [0.1, math.log(10), 1e8 / 3, 1e-12])
def test_equal_values_have_no_standard_error_though_their_mean_is_rounded(
    describe: Any, value: float
) -> None:
    assert describe([value] * 3).standard_error == 0.0
    assert describe([value] * 7).standard_error == 0.0


@pytest.mark.parametrize("describe", [described, sketched])
@repeatable
@given(st.lists(st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 1e-9), min_size=2, max_size=40))
def test_the_standard_error_is_exact_kept_or_sketched(describe: Any, values: list[float]) -> None:
    assert ulps(describe(values).standard_error, exact_standard_error(values)) <= 2


def test_one_value_has_no_standard_error_and_is_every_percentile() -> None:
    found = described([0.25])
    assert math.isnan(found.standard_error)
    assert (found.mean, found.minimum, found.maximum) == (0.25, 0.25, 0.25)
    assert set(found.percentiles.values()) == {0.25}


@pytest.mark.parametrize("describe", [described, sketched])
def test_of_no_values_all_is_nan_and_the_count_is_0(describe: Any) -> None:
    found = describe([])
    assert found.count == 0
    numbers = [found.mean, found.standard_error, found.minimum, found.maximum, *found.percentiles.values()]
    assert np.isnan(numbers).all()
    assert len(found.percentiles) == len(QUANTILES)


@pytest.mark.parametrize("describe", [described, sketched])
def test_with_a_nan_nothing_is_known_but_the_count(describe: Any) -> None:
    found = describe([1.0, math.nan, math.inf, -2.0])
    assert found.count == 4
    numbers = [found.mean, found.standard_error, found.minimum, found.maximum, *found.percentiles.values()]
    assert np.isnan(numbers).all()


@pytest.mark.parametrize("describe", [described, sketched])
def test_an_infinite_value_leaves_the_percentiles_below_it_as_they_are(describe: Any) -> None:
    found = describe([1.0, math.inf, 2.0, 1.0, 1.0], (0.0, 0.25, 0.5, 0.75, 0.9, 1.0))
    assert (found.mean, found.minimum, found.maximum) == (math.inf, 1.0, math.inf)
    assert math.isnan(found.standard_error)
    expected = {"p0": 1.0, "p25": 1.0, "p50": 1.0, "p75": 2.0, "p90": math.inf, "p100": math.inf}
    if describe is described:
        assert found.percentiles == expected
    else:
        assert found.percentiles == pytest.approx(expected, rel=2.0**-11)


@pytest.mark.parametrize("describe", [described, sketched])
def test_infinities_of_both_signs_have_no_mean_and_nothing_between_them(describe: Any) -> None:
    found = describe([math.inf, -math.inf], (0.0, 0.5, 1.0))
    assert math.isnan(found.mean)
    assert (found.minimum, found.maximum) == (-math.inf, math.inf)
    assert (found.percentiles["p0"], found.percentiles["p100"]) == (-math.inf, math.inf)
    assert math.isnan(found.percentiles["p50"])


def test_blocks_may_be_written_in_any_order() -> None:
    values = np.arange(24.0).reshape(4, 6)
    keeper = Kept((4, 6))
    for rows, columns in ((2, 3), (0, 0), (2, 0), (0, 3)):
        block = (slice(rows, rows + 2), slice(columns, columns + 3))
        keeper.write(block, values[block])
    assert (keeper.values == values).all()
    assert keeper.statistics("elements", sketch_of(values), QUANTILES) == described(values)._replace(
        of="elements"
    )


@repeatable
@given(MANY, SEEDS)
def test_values_that_do_not_count_are_as_if_they_were_not_there(values: list[float], seed: int) -> None:
    counted = np.random.default_rng(seed).random(len(values)) < 0.6
    array = np.where(counted, values, math.nan)
    chosen = np.array(values)[counted]
    found = kept(array, counted).statistics("distributions", sketch_of(chosen), QUANTILES)
    assert repr(found) == repr(described(chosen))


def test_what_was_written_without_a_mask_counts() -> None:
    keeper = Kept((2, 2), selected=True)
    keeper.write((slice(0, 1), slice(0, 2)), np.array([[1.0, 2.0]]))
    keeper.write((slice(1, 2), slice(0, 2)), np.array([[math.nan, 4.0]]), np.array([[False, True]]))
    found = keeper.statistics(
        "elements", keeper.sketch(exact_sum(np.array([1.0, 2.0, 4.0])), spread=False), QUANTILES
    )
    assert (found.count, found.maximum) == (3, 4.0)


@pytest.mark.parametrize("count", [1, 65_536, 65_537, 200_000])
def test_a_sketch_of_few_values_has_all_of_them_and_one_of_many_a_histogram(count: int) -> None:
    values = np.random.default_rng(count).exponential(size=count)
    found = kept(values).sketch(exact_sum(values), spread=True)
    few = count <= 65_536
    assert found.spread == (few_values(values) if few else histogram_of(values))
    told = found.statistics("distributions", QUANTILES)
    expected = kept(values).statistics("distributions", found, QUANTILES)
    assert told.exact is few
    if few:
        assert told == expected
    assert told._replace(percentiles={}, exact=True) == expected._replace(percentiles={})


# A sketch


@repeatable
@given(st.lists(st.one_of(ANY, SPECIAL), max_size=30), st.lists(st.integers(0, 2), min_size=30, max_size=30))
def test_any_split_in_any_order_merges_to_the_same_sketch(values: list[float], split: list[int]) -> None:
    array, part = np.array(values), np.array(split[: len(values)], int)
    a, b, c = (sketch_of(array[part == k][::-1]) for k in range(3))
    whole = sketch_of(array)
    for x, y, z in itertools.permutations((a, b, c)):
        assert x.merge(y).merge(z) == whole
        assert x.merge(y.merge(z)) == whole
    assert Sketch().merge(whole) == whole


def test_a_sketch_has_no_shape() -> None:
    values = np.random.default_rng(1).standard_normal((3, 4, 5))
    assert sketch_of(values) == sketch_of(values.ravel())


@repeatable
@given(SEEDS, st.integers(2, 500))
def test_count_mean_and_extremes_of_a_sketch_are_exact_and_percentiles_say_they_are_not(
    seed: int, count: int
) -> None:
    values = np.random.default_rng(seed).normal(0.5, 1.0, count)
    found, expected = sketched(values), described(values)
    names = ("of", "count", "mean", "minimum", "maximum")
    assert [getattr(found, name) for name in names] == [getattr(expected, name) for name in names]
    assert (found.exact, expected.exact) == (False, True)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-12)


def of_many_orders(rng: np.random.Generator, count: int) -> Array:
    """Values of both signs over hundreds of orders of magnitude, some of them 0."""
    values = rng.choice([-1.0, 1.0], count) * 10.0 ** rng.uniform(-250, 150, count)
    values[rng.random(count) < 0.1] = 0.0
    return np.asarray(values)


@pytest.mark.parametrize("kind", ["losses", "one sign", "both signs", "ties", "with infinities"])
def test_percentiles_of_a_sketch_are_within_half_a_thousandth_of_those_of_numpy(kind: str) -> None:
    rng = np.random.default_rng(20261124)
    values = {
        "losses": rng.lognormal(-3, 2, 200_000),
        "one sign": 10.0 ** rng.uniform(-250, 150, 150_000),
        "both signs": of_many_orders(rng, 150_000),
        "ties": rng.integers(-3, 9, 150_000) / 7,
        "with infinities": np.append(of_many_orders(rng, 100_000), [-math.inf] * 300 + [math.inf] * 2000),
    }[kind]
    quantiles = (0.0, *QUANTILES, 0.25, 0.75, 1.0)
    total = Sketch()
    for part in np.array_split(values, 7):
        total = total.merge(sketch_of(part))
    found = total.statistics("elements", quantiles).percentiles
    for quantile in quantiles:
        low, high = (float(np.quantile(values, quantile, method=m)) for m in ("lower", "higher"))
        obtained = found[percentile_name(quantile)]
        reach = 2.0**-11 * max(abs(low), abs(high)) if math.isfinite(low + high) else 0.0
        assert low - reach <= obtained <= high + reach


def test_a_percentile_of_a_sketch_is_never_beyond_the_extremes() -> None:
    found = sketched([1.0 + 2.0**-12] * 5)
    assert set(found.percentiles.values()) == {1.0 + 2.0**-12}


@pytest.mark.parametrize("describe", [described, sketched])
@pytest.mark.parametrize("values", [[0.0, -0.0], [-0.0, 0.0], [-0.0]])
def test_the_order_does_not_decide_between_0_and_minus_0(describe: Any, values: list[float]) -> None:
    found = describe(values)
    assert repr([found.minimum, found.maximum, found.percentiles["p50"]]) == "[0.0, 0.0, 0.0]"


def test_a_sketch_leaves_read_only_values_as_they_are() -> None:
    values = np.array([[3.0, math.nan], [math.inf, -1.0]])
    values.flags.writeable = False
    assert sketch_of(values.T).count == 4


# The worst


def badness(item: tuple[int, float]) -> tuple[bool, float, int]:
    place, value = item
    return (not math.isnan(value), -value if not math.isnan(value) else 0.0, place)


def worst_by_sorting(values: list[float], size: int) -> list[tuple[str, int]]:
    ranked = sorted(enumerate(values), key=badness)[:size]
    return [(repr(value), place) for place, value in ranked]


def shown(worst: Worst) -> list[tuple[str, int]]:
    return [(repr(value), place) for value, place in worst.ranked]


VALUES = st.lists(st.one_of(SPECIAL, st.floats(-2, 2)).map(lambda x: x + 0.0), min_size=0, max_size=40)


@repeatable
@given(VALUES, st.integers(1, 45))
def test_the_worst_are_the_first_of_a_plain_sort(values: list[float], size: int) -> None:
    found = worst_of(np.array(values), lambda which: which, size)
    assert found.size == size
    assert shown(found) == worst_by_sorting(values, size)


@repeatable
@given(VALUES, st.integers(1, 10), st.lists(st.integers(0, 2), min_size=40, max_size=40))
def test_the_worst_of_any_split_merge_to_the_worst_of_all(
    values: list[float], size: int, split: list[int]
) -> None:
    array, part = np.array(values), np.array(split[: len(values)], int)

    def of_part(k: int) -> Worst:
        places = np.flatnonzero(part == k)[::-1]
        return worst_of(array[places], lambda which: places[which], size)

    for x, y, z in itertools.permutations(map(of_part, range(3))):
        assert shown(x.merge(y).merge(z)) == worst_by_sorting(values, size)
        assert shown(x.merge(y.merge(z))) == worst_by_sorting(values, size)


def test_nan_is_worse_than_inf_and_of_equal_values_the_first_in_the_array_is_worst() -> None:
    values = np.array([5.0, math.inf, 5.0, math.nan, 5.0, -math.inf])
    found = worst_of(values, lambda which: 10 - which, 4)
    assert shown(found) == [("nan", 7), ("inf", 9), ("5.0", 6), ("5.0", 8)]


def test_values_and_places_are_plain_numbers() -> None:
    ((value, place),) = worst_of(np.array([0.5]), lambda which: which, 1).ranked
    assert (type(value), type(place)) == (float, int)


# Dependent values


def by_hand(values: Array, size: int) -> float:
    """The standard error of the mean of equal blocks, taken for independent."""
    means = values.reshape(-1, size).mean(axis=1)
    return float(means.std(ddof=1) / math.sqrt(means.size))


@repeatable
@given(SEEDS, st.integers(2, 9), st.integers(2, 50))
def test_the_error_of_equal_blocks_is_that_of_their_means(seed: int, size: int, blocks: int) -> None:
    values = np.random.default_rng(seed).exponential(size=size * blocks)
    found = kept(values.reshape(blocks, size)).block_error(size)
    assert (found.of, found.blocks) == (size, blocks)
    assert found.standard_error == pytest.approx(by_hand(values, size), rel=1e-12)


@repeatable
@given(SEEDS, st.integers(2, 9), st.integers(0, 60), st.booleans())
def test_values_added_up_by_group_have_the_error_of_those_kept(
    seed: int, size: int, count: int, masked: bool
) -> None:
    """The last block may be short, some are masked in part, some as a whole."""
    rng = np.random.default_rng(seed)
    values, counted = rng.exponential(size=count), np.ones(count, bool)
    if masked:
        counted = (rng.random(count) < 0.5) & (np.arange(count) // size % 3 != 1)
    places = rng.permutation(np.flatnonzero(counted))
    cut = places.size // 3
    groups = groups_of(values[places[:cut]], places[:cut], size).merge(
        groups_of(values[places[cut:]], places[cut:], size)
    )
    found, of_groups = (
        kept(np.where(counted, values, math.nan), counted if masked else None).block_error(size),
        groups.block_error(),
    )
    assert found[:2] == of_groups[:2]
    assert found.blocks == np.unique(places // size).size
    assert found.standard_error == pytest.approx(of_groups.standard_error, rel=1e-12, nan_ok=True)


def test_unequal_blocks_count_by_their_size() -> None:
    """The ratio estimator by hand: blocks of sums 1+2, 3+4 and 8, of counts 2, 2 and 1."""
    found = kept([1.0, 2.0, 3.0, 4.0, 8.0]).block_error(2)
    mean = 18 / 5
    residuals = (3 - 2 * mean) ** 2 + (7 - 2 * mean) ** 2 + (8 - mean) ** 2
    assert found.blocks == 3
    assert found.standard_error == pytest.approx(math.sqrt(residuals * 3 / 2) / 5, rel=1e-14)


def test_independent_values_have_about_the_error_they_have_without_blocks() -> None:
    values = np.random.default_rng(3).exponential(size=20_000)
    blocked = kept(values).block_error(10).standard_error
    assert blocked == pytest.approx(described(values).standard_error, rel=0.1)


def test_values_repeated_by_block_have_the_error_of_as_many_values_as_blocks() -> None:
    few = np.random.default_rng(4).exponential(size=50)
    repeated = np.repeat(few, 8)
    assert kept(repeated).block_error(8).standard_error == pytest.approx(
        described(few).standard_error, rel=1e-12
    )
    assert described(repeated).standard_error < described(few).standard_error / 2


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_than_two_blocks_have_no_error(count: int) -> None:
    values = np.ones(count)
    found = kept(values).block_error(4)
    assert found[:2] == (4, int(count > 0))
    assert math.isnan(found.standard_error)
    assert repr(groups_of(values, np.arange(count), 4).block_error()) == repr(found)


@pytest.mark.parametrize("odd", [math.nan, math.inf])
@pytest.mark.parametrize("neighbour", [2.0, -math.inf])
def test_the_error_of_blocks_with_a_value_that_is_not_finite_is_nan(odd: float, neighbour: float) -> None:
    values = np.array([1.0, 2.0, odd, neighbour])
    assert math.isnan(kept(values).block_error(2).standard_error)
    assert math.isnan(groups_of(values, np.arange(4), 2).block_error().standard_error)


@repeatable
@given(SEEDS, st.integers(1, 30), st.lists(st.integers(0, 2), min_size=30, max_size=30))
def test_groups_merge_in_any_order(seed: int, count: int, split: list[int]) -> None:
    values, part = np.random.default_rng(seed).standard_normal(count), np.array(split[:count])
    places = [np.flatnonzero(part == k) for k in range(3)]
    a, b, c = (groups_of(values[p], p, 4) for p in places)
    whole = groups_of(values, np.arange(count), 4)
    for x, y, z in itertools.permutations((a, b, c)):
        assert x.merge(y).merge(z) == whole == x.merge(y.merge(z))
    assert Groups(4).merge(whole) == whole


def test_block_error_takes_sums_and_counts() -> None:
    found = block_error(2, np.array([2, 2]), np.array([2.0, 6.0]))
    assert found == BlockError(2, 2, 1.0)


def test_more_blocks_than_memory_is_bounded_to_are_refused_with_a_size_that_goes() -> None:
    with mock.patch.object(statistics, "_MOST_GROUPS", 10):
        check_groups(100, 2, kept=100)
        check_groups(1000, 100, kept=100)
        with pytest.raises(UsageError, match=r"blocks_of 99: .* more than 10 blocks; take 101 or more"):
            check_groups(1001, 99, kept=100)
        check_groups(1001, 101, kept=100)
