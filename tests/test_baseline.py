from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from kldiv_cli.baseline import (
    Baseline,
    Change,
    Recorded,
    changes,
    check_recorded,
    find_changes,
    other_changes,
    record_pair,
)
from kldiv_cli.baseline_file import baseline_text, parse_baseline
from kldiv_cli.cases import case_of
from kldiv_cli.errors import ShapeMismatch, UsageError
from kldiv_cli.evaluation import Evaluation
from kldiv_cli.gate import measure
from kldiv_cli.octaves import Octaves
from kldiv_cli.quantities import quantities
from tests.baselines import recorded

Array = npt.NDArray[Any]
Compute = Callable[..., tuple[Evaluation, ...]]

SHAPE = (40, 5)


@pytest.fixture
def arrays(rng: np.random.Generator) -> dict[str, Array]:
    return {
        "z": rng.normal(0, 2, SHAPE),
        "q": rng.dirichlet(np.ones(5), 40),
        "p": rng.dirichlet(np.ones(5), 40),
        "labels": rng.integers(0, 5, 40),
        "bits": rng.integers(0, 2, SHAPE).astype(float),
        "mask": rng.random(40) < 0.8,
        "weight": rng.random((1, 5)),
    }


@pytest.fixture
def compute(arrays: dict[str, Array]) -> Compute:
    """Evaluations with digests, of arrays by name or as they are."""

    def evaluations(predictions: Any = "z", targets: Any = "p", **options: Any) -> tuple[Evaluation, ...]:
        first, second = (arrays.get(a, a) if isinstance(a, str) else a for a in (predictions, targets))
        files = {role: options[role] for role in ("weight", "pos_weight", "mask") if role in options}
        options |= {k: arrays[v] if isinstance(v, str) else v for k, v in files.items()}
        return measure(case_of("a", first, second, options)).evaluations

    return evaluations


def findings_of(before: tuple[Evaluation, ...], now: tuple[Evaluation, ...]) -> list[tuple[str, str]]:
    return [(f.id, f.severity) for f in find_changes(record_pair(before), record_pair(now))]


# What is recorded


@pytest.mark.parametrize(
    "options",
    [
        {"log_softmax": -1},
        {"log_softmax": -1, "loss": ("kl", "bce")},
        {"log_softmax": -1, "targets": "labels", "targets_are": "labels"},
        {"log_softmax": -1, "mask": "mask", "by_target": True, "quantiles": [0.25], "blocks_of": 4},
        {"loss": "bce", "predictions": "q", "weight": "weight"},
        {"loss": "bce", "predictions_are": "logits", "pos_weight": "weight"},
        {"log_softmax": -1, "mask": np.zeros(40, bool)},
    ],
    ids=str,
)
def test_what_is_recorded_of_a_run_reads_back_and_is_named_as_the_run_is(
    compute: Compute, options: dict[str, Any]
) -> None:
    evaluations = compute(**options)
    text = baseline_text(Baseline(path="b.json", pairs={"a": record_pair(evaluations)}))
    read = parse_baseline(text, "b.json")
    assert baseline_text(read) == text
    check_recorded(read.pairs["a"], record_pair(evaluations), "b.json: a")
    np.testing.assert_equal(read.pairs["a"].quantities(), quantities(evaluations))
    assert list(read.pairs["a"].quantities()) == list(quantities(evaluations))


def test_the_histogram_of_every_loss_is_recorded(compute: Compute) -> None:
    stored = record_pair(compute(log_softmax=-1, loss=("kl", "bce")))
    assert {loss: octaves.total for loss, octaves in stored.histograms.items()} == {"kl": 40, "bce": 200}


# What may not differ


