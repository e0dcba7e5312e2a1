from __future__ import annotations

import statistics
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kldiv_cli.baseline import Baseline, Recorded
from kldiv_cli.errors import UsageError
from kldiv_cli.limit_parser import parse_limit
from kldiv_cli.report.baseline import render_suggestions
from kldiv_cli.suggestions import suggest_limits
from kldiv_cli.verdicts import judge
from tests.baselines import recorded
from tests.cases import repeatable

LOSSES = st.floats(-1e6, 1e6) | st.floats(0, 1e-300) | st.just(0.0)
SHARES = st.floats(0, 1)


def runs_of(*pairs: Recorded, name: str = "a") -> list[Baseline]:
    return [Baseline(path=f"run{k}.json", pairs={name: pair}) for k, pair in enumerate(pairs, 1)]


def texts(
    runs: list[Baseline], *, sigmas: float = 3, floor: float = 0.05, only: tuple[str, ...] = ()
) -> list[str]:
    return [limit.text for limit in suggest_limits(runs, sigmas=sigmas, floor=floor, statistics=only)]


@given(
    st.lists(st.tuples(LOSSES, LOSSES, SHARES), min_size=2, max_size=6),
    st.floats(0, 10),
    st.floats(0, 2),
)
@repeatable(120)
def test_every_run_passes_every_limit_that_is_suggested_of_them(
    numbers: list[tuple[float, float, float]], sigmas: float, floor: float
) -> None:
    runs = runs_of(*(recorded(distmean=mean, p99=tail, top1=share) for mean, tail, share in numbers))
    limits = [parse_limit(text) for text in texts(runs, sigmas=sigmas, floor=floor)]
    assert [limit.statistic for limit in limits] == ["distmean", "p99", "top1"]
    for run in runs:
        for limit in limits:
            assert judge(limit, run.pairs["a"].quantities(), None).passed


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6), st.floats(0, 5), st.floats(0, 1))
@repeatable(120)
def test_the_limit_is_mean_and_deviations_or_the_floor_rounded_up_to_three_digits(
    values: list[float], sigmas: float, floor: float
) -> None:
    (limit,) = suggest_limits(runs_of(*(recorded(distmean=v) for v in values)), sigmas=sigmas, floor=floor)
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    assert (limit.mean, limit.standard_deviation) == (mean, deviation)
    wanted = max(*values, mean + max(sigmas * deviation, floor * mean))
    bound = float(limit.text.removeprefix("distmean <= "))
    assert wanted * (1 - 1e-12) <= bound <= wanted * 1.0101
    assert float(f"{bound:.3g}") == bound


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 5), st.floats(0, 1))
@repeatable(120)
def test_a_share_is_limited_from_below_with_room_of_what_it_lacks_to_one(
    shares: list[float], sigmas: float, floor: float
) -> None:
    (limit,) = suggest_limits(runs_of(*(recorded(top1=s) for s in shares)), sigmas=sigmas, floor=floor)
    mean, deviation = statistics.mean(shares), statistics.stdev(shares)
    wanted = max(0.0, min(*shares, mean - max(sigmas * deviation, floor * (1 - mean))))
    bound = float(limit.text.removeprefix("top1 >= "))
    assert wanted * 0.98 - 1e-12 <= bound <= wanted * (1 + 1e-9) + 1e-15


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((1.0, 1.0), "distmean <= 1.05"),
        ((0.0123, 0.0123), "distmean <= 0.013"),
        ((0.0, 0.0), "distmean <= 0.0"),
        ((-2.0, -2.0), "distmean <= -1.9"),
        ((1e-320, 1e-320), "distmean <= 1.05e-320"),
        ((1e300, 1e300), "distmean <= 1.05e+300"),
    ],
)
def test_equal_runs_leave_the_floors_share_of_room(values: tuple[float, float], text: str) -> None:
    assert texts(runs_of(*(recorded(distmean=value) for value in values))) == [text]


def test_without_a_floor_equal_runs_are_held_to_what_they_are() -> None:
    assert texts(runs_of(recorded(distmean=0.0123), recorded(distmean=0.0123)), floor=0) in (
        ["distmean <= 0.0123"],
        ["distmean <= 0.0124"],
    )


def test_bce_is_limited_by_its_mean_which_is_of_elements() -> None:
    pair = recorded(loss="bce", mean=1.0, distmean=5.0, p99=2.0)
    assert texts(runs_of(pair, pair)) == ["mean <= 1.05", "p99 <= 2.1"]


def test_two_losses_are_named() -> None:
    pair = recorded(distmean=1.0, top1=0.5)
    both = Recorded(
        settings={**pair.settings, "loss": ("kl", "bce")},
        shape=pair.shape,
        inputs=pair.inputs,
        statistics={**pair.statistics, "bce": {"mean": 2.0}},
        histograms={},
    )
    assert texts(runs_of(both, both)) == ["kl.distmean <= 1.05", "kl.top1 >= 0.475", "bce.mean <= 2.1"]


def test_other_statistics_can_be_asked_for_once_each() -> None:
    pair = recorded(distmean=1.0, maximum=4.0)
    only = ("maximum", "kl.distmean", "maximum")
    assert texts(runs_of(pair, pair), only=only) == ["maximum <= 4.2", "kl.distmean <= 1.05"]


