"""Cases: which limits hold a pair, what is computed for them, and what is refused beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kldiv_cli.baseline import Baseline
from kldiv_cli.cases import Case, case_of, cases_of
from kldiv_cli.errors import UsageError
from kldiv_cli.gate import measure
from kldiv_cli.pair import OPTIONS
from kldiv_cli.spec import QUANTILES
from kldiv_cli.suite import read_suite


def case(*limits: str, allow: Any = (), baseline: Baseline | None = None, **options: Any) -> Case:
    """A case of files that need not be there."""
    return case_of("a", "q.npy", "p.npy", options, limits=limits, allow=allow, baseline=baseline)


def baseline_of(name: str = "a", **options: Any) -> Baseline:
    log_q, p = np.log([[0.25, 0.75], [0.5, 0.5]]), np.array([[0.5, 0.5], [0.125, 0.875]])
    recorded = measure(case_of(name, log_q, p, options)).recorded()
    return Baseline(path="base.json", pairs={name: recorded})


def limits_of(directory: Path, text: str) -> dict[str, list[str]]:
    """The limits that hold each pair of a suite."""
    path = directory / "suite.toml"
    path.write_text(text)
    return {case.name: [limit.text for limit in case.limits] for case in cases_of(read_suite(str(path)))}


# Whose limits win


SUITE = """\
[defaults]
limits = {defaults}

[groups.g]
limits = {group}

[pairs.a]
predictions = "q.npy"
targets = "p.npy"
group = "g"
limits = {pair}

[pairs.b]
predictions = "q.npy"
targets = "p.npy"