@pytest.mark.parametrize(
    ("setting", "before", "now"),
    [
        ("loss kl, now bce", {}, {"loss": "bce"}),
        ("loss kl, now kl and bce", {}, {"loss": ("kl", "bce")}),
        (
            "log_softmax false, now true",
            {"predictions": "q", "predictions_are": "probs", "log_softmax": None},
            {},
        ),
        ("predictions_are probs", {"log_softmax": None, "predictions_are": "probs"}, {"log_softmax": None}),
        ("targets_are probs, now log-probs", {}, {"targets_are": "log-probs"}),
        ("targets_are probs, now log-probs", {}, {"log_target": True}),
        ("targets_are probs, now logits", {}, {"targets_are": "logits"}),
        ("axis 1, now 0", {}, {"log_softmax": 0}),
        (
            "axis 1, now 0",
            {"loss": "bce", "predictions": "q", "log_softmax": None},
            {"loss": "bce", "predictions": "q", "log_softmax": None, "axis": 0},
        ),
        ("temperature none, now 2.0", {}, {"temperature": 2}),
        ("temperature 2.0, now 3.0", {"temperature": 2}, {"temperature": 3.0}),
        ("zero_policy limit, now torch", {}, {"zero_policy": "torch"}),
        ("broadcast false, now true", {}, {"broadcast": True}),
        ("ignore_value none, now 0.5", {}, {"ignore_value": 0.5}),
        ("ignore_value 0.5, now nan", {"ignore_value": 0.5}, {"ignore_value": math.nan}),
        ("trim_axis false, now true", {}, {"trim_axis": True}),
        ("blocks_of none, now 4", {}, {"blocks_of": 4}),
        ("mask false, now true", {}, {"mask": "mask"}),
        ("mask true, now false", {"mask": "mask"}, {}),
        (
            "weight false, now true",
            {"loss": "bce", "log_softmax": None, "predictions_are": "logits"},
            {"loss": "bce", "log_softmax": None, "predictions_are": "logits", "weight": "weight"},
        ),
        (
            "pos_weight true, now false",
            {"loss": "bce", "log_softmax": None, "predictions_are": "logits", "pos_weight": "weight"},
            {"loss": "bce", "log_softmax": None, "predictions_are": "logits"},
        ),
    ],
)
def test_a_run_of_another_setting_is_refused_and_the_setting_told(
    compute: Compute, setting: str, before: dict[str, Any], now: dict[str, Any]
) -> None:
    stored = record_pair(compute(**{"log_softmax": -1, **before}))
    with pytest.raises(UsageError) as caught:
        check_recorded(stored, record_pair(compute(**{"log_softmax": -1, **now})), "b.json: a")
    assert str(caught.value).startswith(f"b.json: a: recorded with {setting}")
    assert str(caught.value).endswith("; give the same options, or record it anew with kldiv baseline update")


def test_a_run_of_another_shape_is_refused_and_both_told(compute: Compute, arrays: dict[str, Array]) -> None:
    stored = record_pair(compute(log_softmax=-1))
    with pytest.raises(ShapeMismatch, match=r"recorded of shape \(40, 5\), now \(39, 5\)"):
        check_recorded(
            stored, record_pair(compute(arrays["z"][1:], arrays["p"][1:], log_softmax=-1)), "b.json: a"
        )


# What may


@pytest.mark.parametrize(
    "options",
    [
        {"log_softmax": 1},
        {"log_softmax": None, "predictions_are": "logits"},
        {"quantiles": [0.25, 0.75]},
        {"worst": 7},
        {"by_target": True},
        {"targets_are": "probs", "zero_policy": "limit"},
    ],
    ids=str,
)
def test_what_changes_no_number_may_be_said_in_another_way(compute: Compute, options: dict[str, Any]) -> None:
    stored = record_pair(compute(log_softmax=-1))
    now = compute(**{"log_softmax": -1, **options})
    check_recorded(stored, record_pair(now), "b.json: a")
    assert stored.quantities().items() <= quantities(now).items()


def test_the_order_of_losses_makes_no_difference(compute: Compute) -> None:
    runs = [compute(log_softmax=-1, loss=loss) for loss in (("kl", "bce"), ("bce", "kl"))]
    check_recorded(record_pair(runs[0]), record_pair(runs[1]), "b.json: a")
    texts = [baseline_text(Baseline(path="", pairs={"a": record_pair(run)})) for run in runs]
    assert texts[0] == texts[1]


def test_a_temperature_is_the_same_as_a_whole_number(compute: Compute) -> None:
    runs = [compute(log_softmax=-1, temperature=temperature) for temperature in (2, 2.0)]
    texts = [baseline_text(Baseline(path="", pairs={"a": record_pair(run)})) for run in runs]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -100.0])
