"""Masks and ignored targets in whole evaluations: the same as to select by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import (
    KINDS,
    SEEDS,
    SINGLE,
    AnyArray,
    Array,
    Case,
    Cut,
    Kind,
    cases,
    counted,
    cuts,
    evaluated,
    repeatable,
    run,
    shapes,
    spelled,
    values_in,
    whole,
)
from hypothesis import assume, event, given
from hypothesis import strategies as st

from kldiv_cli.errors import DomainError, KldivError
from kldiv_cli.evaluation import Evaluation
from kldiv_cli.spec import QUANTILES
from kldiv_cli.statistics import percentile_name


@st.composite
def partly_masked(draw: st.DrawFn, kinds: list[Kind] = KINDS, special: bool = True) -> Case:
    """Cases that are masked in any way, of some distributions a part only."""
    case = draw(cases(kinds, special=special, selected=True))
    assume(case.mask is not None or case.options.get("ignore_value") is not None)
    return case


def everything(case: Case) -> Case:
    """The same without mask and ignored value."""
    return case._replace(mask=None, options=case.options | {"mask": False, "ignore_value": None})


def rows_of(array: AnyArray, shape: tuple[int, ...], axis: int) -> AnyArray:
    """One distribution a row, of an array that broadcasts to the shape."""
    moved = np.moveaxis(np.broadcast_to(array, shape), axis, -1)
    return np.ascontiguousarray(moved).reshape(-1, shape[axis])


def losses_by_hand(case: Case, evaluation: Evaluation) -> tuple[Array, tuple[tuple[int, ...], ...]]:
    """The losses of what counts, of distributions or of elements, and their indices, from the whole map."""
    shape, axis = case.predictions.shape, case.axis % case.predictions.ndim
    options = everything(case).options | {"losses": (evaluation.loss,), "top1": False}
    (full,) = (run(options, everything(case).inputs()).map,)
    assert full is not None
    chosen = counted(case)
    if evaluation.loss == "bce":
        return full[chosen], tuple(map(tuple, np.argwhere(chosen).tolist()))
    of_rows = np.where(rows_of(chosen, shape, axis), rows_of(full, shape, axis), 0.0)
    alive = chosen.any(axis=axis)
    with np.errstate(invalid="ignore"):
        return of_rows.sum(axis=-1)[alive.ravel()], tuple(map(tuple, np.argwhere(alive).tolist()))


def exact_total(losses: Array) -> float:
    finite = np.isfinite(losses).all()
    return math.fsum(losses.tolist()) if finite else float(np.asarray(losses).sum())


# Against the map


@repeatable(75)
@given(partly_masked(), cuts())
def test_scalars_and_divisors_are_those_of_what_counts_in_the_map(case: Case, cut: Cut) -> None:
    cut = whole(cut)._replace(segment=1 << 12)
    shape, axis, chosen = case.predictions.shape, case.axis % case.predictions.ndim, counted(case)
    for evaluation in run(case.options, case.inputs(), cut=cut).evaluations:
        losses, _ = losses_by_hand(case, evaluation)
        with np.errstate(invalid="ignore"):
            total = exact_total(losses)
        divisors = {
            "sum": 1,
            "mean": int(chosen.sum()),
            "batchmean": int(chosen.reshape(shape[0], -1).any(axis=1).sum()),
            "distmean": int(chosen.any(axis=axis).sum()),
        }
        if evaluation.loss == "bce":
            assert evaluation.batchmean is None
            del divisors["batchmean"]
        for name, divisor in divisors.items():
            expected = total / divisor if divisor else math.nan
            assert spelled(getattr(evaluation, name)) == spelled(expected)
        scalars = evaluation.scalars
        assert scalars.elements == divisors["mean"]
        assert scalars.distributions == divisors["distmean"]
        assert scalars.batch == divisors.get("batchmean", scalars.batch)


@repeatable(75)
@given(partly_masked())
def test_statistics_and_the_worst_are_those_of_what_counts_in_the_map(case: Case) -> None:
    for evaluation in run(case.options, case.inputs()).evaluations:
        losses, indices = losses_by_hand(case, evaluation)
        found = evaluation.statistics
        assert (found.of, found.count) == (
            "distributions" if evaluation.loss == "kl" else "elements",
            len(losses),
        )
        order = sorted(
            range(len(losses)),
            key=lambda k: (not math.isnan(losses[k]), -losses[k] if not math.isnan(losses[k]) else 0.0, k),
        )
        worst = [(indices[k], float(losses[k]).hex()) for k in order[: case.options["worst"]]]
        assert [(loss.index, loss.value.hex()) for loss in evaluation.worst] == worst
        if not len(losses) or np.isnan(losses).any():
            assert np.isnan([found.mean, found.minimum, found.maximum, *found.percentiles.values()]).all()
            continue
        assert (found.minimum, found.maximum) == (losses.min(), losses.max())
        if np.isfinite(losses).all():
            expected = {
                percentile_name(q): float(np.quantile(losses, q)) for q in evaluation.settings.quantiles
            }
            assert found.percentiles == expected
            assert found.mean == math.fsum(losses.tolist()) / len(losses)
        if len(losses) > 1 and np.isfinite(losses).all():
            spread = float(losses.std(ddof=1)) / math.sqrt(len(losses))
            assert found.standard_error == pytest.approx(spread, rel=1e-6, abs=1e-14 * abs(losses).max())


@repeatable(50)
@given(partly_masked(SINGLE), cuts())
def test_the_map_of_a_selection_is_the_map_of_everything_with_nan_where_nothing_counts(
    case: Case, cut: Cut
) -> None:
    cut = whole(cut)
    obtained = run(case.options, case.inputs(), cut=cut).map
    expected = run(everything(case).options, everything(case).inputs(), cut=cut).map
    assert obtained is not None
    assert expected is not None
    np.testing.assert_array_equal(obtained, np.where(counted(case), expected, math.nan))


@repeatable(60)
@given(partly_masked([kind for kind in SINGLE if kind.targets in ("probs", "labels")]))
def test_the_split_by_target_is_that_of_what_counts(case: Case) -> None:
    case = case._replace(options=case.options | {"by_target": True})
    shape, axis, chosen = case.predictions.shape, case.axis % case.predictions.ndim, counted(case)
    (evaluation,) = run(case.options, case.inputs()).evaluations
    full = run(everything(case).options, everything(case).inputs()).map
    y = case.targets.astype(float)
    if case.kind.targets == "labels":
        y = np.moveaxis(np.eye(shape[axis])[case.targets], -1, axis)
    split = evaluation.by_target
    assert full is not None
    assert split is not None
    for group, members in ((split.one, y == 1), (split.zero, y == 0), (split.between, (y > 0) & (y < 1))):
        assert group.count == (members & chosen).sum()
        losses = full[members & chosen]
        if np.isfinite(losses).all():
            assert group.total.value == math.fsum(losses.tolist())


@repeatable(50)
@given(partly_masked(SINGLE))
def test_findings_are_those_of_what_counts(case: Case) -> None:
    (evaluation,) = run(case.options, case.inputs()).evaluations
    full = run(everything(case).options, everything(case).inputs()).map
    assert full is not None
    chosen = counted(case)
    counts = {finding.id: (finding.count, finding.place) for finding in evaluation.findings}
    for id, odd in (("infinite-terms", np.isinf(full)), ("nan-terms", np.isnan(full))):
        places = np.argwhere(odd & chosen)
        if id == "nan-terms" and case.options["zero_policy"] == "torch":
            continue
        if len(places):
            assert counts[id] == (len(places), tuple(places[0].tolist()))
        else:
            assert id not in counts
    assert ("empty" in counts) == (not chosen.any())
    if evaluation.loss == "kl":
        losses, indices = losses_by_hand(case, evaluation)
        whole = np.moveaxis(chosen, case.axis, -1).reshape(-1, case.predictions.shape[case.axis]).all(-1)
        counted_whole = whole[np.moveaxis(chosen, case.axis, -1).reshape(len(whole), -1).any(-1)]
        negative = np.flatnonzero((losses < 0) & counted_whole)
        event(f"negative: {negative.size > 0}")
        if negative.size:
            least = indices[int(negative[losses[negative].argmin()])]
            assert counts["negative-kl"] == (negative.size, least)
        else:
            assert "negative-kl" not in counts


# Against the selection


ROW_FORMS = st.sampled_from(["without axis", "stretched", "full"])


@repeatable(75)
@given(cases(), st.floats(0.1, 1.0), ROW_FORMS, SEEDS)
def test_masked_distributions_give_what_is_computed_without_them(
    case: Case, share: float, form: str, seed: int
) -> None:
    """Bit for bit: everything in the result, places mapped back."""
    shape, axis = case.predictions.shape, case.axis % case.predictions.ndim
    without_axis = shape[:axis] + shape[axis + 1 :]
    chosen = np.asarray(np.random.default_rng(seed).random(without_axis) < share)
    assume(chosen.any())
    mask = chosen if form == "without axis" else np.expand_dims(chosen, axis)
    mask = np.broadcast_to(mask, shape) if form == "full" else mask
    options = case.options | {"blocks_of": None}
    masked = run(options | {"mask": True}, case.inputs() | {"mask": mask})
    rows = {
        name: rows_of(array, shape, axis)[chosen.ravel()]
        for name, array in case.inputs().items()
        if not (name == "targets" and case.kind.targets == "labels")
    }
    if case.kind.targets == "labels":
        rows["targets"] = case.targets[chosen]
    moved = {"axis": -1, "log_softmax": -1 if case.kind.softmax else None}
    alone = run(options | moved, rows)
    places = np.argwhere(chosen)
    for ours, theirs in zip(masked.evaluations, alone.evaluations, strict=True):
        assert spelled((ours.sum, ours.mean, ours.distmean)) == spelled(
            (theirs.sum, theirs.mean, theirs.distmean)
        )
        assert (ours.scalars.elements, ours.scalars.distributions) == (
            theirs.scalars.elements,
            theirs.scalars.distributions,
        )
        assert spelled(ours.statistics) == spelled(theirs.statistics)
        assert spelled(ours.top1) == spelled(theirs.top1)
        assert spelled(ours.by_target) == spelled(theirs.by_target)
        assert [(f.id, f.severity, f.count) for f in ours.findings if f.id != "misaligned"] == [
            (f.id, f.severity, f.count) for f in theirs.findings if f.id != "misaligned"
        ]
        if axis == len(shape) - 1:
            back = [
                ((*places[worst.index[0]].tolist(), *worst.index[1:]), worst.value.hex())
                for worst in theirs.worst
            ]
            assert [(worst.index, worst.value.hex()) for worst in ours.worst] == back


@repeatable(50)
@given(cases([kind for kind in SINGLE if kind.losses == ("bce",) and not kind.softmax]), SEEDS)
def test_bce_of_masked_elements_is_bce_of_those_chosen(case: Case, seed: int) -> None:
    assume(case.kind.targets != "labels" and case.kind.predictions != "log-probs")
    shape = case.predictions.shape
    chosen = np.random.default_rng(seed).random(shape) < 0.6
    assume(chosen.any())
    options = case.options | {"blocks_of": None, "axis": -1}
    (ours,) = run(options | {"mask": True}, case.inputs() | {"mask": chosen}).evaluations
    flat = {name: np.broadcast_to(array, shape)[chosen] for name, array in case.inputs().items()}
    (theirs,) = run(options, flat).evaluations
    places = np.argwhere(chosen)
    assert spelled((ours.sum, ours.mean, ours.statistics, ours.by_target)) == spelled(
        (theirs.sum, theirs.mean, theirs.statistics, theirs.by_target)
    )
    assert [(f.id, f.count) for f in ours.findings] == [(f.id, f.count) for f in theirs.findings]
    assert [(worst.index, worst.value.hex()) for worst in ours.worst] == [
        (tuple(places[worst.index[0]].tolist()), worst.value.hex()) for worst in theirs.worst
    ]


# What does not count does not matter


GARBAGE = st.sampled_from([math.nan, math.inf, -math.inf, -100.0, 999.0])


@repeatable(75)
@given(partly_masked(), cuts(), GARBAGE, st.integers(1, 3))
def test_what_stands_where_nothing_counts_changes_nothing(
    case: Case, cut: Cut, garbage: float, workers: int
) -> None:
    """Of a distribution that is normalised and counts in part, all of it does matter."""
    assume(case.mask is not None)
    axis, chosen = case.axis % case.predictions.ndim, counted(case)
    masked_in = counted(case._replace(options=case.options | {"ignore_value": None}))
    normalised = {
        "predictions": case.kind.softmax,
        "targets": case.kind.targets == "logits" and (case.kind.softmax or "kl" in case.kind.losses),
    }
    replaced: dict[str, AnyArray] = {}
    for name, array in case.inputs().items():
        free = ~(masked_in if name == "targets" else chosen)
        if name == "mask" or array.shape != chosen.shape:
            if name == "targets":
                replaced[name] = np.where(free.all(axis=axis), np.array(99, array.dtype), array)
            continue
        if normalised.get(name):
            free = np.broadcast_to(free.all(axis=axis, keepdims=True), free.shape)
        replaced[name] = np.where(free, garbage, array).astype(array.dtype)
    cut = whole(cut)
    expected = run(case.options, case.inputs(), cut=cut)
    obtained = run(case.options, case.inputs() | replaced, cut=cut, workers=workers)
    assert obtained.fingerprint == expected.fingerprint


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, -100.0, 999.0])
@pytest.mark.parametrize(
    ("kind", "full"),
    [
        pytest.param(
            kind, full, id=f"{kind.losses[0]} {kind.predictions} {kind.targets} {kind.softmax} {full}"
        )
        for kind in SINGLE
        for full in (False, True)
        if kind.targets != "labels"
    ],
)
def test_nothing_is_found_in_what_does_not_count(kind: Kind, full: bool, garbage: float) -> None:
    rng = np.random.default_rng(8)
    shape = (3, 4, 5)
    counts = rng.random(shape[:-1]) < 0.5
    x, y = (values_in(space, rng, shape, -1, odd=False) for space in (kind.predictions, kind.targets))
    x, y = np.where(counts[..., None], x, garbage), np.where(counts[..., None], y, garbage)
    options = {name: value for name, value in kind.options(-1).items() if "weight" not in name}
    mask = np.broadcast_to(counts[..., None], shape) if full else counts
    (evaluation,) = evaluated(x, y, mask=mask, **options).evaluations
    found = [finding for finding in evaluation.findings if finding.id != "negative-kl"]
    assert found == []
    assert math.isfinite(evaluation.sum)
    assert evaluation.scalars.distributions == counts.sum()


@pytest.mark.parametrize("loss", ["kl", "bce"])
def test_values_that_bce_refuses_are_refused_where_they_count_only(loss: str) -> None:
    p, y = np.array([[0.5, 7.0], [0.5, 0.5]]), np.array([[0.5, 0.5], [-3.0, 0.5]])
    mask = np.array([[1, 0], [0, 1]])
    options: dict[str, Any] = {"losses": (loss,), "predictions_are": "probs"}
    evaluated(p, y, mask=mask, **options)
    if loss == "bce":
        with pytest.raises(
            DomainError, match=r"1 of 4 probabilities outside .* first 7\.0 at index \(0, 1\)"
        ):
            evaluated(p, y, mask=np.array([[1, 1], [0, 1]]), **options)
        with pytest.raises(DomainError, match=r"1 of 4 targets outside .* first -3\.0 at index \(1, 0\)"):
            evaluated(p, y, mask=np.array([[1, 0], [1, 1]]), **options)


def test_labels_that_are_no_class_are_refused_where_they_count_only() -> None:
    x, labels = np.log(np.full((4, 3), 1 / 3)), np.array([0, -100, 2, 3])
    options: dict[str, Any] = {"targets_are": "labels"}
    masked = evaluated(x, labels, mask=np.array([1, 0, 1, 0]), **options).evaluations[0]
    ignoring = evaluated(x[:3], labels[:3], ignore_value=-100, **options).evaluations[0]
    assert masked.sum == ignoring.sum == 2 * math.log(3)
    with pytest.raises(DomainError, match=r"1 of 4 labels outside 0 to 2, first 3 at index \(3,\)"):
        evaluated(x, labels, ignore_value=-100, **options)


# All and nothing


@repeatable(60)
@given(cases(), cuts(), st.booleans())
def test_a_mask_of_ones_changes_no_bit(case: Case, cut: Cut, full: bool) -> None:
    shape, axis = case.predictions.shape, case.axis % case.predictions.ndim
    mask = np.ones(shape if full else shape[:axis] + shape[axis + 1 :], bool)
    obtained = run(case.options | {"mask": True}, case.inputs() | {"mask": mask}, cut=cut)
    expected = run(case.options, case.inputs(), cut=cut)
    assert obtained.fingerprint == expected.fingerprint


@repeatable(60)
@given(cases(), cuts())
def test_of_nothing_the_sum_is_0_and_the_means_are_nan(case: Case, cut: Cut) -> None:
    shape, axis = case.predictions.shape, case.axis % case.predictions.ndim
    mask = np.zeros(shape[:axis] + shape[axis + 1 :])
    outcome = run(case.options | {"mask": True}, case.inputs() | {"mask": mask}, cut=cut)
    for evaluation in outcome.evaluations:
        assert evaluation.sum == 0.0
        assert math.isnan(evaluation.mean)
        assert math.isnan(evaluation.distmean)
        assert evaluation.batchmean is None or math.isnan(evaluation.batchmean)
        assert evaluation.scalars[-3:] == (0, 0, 0)
        assert evaluation.statistics.count == 0
        assert math.isnan(evaluation.statistics.mean)
        assert evaluation.worst == ()
        assert [finding.id for finding in evaluation.findings] == ["empty"]
    assert outcome.map is None or np.isnan(outcome.map).all()


@pytest.mark.parametrize("value", [0, 1])
def test_a_lone_number_may_be_masked(value: int) -> None:
    (evaluation,) = evaluated(np.array(-1.0), np.array(0.5), mask=np.array(value)).evaluations
    assert evaluation.scalars.elements == evaluation.statistics.count == value
    assert evaluation.sum == value * (0.5 * math.log(0.5) + 0.5)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0,)])
def test_empty_arrays_may_be_masked(shape: tuple[int, ...]) -> None:
    (evaluation,) = evaluated(
        np.empty(shape), np.empty(shape), mask=np.ones(shape[:-1], bool), blocks_of=2, worst=3
    ).evaluations
    assert (evaluation.sum, evaluation.scalars.elements) == (0.0, 0)


def test_the_batch_counts_entries_of_the_first_dimension_with_anything_that_counts() -> None:
    x = np.log(np.full((4, 3, 2), 0.5))
    mask = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])
    (evaluation,) = evaluated(x, np.tile([1.0, 0.0], (4, 3, 1)), mask=mask).evaluations
    assert evaluation.scalars[-3:] == (6, 2, 3)
    assert evaluation.batchmean == evaluation.sum / 2


@pytest.mark.parametrize("odd", [2, -1, 0.5, math.nan])
@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 4)])
def test_a_mask_of_other_values_is_refused(odd: float, shape: tuple[int, ...]) -> None:
    mask = np.ones(shape)
    mask[3] = odd
    with pytest.raises(DomainError, match=r"mask mask: holds .*expected 1 \(or true\)"):
        evaluated(np.zeros((6, 4)), np.ones((6, 4)), mask=mask)


# Ignored values


@repeatable(60)
@given(shapes(), SEEDS, st.sampled_from(["<i2", "<i8"]), st.data())
def test_an_ignored_label_is_a_mask(
    shape: tuple[int, ...], seed: int, dtype: str, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    rng = np.random.default_rng(seed)
    labels = values_in("labels", rng, shape, axis, odd=False).astype(dtype)
    ignored = rng.random(labels.shape) < 0.4
    options: dict[str, Any] = {"targets_are": "labels", "log_softmax": axis, "worst": 3}
    logits = values_in("logits", rng, shape, axis, odd=True)
    by_value = evaluated(logits, np.where(ignored, -100, labels), ignore_value=-100, **options)
    by_mask = evaluated(logits, labels, mask=~ignored, **options)
    assert by_value.fingerprint == by_mask.fingerprint


@repeatable(60)
@given(shapes(), SEEDS, st.sampled_from(["kl", "bce"]), cuts())
def test_an_ignored_target_is_a_mask_of_elements(
    shape: tuple[int, ...], seed: int, loss: str, cut: Cut
) -> None:
    rng = np.random.default_rng(seed)
    ignored = rng.random(shape) < 0.4
    options: dict[str, Any] = {"losses": (loss,), "predictions_are": "probs", "worst": 3, "axis": 0}
    p, y = (values_in("probs", rng, shape, 0, odd=False) for _ in range(2))
    inputs = {"predictions": p, "targets": np.where(ignored, -100.0, y)}
    by_value = run(options | {"ignore_value": -100.0}, inputs, cut=whole(cut))
    by_mask = run(
        options | {"mask": True}, {"predictions": p, "targets": y, "mask": ~ignored}, cut=whole(cut)
    )
    assert by_value.fingerprint == by_mask.fingerprint


# Windows


@repeatable(60)
@given(partly_masked(), st.data())
def test_partly_masked_distributions_larger_than_a_block_give_the_same_bits(
    case: Case, data: st.DataObject
) -> None:
    length = case.predictions.shape[case.axis]
    segment = data.draw(st.integers(1, 9))
    assume(length > segment)
    cut = Cut(segment, data.draw(st.integers(1, 60)), segment, segment)
    expected = run(case.options, case.inputs(), cut=whole(cut), workers=1)
    obtained = run(case.options, case.inputs(), cut=cut, workers=data.draw(st.integers(1, 3)))
    assert len(obtained.steps) > 1
    assert obtained.fingerprint == expected.fingerprint


# A trimmed axis


@repeatable(50)
@given(cases(), st.integers(1, 9), st.booleans(), SEEDS)
def test_trimming_is_cutting_by_hand(case: Case, extra: int, longer_predictions: bool, seed: int) -> None:
    """What is appended to either side is left out before anything is normalised."""
    assume(case.kind.targets != "labels")
    axis = case.axis % case.predictions.ndim
    name = "predictions" if longer_predictions else "targets"
    array = case.inputs()[name]
    wide = np.concatenate([array] * (extra + 1), axis=axis).take(range(array.shape[axis] + extra), axis=axis)
    wide = np.where(np.indices(wide.shape)[axis] < array.shape[axis], wide, math.nan).astype(array.dtype)
    trimmed = run(case.options | {"trim_axis": True}, case.inputs() | {name: wide}, cut=Cut(4, 9, 8, 64))
    assert trimmed.fingerprint == run(case.options, case.inputs(), cut=whole(Cut(4))).fingerprint
    if extra:
        with pytest.raises(KldivError, match="expected equal shapes"):
            run(case.options, case.inputs() | {name: wide})


def test_quantiles_are_told_beside_those_always_told() -> None:
    x = np.log(np.full((3, 2), 0.5))
    (evaluation,) = evaluated(x, np.exp(x), quantiles=(0.25,)).evaluations
    assert list(evaluation.statistics.percentiles) == [percentile_name(q) for q in sorted({*QUANTILES, 0.25})]