# What suggests nothing


def test_one_run_says_nothing() -> None:
    with pytest.raises(UsageError, match="give two or more"):
        texts(runs_of(recorded(distmean=1.0)))


def test_runs_of_no_pairs_say_nothing() -> None:
    with pytest.raises(UsageError, match=r"run1.json: has no pairs"):
        texts([Baseline(path="run1.json"), Baseline(path="run2.json")])


@pytest.mark.parametrize("order", [1, -1])
def test_a_pair_that_a_run_lacks_is_told_with_both_files(order: int) -> None:
    pair = recorded(distmean=1.0)
    runs = [Baseline(path="all.json", pairs={"a": pair, "b": pair}), *runs_of(pair)][::order]
    with pytest.raises(
        UsageError, match=r"^run1.json: has no pair 'b', which all.json has; record it in all"
    ):
        texts(runs)


def test_a_pair_of_other_settings_is_told_with_both_files() -> None:
    pair = recorded(distmean=1.0)
    other = Recorded(
        settings={**pair.settings, "axis": 0},
        shape=pair.shape,
        inputs=pair.inputs,
        statistics=pair.statistics,
        histograms={},
    )
    with pytest.raises(UsageError, match=r"^run3.json: a was recorded with another axis than in run1.json"):
        texts(runs_of(pair, pair, other))


@pytest.mark.parametrize(
    ("name", "told"),
    [("distmaen", "did you mean 'distmean'"), ("zzz", "expected one of distmean, kl.distmean, kl.p99, p99")],
)
def test_a_statistic_that_no_run_has_is_told_with_those_like_it(name: str, told: str) -> None:
    pair = recorded(distmean=1.0, p99=2.0)
    with pytest.raises(UsageError, match=rf"^run1.json: a has no statistic '{name}'.*{told}"):
        texts(runs_of(pair, pair), only=(name,))


def test_a_statistic_that_one_run_lacks_is_told_with_its_file() -> None:
    with pytest.raises(UsageError, match=r"^run2.json: a has no statistic 'p99'"):
        texts(runs_of(recorded(distmean=1.0, p99=2.0), recorded(distmean=1.0)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_limits_nothing(value: float) -> None:
    with pytest.raises(UsageError, match=rf"^run2.json: distmean of a is {value}, which limits nothing"):
        texts(runs_of(recorded(distmean=1.0), recorded(distmean=value)))


@pytest.mark.parametrize("values", [(1.79e308, 1.79e308), (1.7e308, -1.7e308), (1.7e308, 0.0)])
def test_what_is_too_large_for_a_limit_is_told(values: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="distmean is too large to be limited"):
        texts(runs_of(*(recorded(distmean=value) for value in values)))


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["sigmas", "floor"])
def test_sigmas_and_floor_are_finite_and_not_negative(name: str, value: float) -> None:
    runs = runs_of(recorded(distmean=1.0), recorded(distmean=1.0))
    room = {"sigmas": 3.0, "floor": 0.05, name: value}
    with pytest.raises(UsageError, match=f"^{name} {value}: expected a finite number"):
        suggest_limits(runs, sigmas=room["sigmas"], floor=room["floor"])


# The text


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9))
@repeatable(120)
def test_the_text_is_toml_of_the_pairs_and_their_limits_whatever_they_are_called(name: str) -> None:
    runs = runs_of(recorded(distmean=1.0, top1=0.5), recorded(distmean=1.2, top1=0.6), name=name)
    suggested = suggest_limits(runs, sigmas=3, floor=0.05)
    text = render_suggestions(suggested, 2)
    assert tomllib.loads(text) == {"pairs": {name: {"limits": [limit.text for limit in suggested]}}}
    assert all(line.isprintable() for line in text.split("\n"))


def test_the_text_says_where_each_limit_is_from_and_how_a_command_has_it() -> None:
    runs = runs_of(recorded(distmean=1.0, top1=0.5), recorded(distmean=1.2, top1=0.6), name="a/b")
    runs = [Baseline(path=run.path, pairs={**run.pairs, "c": run.pairs["a/b"]}) for run in runs]
    assert render_suggestions(suggest_limits(runs, sigmas=3, floor=0.05), 2) == (
        '[pairs."a/b"]\n'
        "limits = [\n"
        '    "distmean <= 1.53",  # 2 runs: mean 1.1, standard deviation 0.14\n'
        '    "top1 >= 0.337",  # 2 runs: mean 0.55, standard deviation 0.071\n'
        "]\n"
        "# kldiv check: --limit 'distmean <= 1.53' --limit 'top1 >= 0.337'\n"
        "\n"
        "[pairs.c]\n"
        "limits = [\n"
        '    "distmean <= 1.53",  # 2 runs: mean 1.1, standard deviation 0.14\n'
        '    "top1 >= 0.337",  # 2 runs: mean 0.55, standard deviation 0.071\n'
        "]\n"
        "# kldiv check: --limit 'distmean <= 1.53' --limit 'top1 >= 0.337'\n"
    )