def test_an_ignored_value_is_the_same_when_it_is_ignored_again(compute: Compute, value: float) -> None:
    runs = [compute(log_softmax=-1, ignore_value=value) for _ in range(2)]
    text = baseline_text(Baseline(path="", pairs={"a": record_pair(runs[0])}))
    check_recorded(parse_baseline(text, "b.json").pairs["a"], record_pair(runs[1]), "b.json: a")


def test_how_the_same_values_are_stored_makes_no_difference(
    tmp_path: Path, compute: Compute, arrays: dict[str, Array]
) -> None:
    z, p = arrays["z"], arrays["p"]
    before = compute(z, p, log_softmax=-1)
    np.save(tmp_path / "z.npy", np.asfortranarray(z))
    np.save(tmp_path / "p.npy", p.astype(">f8"))
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_dataset("z", data=z, chunks=(7, 2), compression="gzip")
    for predictions in ("z.npy", "d.h5::/z"):
        now = compute(str(tmp_path / predictions), str(tmp_path / "p.npy"), log_softmax=-1)
        check_recorded(record_pair(before), record_pair(now), "b.json: a")
        assert findings_of(before, now) == [("predictions-unchanged", "note")]
        assert record_pair(before).statistics == record_pair(now).statistics


# What a reviewer should know


def test_other_predictions_are_expected(compute: Compute, arrays: dict[str, Array]) -> None:
    assert findings_of(compute(log_softmax=-1), compute(arrays["z"] * 2, log_softmax=-1)) == []


def test_the_same_predictions_are_noted(compute: Compute) -> None:
    assert findings_of(compute(log_softmax=-1), compute(log_softmax=-1)) == [
        ("predictions-unchanged", "note")
    ]


@pytest.mark.parametrize("role", ["targets", "mask", "weight", "pos_weight"])
def test_other_contents_of_what_predictions_are_held_against_are_a_warning(
    compute: Compute, arrays: dict[str, Array], role: str
) -> None:
    options: dict[str, Any] = {"loss": "bce", "predictions_are": "logits"}
    options |= {"targets": arrays["q"], "mask": arrays["mask"]}
    options |= {"weight": arrays["weight"], "pos_weight": arrays["weight"]}
    changed = options[role].copy()
    changed.flat[0] = not changed.flat[0] if role == "mask" else changed.flat[0] / 2
    before, now = compute(**options), compute(**{**options, role: changed})
    check_recorded(record_pair(before), record_pair(now), "b.json: a")
    (finding,) = find_changes(record_pair(before), record_pair(now))
    assert (finding.id, finding.severity) == ("inputs-changed", "warning")
    assert finding.message.startswith(f"{role} changed since the baseline was recorded")


def test_a_weight_that_is_stretched_in_another_way_has_changed(compute: Compute) -> None:
    q, bits, weight = np.array([[0.3, 0.7], [0.5, 0.6]]), np.eye(2), np.array([[1.0, 2.0]])
    before, now = (compute(q, bits, loss="bce", weight=each) for each in (weight, weight.T))
    assert findings_of(before, now) == [("inputs-changed", "warning")]


def test_all_that_changed_is_told_in_one_finding(compute: Compute, arrays: dict[str, Array]) -> None:
    before = compute(log_softmax=-1, mask=arrays["mask"])
    now = compute(targets=arrays["q"], log_softmax=-1, mask=~arrays["mask"])
    (finding,) = find_changes(record_pair(before), record_pair(now))
    assert finding.message.startswith("targets and mask changed since")


def test_another_dtype_is_noted(compute: Compute, arrays: dict[str, Array]) -> None:
    before, now = compute(log_softmax=-1), compute(arrays["z"].astype("f4"), log_softmax=-1)
    (finding,) = find_changes(record_pair(before), record_pair(now))
    assert (finding.id, finding.severity) == ("dtype-changed", "note")
    assert finding.message == "predictions are float32, in the baseline float64"


# Changes


