"""What a batch comes to, against one array of all pairs, and in every order and grouping."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.batch_summary import LossSummary, WorstPair
from kldiv_cli.batch_totals import BatchCounts, BatchTotals
from kldiv_cli.estimates import share_of
from kldiv_cli.evaluation import Evaluation
from kldiv_cli.pair_result import PairResult, result_of
from kldiv_cli.record import value_at
from kldiv_cli.reductions import exact_sum
from kldiv_cli.spec import Loss, resolve_spec
from kldiv_cli.totals import Totals

repeatable = settings(derandomize=True, deadline=None, max_examples=25)

Array = npt.NDArray[np.float64]
SEEDS = st.integers(0, 2**32 - 1)


class Case:
    """Pairs of arrays of unequal length, some with nan and inf among them, some masked, some empty."""

    def __init__(self, seed: int, loss: Loss, *, masked: bool, odd: bool) -> None:
        self.loss, self.rng = loss, np.random.default_rng(seed)
        lengths = self.rng.integers(0, 5, self.rng.integers(1, 6)).tolist()
        shapes = [(length, 3, 4) for length in lengths]
        self.predictions = [self._predictions(shape, odd) for shape in shapes]
        self.targets = [self.rng.dirichlet(np.ones(4), shape[:2]) for shape in shapes]
        self.masks = [self.rng.integers(0, 2, shape[:2]) for shape in shapes] if masked else None

    def _predictions(self, shape: tuple[int, ...], odd: bool) -> Array:
        probabilities = self.rng.dirichlet(np.ones(4), shape[:2]) * 10.0 ** self.rng.integers(-5, 1)
        if odd and self.rng.random() < 0.5:
            probabilities[self.rng.random(shape) < 0.1] = 0.0
        if odd and self.loss == "kl" and self.rng.random() < 0.3:
            probabilities[self.rng.random(shape) < 0.05] = math.nan
        with np.errstate(divide="ignore"):
            return np.log(probabilities) if self.loss == "kl" else probabilities

    def evaluated(self, predictions: Array, targets: Array, mask: Any, worst: int = 0) -> Evaluation:
        spec = resolve_spec(
            losses=(self.loss,), by_target=True, top1=self.loss == "kl", mask=mask is not None, worst=worst
        )
        (evaluation,) = evaluate_to(spec, open_inputs(predictions, targets, mask=mask), totals=True)
        return evaluation

    def results(self, worst: int = 0) -> list[PairResult]:
        masks = self.masks or [None] * len(self.targets)
        return [
            result(f"pair{k}", self.evaluated(*arrays, worst))
            for k, arrays in enumerate(zip(self.predictions, self.targets, masks, strict=True))
        ]

    def at_once(self) -> Evaluation:
        mask = None if self.masks is None else np.concatenate(self.masks)
        return self.evaluated(np.concatenate(self.predictions), np.concatenate(self.targets), mask)


CASES = st.builds(Case, SEEDS, st.sampled_from(["kl", "bce"]), masked=st.booleans(), odd=st.booleans())


def result(name: str, *evaluations: Evaluation) -> PairResult:
    return result_of(name, (f"{name}.q.npy", f"{name}.p.npy"), evaluations, bytes=10, seconds=0.5)


def of_values(name: str, value: float, loss: Loss = "kl") -> PairResult:
    """A pair with this `distmean` and `mean`."""
    shown = value if math.isfinite(value) else None
    record: dict[str, Any] = {
        "loss": loss,
        "elements": 4,
        "statistics": {"count": 4},
        "mean": shown,
        "batchmean": None,
        "distmean": shown,
    }
    if shown is None:
        record["nonfinite"] = {"mean": str(value), "distmean": str(value)}
    return PairResult(name=name, predictions="q", targets="p", records=(record,), totals={loss: Totals()})


def added(results: list[PairResult], **options: Any) -> BatchTotals:
    totals = BatchTotals(**options)
    for each in results:
        totals.add(each)
    return totals


def only(totals: BatchTotals) -> LossSummary:
    (of_loss,) = totals.losses
    return of_loss


def bits(value: float | None) -> object:
    """What equals itself, nan too."""
    return None if value is None else np.float64(value).tobytes()


# As if it were one array


@repeatable
@given(CASES)
def test_the_totals_are_those_of_one_array_of_all_pairs_to_the_bit(case: Case) -> None:
    found, expected = only(added(case.results())), case.at_once()
    for name in ("sum", "mean", "batchmean", "distmean"):
        assert bits(getattr(found.scalars, name)) == bits(getattr(expected, name)), name
    for name in ("elements", "batch", "distributions"):
        assert getattr(found.scalars, name) == getattr(expected.scalars, name)
    statistics = found.statistics
    for name in ("mean", "minimum", "maximum"):
        assert bits(getattr(statistics, name)) == bits(getattr(expected.statistics, name)), name
    assert (statistics.of, statistics.count) == (expected.statistics.of, expected.statistics.count)
    assert found.by_target == expected.by_target
    if expected.top1 is not None and found.scalars.distributions:
        assert found.top1 == expected.top1


@repeatable
@given(CASES)
def test_the_standard_error_is_exact_where_that_of_one_array_is_rounded_on_the_way(case: Case) -> None:
    found, at_once = only(added(case.results())).statistics, case.at_once()
    assert at_once.totals is not None
    expected = at_once.totals.statistics(case.loss, ())
    assert bits(found.standard_error) == bits(expected.standard_error)
    assert found.standard_error == pytest.approx(
        at_once.statistics.standard_error, rel=1e-14, abs=1e-30, nan_ok=True
    )


@repeatable
@given(CASES)
def test_percentiles_are_those_of_one_array_while_there_are_few_values(case: Case) -> None:
    found, expected = only(added(case.results())).statistics, case.at_once().statistics
    assert found.exact
    for name, value in expected.percentiles.items():
        assert bits(found.percentiles[name]) == bits(value), name


@repeatable
@given(CASES, st.integers(0, 30))
def test_percentiles_of_many_values_are_within_a_bin_of_those_of_one_array(case: Case, kept: int) -> None:
    found, expected = only(added(case.results(), kept=kept)).statistics, case.at_once().statistics
    finite = np.isfinite([expected.minimum, expected.maximum]).all()
    assert found.exact is (expected.count <= kept) or not finite
    for name, value in expected.percentiles.items():
        assert found.percentiles[name] == pytest.approx(value, rel=2**-11, abs=2**-1033, nan_ok=True)


# In any order


@repeatable
@given(CASES, st.randoms(use_true_random=False), st.sampled_from([0, 8, 1000]))
def test_no_order_of_pairs_changes_a_bit(case: Case, random: Any, kept: int) -> None:
    results = case.results()
    expected = added(results, worst=3, kept=kept)
    random.shuffle(results)
    found = added(results, worst=3, kept=kept)
    assert repr(found.losses) == repr(expected.losses)
    assert found.counts == expected.counts


def test_what_is_told_of_pairs_does_not_change_when_more_are_added() -> None:
    first, *others = Case(3, "bce", masked=False, odd=False).results()
    totals = added([first])
    told = totals.losses
    before = repr(told)
    pickled = pickle.dumps(first)
    for other in others:
        totals.add(other)
    assert repr(told) == before
    assert pickle.dumps(first) == pickled


# Over pairs


def test_every_pair_weighs_the_same_in_the_mean_over_pairs() -> None:
    values = [0.1, 0.2, 0.7, 1e-17]
    found = only(added([of_values(f"{k}", value) for k, value in enumerate(values)])).macro
    assert list(found) == ["mean", "distmean"]
    assert found["distmean"].value == math.fsum(values) / 4
    assert found["distmean"].standard_error == pytest.approx(np.std(values, ddof=1) / 2, rel=1e-15)


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ([math.inf], math.inf),
        ([-math.inf], -math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan, math.inf], math.nan),
    ],
)
def test_a_pair_of_nan_or_inf_makes_the_mean_over_pairs_what_arithmetic_makes_of_it(
    odd: list[float], expected: float
) -> None:
    pairs = [of_values(f"{k}", value) for k, value in enumerate([1.0, *odd])]
    found = only(added(pairs)).macro["mean"]
    assert bits(found.value) == bits(expected)
    assert math.isnan(found.standard_error)


def test_of_one_pair_the_mean_has_no_standard_error() -> None:
    found = only(added([of_values("a", 0.5)])).macro["mean"]
    assert found.value == 0.5
    assert math.isnan(found.standard_error)


def test_kl_has_a_batchmean_over_pairs_and_bce_has_none() -> None:
    for loss in ("kl", "bce"):
        results = Case(5, loss, masked=False, odd=False).results()
        found = only(added(results)).macro
        assert ("batchmean" in found) is (loss == "kl")
        for name, estimate in found.items():
            records = [r.records[0] for r in results if r.records[0]["elements"]]
            values = [math.nan if record[name] is None else record[name] for record in records]
            assert bits(estimate.value) == bits(exact_sum(np.array(values)).value / len(values))


@pytest.mark.parametrize("loss", ["kl", "bce"])
def test_an_empty_pair_is_counted_but_is_neither_in_the_means_nor_among_the_worst(loss: Loss) -> None:
    case = Case(5, loss, masked=False, odd=False)
    empty = case.evaluated(np.ones((0, 3, 4)), np.ones((0, 3, 4)), None)
    full = [r for r in case.results() if r.records[0]["elements"]]
    expected, found = only(added(full)), only(added([result("empty", empty), *full]))
    assert added([result("empty", empty)]).counts.computed == 1
    assert (found.macro, found.worst, found.statistics) == (
        expected.macro,
        expected.worst,
        expected.statistics,
    )


# The worst


def test_the_worst_pairs_are_ranked_nan_first_then_by_value_then_by_name() -> None:
    values = {"e": 1.0, "d": 2.0, "c": math.inf, "b": math.nan, "a": 1.0, "f": -1.0, "g": math.nan}
    found = only(added([of_values(name, value) for name, value in values.items()], worst=6)).worst
    assert [pair.name for pair in found] == ["b", "g", "c", "d", "a", "e"]
    assert found[3] == WorstPair("d", 2.0)


def test_as_many_of_the_worst_are_kept_as_were_asked_for() -> None:
    pairs = [of_values(f"{k:03}", float(k % 7)) for k in range(100)]
    assert only(added(pairs, worst=0)).worst == ()
    assert [p.name for p in only(added(pairs, worst=2)).worst] == ["006", "013"]


@repeatable
@given(CASES, st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_worst_losses_are_those_of_all_pairs(case: Case, size: int, random: Any) -> None:
    every = [
        (r.name, tuple(one["index"]), value_at(r.records[0], "worst", str(k), "value"))
        for r in case.results(10_000)
        for k, one in enumerate(r.records[0]["worst"])
    ]
    every.sort(key=lambda one: (not math.isnan(one[2]), -one[2] if one[2] == one[2] else 0.0, one[:2]))
    expected = [(name, index, bits(value)) for name, index, value in every[:size]]
    results = case.results(size)
    random.shuffle(results)
    found = only(added(results, worst_losses=size)).worst_losses
    assert [(one.pair, one.index, bits(one.value)) for one in found] == expected


def test_a_pair_that_tells_fewer_of_its_worst_leaves_the_others_unknown() -> None:
    case = Case(5, "kl", masked=False, odd=False)
    large = [r for r in case.results(3) if r.records[0]["elements"] > 12]
    few = result("few", case.evaluated(case.predictions[0], case.targets[0], None, worst=1))
    silent = result("silent", case.evaluated(case.predictions[0], case.targets[0], None))
    assert len(only(added(large, worst_losses=3)).worst_losses) == 3
    for order in ([*large, few], [few, *large]):
        assert len(only(added(order, worst_losses=3)).worst_losses) == 1
    assert only(added([silent, *large], worst_losses=3)).worst_losses == ()


def test_bce_ranks_pairs_by_their_mean_over_elements() -> None:
    record = {"loss": "bce", "elements": 4, "statistics": {"count": 4}, "mean": 0.25, "distmean": 9.0}
    pair = PairResult(name="a", predictions="q", targets="p", records=(record,), totals={"bce": Totals()})
    assert only(added([pair])).worst == (WorstPair("a", 0.25),)


# Counts


def test_failed_pairs_are_counted_and_add_nothing() -> None:
    pair = result("a", Case(7, "kl", masked=False, odd=False).at_once())
    failed = PairResult(name="b", predictions="q", targets="p", error="q: no such file")
    totals = added([failed, pair, failed])
    assert totals.counts == BatchCounts(pairs=3, computed=1, failed=2, bytes=10)
    assert repr(totals.losses) == repr(added([pair]).losses)
    assert added([failed]).losses == ()


def test_losses_come_in_one_order_whichever_pair_was_first() -> None:
    pairs = [of_values("a", 1.0, "bce"), of_values("b", 1.0, "kl")]
    assert [of_loss.loss for of_loss in added(pairs).losses] == ["kl", "bce"]


def test_what_was_not_asked_for_of_every_pair_is_not_told() -> None:
    asked = Case(9, "kl", masked=False, odd=False).results()
    all_asked = only(added(asked))
    same = sum(r.totals["kl"].same_tops or 0 for r in asked)
    assert all_asked.top1 == share_of(same, all_asked.scalars.distributions)
    mixed = only(added([*asked, of_values("z", 1.0)]))
    assert mixed.top1 is None
    assert mixed.by_target is None


# What is sent between processes


def test_a_pair_of_few_values_is_small_when_it_is_sent() -> None:
    rng = np.random.default_rng(0)
    case = Case(0, "kl", masked=False, odd=False)
    evaluation = case.evaluated(np.log(rng.dirichlet(np.ones(10), 64)), rng.dirichlet(np.ones(10), 64), None)
    sent = result("a", evaluation)
    pickled = pickle.dumps(sent)
    assert len(pickled) < 6_000
    assert pickle.loads(pickled) == sent
