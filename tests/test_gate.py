"""The gate itself: how a pair comes to its status, in memory as in files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gates import kl_of, outputs

import kldiv_cli
from kldiv_cli.baseline import Baseline
from kldiv_cli.baseline_file import baseline_text
from kldiv_cli.cases import case_of
from kldiv_cli.errors import InputNotFound, KldivError, ShapeMismatch, UsageError
from kldiv_cli.gate import Checked, check, check_case, exit_code, failure_of, measure
from kldiv_cli.limit_parser import parse_limit
from kldiv_cli.verdicts import judge

Z, P = outputs()
BITS = (P > 0.2).astype(np.float64)


def status(limit: str, predictions: Any = Z, targets: Any = P, **options: Any) -> str:
    return check(predictions, targets, limits=[limit], **({"log_softmax": -1} | options)).status


def ids(checked: Checked) -> dict[str, str]:
    return {finding.id: finding.severity for finding in checked.findings}


def baseline_of(predictions: Any, targets: Any, **options: Any) -> Baseline:
    recorded = measure(case_of("check", predictions, targets, {"log_softmax": -1} | options)).recorded()
    return Baseline(path="base.json", pairs={"check": recorded})


# Status and exit code


def test_a_limit_is_held_to_what_the_pair_comes_to() -> None:
    mean = float(kl_of(Z, P).mean())
    assert status(f"distmean < {mean * 1.01!r}") == "passed"
    assert status(f"distmean < {mean * 0.99!r}") == "failed"
    checked = check(Z, P, limits=["distmean < 1e-4", "p99 < 1"], log_softmax=-1)
    (failure,) = checked.failures()
    assert failure == f"distmean is {mean:.6g}, expected distmean < 1e-4; would pass with distmean < 0.004"


def test_one_limit_of_many_is_enough_to_fail() -> None:
    limits = ["distmean < 1", "p99 < 1", "top1 > 0", "maximum < 1e-9"]
    assert check(Z, P, limits=limits[:-1], log_softmax=-1).status == "passed"
    assert check(Z, P, limits=limits, log_softmax=-1).status == "failed"


def made(name: str, limit: str, obtained: float = 2.0, error: str | None = None) -> Checked:
    verdicts = () if error else (judge(parse_limit(limit), {"mean": obtained}, None),)
    return Checked(name=name, verdicts=verdicts, error=error)


PASSED, FAILED, BROKEN = made("a", "mean < 3"), made("b", "mean < 1"), made("c", "", error="no such file")


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([], 2),
        ([PASSED], 0),
        ([PASSED, PASSED], 0),
        ([FAILED], 1),
        ([PASSED, FAILED], 1),
        ([BROKEN], 2),
        ([PASSED, BROKEN], 2),
        ([FAILED, BROKEN, PASSED], 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst_and_of_nothing_2(results: list[Checked], code: int) -> None:
    assert exit_code(results) == exit_code(results[::-1]) == code


def test_errors_stand_before_failures_and_those_by_how_far_they_are_beyond() -> None:
    far, near, nan = made("far", "mean < 0.1"), made("near", "mean < 1.9"), made("nan", "mean < 1", math.nan)
    tight = made("tight", "mean < 2.1")
    ranked = sorted([PASSED, tight, near, BROKEN, nan, far, FAILED], key=lambda result: result.rank)
    assert [result.name for result in ranked] == ["c", "nan", "far", "b", "near", "tight", "a"]


def test_a_failure_tells_what_its_bound_came_to_where_that_was_computed() -> None:
    verdict = judge(parse_limit("mean < baseline * 2"), {"mean": 3.0}, {"mean": 1.25})
    assert failure_of(verdict) == (
        "mean is 3, expected mean < baseline * 2, which is 2.5; would pass with mean < 3.01"
    )
    nan = judge(parse_limit("mean < 1"), {"mean": math.nan}, None)
    assert failure_of(nan) == "mean is nan, expected mean < 1"


# Findings


def test_losses_of_which_the_sum_overflows_fail_though_every_percentile_is_finite() -> None:
    z = np.where(np.arange(40)[:, None] % 2, 1.0, -1.0) * np.full((40, 7), 1e308)
    checked = check(
        z, BITS, limits=["p50 < 1e308", "maximum < 1.7e308"], loss="bce", predictions_are="logits"
    )
    assert checked.status == "failed"
    assert ids(checked)["nonfinite"] == "error"


def test_weights_that_cancel_losses_fail_though_their_mean_is_small() -> None:
    weight = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    limits = ["mean < 1", "mean > -1"]
    checked = check(Z, BITS, limits=limits, loss="bce", predictions_are="logits", weight=weight)
    assert all(verdict.passed for verdict in checked.verdicts)
    assert (checked.status, ids(checked)["negative-bce"]) == ("failed", "error")
    assert "negative-bce" not in ids(
        check(Z, BITS, limits=limits, loss="bce", predictions_are="logits", weight=np.abs(weight))
    )


SAME: list[tuple[Any, Any, dict[str, Any]]] = [
    (np.log(P), P, {"predictions_are": "log-probs"}),
    (np.log(P), P, {"log_softmax": -1}),
    (Z, Z + 1, {"log_softmax": -1, "targets_are": "logits"}),
    (Z, np.zeros_like(P), {"log_softmax": -1}),
    (Z, np.full_like(P, -np.inf), {"log_softmax": -1, "log_target": True}),
    (Z[:, :1], np.ones((40, 1)), {"log_softmax": -1}),
    (Z[:, :1], np.zeros(40, int), {"log_softmax": -1, "targets_are": "labels"}),
    (Z[..., None], np.ones((40, 7, 1)), {"log_softmax": -1}),
    (Z, Z[::-1], {"log_softmax": -1, "targets_are": "logits", "temperature": 1e9}),
    (1 / (1 + np.exp(-Z)), BITS, {"loss": "bce", "weight": np.zeros(7)}),
    (1 / (1 + np.exp(-Z)), BITS, {"loss": "bce", "weight": np.full(7, 1e-200)}),
]


@pytest.mark.parametrize(("predictions", "targets", "options"), SAME)
def test_losses_that_are_all_0_fail_and_pass_when_that_is_allowed(
    predictions: Any, targets: Any, options: dict[str, Any]
) -> None:
    limits = ["elements > 0", "maximum < 1e-9"]
    checked = check(predictions, targets, limits=limits, **options)
    assert (checked.status, ids(checked)["zero-loss"]) == ("failed", "error")
    assert check(predictions, targets, limits=limits, allow=["zero-loss"], **options).status == "passed"


def test_a_single_loss_above_0_is_enough_for_a_model() -> None:
    z = np.log(P)
    z[17] = Z[17]
    assert status("distmean < 1", z) == "passed"


def test_identical_or_empty_data_is_told_once() -> None:
    assert list(ids(check(Z, Z, limits=["sum < 1"], log_softmax=-1, targets_are="logits"))) == ["identical"]
    assert list(ids(check(Z[:0], P[:0], limits=["sum < 1"], log_softmax=-1))) == ["empty"]


def test_a_doubt_is_told_and_fails_nothing() -> None:
    checked = check(Z, P, limits=["mean < 1"], log_softmax=-1)
    assert (checked.status, ids(checked)) == ("passed", {"which-mean": "warning"})
    assert "--reduction" not in checked.findings[0].message
    q = np.where(BITS == 1, 0.5, 0.0)
    q[0, 0] = 1.0 - BITS[0, 0]
    clamped = check(q, BITS, limits=["mean < 5"], loss="bce")
    assert (clamped.status, ids(clamped)["clamped-terms"]) == ("passed", "warning")


# Beside a baseline


def test_a_baseline_is_taken_from_a_file_or_from_memory(tmp_path: Path) -> None:
    stored = baseline_of(Z, P)
    path = tmp_path / "base.json"
    path.write_text(baseline_text(stored))
    limits = ["distmean <= baseline", "p99.9 <= baseline * 1.0"]
    for baseline in (stored, path, str(path)):
        assert check(Z, P, limits=limits, baseline=baseline, log_softmax=-1).status == "passed"
        worse = check(1.5 * Z, P, limits=limits, baseline=baseline, log_softmax=-1)
        assert [verdict.passed for verdict in worse.verdicts] == [False, False]
    with pytest.raises(InputNotFound):
        check(Z, P, limits=limits, baseline=tmp_path / "absent.json", log_softmax=-1)
    with pytest.raises(UsageError, match="needs a baseline"):
        check(Z, P, limits=limits, log_softmax=-1)
    with pytest.raises(UsageError, match="has no pair 'other', it has 'check'"):
        check(Z, P, limits=limits, baseline=stored, name="other", log_softmax=-1)


def test_a_baseline_stored_exactly_is_met_exactly(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    stored = baseline_of(Z, P)
    path.write_text(baseline_text(stored))
    limits = [f"{name} == baseline" for name in stored.pairs["check"].quantities()]
    for workers in (1, 3):
        again = check(Z, P, limits=limits, baseline=path, log_softmax=-1, workers=workers)
        assert again.status == "passed"


def test_what_a_baseline_was_made_of_may_differ_in_predictions_only() -> None:
    stored = baseline_of(Z, P)
    limits = ["distmean < 1"]
    other = check(Z + 0.01 * P, P, limits=limits, baseline=stored, log_softmax=-1)
    assert (other.status, ids(other)) == ("passed", {})
    narrow = check(Z.astype(np.float32), P, limits=limits, baseline=stored, log_softmax=-1)
    assert (narrow.status, ids(narrow)) == ("passed", {"dtype-changed": "note"})
    changed = check(Z, P[:, ::-1], limits=["distmean < 99"], baseline=stored, log_softmax=-1)
    assert (changed.status, ids(changed)["inputs-changed"]) == ("failed", "error")
    with pytest.raises(UsageError, match=r"base\.json: check: recorded with temperature none, now 2"):
        check(Z, P, limits=limits, baseline=stored, log_softmax=-1, temperature=2.0)
    with pytest.raises(ShapeMismatch, match=r"recorded of shape \(40, 7\), now \(39, 7\)"):
        check(Z[1:], P[1:], limits=limits, baseline=stored, log_softmax=-1)


# From Python


@pytest.mark.parametrize("limits", [[], (), "distmean < 1", "", iter(())])
def test_limits_come_in_a_list_of_at_least_one(limits: Any) -> None:
    with pytest.raises(UsageError, match="expected at least one in a list"):
        check(Z, P, limits=limits, log_softmax=-1)


def test_limits_of_a_generator_all_hold() -> None:
    checked = check(Z, P, limits=(f"{name} < 1e-9" for name in ("distmean", "p99")), log_softmax=-1)
    assert [verdict.passed for verdict in checked.verdicts] == [False, False]


def test_an_option_of_evaluate_means_the_same_and_an_unknown_one_is_refused() -> None:
    mask = np.arange(40) % 3 == 0
    options: dict[str, Any] = {"log_softmax": -1, "temperature": 2.0, "mask": mask, "quantiles": [0.3]}
    expected = kldiv_cli.evaluate(Z, P, **options)
    checked = check(Z, P, limits=["distmean < 9"], workers=2, memory=1 << 25, **options)
    assert checked.evaluations[0].scalars == expected.scalars
    assert checked.evaluations[0].statistics.percentiles == expected.statistics.percentiles
    for unknown in ("log_softmx", "histogram", "output", "losses"):
        with pytest.raises(UsageError, match=f"{unknown}: there is no such option"):
            check(Z, P, limits=["distmean < 9"], **dict[str, Any]({unknown: -1}))


def test_arrays_and_files_come_to_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", Z)
    np.save(tmp_path / "p.npy", P)
    limits = ["distmean < 1", "p99.97 < 1"]
    in_memory = check(Z, P, limits=limits, log_softmax=-1)
    stored = check(tmp_path / "z.npy", str(tmp_path / "p.npy"), limits=limits, log_softmax=-1)
    assert stored.verdicts == in_memory.verdicts


BAD: list[tuple[Any, Any]] = [(Z, P[1:]), ("absent.npy", P), (Z, "absent.npy"), (np.array("a"), P)]


@pytest.mark.parametrize(("predictions", "targets"), BAD)
def test_what_can_not_be_computed_is_raised_to_a_caller_and_the_error_of_a_case(
    predictions: Any, targets: Any
) -> None:
    options: dict[str, Any] = {"log_softmax": -1}
    with pytest.raises(KldivError) as caught:
        check(predictions, targets, limits=["elements >= 0"], **options)
    checked = check_case(case_of("a", predictions, targets, options, limits=["elements >= 0"]))
    assert (checked.status, checked.error, checked.verdicts) == ("error", str(caught.value), ())


def test_a_bug_is_not_taken_for_an_error_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> npt.NDArray[Any]:
        raise RuntimeError("a bug")

    monkeypatch.setattr("kldiv_cli.gate.evaluate_to", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        check_case(case_of("a", Z, P, {"log_softmax": -1}, limits=["distmean < 1"]))