[pairs.c]
predictions = "q.npy"
targets = "p.npy"
group = "g"
"""


def of_layers(directory: Path, defaults: list[str], group: list[str], pair: list[str]) -> list[str]:
    """The limits of a pair whose tables say these."""
    text = SUITE.format(defaults=defaults, group=group, pair=pair)
    return limits_of(directory, text.replace("'", '"'))["a"]


@pytest.mark.parametrize(
    ("defaults", "group", "pair", "held"),
    [
        (["p99 < 1"], [], [], ["p99 < 1"]),
        (["p99 < 1"], ["p99 < 2"], [], ["p99 < 2"]),
        (["p99 < 1"], ["p99 < 2"], ["p99 < 3"], ["p99 < 3"]),
        (["p99 < 3"], ["p99 < 2"], ["p99 < 1"], ["p99 < 1"]),
        (["p99 < 1"], [], ["p99 < 3"], ["p99 < 3"]),
        (["p99 < 1"], [], ["p99 <= 3"], ["p99 <= 3"]),
        (["p99 < 1"], [], ["p99 > 3"], ["p99 < 1", "p99 > 3"]),
        (["p99 < 1"], [], ["p99 == 3"], ["p99 < 1", "p99 == 3"]),
        (["p99 < 1"], [], ["p95 < 3"], ["p99 < 1", "p95 < 3"]),
        (["p99 < 1"], ["p95 < 2"], ["top1 > 0.5"], ["p99 < 1", "p95 < 2", "top1 > 0.5"]),
        (["p99 < 1", "p99 < p50 * 9"], [], [], ["p99 < 1", "p99 < p50 * 9"]),
        (["p99 < 1", "p99 < p50 * 9"], [], ["p99 < 3"], ["p99 < 3"]),
        (["p99 < 1"], [], ["p99 < 3", "p99 < p50 * 9"], ["p99 < 3", "p99 < p50 * 9"]),
        (["p99 < 1", "top1 > 0.5"], ["top1 > 0.9"], ["p99 < 2"], ["top1 > 0.9", "p99 < 2"]),
        (["p99 < 1"], [], ["kl.p99 < 3"], ["p99 < 1", "kl.p99 < 3"]),
    ],
)
def test_of_limits_on_one_side_of_one_statistic_those_closest_to_the_pair_hold(
    tmp_path: Path, defaults: list[str], group: list[str], pair: list[str], held: list[str]
) -> None:
    assert of_layers(tmp_path, defaults, group, pair) == held


def test_a_pairs_limits_are_not_those_of_its_neighbours(tmp_path: Path) -> None:
    text = SUITE.format(defaults='["p99 < 1"]', group='["p99 < 2", "p95 < 2"]', pair='["p99 < 3"]')
    assert limits_of(tmp_path, text) == {
        "a": ["p95 < 2", "p99 < 3"],
        "b": ["p99 < 1"],
        "c": ["p99 < 2", "p95 < 2"],
    }


def test_what_is_wrong_with_a_pair_is_told_with_its_suite_and_name(tmp_path: Path) -> None:
    for pair, said in (
        ('["p99 <"]', "limit 'p99 <', column 6: found the end"),
        ('["p99 < baseline"]', "limit 'p99 < baseline': needs a baseline"),
        ("[]\nallow = ['nan']", "allow 'nan': there is no such finding"),
        ("[]\naxis = 0\nlog_softmax = 1", "axis 0: contradicts"),
    ):
        with pytest.raises(UsageError) as caught:
            limits_of(tmp_path, SUITE.format(defaults='["p99 < 1"]', group="[]", pair=pair))
        assert str(caught.value).startswith(f"{tmp_path}/suite.toml: pair 'a': {said}")


def test_a_pair_without_any_limit_is_refused_and_another_pairs_do_not_count(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pair 'b': has no limit, so it would always pass"):
        limits_of(tmp_path, SUITE.format(defaults="[]", group='["p99 < 2"]', pair='["p99 < 2"]'))


# What is computed


@pytest.mark.parametrize(
    ("limit", "quantiles"),
    [
        ("p99.97 < 1", {0.9997}),
        ("kl.p12.5 < 1", {0.125}),
        ("distmean < p12.5 + kl.p99.97", {0.125, 0.9997}),
        ("p0.00001 < 1", {1e-7}),
        ("p0 < p100", {0.0, 1.0}),
        ("distmean < 1", set()),
        ("p99 < 1", set()),
    ],
)
def test_percentiles_that_limits_name_are_computed(limit: str, quantiles: set[float]) -> None:
    assert set(case(limit).spec.quantiles) == {*QUANTILES, *quantiles}


def test_the_percentiles_of_options_stay_beside_those_of_limits() -> None:
    assert {0.3, 0.125} <= set(case("p12.5 < 1", quantiles=(0.3,)).spec.quantiles)


def test_a_case_that_is_recorded_has_what_its_limits_want_of_a_baseline() -> None:
    limits = ("distmean < baseline.p12.5", "p62.5 < 2 * baseline")
    with pytest.raises(UsageError, match="needs a baseline"):
        case(*limits)
    recorded = case_of("a", "q.npy", "p.npy", {}, limits=limits, judged=False)
    assert {0.125, 0.625} <= set(recorded.spec.quantiles)


def test_top_classes_are_counted_for_kl_only_and_a_few_of_the_worst_always_listed() -> None:
    assert case("distmean < 1").spec.top1
    assert case("distmean < 1", top1=False).spec.top1
    assert not case("mean < 1", loss="bce").spec.top1
    with pytest.raises(UsageError, match=r"^top1: bce has elements"):
        case("mean < 1", loss="bce", top1=True)
    assert case("kl.top1 > 0.5", loss=("bce", "kl"), log_softmax=-1).spec.top1
    assert [case("distmean < 1", worst=worst).spec.worst for worst in (0, 3, 9)] == [5, 5, 9]


def test_files_are_told_from_options() -> None:
    made = case("mean < 1", loss="bce", weight="w.npy", mask="m.npy", pos_weight=None, allow_external=True)
    assert made.files == {"weight": "w.npy", "mask": "m.npy"}
    assert made.spec.mask
    assert made.allow_external


# What is refused


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("log_softmx", "log_softmx: there is no such option; did you mean 'log_softmax'?"),
        ("output", "output: there is no such option"),
        ("histogram", "histogram: there is no such option"),
        ("losses", "losses: there is no such option; did you mean 'loss'?"),
        ("limit", "limit: there is no such option"),
    ],
)
def test_an_option_that_no_pair_has_is_refused(option: str, said: str) -> None:
    assert option not in OPTIONS
    with pytest.raises(UsageError, match=said):
        case("distmean < 1", **dict[str, Any]({option: True}))


def test_allowed_findings_are_known_ones_and_text_is_one_of_them() -> None:
    assert case("distmean < 1", allow="nan-terms").allow == {"nan-terms"}
    assert case("distmean < 1", allow=["nan-terms", "identical"]).allow == {"nan-terms", "identical"}
    with pytest.raises(UsageError, match="allow 'nan': there is no such finding"):
        case("distmean < 1", allow=["identical", "nan"])


@pytest.mark.parametrize("limit", ["mean < 2 * kl.mean", "kl.p99.97 <= p99.97", "top1 >= 0.9 * kl.top1"])
def test_a_statistic_is_not_held_to_itself_under_its_other_name(limit: str) -> None:
    with pytest.raises(UsageError, match=r"itself, expected another statistic; write baseline"):
        case(limit)


def test_the_same_statistic_of_the_other_loss_and_of_the_baseline_is_another() -> None:
    assert case("kl.sum < bce.sum", loss=("kl", "bce"), log_softmax=-1).limits
    assert case("mean < baseline.kl.mean", baseline=baseline_of()).limits
    with pytest.raises(UsageError, match=r"elements is kl\.elements itself"):
        case("kl.elements <= elements", loss=("kl", "bce"), log_softmax=-1)


def test_a_baseline_must_have_the_pair_and_every_number_that_a_limit_wants() -> None:
    assert case("distmean < baseline", baseline=baseline_of()).where == "base.json: a"
    with pytest.raises(UsageError, match=r"base\.json: has no pair 'a', it has 'b'; record it with"):
        case("distmean < 1", baseline=baseline_of("b"))
    with pytest.raises(UsageError, match=r"base\.json: a: has no 'p12\.5', which limit 'p12\.5 < baseline'"):
        case("p12.5 < baseline", baseline=baseline_of())
    assert case("p12.5 < baseline", baseline=baseline_of(quantiles=[0.125])).recorded is not None
    assert case("kl.distmean < baseline.kl.p99", baseline=baseline_of()).recorded is not None


def test_every_number_that_a_baseline_has_of_one_loss_can_be_named_in_a_limit() -> None:
    stored = baseline_of()
    for name in stored.pairs["a"].quantities():
        assert case(f"{name} < baseline", baseline=stored).limits