def test_every_number_is_there_before_and_after() -> None:
    old = Baseline(path="", pairs={"gone": recorded(mean=1.0), "kept": recorded(mean=2.0, p99=3.0)})
    new = Baseline(path="", pairs={"kept": recorded(mean=2.5, p50=1.0), "new": recorded(mean=4.0)})
    assert list(changes(old, new)) == [
        ("kept", "mean", 2.0, 2.5),
        ("kept", "p50", None, 1.0),
        ("kept", "p99", 3.0, None),
        ("new", "mean", None, 4.0),
        ("gone", "mean", 1.0, None),
    ]


def test_two_losses_have_their_numbers_named() -> None:
    pair = recorded(mean=1.0)
    both = replace(pair, statistics={"kl": {"mean": 1.0}, "bce": {"mean": 2.0}})
    told = list(changes(Baseline(path=""), Baseline(path="", pairs={"a": both})))
    assert [change.name for change in told] == ["kl.mean", "bce.mean"]


@pytest.mark.parametrize(
    ("old", "new", "moved", "relative"),
    [
        (2.0, 3.0, True, 0.5),
        (-2.0, -3.0, True, -0.5),
        (2.0, 2.0, False, 0.0),
        (0.0, 0.0, False, None),
        (0.0, 1.0, True, None),
        (None, 1.0, True, None),
        (1.0, None, True, None),
        (math.nan, math.nan, False, None),
        (math.nan, 1.0, True, None),
        (1.0, math.nan, True, None),
        (math.nan, None, True, None),
        (math.inf, math.inf, False, None),
        (1.0, math.inf, True, None),
        (5e-324, 1e300, True, None),
    ],
)
def test_a_change_says_whether_and_by_how_much(
    old: float | None, new: float | None, moved: bool, relative: float | None
) -> None:
    change = Change("a", "mean", old, new)
    assert (change.moved, change.relative) == (moved, relative)


def test_what_changes_beside_numbers_is_told_of_each_pair_that_stays(
    compute: Compute, arrays: dict[str, Array]
) -> None:
    runs = {
        "a": compute(log_softmax=-1),
        "targets": compute(targets=arrays["q"], log_softmax=-1),
        "axis": compute(arrays["z"][:30], arrays["p"][:30], log_softmax=0, mask=np.ones(5, bool)),
    }
    stored = {name: record_pair(run) for name, run in runs.items()}
    old = Baseline(path="", pairs={"a": stored["a"], "b": stored["a"], "c": stored["a"], "gone": stored["a"]})
    new = Baseline(
        path="", pairs={"a": stored["a"], "b": stored["targets"], "c": stored["axis"], "new": stored["a"]}
    )
    assert list(other_changes(old, new)) == ["b: targets", "c: predictions, targets, mask, axis, shape"]


def test_numbers_alone_are_no_other_change() -> None:
    old, new = (
        Baseline(path="", pairs={"a": replace(recorded(mean=mean), histograms={"kl": Octaves(nan=1)})})
        for mean in (1.0, 2.0)
    )
    assert list(other_changes(old, new)) == []


def test_a_record_of_two_losses_knows_the_counts_by_their_plain_names() -> None:
    pair: Recorded = replace(
        recorded(), statistics={"kl": {"elements": 4, "mean": 1.0}, "bce": {"elements": 4, "mean": 2.0}}
    )
    assert pair.quantities() == {
        "elements": 4,
        "kl.elements": 4,
        "kl.mean": 1.0,
        "bce.elements": 4,
        "bce.mean": 2.0,
    }


def test_what_a_file_says_is_told_on_one_line_whatever_it_is(compute: Compute) -> None:
    evaluations = compute(log_softmax=-1)
    stored = record_pair(evaluations)
    odd = replace(stored, settings={**stored.settings, "zero_policy": "\x1b\n"})
    with pytest.raises(UsageError, match=r"recorded with zero_policy \\x1b\\n, now limit"):
        check_recorded(odd, record_pair(evaluations), "b.json: a")
    predictions = stored.inputs["predictions"]._replace(dtype="\x1b\n", sha256="0")
    odd = replace(stored, inputs={**stored.inputs, "predictions": predictions})
    assert all(finding.message.isprintable() for finding in find_changes(odd, record_pair(evaluations)))
